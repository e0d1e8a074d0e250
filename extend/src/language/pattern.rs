//! Patterns of paths: `*` and `?` within a name, `**` over folders, `[a-z]`, `[^a]`, and `\` before what stands for itself.
//!
//! A pattern is matched by following all that it could have come to at a time: in the length of the pattern times that of the path,
//! whatever they are.

/// A pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<Token>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// Any but a slash.
    Any,
    /// Any number of bytes but slashes.
    Name,
    /// Any number of bytes.
    All,
    /// Nothing, or any number of bytes with a slash at their end.
    Folders,
    /// Within these.
    InFolders,
    Class {
        ranges: Vec<(u8, u8)>,
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

    /// Whether the text has something that is no plain name.
    pub fn is_needed(text: &str) -> bool {
        text.contains(['*', '?', '[', '\\'])
    }

    fn parse(text: &str, has_folders: bool) -> Result<Self, String> {
        let malformed = |why: &str| format!("the pattern `{text}` {why}");
        let mut tokens = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            match byte {
                b'*' if has_folders && rest.first() == Some(&b'*') => {
                    while let Some(after) = rest.strip_prefix(b"*") {
                        rest = after;
                    }
                    if let Some(after) = rest.strip_prefix(b"/") {
                        rest = after;
                        tokens.extend([Token::Folders, Token::InFolders]);
                    } else {
                        tokens.push(Token::All);
                    }
                }
                b'*' if tokens.last() == Some(&Token::Name) => {}
                b'*' => tokens.push(Token::Name),
                b'?' => tokens.push(Token::Any),
                b'\\' => {
                    let (&byte, after) =
                        rest.split_first().ok_or_else(|| malformed("ends with a backslash"))?;
                    rest = after;
                    tokens.push(Token::Byte(byte));
                }
                b'[' => {
                    let (class, after) = class(rest)
                        .ok_or_else(|| malformed("has a `[` that no `]` ends; escape it: `\\[`"))?;
                    rest = after;
                    tokens.push(class);
                }
                _ => tokens.push(Token::Byte(byte)),
            }
        }
        Ok(Self(tokens))
    }

    /// Whether it matches all of `path`.
    pub fn matches(&self, path: &[u8]) -> bool {
        let Self(tokens) = self;
        let mut now = vec![false; tokens.len() + 1];
        let mut next = now.clone();
        now[0] = true;
        for &byte in path {
            self.skip(&mut now);
            next.fill(false);
            for (at, token) in tokens.iter().enumerate().filter(|(at, _)| now[*at]) {
                match token {
                    Token::Byte(it) => next[at + 1] |= *it == byte,
                    Token::Any => next[at + 1] |= byte != b'/',
                    Token::Name => next[at] |= byte != b'/',
                    Token::All => next[at] = true,
                    Token::Folders => {
                        next[at + 1] = true;
                        next[at + 2] |= byte == b'/';
                    }
                    Token::InFolders => {
                        next[at] = true;
                        next[at + 1] |= byte == b'/';
                    }
                    Token::Class { ranges, is_negated } => {
                        let is_in = ranges.iter().any(|(first, last)| (first..=last).contains(&&byte));
                        next[at + 1] |= is_in != *is_negated && byte != b'/';
                    }
                }
            }
            std::mem::swap(&mut now, &mut next);
        }
        self.skip(&mut now);
        now[tokens.len()]
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

/// What comes after a `[`, and the rest after its `]`.
fn class(text: &[u8]) -> Option<(Token, &[u8])> {
    let (is_negated, mut rest) = match text.strip_prefix(b"^") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut ranges = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix(b"]").filter(|_| !ranges.is_empty()) {
            return Some((Token::Class { ranges, is_negated }, after));
        }
        let (first, after) = class_byte(rest)?;
        rest = after;
        let mut last = first;
        if let Some(after) = rest.strip_prefix(b"-").filter(|after| !after.starts_with(b"]")) {
            (last, rest) = class_byte(after)?;
        }
        ranges.push((first, last));
    }
}

/// The next byte in a class, which may be escaped.
fn class_byte(text: &[u8]) -> Option<(u8, &[u8])> {
    match text.split_first()? {
        (b'\\', rest) => rest.split_first().map(|(byte, rest)| (*byte, rest)),
        (byte, rest) => Some((*byte, rest)),
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
            ("*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(Pattern::of_path(pattern).unwrap().matches(path.as_bytes()), want, "{pattern} {path}");
        }
        assert!(!Pattern::of_name("**").unwrap().matches(b"a/b"));
        for pattern in ["[", "[]", "[a", "[a-", "[^", "a\\", "[\\"] {
            assert!(Pattern::of_path(pattern).is_err(), "{pattern}");
        }
    }
}
