//! Records of pax extended headers: `<length> <key>=<value>\n`, where the length is the whole record's, its digits included.

use crate::entry::Time;

/// Keys of extended attributes begin with this; the attribute's name follows.
pub(crate) const XATTR: &[u8] = b"SCHILY.xattr.";

/// Appends a record.
pub(crate) fn push_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + " =\n".len();
    let mut length = rest + 1;
    while rest + decimal_digits(length) != length {
        length = rest + decimal_digits(length);
    }
    records.extend_from_slice(length.to_string().as_bytes());
    for part in [b" ", key, b"=", value, b"\n"] {
        records.extend_from_slice(part);
    }
}

/// Takes the first record off `records`: its key and its value. None if it is malformed.
pub(crate) fn take_record<'r>(records: &mut &'r [u8]) -> Option<(&'r [u8], &'r [u8])> {
    let space = records.iter().position(|&byte| byte == b' ')?;
    let length = decimal(&records[..space])?.try_into().ok()?;
    let (record, rest) = records.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    *records = rest;
    Some((&record[..equals], &record[equals + 1..]))
}

/// A number in decimal digits.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

/// Seconds, with as many digits after the point as need be.
pub(crate) fn time_to_text(Time { seconds, nanoseconds }: Time) -> String {
    match (seconds, nanoseconds) {
        (_, 0) => seconds.to_string(),
        (0.., _) => trim(format!("{seconds}.{nanoseconds:09}")),
        // Nanoseconds count from the second before.
        _ => trim(format!("-{}.{:09}", seconds.unsigned_abs() - 1, 1_000_000_000 - nanoseconds)),
    }
}

fn trim(mut text: String) -> String {
    text.truncate(text.trim_end_matches('0').len());
    text
}

/// The reverse; digits after the ninth are cut off.
pub(crate) fn time_from_text(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |&byte| byte == b'.');
    let whole = i64::try_from(decimal(parts.next()?)?).ok()?;
    let mut digits = parts.next().unwrap_or_default().to_vec();
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    digits.resize(9, b'0');
    let nanoseconds = u32::try_from(decimal(&digits)?).ok()?;
    Some(match (negative, nanoseconds) {
        (false, _) => Time { seconds: whole, nanoseconds },
        (true, 0) => Time { seconds: -whole, nanoseconds },
        (true, _) => Time { seconds: -whole - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

fn decimal_digits(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_their_own_length() {
        for length in 1..2000 {
            let (value, mut records) = (vec![b'='; length], Vec::new());
            push_record(&mut records, b"k", &value);
            assert!(records.starts_with(format!("{} k=", records.len()).as_bytes()), "{length}");
            let mut rest = &records[..];
            assert_eq!(take_record(&mut rest), Some((&b"k"[..], &value[..])), "{length}");
            assert!(rest.is_empty(), "{length}");
        }
    }

    #[test]
    fn malformed_records_are_none() {
        for record in ["", "6", "5 ab\n", "0 a=b\n", "6 a=b", "99 a=b\n", "x a=b\n", "-6 a=b\n", "3 a=b\n"] {
            assert_eq!(take_record(&mut record.as_bytes()), None, "{record}");
        }
    }

    #[test]
    fn times_are_decimal_fractions() {
        for (seconds, nanoseconds, text) in [
            (0, 0, "0"),
            (315_532_801, 0, "315532801"),
            (1, 500_000_000, "1.5"),
            (0, 1, "0.000000001"),
            (-1, 0, "-1"),
            (-1, 500_000_000, "-0.5"),
            (-2, 999_999_999, "-1.000000001"),
            (i64::MAX, 0, "9223372036854775807"),
        ] {
            let time = Time { seconds, nanoseconds };
            assert_eq!(time_to_text(time), text);
            assert_eq!(time_from_text(text.as_bytes()), Some(time), "{text}");
        }
        assert_eq!(time_from_text(b"1.1234567899"), Some(Time { seconds: 1, nanoseconds: 123_456_789 }));
        for text in ["", "-", ".5", "1.x", "1e5", "+1", "1.-5", "99999999999999999999"] {
            assert_eq!(time_from_text(text.as_bytes()), None, "{text}");
        }
    }
}
