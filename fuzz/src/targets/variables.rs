//! Variables in words. The first line of an input is the value of `v`, the second a pattern for it, the rest a word.

use drydock_extend::language::{MAX_VALUE, expand, expand_text};

use super::Target;

pub(crate) const TARGET: Target = Target {
    name: "variables",
    longest: 1 << 10,
    words: &[
        b"$v", b"${v}", b"${v:-", b"${u-", b"${v:+", b"${v+", b"${u:?", b"${v#", b"${v##", b"${v%", b"${v%%",
        b"${v/", b"${v//", b"/", b"}", b"*", b"?", b"'", b"\"", b"\\", b"`", b"\n", b"$", b"${",
    ],
    can_use: |_, _| false,
    run,
};

fn run(input: &[u8]) -> String {
    let Ok(text) = str::from_utf8(input) else { return "no text".into() };
    let mut lines = text.splitn(3, '\n');
    let [given, pattern, word] = [(); 3].map(|()| lines.next().unwrap_or_default());
    let value = |name: &str| (name == "v").then(|| given.to_owned());
    let mut said = String::new();
    for escape in ['\\', '`'] {
        for expanded in [expand(word, escape, &value), expand_text(word, escape, &value)] {
            match expanded {
                Ok(text) => {
                    assert!(text.len() <= MAX_VALUE + word.len(), "an expansion has no limit");
                    said.push('o');
                }
                Err(problem) => said.push_str(&problem),
            }
        }
    }
    if !word.contains('\'') {
        assert_eq!(expand(&format!("'{word}'"), '\\', &value).as_deref(), Ok(word), "quotes keep a text");
    }
    if !word.contains(['$', '\\', '\'', '"']) {
        assert_eq!(expand(word, '\\', &value).as_deref(), Ok(word), "a plain text stays");
    }
    parts(given, pattern, &value);
    said
}

/// What is taken away is at the very beginning or end, and the longest part is not shorter than the shortest.
fn parts(given: &str, pattern: &str, value: &dyn Fn(&str) -> Option<String>) {
    // In quotes would be no pattern.
    if pattern.contains(['}', '/', '\\', '\'', '"', '$', '#', '%']) {
        return;
    }
    let left = |operator: &str| expand(&format!("${{v{operator}{pattern}}}"), '\\', value);
    let [Ok(short), Ok(long)] = ["#", "##"].map(left) else { return };
    assert!(
        given.ends_with(&short) && short.ends_with(&long),
        "`{given}` without `{pattern}` first: {short}, {long}"
    );
    let [Ok(short), Ok(long)] = ["%", "%%"].map(left) else { return };
    assert!(
        given.starts_with(&short) && short.starts_with(&long),
        "`{given}` without `{pattern}` last: {short}, {long}"
    );
    let [Ok(first), Ok(each)] =
        ["/", "//"].map(|operator| expand(&format!("${{v{operator}{pattern}/}}"), '\\', value))
    else {
        return;
    };
    assert!(
        each.len() <= first.len() && first.len() <= given.len(),
        "`{given}` without `{pattern}`: {first}, {each}"
    );
}
