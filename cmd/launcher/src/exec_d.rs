//! What an `exec.d` program says: variables to set, as TOML, and how it ended.

use alloc::vec::Vec;
use core::fmt;

use crate::document::{Document, KeyAndString};
use crate::error::Error;
use crate::system::Exit;

/// Reads names and values, all of them strings.
pub(crate) fn parse_output(output: &[u8]) -> Result<Vec<KeyAndString>, Error> {
    Document::parse(output)?.root().all_strings()
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, core_dumped) = match *self {
            Self::Code(code) => return write!(f, "exit status {code}"),
            Self::Signal { number, core_dumped } => (number, core_dumped),
        };
        f.write_str("signal: ")?;
        match signal_name(number) {
            Some(name) => f.write_str(name)?,
            None => write!(f, "signal {number}")?,
        }
        f.write_str(if core_dumped { " (core dumped)" } else { "" })
    }
}

fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        10 => "user defined signal 1",
        11 => "segmentation fault",
        12 => "user defined signal 2",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn output() {
        let variables = parse_output(b"B = \"two\\nlines\"\n\"A B\" = 'x'\nC = ''\n").unwrap();
        let expected = [("A B", "x"), ("B", "two\nlines"), ("C", "")];
        assert_eq!(
            variables,
            expected.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
        );
        assert_eq!(parse_output(b""), Ok(Vec::new()));
        for (output, message) in [
            ("A = 1", "toml: line 1: \"A\" must be a string, but is of type integer"),
            ("A.B = 'x'", "toml: line 1: \"A\" must be a string, but is of type table"),
            ("A = 'x'\nA = 'y'", "toml: line 2: duplicate key"),
            ("A=x", "toml: line 1: string values must be quoted, expected literal string"),
        ] {
            assert_eq!(parse_output(output.as_bytes()).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn exits() {
        for (exit, text) in [
            (Exit::Code(3), "exit status 3"),
            (Exit::Signal { number: 9, core_dumped: false }, "signal: killed"),
            (Exit::Signal { number: 11, core_dumped: true }, "signal: segmentation fault (core dumped)"),
            (Exit::Signal { number: 34, core_dumped: false }, "signal: signal 34"),
        ] {
            assert_eq!(exit.to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn never_panics(output: Vec<u8>) {
            let _ = parse_output(&output);
        }
    }
}
