//! Foreign text in our messages.

/// The most characters of foreign text that a message shows.
const SHOWN: usize = 300;

/// One line without control characters, cut to what a message has room for.
pub(crate) fn printable(text: &str) -> String {
    let mut words = text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty());
    let mut line = String::new();
    let mut left = SHOWN;
    while let Some(word) = words.next().filter(|_| left > 0) {
        let separator = if line.is_empty() { "" } else { " " };
        line.push_str(separator);
        line.extend(word.chars().take(left));
        left = left.saturating_sub(word.chars().count() + separator.len());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_one_short_line() {
        assert_eq!(printable("  no\r\n\tsuch \u{1b}[31mthing "), "no such [31mthing");
        assert_eq!(printable(&"x".repeat(10_000)).len(), SHOWN);
        assert!(printable(&"xy ".repeat(10_000)).len() <= SHOWN + 2);
    }
}
