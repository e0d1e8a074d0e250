//! Variables in words: `$x`, `${x}`, and what can be said after the name:
//!
//! | form | is |
//! |---|---|
//! | `${x:-word}`, `${x-word}` | the word if `x` has no value; without the colon, if it is not set |
//! | `${x:+word}`, `${x+word}` | the word if `x` has a value; without the colon, if it is set |
//! | `${x:?word}`, `${x?word}` | an error with the word if `x` has no value; without the colon, if it is not set |
//! | `${x#pattern}`, `${x##pattern}` | the value without the shortest, the longest beginning that fits |
//! | `${x%pattern}`, `${x%%pattern}` | the value without the shortest, the longest end that fits |
//! | `${x/pattern/word}`, `${x//pattern/word}` | the value with the word for the first, for each longest part that fits |
//!
//! Patterns have `*` and `?`. Quotes and escapes are as in a shell, and gone in the result.

use std::iter::Peekable;
use std::str::Chars;

use super::error::Problem;

/// Bytes that a word may have when variables are put in: a few lines could ask for more than any memory.
pub const MAX_VALUE: usize = 1 << 20;

/// Characters of a value that a pattern is looked for in.
pub const MAX_MATCHED: usize = 4096;

/// Characters of such a pattern.
const MAX_PATTERN: usize = 64;

/// Words may be in words this deep.
const MAX_DEPTH: usize = 50;

/// Puts the values of variables into a word, and takes quotes and escapes away. `value` knows what is set. Fails with what is wrong.
pub fn expand(word: &str, escape: char, value: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    expand_all(word, escape, value, false)
}

/// Puts the values of variables into a text in which quotes are nothing special, and escapes only before `$` and themselves.
pub fn expand_text(
    text: &str,
    escape: char,
    value: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    expand_all(text, escape, value, true)
}

fn expand_all(
    text: &str,
    escape: char,
    value: &dyn Fn(&str) -> Option<String>,
    is_text: bool,
) -> Result<String, String> {
    let mut expansion = Expansion { rest: text.chars().peekable(), escape, value, depth: 0, is_text };
    let mut expanded = String::new();
    expansion.until(None, false, &mut expanded)?;
    Ok(expanded)
}

struct Expansion<'a> {
    rest: Peekable<Chars<'a>>,
    escape: char,
    value: &'a dyn Fn(&str) -> Option<String>,
    depth: usize,
    /// Whether quotes mean nothing, but in braces.
    is_text: bool,
}

impl Expansion<'_> {
    /// Expands up to a character that is passed over, or to the end. In a pattern, escapes stay where they are.
    fn until(&mut self, end: Option<char>, is_pattern: bool, out: &mut String) -> Problem<()> {
        while let Some(c) = self.rest.next() {
            if Some(c) == end {
                return Ok(());
            }
            match c {
                '\'' | '"' if self.is_text && self.depth == 0 => out.push(c),
                '\'' => loop {
                    match self.rest.next() {
                        Some('\'') => break,
                        Some(c) => out.push(c),
                        None => return Err(unended("'")),
                    }
                },
                '"' => self.quoted(is_pattern, out)?,
                '$' => self.dollar(out)?,
                c if c == self.escape => {
                    let is_plain = self.is_text
                        && self.depth == 0
                        && self.rest.peek().is_some_and(|next| *next != '$' && *next != c);
                    if is_pattern || is_plain {
                        out.push(if is_pattern { '\\' } else { c });
                    }
                    // At the end of the word it stands for itself.
                    out.push(self.rest.next().unwrap_or(c));
                }
                c => out.push(c),
            }
            if out.len() > MAX_VALUE {
                return Err(format!("with its variables, it has more than {MAX_VALUE} bytes; shorten them"));
            }
        }
        match end {
            Some('}') => Err("a `${` is not ended; end it with `}`".to_owned()),
            Some(end) => Err(format!("a `{end}` is missing in `${{…}}`")),
            None => Ok(()),
        }
    }

    fn quoted(&mut self, is_pattern: bool, out: &mut String) -> Problem<()> {
        loop {
            match self.rest.next() {
                None => return Err(unended("\"")),
                Some('"') => return Ok(()),
                Some('$') => self.dollar(out)?,
                Some(c) if c == self.escape => {
                    let next = self.rest.next().ok_or_else(|| unended("\""))?;
                    let is_special = next == '"' || next == '$' || next == self.escape;
                    if is_pattern {
                        out.push('\\');
                    } else if !is_special {
                        out.push(c);
                    }
                    out.push(next);
                }
                Some(c) => out.push(c),
            }
        }
    }

    /// What comes after a `$`.
    fn dollar(&mut self, out: &mut String) -> Problem<()> {
        if self.rest.peek() != Some(&'{') {
            let name = self.name();
            if name.is_empty() {
                out.push('$');
            } else {
                out.push_str(&(self.value)(&name).unwrap_or_default());
            }
            return Ok(());
        }
        self.rest.next();
        if self.depth == MAX_DEPTH {
            return Err(format!("`${{…}}` is nested more than {MAX_DEPTH} deep; use fewer"));
        }
        self.depth += 1;
        let done = self.braces(out);
        self.depth -= 1;
        done
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.rest.peek() {
            Some(c) if c.is_ascii_digit() => {
                while let Some(c) = self.rest.next_if(char::is_ascii_digit) {
                    name.push(c);
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => name.extend(self.rest.next()),
            _ => {
                while let Some(c) = self.rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    name.push(c);
                }
            }
        }
        name
    }

    /// What comes after `${`, with its `}`.
    fn braces(&mut self, out: &mut String) -> Problem<()> {
        let name = self.name();
        if name.is_empty() {
            return Err("there is no name after `${`; write one, or `\\$` for the sign itself".to_owned());
        }
        let found = (self.value)(&name);
        let colon = self.rest.next_if_eq(&':').is_some();
        let is_there = found.as_ref().is_some_and(|value| !colon || !value.is_empty());
        let operator = self.rest.next();
        match operator {
            Some('}') if !colon => out.push_str(&found.unwrap_or_default()),
            Some('-') => {
                let word = self.word('}', false)?;
                out.push_str(&if is_there { found.unwrap_or_default() } else { word });
            }
            Some('+') => {
                let word = self.word('}', false)?;
                if is_there {
                    out.push_str(&word);
                }
            }
            Some('?') => {
                let word = self.word('}', false)?;
                if !is_there {
                    let state = if colon { "not set or empty" } else { "not set" };
                    let word = if word.is_empty() { "give it a value".to_owned() } else { word };
                    return Err(format!("`{name}` is {state}: {word}"));
                }
                out.push_str(&found.unwrap_or_default());
            }
            Some(side @ ('#' | '%')) if !colon => {
                let is_longest = self.rest.next_if_eq(&side).is_some();
                let pattern = self.word('}', true)?;
                out.push_str(&without(&found.unwrap_or_default(), &pattern, side == '#', is_longest)?);
            }
            Some('/') if !colon => {
                let is_each = self.rest.next_if_eq(&'/').is_some();
                let pattern = self.word('/', true)?;
                let word = self.word('}', false)?;
                out.push_str(&replaced(&found.unwrap_or_default(), &pattern, &word, is_each)?);
            }
            None => return Err("a `${` is not ended; end it with `}`".to_owned()),
            Some(c) => {
                let c = if colon { format!(":{c}") } else { c.to_string() };
                return Err(format!(
                    "`{c}` after the name in `${{{name}…}}` is not known; known are `:-`, `-`, `:+`, `+`, `:?`, `?`, `#`, \
                     `##`, `%`, `%%`, `/` and `//`"
                ));
            }
        }
        Ok(())
    }

    fn word(&mut self, end: char, is_pattern: bool) -> Problem<String> {
        let mut word = String::new();
        self.until(Some(end), is_pattern, &mut word)?;
        Ok(word)
    }
}

fn unended(quote: &str) -> String {
    format!("a `{quote}` is not ended; end it, or write a backslash before it")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Glob {
    Char(char),
    Any,
    Star,
}

/// A pattern as a list, its end first if that is where it is looked for.
fn globs(pattern: &str, is_reversed: bool) -> Problem<Vec<Glob>> {
    let mut globs = Vec::new();
    let mut characters = pattern.chars();
    while let Some(c) = characters.next() {
        match c {
            '*' if globs.last() == Some(&Glob::Star) => {}
            '*' => globs.push(Glob::Star),
            '?' => globs.push(Glob::Any),
            '\\' => globs.push(Glob::Char(characters.next().unwrap_or('\\'))),
            c => globs.push(Glob::Char(c)),
        }
    }
    if globs.len() > MAX_PATTERN {
        return Err(format!("the pattern in a `${{…}}` has more than {MAX_PATTERN} characters; shorten it"));
    }
    if is_reversed {
        globs.reverse();
    }
    Ok(globs)
}

fn characters(value: &str) -> Problem<Vec<char>> {
    let characters: Vec<char> = value.chars().collect();
    if characters.len() > MAX_MATCHED {
        return Err(format!(
            "a value of more than {MAX_MATCHED} characters is not matched with a pattern; shorten it"
        ));
    }
    Ok(characters)
}

/// How many characters of a beginning fit the pattern: at least, and at most.
fn fitting<'a>(globs: &[Glob], text: impl Iterator<Item = &'a char>) -> Option<(usize, usize)> {
    let skip = |states: &mut [bool]| {
        for (at, glob) in globs.iter().enumerate() {
            if states[at] && *glob == Glob::Star {
                states[at + 1] = true;
            }
        }
    };
    let mut now = vec![false; globs.len() + 1];
    now[0] = true;
    skip(&mut now);
    let mut found = now[globs.len()].then_some((0, 0));
    for (taken, c) in (1..).zip(text) {
        let mut next = vec![false; globs.len() + 1];
        for (at, glob) in globs.iter().enumerate().filter(|(at, _)| now[*at]) {
            match glob {
                Glob::Char(it) => next[at + 1] |= it == c,
                Glob::Any => next[at + 1] = true,
                Glob::Star => next[at] = true,
            }
        }
        skip(&mut next);
        if !next.contains(&true) {
            break;
        }
        if next[globs.len()] {
            found = Some((found.map_or(taken, |(least, _)| least), taken));
        }
        now = next;
    }
    found
}

fn without(value: &str, pattern: &str, is_beginning: bool, is_longest: bool) -> Problem<String> {
    let (text, globs) = (characters(value)?, globs(pattern, !is_beginning)?);
    let found = if is_beginning { fitting(&globs, text.iter()) } else { fitting(&globs, text.iter().rev()) };
    let taken = found.map_or(0, |(least, most)| if is_longest { most } else { least });
    let left = if is_beginning { &text[taken..] } else { &text[..text.len() - taken] };
    Ok(left.iter().collect())
}

fn replaced(value: &str, pattern: &str, word: &str, is_each: bool) -> Problem<String> {
    let (text, globs) = (characters(value)?, globs(pattern, false)?);
    let (mut out, mut at, mut is_done) = (String::new(), 0, globs.is_empty());
    while at < text.len() {
        let found = fitting(&globs, text[at..].iter()).filter(|(_, most)| !is_done && *most > 0);
        if let Some((_, most)) = found {
            out.push_str(word);
            at += most;
            is_done = !is_each;
        } else {
            out.push(text[at]);
            at += 1;
        }
        if out.len() > MAX_VALUE {
            return Err(format!("with its variables, it has more than {MAX_VALUE} bytes; shorten them"));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str) -> Option<String> {
        let value = match name {
            "x" => "value",
            "e" => "",
            "p" => "/usr/local/lib.tar.gz",
            "v" => "1.2.3",
            "n" => "a b",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn every_form() {
        for (word, want) in [
            ("", ""),
            ("plain", "plain"),
            ("$x", "value"),
            ("${x}", "value"),
            ("$xy-$x", "-value"),
            ("a$x.b", "avalue.b"),
            ("$u", ""),
            ("$", "$"),
            ("$.", "$."),
            ("$1a", "a"),
            ("$$x", "x"),
            ("\\$x", "$x"),
            ("\\\\$x", "\\value"),
            ("'$x'", "$x"),
            ("\"$x y\"", "value y"),
            ("\"\\$x\\\"\\\\\\n\"", "$x\"\\\\n"),
            ("'a'\"b\"c", "abc"),
            ("a\\ b", "a b"),
            ("end\\", "end\\"),
            ("${x:-d}", "value"),
            ("${e:-d}", "d"),
            ("${e-d}", ""),
            ("${u-d}", "d"),
            ("${u:-${x}s}", "values"),
            ("${u:-'a}b'}", "a}b"),
            ("${x:+d}", "d"),
            ("${e:+d}", ""),
            ("${e+d}", "d"),
            ("${u+d}", ""),
            ("${x:?why}", "value"),
            ("${e?why}", ""),
            ("${p#*/}", "usr/local/lib.tar.gz"),
            ("${p##*/}", "lib.tar.gz"),
            ("${p%.*}", "/usr/local/lib.tar"),
            ("${p%%.*}", "/usr/local/lib"),
            ("${p#x}", "/usr/local/lib.tar.gz"),
            ("${p%?z}", "/usr/local/lib.tar."),
            ("${v%.$u*}", "1.2"),
            ("${v/./-}", "1-2.3"),
            ("${v//./-}", "1-2-3"),
            ("${v//./}", "123"),
            ("${v/\\*/-}", "1.2.3"),
            ("${v//?/$x}", "valuevaluevaluevaluevalue"),
            ("${v/1*/y}", "y"),
            ("${v//\\//-}", "1.2.3"),
            ("${p//\\//-}", "-usr-local-lib.tar.gz"),
            ("${v//x*/y}", "1.2.3"),
            ("${u#x}", ""),
            ("grün ${x}ß", "grün valueß"),
        ] {
            assert_eq!(expand(word, '\\', &value).as_deref(), Ok(want), "{word}");
        }
        assert_eq!(expand("a`$x \\$x", '`', &value).as_deref(), Ok("a$x \\value"));
    }

    #[test]
    fn texts_keep_their_quotes() {
        let text = "it's \"$x\" \\$x \\n \\\\ ${u:-'a b'}\n";
        assert_eq!(expand_text(text, '\\', &value).as_deref(), Ok("it's \"value\" $x \\n \\ a b\n"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (word, want) in [
            ("'a", "a `'` is not ended"),
            ("\"a", "a `\"` is not ended"),
            ("\"a\\", "a `\"` is not ended"),
            ("${x", "a `${` is not ended"),
            ("${x:", "a `${` is not ended"),
            ("${", "there is no name"),
            ("${}", "there is no name"),
            ("${x:-a", "a `${` is not ended"),
            ("${x/a}", "a `/` is missing"),
            ("${x:#a}", "`:#` after the name in `${x…}` is not known"),
            ("${x:}", "`:}` after the name"),
            ("${x^}", "`^` after the name"),
            ("${u:?why}", "`u` is not set or empty: why"),
            ("${u?}", "`u` is not set: give it a value"),
            ("${e:?}", "`e` is not set or empty"),
        ] {
            let error = expand(word, '\\', &value).unwrap_err();
            assert!(error.starts_with(want), "{word}: {error}");
        }
    }

    #[test]
    fn limits() {
        let deep = format!("{}x{}", "${u:-".repeat(MAX_DEPTH + 1), "}".repeat(MAX_DEPTH + 1));
        assert!(expand(&deep, '\\', &value).unwrap_err().contains("deep"));
        let long = |_: &str| Some("x".repeat(MAX_MATCHED + 1));
        assert!(expand("${l#x}", '\\', &long).unwrap_err().contains("characters"));
        assert!(expand(&"$l".repeat(MAX_VALUE / MAX_MATCHED), '\\', &long).unwrap_err().contains("bytes"));
        assert!(expand(&format!("${{x#{}}}", "?".repeat(MAX_PATTERN + 1)), '\\', &value).is_err());
    }
}
