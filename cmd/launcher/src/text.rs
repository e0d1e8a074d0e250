//! Byte strings in messages.

use alloc::borrow::Cow;
use alloc::string::String;
use core::fmt::Write;

/// Bytes as text; what is not UTF-8 becomes U+FFFD.
pub(crate) fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Bytes between double quotes, with escapes for what cannot be seen or is not UTF-8.
pub(crate) fn quote(bytes: &[u8]) -> String {
    let mut quoted = String::from('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                '\x07' => quoted.push_str("\\a"),
                '\x08' => quoted.push_str("\\b"),
                '\x0c' => quoted.push_str("\\f"),
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                '\t' => quoted.push_str("\\t"),
                '\x0b' => quoted.push_str("\\v"),
                _ if c.is_ascii_control() => {
                    push_formatted(&mut quoted, format_args!("\\x{:02x}", u32::from(c)));
                }
                _ if c.is_control() => push_formatted(&mut quoted, format_args!("\\u{:04x}", u32::from(c))),
                _ => quoted.push(c),
            }
        }
        for byte in chunk.invalid() {
            push_formatted(&mut quoted, format_args!("\\x{byte:02x}"));
        }
    }
    quoted.push('"');
    quoted
}

fn push_formatted(text: &mut String, arguments: core::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes() {
        for (bytes, quoted) in [
            (&b"plain 'name'"[..], r#""plain 'name'""#),
            (b"a\"b\\c", r#""a\"b\\c""#),
            (b"\n\t\x1b\x7f", r#""\n\t\x1b\x7f""#),
            ("ä\u{85}".as_bytes(), "\"ä\\u0085\""),
            (b"\xffx\xc3", r#""\xffx\xc3""#),
            (b"", r#""""#),
        ] {
            assert_eq!(quote(bytes), quoted);
        }
    }
}
