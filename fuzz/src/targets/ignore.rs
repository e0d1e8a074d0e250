//! `.dockerignore`: its rules, and the patterns in them. The last line of an input is a path.

use drydock_extend::language::{IgnoreRules, Pattern};

use super::Target;

pub(crate) const TARGET: Target = Target {
    name: "ignore",
    longest: 1 << 10,
    words: &[
        b"**/",
        b"/**",
        b"**",
        b"*",
        b"?",
        b"!",
        b"[a-c]",
        b"[^",
        b"]",
        b"\\",
        b"#",
        b"/",
        b"./",
        b"../",
        b"\n!a/b\n",
        b"a/b/c",
        b"\na/b/c",
    ],
    can_use: |path, _| path.file_name().is_some_and(|name| name == ".dockerignore"),
    run,
};

fn run(input: &[u8]) -> String {
    let Ok(text) = str::from_utf8(input) else { return "no text".into() };
    let (rules, path) = text.rsplit_once('\n').unwrap_or(("", text));
    let names: Vec<&str> = path.split('/').filter(|name| !matches!(*name, "" | "." | "..")).collect();
    let path = names.join("/");
    let said = match IgnoreRules::parse(rules) {
        Ok(parsed) => {
            let is_out = parsed.leaves_out(path.as_bytes());
            let below = format!("{path}/below");
            let all = parsed.leaves_all_out(path.as_bytes());
            assert!(
                !all || parsed.leaves_out(below.as_bytes()),
                "what is in a folder that is left out is not"
            );
            for (last, wanted) in [("**", true), ("!**", false)] {
                let more = IgnoreRules::parse(&format!("{rules}\n{last}")).expect("one more rule is right");
                assert!(more.leaves_out(path.as_bytes()) == wanted, "the last rule does not count");
            }
            format!("{is_out} {all}")
        }
        Err(problem) => problem,
    };
    let first = rules.lines().next().unwrap_or_default();
    if let Ok(pattern) = Pattern::of_path(first) {
        let is_simple = !first.contains(['[', '\\']) && first.len() < 16 && path.len() < 16;
        let found = pattern.matches(path.as_bytes());
        assert!(!is_simple || found == slowly(first.as_bytes(), path.as_bytes()), "`{first}` and `{path}`");
    }
    said
}

/// Whether a pattern matches, by trying everything.
fn slowly(pattern: &[u8], path: &[u8]) -> bool {
    let rests = || (0..=path.len()).map(|at| path.split_at(at));
    match pattern {
        [] => path.is_empty(),
        [b'*', b'*', rest @ ..] => {
            let rest = rest.iter().position(|byte| *byte != b'*').map_or(&[][..], |at| &rest[at..]);
            match rest.strip_prefix(b"/") {
                Some(rest) => rests()
                    .any(|(taken, left)| (taken.is_empty() || taken.ends_with(b"/")) && slowly(rest, left)),
                None => rests().any(|(_, left)| slowly(rest, left)),
            }
        }
        [b'*', rest @ ..] => rests().any(|(taken, left)| !taken.contains(&b'/') && slowly(rest, left)),
        [first, rest @ ..] => path.split_first().is_some_and(|(byte, left)| {
            (first == byte || *first == b'?' && *byte != b'/') && slowly(rest, left)
        }),
    }
}
