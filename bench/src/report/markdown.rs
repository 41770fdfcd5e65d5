//! The report as Markdown, for a pull request or a terminal: words and tables.

use std::fmt::Write as _;

use super::model::Report;
use super::parts::{Headline, Section, Table};
use super::sections::{headlines::headlines, sections};

/// The whole file.
pub(super) fn render(report: &Report<'_>) -> String {
    let mut text = format!("# {}\n\n{}\n", escaped(&report.title), escaped(&report.subtitle()));
    // Writing to a string cannot fail.
    for Headline { value, of } in headlines(report) {
        let _ = write!(text, "\n- **{}** {}", escaped(&value), escaped(&of));
    }
    text.push('\n');
    for Section { title, prose, tables, .. } in sections(report) {
        let _ = writeln!(text, "\n## {title}");
        for paragraph in prose {
            let _ = writeln!(text, "\n{}", escaped(&paragraph));
        }
        for table in tables {
            let _ = write!(text, "\n{}", table_text(&table));
        }
    }
    text
}

fn table_text(table: &Table) -> String {
    let mut text = format!("*{}*\n\n", escaped(&table.caption));
    let heads = table.head.iter().map(|head| head.trim_start_matches('>'));
    let rules = table.head.iter().map(|head| if head.starts_with('>') { "---:" } else { "---" });
    let _ = writeln!(text, "| {} |", heads.map(escaped).collect::<Vec<_>>().join(" | "));
    let _ = writeln!(text, "| {} |", rules.collect::<Vec<_>>().join(" | "));
    for row in &table.rows {
        let cells: Vec<_> = row.iter().map(|cell| escaped(cell)).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

/// Text that stays text: names come from files, and Markdown may hold HTML.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '!' | '#' | '~' => {
                escaped.push('\\');
                escaped.push(letter);
            }
            _ if letter.is_control() => escaped.push(' '),
            _ => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_cell() {
        let table = Table {
            caption: "c".into(),
            head: vec!["Cell".into(), ">ms".into()],
            rows: vec![vec!["a|b\n<img src=x> [x](http://y) `".into(), "1.5".into()]],
        };
        assert_eq!(
            table_text(&table),
            "*c*\n\n| Cell | ms |\n| --- | ---: |\n\
             | a\\|b &lt;img src=x&gt; \\[x\\](http://y) \\` | 1.5 |\n"
        );
    }
}
