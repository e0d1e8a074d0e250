//! JSON, read with errors of bounded length, and written into labels as the other implementation writes it, so that the
//! same build gives the same label.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::excerpt::{self, MESSAGE};

/// What is wrong with a text in JSON: what, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("json: {0}")]
pub struct JsonError(String);

/// Bytes that the values of one text may take in memory. Several labels are held at once; that of 10,000 processes takes less.
pub const MAX_WEIGHT: usize = 24 << 20;

/// Reads JSON, if its values do not take more than [`MAX_WEIGHT`].
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, JsonError> {
    let read = drydock_model::json::from_slice_within(text.as_bytes(), MAX_WEIGHT);
    read.map_err(|error| JsonError(excerpt::shortened(&error.to_string(), MESSAGE)))
}

/// Compact JSON in which `<`, `>`, `&` and the two Unicode line separators are escaped.
///
/// `value` must consist of what JSON can hold: types whose keys are strings.
pub fn to_string(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let text = serde_json::to_string(value)?;
    // These characters occur nowhere in JSON but inside strings, where an escape means the same.
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("\\u003c"),
            '>' => escaped.push_str("\\u003e"),
            '&' => escaped.push_str("\\u0026"),
            '\u{2028}' => escaped.push_str("\\u2028"),
            '\u{2029}' => escaped.push_str("\\u2029"),
            c => escaped.push(c),
        }
    }
    Ok(escaped)
}

#[cfg(test)]
mod tests {
    #[test]
    fn html_is_escaped_and_reads_back() {
        let value = vec!["a < b && c > d", "\u{2028}\u{2029}é"];
        let text = super::to_string(&value).unwrap();
        assert_eq!(text, r#"["a \u003c b \u0026\u0026 c \u003e d","\u2028\u2029é"]"#);
        assert_eq!(super::from_str::<Vec<String>>(&text).unwrap(), value);
    }

    #[test]
    fn ten_thousand_processes_have_room() {
        let process = r#"{"type":"p","command":["a","b"],"args":["c"],"direct":true,"buildpackID":"a/b"},"#;
        let label = format!("[{}0]", process.repeat(10_000));
        assert!(super::from_str::<serde_json::Value>(&label).is_ok());
        let error =
            super::from_str::<serde_json::Value>(&format!("[{}0]", "{},".repeat(100_000))).unwrap_err();
        assert!(error.to_string().contains("more than 24 MiB"), "{error}");
    }

    #[test]
    fn errors_are_short_and_tell_the_place() {
        let long = "é".repeat(100_000);
        for text in [format!("[1, \"{long}\"]"), format!("[\n1, {long}")] {
            let error = super::from_str::<Vec<u8>>(&text).unwrap_err().to_string();
            assert!(error.starts_with("json: ") && error.contains(" at line "), "{error}");
            assert!(error.chars().count() < 400, "{error}");
        }
    }
}
