//! Values that come as text from a flag or a variable, and what they may be. What cannot be read is an error that names
//! the flag or variable and the value: it is never taken for zero or false.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use drydock_phases::{Error, Kind};

/// A text, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// `-uid` or `CNB_USER_ID`.
    pub name: String,
    /// Never empty: an empty value counts as unset.
    pub text: OsString,
}

/// A value that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} is `{value}`: it must be {expected}")]
pub struct ValueError {
    name: String,
    value: String,
    expected: &'static str,
}

impl From<ValueError> for Error {
    fn from(error: ValueError) -> Self {
        Self::new(Kind::Arguments, error).context("failed to resolve inputs")
    }
}

impl Value {
    /// The same text read by `parse`, or an error that tells what was expected.
    pub fn parse_with<T>(
        &self,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, ValueError> {
        self.text.to_str().and_then(parse).ok_or_else(|| ValueError {
            name: self.name.clone(),
            value: self.text.to_string_lossy().into_owned(),
            expected,
        })
    }

    /// Any text that is UTF-8.
    pub fn text(&self) -> Result<String, ValueError> {
        self.parse_with("UTF-8", |text| Some(text.to_owned()))
    }

    /// What Go's `strconv.ParseBool` takes for true and false.
    pub fn boolean(&self) -> Result<bool, ValueError> {
        self.parse_with("`true` or `false`", boolean)
    }

    /// A user's or group's number.
    pub fn id(&self) -> Result<u32, ValueError> {
        self.parse_with("a whole number from 0 to 4294967294", id)
    }

    /// A span of time in Go's notation.
    pub fn duration(&self) -> Result<Duration, ValueError> {
        self.parse_with("a duration like `336h` or `1h30m`", duration)
    }
}

/// A value, unless it is empty.
pub fn non_empty(name: impl Into<String>, text: &OsStr) -> Option<Value> {
    (!text.is_empty()).then(|| Value { name: name.into(), text: text.to_owned() })
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Decimal, or with `0x`, `0o` or `0b` before it. A leading zero is refused: Go takes such a flag for octal, and such a
/// variable for decimal. The greatest 32-bit number is no identity: to the kernel it means "leave as it is".
fn id(text: &str) -> Option<u32> {
    let (digits, radix) = match text.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => (&text[2..], 16),
        Some("0o") => (&text[2..], 8),
        Some("0b") => (&text[2..], 2),
        _ if text.len() > 1 && text.starts_with('0') => return None,
        _ => (text, 10),
    };
    // `from_str_radix` would take a sign.
    let number =
        digits.bytes().all(|b| b.is_ascii_alphanumeric()).then(|| u32::from_str_radix(digits, radix));
    number?.ok().filter(|&id| id != u32::MAX)
}

/// One or more decimal numbers, each with a unit, or `0`. A time to live is never negative.
fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("μs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut sum = Duration::ZERO;
    while {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let (number, after) = rest.split_at(rest.find(|c| !is_number(c))?);
        let (unit, after) = after.split_at(after.find(is_number).unwrap_or(after.len()));
        let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        sum = sum.checked_add(part)?;
        rest = after;
        !rest.is_empty()
    } {}
    Some(sum)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(text: &str) -> Value {
        Value { name: "CNB_X".into(), text: text.into() }
    }

    #[test]
    fn booleans() {
        for text in ["1", "t", "T", "true", "TRUE", "True"] {
            assert_eq!(value(text).boolean(), Ok(true), "{text}");
        }
        for text in ["0", "f", "F", "false", "FALSE", "False"] {
            assert_eq!(value(text).boolean(), Ok(false), "{text}");
        }
        for text in ["yes", "tRue", " true", "on", "2"] {
            let error = value(text).boolean().unwrap_err().to_string();
            assert_eq!(error, format!("CNB_X is `{text}`: it must be `true` or `false`"));
        }
    }

    #[test]
    fn ids() {
        for (text, want) in
            [("0", 0), ("1000", 1000), ("0x3E8", 1000), ("0X3e8", 1000), ("0o17", 15), ("0b101", 5)]
        {
            assert_eq!(value(text).id(), Ok(want), "{text}");
        }
        for text in ["abc", "-1", "+1", "1000 ", "0x", "0x-1", "010", "1.0", "4294967295", "99999999999", "µ"]
        {
            assert!(value(text).id().is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("336h", 336 * 3_600_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1500),
            ("+2ms", 2),
            ("0", 0),
            ("1000us", 1),
            ("1000µs", 1),
        ] {
            assert_eq!(value(text).duration(), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["1", "h", "1d", "1h3", "-1h", "1..2s", ".s", "1e3s", "999999999999999999999h"] {
            assert!(value(text).duration().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn numbers_read_back(id in 0..u32::MAX, seconds in 0..1_000_000_u64) {
            for text in [format!("{id}"), format!("{id:#x}"), format!("{id:#o}"), format!("{id:#b}")] {
                prop_assert_eq!(value(&text).id(), Ok(id));
            }
            let text = format!("{}h{}m{}s", seconds / 3600, seconds / 60 % 60, seconds % 60);
            prop_assert_eq!(value(&text).duration(), Ok(Duration::from_secs(seconds)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a-zµ.+-]{0,8}|\\PC{0,6}") {
            let value = value(&text);
            let _ = (value.boolean(), value.id(), value.duration());
        }
    }

    #[test]
    fn what_is_no_text_is_refused() {
        use std::os::unix::ffi::OsStrExt;
        let value = Value { name: "-uid".into(), text: OsStr::from_bytes(b"\xff").to_owned() };
        assert!(value.text().is_err());
        assert!(value.id().is_err());
    }
}
