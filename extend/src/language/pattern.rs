//! Patterns of paths: `*` and `?` within a name, `**` over folders, `[a-z]`, `[^a]`, and `\` before what stands for itself.
//!
//! What is matched are characters; a byte that is no part of one stands for itself.
//!
//! A pattern is matched by following all that it could have come to at a time: in the length of the pattern times that of the path,
//! whatever they are.

use std::str::Chars;

/// A pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<Token>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    /// Any but a slash.
    Any,
    /// Any number of characters but slashes.
    Name,
    /// Any number of characters.
    All,
    /// Nothing, or any number of characters with a slash at their end.
    Folders,
    /// Within these.
    InFolders,
    Class {
        ranges: Vec<(char, char)>,
        is_negated: bool,
    },
}

impl Pattern {
    /// A pattern for paths, in which `**` means folders. Fails with what is wrong.
    pub fn of_path(text: &str) -> Result<Self, String> {
        Self::parse(text, true)
    }

    /// A pattern for one name or one path, in which `**` means no more than `*`. Fails with what is wrong.
    pub fn of_name(text: &str) -> Result<Self, String> {
        Self::parse(text, false)
    }

    /// A pattern for one path, in which each character stands for itself.
    pub fn of_plain(text: &str) -> Self {
        Self(text.chars().map(Token::Char).collect())
    }

    /// Whether the text has something that is no plain name.
    pub fn is_needed(text: &str) -> bool {
        text.contains(['*', '?', '[', '\\'])
    }

    fn parse(text: &str, has_folders: bool) -> Result<Self, String> {
        let malformed = |why: &str| format!("the pattern `{text}` {why}");
        let mut tokens = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            match c {
                '*' if has_folders && rest.as_str().starts_with('*') => {
                    rest = rest.as_str().trim_start_matches('*').chars();
                    if rest.as_str().starts_with('/') {
                        rest.next();
                        tokens.extend([Token::Folders, Token::InFolders]);
                    } else {
                        tokens.push(Token::All);
                    }
                }
                '*' if tokens.last() == Some(&Token::Name) => {}
                '*' => tokens.push(Token::Name),
                '?' => tokens.push(Token::Any),
                '\\' => {
                    let c = rest.next().ok_or_else(|| malformed("ends with a backslash"))?;
                    tokens.push(Token::Char(c));
                }
                '[' => {
                    let class = class(&mut rest);
                    tokens.push(
                        class.ok_or_else(|| malformed("has a `[` that no `]` ends; escape it: `\\[`"))?,
                    );
                }
                c => tokens.push(Token::Char(c)),
            }
        }
        Ok(Self(tokens))
    }

    /// Whether it matches all of `path`.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.after(path)[self.0.len()]
    }

    /// Whether it can match a path in the folder `dir`.
    pub fn may_match_in(&self, dir: &[u8]) -> bool {
        self.after(&[dir, b"/"].concat()).contains(&true)
    }

    /// Where in the pattern one can be when `path` is taken.
    fn after(&self, path: &[u8]) -> Vec<bool> {
        let Self(tokens) = self;
        let mut now = vec![false; tokens.len() + 1];
        let mut next = now.clone();
        now[0] = true;
        for unit in units(path) {
            let is_slash = unit == Unit::Char('/');
            self.skip(&mut now);
            next.fill(false);
            for (at, token) in tokens.iter().enumerate().filter(|(at, _)| now[*at]) {
                match token {
                    Token::Char(it) => next[at + 1] |= Unit::Char(*it) == unit,
                    Token::Any => next[at + 1] |= !is_slash,
                    Token::Name => next[at] |= !is_slash,
                    Token::All => next[at] = true,
                    Token::Folders => {
                        next[at + 1] = true;
                        next[at + 2] |= is_slash;
                    }
                    Token::InFolders => {
                        next[at] = true;
                        next[at + 1] |= is_slash;
                    }
                    Token::Class { ranges, is_negated } => {
                        let range = |(first, last)| Unit::Char(first)..=Unit::Char(last);
                        let is_in = ranges.iter().any(|ends| range(*ends).contains(&unit));
                        next[at + 1] |= is_in != *is_negated && !is_slash;
                    }
                }
            }
            std::mem::swap(&mut now, &mut next);
        }
        self.skip(&mut now);
        now
    }

    /// Goes on where nothing need be taken.
    fn skip(&self, now: &mut [bool]) {
        for (at, token) in self.0.iter().enumerate() {
            if now[at] {
                match token {
                    Token::Name | Token::All => now[at + 1] = true,
                    Token::Folders => now[at + 2] = true,
                    _ => {}
                }
            }
        }
    }
}

/// What a path is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Char(char),
    Byte(u8),
}

fn units(path: &[u8]) -> impl Iterator<Item = Unit> + '_ {
    path.utf8_chunks().flat_map(|chunk| {
        chunk.valid().chars().map(Unit::Char).chain(chunk.invalid().iter().map(|byte| Unit::Byte(*byte)))
    })
}

/// What comes after a `[`, with its `]`.
fn class(rest: &mut Chars<'_>) -> Option<Token> {
    let is_negated = rest.as_str().starts_with('^');
    if is_negated {
        rest.next();
    }
    let mut ranges = Vec::new();
    loop {
        if rest.as_str().starts_with(']') && !ranges.is_empty() {
            rest.next();
            return Some(Token::Class { ranges, is_negated });
        }
        let first = class_char(rest)?;
        let is_range = rest.as_str().starts_with('-') && !rest.as_str().starts_with("-]");
        let last = if is_range {
            rest.next();
            class_char(rest)?
        } else {
            first
        };
        ranges.push((first, last));
    }
}

/// The next character in a class, which may be escaped.
fn class_char(rest: &mut Chars<'_>) -> Option<char> {
    match rest.next()? {
        '\\' => rest.next(),
        c => Some(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (pattern, path, want) in [
            ("", "", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("*.rs", "lib.rs", true),
            ("*.rs", "src/lib.rs", false),
            ("src/*", "src/a/b", false),
            ("**/*.rs", "lib.rs", true),
            ("**/*.rs", "a/b/lib.rs", true),
            ("**/x", "ax", false),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "a/xb", false),
            ("a**b", "a/x/b", true),
            ("**", "a/b", true),
            ("?", "/", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a]", "/", false),
            ("[\\]]", "]", true),
            ("[a-]", "-", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("gr?n", "grün", true),
            ("gr??n", "grün", false),
            ("[ä-ü]", "ö", true),
            ("[^ä]x", "öx", true),
            ("[^a]", "ä", true),
            ("ü*", "üß/", false),
            ("*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(Pattern::of_path(pattern).unwrap().matches(path.as_bytes()), want, "{pattern} {path}");
        }
        for (pattern, want) in [("a?b", true), ("a??b", false), ("a[^x]b", true), ("a\u{fffd}b", false)] {
            assert_eq!(Pattern::of_path(pattern).unwrap().matches(b"a\xffb"), want, "{pattern}");
        }
        assert!(!Pattern::of_name("**").unwrap().matches(b"a/b"));
        for pattern in ["[", "[]", "[a", "[a-", "[^", "a\\", "[\\"] {
            assert!(Pattern::of_path(pattern).is_err(), "{pattern}");
        }
    }
}
