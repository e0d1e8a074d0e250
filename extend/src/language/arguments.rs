//! What instructions have in common: flags, names with values, lists and times.

use super::error::Problem;
use super::words::{split, word_length};

/// Flags at the beginning of an instruction's arguments.
#[derive(Debug)]
pub(super) struct Flags<'a> {
    keyword: &'a str,
    given: Vec<(String, Option<String>)>,
}

impl<'a> Flags<'a> {
    /// Takes the flags, of which `known` are the names; gives the rest, too.
    pub(super) fn take(
        keyword: &'a str,
        arguments: &'a str,
        known: &[&str],
        escape: char,
    ) -> Problem<(Self, &'a str)> {
        let mut given = Vec::new();
        let mut rest = arguments.trim_start();
        while rest.starts_with("--") {
            let (word, after) = rest.split_at(word_length(rest, escape));
            rest = after.trim_start();
            if word == "--" {
                break;
            }
            let flag = word.trim_start_matches("--");
            let (name, value) =
                flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
            if !known.contains(&name) {
                return Err(unknown(keyword, name, known));
            }
            given.push((name.to_owned(), value.map(str::to_owned)));
        }
        Ok((Self { keyword, given }, rest))
    }

    /// The value of a flag that may be given once.
    pub(super) fn one(&self, name: &str) -> Problem<Option<String>> {
        let mut values = self.all(name)?;
        if values.len() > 1 {
            return Err(format!("--{name} is given {} times; give it once", values.len()));
        }
        Ok(values.pop())
    }

    /// All values of a flag.
    pub(super) fn all(&self, name: &str) -> Problem<Vec<String>> {
        let found = self.given.iter().filter(|(given, _)| given == name);
        let value = |(_, value): &(String, Option<String>)| {
            value
                .clone()
                .filter(|value| !value.is_empty())
                .ok_or_else(|| format!("--{name} of {} has no value; write `--{name}=…`", self.keyword))
        };
        found.map(value).collect()
    }

    /// Whether a switch is on; none if it is not given.
    pub(super) fn switch(&self, name: &str) -> Problem<Option<bool>> {
        let found = self.given.iter().rev().find(|(given, _)| given == name);
        found
            .map(|(_, value)| match value.as_deref() {
                None | Some("true") => Ok(true),
                Some("false") => Ok(false),
                Some(value) => Err(format!("--{name} is `{value}`; it is `true` or `false`")),
            })
            .transpose()
    }
}

fn unknown(keyword: &str, name: &str, known: &[&str]) -> String {
    if known.is_empty() {
        return format!("{keyword} has no flags, so `--{name}` is none; leave it out");
    }
    let known: Vec<String> = known.iter().map(|name| format!("--{name}")).collect();
    format!("{keyword} has no flag `--{name}`; it has {}", known.join(", "))
}

/// `name=value` as often as there are words, or the old form `name value`.
pub(super) fn names_and_values(
    keyword: &str,
    arguments: &str,
    escape: char,
) -> Problem<Vec<(String, String)>> {
    let words = split(arguments, escape);
    let Some(first) = words.first() else {
        return Err(format!("{keyword} requires at least one argument: `{keyword} name=value`"));
    };
    let pairs: Vec<(String, String)> = if first.contains('=') {
        let pair = |word: &&str| {
            let (name, value) = word.split_once('=').ok_or_else(|| {
                format!(
                    "`{word}` has no `=`; write `{keyword} name=value`, and quotes around what has spaces"
                )
            })?;
            Ok((name.to_owned(), value.to_owned()))
        };
        words.iter().map(pair).collect::<Problem<_>>()?
    } else {
        let rest = arguments.trim_start()[first.len()..].trim();
        if rest.is_empty() {
            return Err(format!("{keyword} must have two arguments: `{keyword} {first}=value`"));
        }
        vec![((*first).to_owned(), rest.to_owned())]
    };
    match pairs.iter().find(|(name, _)| name.trim_matches(['"', '\'']).is_empty()) {
        Some((_, value)) => Err(format!("there is no name before `={value}`; write one")),
        None => Ok(pairs),
    }
}

/// The longest time: as many nanoseconds as Go's type for times holds.
const MOST: f64 = 9.2e18;

/// A time like `1m30s`, in nanoseconds.
pub(super) fn duration(text: &str) -> Problem<u64> {
    let wrong = || format!("`{text}` is no time; write it like `30s` or `1m30s` (ns, us, ms, s, m, h)");
    let mut rest = text;
    let mut sum = 0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let length = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 6e10,
            "h" => 3.6e12,
            _ => return Err(wrong()),
        };
        sum += number.parse::<f64>().map_err(|_| wrong())? * length;
        rest = after;
    }
    if text.is_empty() || sum > MOST {
        return Err(wrong());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within the limits")]
    Ok(sum as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, want) in [
            ("30s", Some(30_000_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            ("10ms", Some(10_000_000)),
            ("0s", Some(0)),
            ("", None),
            ("30", None),
            ("s", None),
            ("-1s", None),
            ("1x", None),
            ("1.2.3s", None),
            ("99999999999h", None),
        ] {
            assert_eq!(duration(text).ok(), want, "{text}");
        }
    }
}
