//! Parts of other programs' texts that are short enough for a message.

/// How many characters are shown on each side of a place in a line.
const AROUND: usize = 100;
/// How many characters a message of a parser may have: it can quote a whole value.
pub(crate) const MESSAGE: usize = 300;

/// What is around a place in a text, within its line. `at` is where a character begins, or the text ends.
pub(crate) fn of_line(text: &str, at: usize) -> String {
    let (before, after) = text.split_at(at);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let end = after.find('\n').map_or(text.len(), |newline| at + newline);
    let from = text[start..at].char_indices().rev().nth(AROUND - 1).map_or(start, |(below, _)| start + below);
    let to = text[at..end].char_indices().nth(AROUND).map_or(end, |(above, _)| at + above);
    let dots = |is_cut| if is_cut { "…" } else { "" };
    let shown = text[from..to].replace(char::is_control, " ");
    [dots(from > start), &shown, dots(to < end)].concat()
}

/// A message whose middle is left out if it has more than `most` characters, an even number: what failed is at its
/// beginning, and where often at its end.
pub fn shortened(message: &str, most: usize) -> String {
    let mut places = message.char_indices().map(|(place, _)| place);
    let middle = places.nth(most / 2);
    let end = places.rev().nth((most / 2).saturating_sub(1));
    match (middle, end) {
        (Some(middle), Some(end)) => [&message[..middle], "…", &message[end..]].concat(),
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_texts_are_shown_whole() {
        for (text, at, want) in [
            ("one", 0, "one"),
            ("one", 3, "one"),
            ("one\ntwo\nthree", 5, "two"),
            ("one\ntwo\nthree", 4, "two"),
            ("one\ntwo\nthree", 7, "two"),
            ("one\n", 4, ""),
            ("a\tb\u{1b}[31m", 1, "a b [31m"),
            ("", 0, ""),
        ] {
            assert_eq!(of_line(text, at), want, "{text:?} {at}");
        }
        let message = "é".repeat(MESSAGE);
        assert_eq!(shortened(&message, MESSAGE), message);
        assert_eq!(shortened("", MESSAGE), "");
    }

    proptest! {
        #[test]
        fn an_excerpt_is_bounded_and_holds_its_place(text in "([aé]{0,150}\n?){0,3}", at: prop::sample::Index) {
            let at = text.floor_char_boundary(at.index(text.len() + 1));
            let excerpt = of_line(&text, at);
            prop_assert!(excerpt.chars().count() <= 2 * AROUND + 2);
            prop_assert!(text.contains(excerpt.trim_matches('…')));
        }

        #[test]
        fn a_message_keeps_its_ends(text in "a[é]{0,700}b") {
            let short = shortened(&text, MESSAGE);
            prop_assert!(short.chars().count() <= MESSAGE + 1);
            prop_assert!(short.starts_with('a') && short.ends_with('b'));
            prop_assert_eq!(short == text, text.chars().count() <= MESSAGE);
        }
    }
}
