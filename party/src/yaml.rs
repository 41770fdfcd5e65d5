//! Reading YAML that others wrote.

use serde::de::DeserializeOwned;

/// Why a text is not what was expected.
#[derive(Debug, thiserror::Error)]
pub enum YamlError {
    /// A part has a name, by which it could be repeated.
    #[error(
        "line {line} names a part of the text with `&`, or has a word that begins so; write out \
         what is to be there more than once"
    )]
    Anchor {
        /// Counted from 1.
        line: usize,
    },
    /// It is no YAML, or not of the type.
    #[error(transparent)]
    Content(#[from] serde_yaml::Error),
}

/// A text without the byte order mark that some editors begin it with (YAML 1.2, section 5.2).
#[must_use]
pub fn unmarked(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Reads a `T`. A byte order mark before it is skipped.
///
/// Anchors are refused, which nothing here needs: a text of a few kilobytes that repeats a
/// part, and that in another, takes gigabytes of memory before anything of it can be checked.
///
/// # Errors
/// If the text has an anchor, is no YAML, or is no `T`.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, YamlError> {
    let text = unmarked(text);
    if let Some(place) = anchor(text) {
        let line = 1 + text[..place].matches('\n').count();
        return Err(YamlError::Anchor { line });
    }
    Ok(serde_yaml::from_str(text)?)
}

/// Where the first `&` is that may begin an anchor: one at the start of a word. Whether it is
/// within quotes or a comment is not looked at.
fn anchor(text: &str) -> Option<usize> {
    let mut within = false;
    let mut characters = text.char_indices().peekable();
    while let Some((place, c)) = characters.next() {
        let next = characters.peek().map(|(_, next)| *next);
        let named = next.is_some_and(|next| next.is_alphanumeric() || "_-".contains(next));
        if c == '&' && !within && named {
            return Some(place);
        }
        // Others separate tokens, or might.
        within = c.is_alphanumeric() || "&/._-%=?+~#@;".contains(c);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_text() {
        assert_eq!(parse::<[u8; 1]>("\u{feff}[1]").unwrap(), [1]);
    }

    #[test]
    fn what_is_named_to_be_repeated_is_refused() {
        for text in ["a: &x [1]\nb: *x", "&x a: 1", "{a: 1,b: [&x 1]}", "\"a\":&x 1", "- !t &x 1"] {
            let error = parse::<serde_yaml::Value>(text).unwrap_err().to_string();
            assert!(error.starts_with("line 1 names a part"), "{text}: {error}");
        }
        let error = parse::<serde_yaml::Value>("a: 1\nb:\n  &x 2").unwrap_err().to_string();
        assert!(error.starts_with("line 3 "), "{error}");
    }

    #[test]
    fn an_ampersand_within_a_word_is_a_letter() {
        let text = "a: http://x:1/y?b=1&c=2\nb: R&D\nc: this & that";
        let value: serde_yaml::Value = parse(text).unwrap();
        assert_eq!((&value["b"], &value["c"]), (&"R&D".into(), &"this & that".into()));
        assert!(value["a"].as_str().unwrap().ends_with("&c=2"));
    }

    /// Nine lines that would be a billion numbers.
    #[test]
    fn a_text_that_multiplies_is_refused_at_once() {
        let mut text = String::from("a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n");
        for (name, before) in ('b'..='i').zip('a'..) {
            text += &format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 10].join(", "));
        }
        assert!(matches!(parse::<serde_yaml::Value>(&text), Err(YamlError::Anchor { line: 1 })));
    }
}
