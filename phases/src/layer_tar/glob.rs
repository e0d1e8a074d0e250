//! The globs of app slices: those of Go's `filepath.Match`.
//!
//! `*` is any number of bytes without a slash, `?` one character but the slash, `[a-c]` and `[^a-c]` one character of
//! a class (which may hold the slash), and `\` takes the next character as it is. All of the name must match.

/// A glob, parsed.
#[derive(Debug)]
pub(super) struct Glob {
    /// What stands between the stars; without a star, there is one.
    pieces: Vec<Vec<Token>>,
}

#[derive(Debug)]
enum Token {
    Byte(u8),
    AnyCharacter,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Glob {
    /// An error is what is wrong with the pattern.
    pub(super) fn parse(pattern: &str) -> Result<Self, &'static str> {
        let mut pieces = vec![Vec::new()];
        let mut rest = pattern.chars();
        while let Some(next) = rest.next() {
            let token = match next {
                '*' => {
                    pieces.push(Vec::new());
                    continue;
                }
                '?' => Token::AnyCharacter,
                '[' => parse_class(&mut rest)?,
                _ => {
                    let literal = match next {
                        '\\' => rest.next().ok_or("nothing follows the last `\\`")?,
                        literal => literal,
                    };
                    let mut utf8 = [0; 4];
                    let bytes = literal.encode_utf8(&mut utf8).bytes();
                    let piece = pieces.last_mut().expect("there is one from the beginning");
                    piece.extend(bytes.map(Token::Byte));
                    continue;
                }
            };
            pieces.last_mut().expect("there is one from the beginning").push(token);
        }
        Ok(Self { pieces })
    }

    /// Whether all of `name` matches.
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        let (first, starred) = self.pieces.split_first().expect("there is always one");
        let Some(mut rest) = match_piece(first, name) else { return false };
        let Some((last, middle)) = starred.split_last() else { return rest.is_empty() };
        // Each piece is taken where it first fits: that leaves the most to the stars that follow.
        for piece in middle {
            match star_positions(rest).find_map(|from| match_piece(piece, &rest[from..])) {
                Some(after) => rest = after,
                None => return false,
            }
        }
        star_positions(rest).any(|from| match_piece(last, &rest[from..]).is_some_and(<[u8]>::is_empty))
    }
}

/// Where a star may end.
fn star_positions(name: &[u8]) -> std::ops::RangeInclusive<usize> {
    0..=name.iter().position(|&byte| byte == b'/').unwrap_or(name.len())
}

/// What remains of `name` after the piece, which must match at its beginning.
fn match_piece<'n>(piece: &[Token], mut name: &'n [u8]) -> Option<&'n [u8]> {
    for token in piece {
        let (character, length) = first_character(name)?;
        name = match token {
            Token::Byte(byte) => name.strip_prefix(std::slice::from_ref(byte))?,
            Token::AnyCharacter if character == '/' => return None,
            Token::AnyCharacter => &name[length..],
            Token::Class { negated, ranges } => {
                let within = ranges.iter().any(|&(low, high)| (low..=high).contains(&character));
                if within == *negated {
                    return None;
                }
                &name[length..]
            }
        };
    }
    Some(name)
}

/// The first character and its length; a byte that is not UTF-8 counts as U+FFFD.
fn first_character(name: &[u8]) -> Option<(char, usize)> {
    let first = *name.first()?;
    if first.is_ascii() {
        return Some((char::from(first), 1));
    }
    let start = name[..name.len().min(4)].utf8_chunks().next()?.valid();
    Some(start.chars().next().map_or((char::REPLACEMENT_CHARACTER, 1), |c| (c, c.len_utf8())))
}

/// What follows a `[`, with the `]`.
fn parse_class(rest: &mut std::str::Chars<'_>) -> Result<Token, &'static str> {
    const OPEN: &str = "a `[` has no `]`";
    let negated = rest.as_str().starts_with('^');
    if negated {
        rest.next();
    }
    let mut ranges = Vec::new();
    loop {
        let next = rest.next().ok_or(OPEN)?;
        if next == ']' && !ranges.is_empty() {
            return Ok(Token::Class { negated, ranges });
        }
        let low = class_character(next, rest)?;
        let high = if rest.as_str().starts_with('-') {
            rest.next();
            let next = rest.next().ok_or(OPEN)?;
            class_character(next, rest)?
        } else {
            low
        };
        ranges.push((low, high));
    }
}

fn class_character(next: char, rest: &mut std::str::Chars<'_>) -> Result<char, &'static str> {
    match next {
        '-' | ']' => Err("a character is missing in `[…]`"),
        '\\' => rest.next().ok_or("nothing follows the last `\\`"),
        literal => Ok(literal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_go_does() {
        let table = [
            ("static/**", "static/a.js", true),
            ("static/**", "static/js/a.js", false),
            ("*.css", "site.css", true),
            ("*.css", "css/site.css", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "a/b/c", false),
            ("a*/b", "axx/b", true),
            ("*x*/*y", "axb/cy", true),
            ("*x*/*y", "ab/cxy", false),
            ("a?c", "abc", true),
            ("a?c", "aéc", true),
            ("a?c", "a/c", false),
            ("?", "", false),
            ("[a-c]x", "bx", true),
            ("[a-c]x", "dx", false),
            ("[^a-c]x", "dx", true),
            ("[^a-c]x", "éx", true),
            ("a[^b]c", "a/c", true),
            ("[é-ü]", "ö", true),
            ("[[*]", "*", true),
            ("[\\]*]", "]", true),
            ("[\\-x]", "-", true),
            ("[\\-x]", "m", false),
            ("a]", "a]", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("{a,b}", "{a,b}", true),
        ];
        for (pattern, name, expected) in table {
            assert_eq!(Glob::parse(pattern).unwrap().matches(name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn takes_any_bytes() {
        let name = b"\xff\xfe.bin";
        for (pattern, expected) in
            [("??.bin", true), ("?.bin", false), ("*.bin", true), ("[\u{fffd}]*", true), ("[^a]*", true)]
        {
            assert_eq!(Glob::parse(pattern).unwrap().matches(name), expected, "{pattern}");
        }
    }

    #[test]
    fn refuses_what_is_malformed() {
        for pattern in ["[", "[]", "[]a]", "[a", "[a-", "[a-]", "[-a]", "[^]", "[^", "a\\", "[a\\", "[\\]"] {
            assert!(Glob::parse(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn many_stars_cost_little() {
        let pattern = "*a".repeat(100) + "b";
        assert!(!Glob::parse(&pattern).unwrap().matches("a".repeat(10_000).as_bytes()));
    }
}
