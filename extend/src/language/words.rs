//! Words as a shell splits them.

use serde_json::Value as Json;

/// Splits a text at its spaces. Quotes and escapes stay where they are, and what they hold is not split; a quote that nothing ends
/// goes to the end of the text.
pub(super) fn split(text: &str, escape: char) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (word, after) = rest.split_at(word_length(rest, escape));
        words.push(word);
        rest = after.trim_start();
    }
    words
}

/// Bytes in the first word of a text that begins with one.
pub(super) fn word_length(text: &str, escape: char) -> usize {
    let mut quote = None;
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match quote {
            None if c.is_whitespace() => return at,
            None if c == '"' || c == '\'' => quote = Some(c),
            // In single quotes, nothing is special.
            Some('\'') if c == escape => {}
            _ if c == escape => {
                characters.next();
            }
            Some(end) if c == end => quote = None,
            _ => {}
        }
    }
    text.len()
}

/// A JSON list of texts, if it is a JSON list.
pub(super) fn json_list(text: &str) -> Result<Option<Vec<String>>, String> {
    let text = text.trim();
    let list: Option<Vec<Json>> = if text.starts_with('[') { serde_json::from_str(text).ok() } else { None };
    let of_text = |(number, word)| match word {
        Json::String(word) => Ok(word),
        _ => Err(format!("element {number} of the list is no text; put it in double quotes")),
    };
    list.map(|list| (1..).zip(list).map(of_text).collect()).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_escapes_hold_words_together() {
        for (text, want) in [
            ("", &[][..]),
            ("  a  b\tc ", &["a", "b", "c"]),
            ("a=\"b c\" d", &["a=\"b c\"", "d"]),
            ("'a \\' b", &["'a \\'", "b"]),
            ("a\\ b c", &["a\\ b", "c"]),
            ("\"a\\\" b\" c", &["\"a\\\" b\"", "c"]),
            ("\"open a", &["\"open a"]),
            ("end\\", &["end\\"]),
            ("grün \\ü ü", &["grün", "\\ü", "ü"]),
        ] {
            assert_eq!(split(text, '\\'), want, "{text}");
        }
        assert_eq!(split("a` b c\\ d", '`'), ["a` b", "c\\", "d"]);
    }
}
