//! Text for a terminal of any width: tables, which become lists where they do not fit, and
//! wrapped lines. Pure.

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table whose first column says what a row is of.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    head: Vec<(&'static str, Align)>,
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
struct Row {
    fields: Vec<String>,
    notes: Vec<String>,
}

/// Between two columns.
const GAP: usize = 2;

/// Columns of the longest line of prose.
const PROSE: usize = 100;

/// A space at which no line ends.
const GLUE: &str = "\u{a0}";

/// A field on a line of its own words, if it has room there.
fn glued(field: &str, width: Option<usize>) -> String {
    let fits = width.is_none_or(|width| field.chars().count() + 6 <= width);
    if fits { field.replace(' ', GLUE) } else { field.into() }
}

impl Table {
    /// One without rows.
    pub(crate) fn new(head: &[(&'static str, Align)]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// A row, and lines below it. A field that is empty is left out where the table is a list.
    pub(crate) fn row(&mut self, fields: Vec<String>, notes: Vec<String>) {
        self.rows.push(Row { fields, notes });
    }

    /// The table in so many columns of a terminal; `None` where there is room for all.
    pub(crate) fn render(&self, width: Option<usize>) -> String {
        let widths = self.widths();
        let natural = widths.iter().map(|width| width + GAP).sum::<usize>().saturating_sub(GAP);
        let fits = width.is_none_or(|width| natural <= width);
        let mut text = String::new();
        if fits {
            let heads: Vec<&str> = self.head.iter().map(|(name, _)| *name).collect();
            text.push_str(&self.line(&heads, &widths));
        }
        for Row { fields, notes } in &self.rows {
            if fits {
                let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
                text.push_str(&self.line(&fields, &widths));
            } else {
                let named = self.head.iter().zip(fields).skip(1);
                let named: Vec<String> = named
                    .filter(|(_, field)| !field.is_empty())
                    .map(|((name, _), field)| glued(&format!("{name} {field}"), width))
                    .collect();
                text.push_str(&wrap(fields.first().map_or("", String::as_str), "", width));
                text.push_str(&wrap(&named.join(", "), "  ", width).replace(GLUE, " "));
            }
            for note in notes {
                text.push_str(&wrap(note, "  ", width));
            }
        }
        text
    }

    fn widths(&self) -> Vec<usize> {
        let length = |text: &str| text.chars().count();
        let widest = |(column, (name, _)): (usize, &(&str, Align))| {
            let fields = self.rows.iter().filter_map(|row| row.fields.get(column));
            fields.map(|field| length(field)).chain([length(name)]).max().unwrap_or(0)
        };
        self.head.iter().enumerate().map(widest).collect()
    }

    fn line(&self, fields: &[&str], widths: &[usize]) -> String {
        let mut line = String::new();
        for ((field, width), (_, align)) in fields.iter().zip(widths).zip(&self.head) {
            if !line.is_empty() {
                line.push_str(&" ".repeat(GAP));
            }
            line.push_str(&match align {
                Align::Left => format!("{field:<width$}"),
                Align::Right => format!("{field:>width$}"),
            });
        }
        format!("{}\n", line.trim_end())
    }
}

/// A text in lines that fit, each after `indent`; what does not fit breaks between words and goes
/// on two columns further right.
pub(crate) fn wrap(text: &str, indent: &str, width: Option<usize>) -> String {
    lines(text, indent, "  ", width)
}

/// Paragraphs in lines that fit, and that are not too long to read.
pub(crate) fn fill(text: &str, width: Option<usize>) -> String {
    lines(text, "", "", Some(width.map_or(PROSE, |width| width.min(PROSE))))
}

fn lines(text: &str, indent: &str, hang: &str, width: Option<usize>) -> String {
    let mut lines = String::new();
    for paragraph in text.lines() {
        let (mut line, mut begun) = (String::from(indent), false);
        for word in paragraph.split(' ') {
            let length = line.chars().count() + usize::from(begun) + word.chars().count();
            if begun && width.is_some_and(|width| length > width) {
                lines.push_str(line.trim_end());
                lines.push('\n');
                line = format!("{indent}{hang}{word}");
            } else {
                if begun {
                    line.push(' ');
                }
                line.push_str(word);
                begun = true;
            }
        }
        lines.push_str(line.trim_end());
        lines.push('\n');
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table =
            Table::new(&[("cell", Align::Left), ("ms", Align::Right), ("verdict", Align::Left)]);
        table.row(vec!["C Int64, batch 1".into(), "2.30".into(), "slower".into()], vec![]);
        let note = "online bytes: 1 and then 2, worse".into();
        table.row(vec!["A".into(), "10.00".into(), String::new()], vec![note]);
        table
    }

    #[test]
    fn a_table_has_columns_where_they_fit() {
        let expected = "\
cell                 ms  verdict
C Int64, batch 1   2.30  slower
A                 10.00
  online bytes: 1 and then 2, worse
";
        for width in [None, Some(36), Some(100)] {
            assert_eq!(table().render(width), expected, "{width:?}");
        }
    }

    #[test]
    fn it_is_a_list_where_they_do_not() {
        let expected = "\
C Int64, batch 1
  ms 2.30, verdict slower
A
  ms 10.00
  online bytes: 1 and then
    2, worse
";
        assert_eq!(table().render(Some(27)), expected);
    }

    #[test]
    fn words_are_not_cut() {
        assert_eq!(wrap("one two three\nfour", "", Some(7)), "one two\n  three\nfour\n");
        assert_eq!(fill("one two three\nfour", Some(7)), "one two\nthree\nfour\n");
        assert_eq!(wrap("one two", "  ", None), "  one two\n");
        assert_eq!(wrap("immeasurable", "", Some(4)), "immeasurable\n");
    }
}
