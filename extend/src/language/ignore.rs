//! What a context leaves out: `.dockerignore`, and the patterns of `--exclude`.

use super::pattern::Pattern;

/// Rules, of which the last one that fits counts. A rule for a folder holds for what is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IgnoreRules {
    rules: Vec<(Pattern, bool)>,
}

impl IgnoreRules {
    /// Those of a file: a pattern on each line, behind `!` for what is taken all the same. Fails with what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.lines().zip(1..).filter(|(line, _)| !line.starts_with('#'));
        let mut rules = Vec::new();
        for (line, number) in lines {
            rules.extend(rule(line).map_err(|problem| format!("line {number}: {problem}"))?);
        }
        Ok(Self { rules })
    }

    /// Those of single patterns.
    pub fn of<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let rules =
            patterns.into_iter().filter_map(|pattern| rule(pattern).transpose()).collect::<Result<_, _>>()?;
        Ok(Self { rules })
    }

    /// Leaves out what is at a path, whatever the other rules say.
    pub fn leave_out(&mut self, path: &str) {
        self.rules.push((Pattern::of_plain(path), true));
    }

    /// Whether a path is left out: names joined with slashes, from the context's folder on.
    pub fn leaves_out(&self, path: &[u8]) -> bool {
        self.leaving_out(path).is_some()
    }

    /// Whether a folder is left out, and no exception can be for anything in it.
    pub fn leaves_all_out(&self, dir: &[u8]) -> bool {
        self.leaving_out(dir).is_some_and(|after| {
            !after.iter().any(|(pattern, leaves_out)| !leaves_out && pattern.may_match_in(dir))
        })
    }

    /// If a path is left out, the rules after the one by which it is: those before it count neither for the path nor for what is in it.
    fn leaving_out(&self, path: &[u8]) -> Option<&[(Pattern, bool)]> {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let ways: Vec<&[u8]> = ends.map(|end| &path[..end]).chain([path]).collect();
        let fits = |(pattern, _): &(Pattern, bool)| ways.iter().any(|way| pattern.matches(way));
        let last = self.rules.iter().rposition(fits)?;
        self.rules[last].1.then(|| &self.rules[last + 1..])
    }
}

/// A pattern, and whether it leaves out.
fn rule(line: &str) -> Result<Option<(Pattern, bool)>, String> {
    let line = line.trim();
    let (line, leaves_out) = line.strip_prefix('!').map_or((line, true), |rest| (rest.trim(), false));
    let mut names = Vec::new();
    for name in line.split('/') {
        match name {
            "" | "." => {}
            ".." if names.pop().is_some() || line.starts_with('/') => {}
            // Nothing of the context is there.
            ".." => return Ok(None),
            name => names.push(name),
        }
    }
    if names.is_empty() {
        return if leaves_out || line.len() > 1 {
            Ok(None)
        } else {
            Err("there is no pattern after the `!`; write one, or leave the line out".to_owned())
        };
    }
    Ok(Some((Pattern::of_path(&names.join("/"))?, leaves_out)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_rule_that_fits_counts() {
        let rules = IgnoreRules::parse("# comment\n\n*.md\n!README.md\n/target/\n./a//c/../b\n").unwrap();
        for (path, want) in [
            ("x.md", true),
            ("doc/x.md", false),
            ("README.md", false),
            ("target", true),
            ("target/debug/x", true),
            ("src/target", false),
            ("a/b", true),
            ("a/b/c", true),
            ("a", false),
            ("# comment", false),
        ] {
            assert_eq!(rules.leaves_out(path.as_bytes()), want, "{path}");
        }
        let rules = IgnoreRules::parse("node_modules\n!node_modules/keep\n**/*.log\n*\n!src\n").unwrap();
        assert!(!rules.leaves_out(b"src/x"));
        assert!(rules.leaves_out(b"node_modules/keep"));
        assert!(!IgnoreRules::parse("/\n.\n").unwrap().leaves_out(b"x"));
        let rules = IgnoreRules::parse("../q\n!a/../../q\n/../r\n").unwrap();
        for (path, want) in [("q", false), ("a/q", false), ("r", true)] {
            assert_eq!(rules.leaves_out(path.as_bytes()), want, "{path}");
        }
        let mut rules = IgnoreRules::parse("!**").unwrap();
        rules.leave_out("a/[b]*");
        assert!(rules.leaves_out(b"a/[b]*/c") && !rules.leaves_out(b"a/b"));
        for text in ["!", "["] {
            assert!(IgnoreRules::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn folders_are_left_out_with_all_that_is_in_them_unless_there_may_be_exceptions() {
        for (text, dir, want) in [
            ("data", "data", true),
            ("data", "data/pg", true),
            ("data", "other", false),
            ("data\n!src/f", "data", true),
            ("*\n!src", "data", true),
            ("*\n!src", "src", false),
            ("*\n!src/a/b", "src", false),
            ("*\n!src/a/b", "src/a", false),
            ("*\n!src/a/b", "src/ab", true),
            ("!data/keep\ndata", "data", true),
            ("data\n!data", "data", false),
            ("data\n!d*/keep", "data", false),
            ("data\n!*", "data", false),
            ("data\n!**/keep", "data/pg", false),
            ("data/*\n!**/src/x", "data/pg", false),
        ] {
            assert_eq!(
                IgnoreRules::parse(text).unwrap().leaves_all_out(dir.as_bytes()),
                want,
                "{text} {dir}"
            );
        }
    }
}
