//! How a line of the launcher's own output looks.

use alloc::format;
use alloc::string::String;

/// How much a line matters. The launcher says nothing when all goes well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Something that has no effect.
    Warning,
    /// Why the launcher ends.
    Error,
}

/// The line with its level and a newline.
pub(crate) fn format_line(level: Level, message: &str, coloured: bool) -> String {
    let (label, start) = match level {
        Level::Warning => ("Warning: ", "\x1b[33;1m"),
        Level::Error => ("ERROR: ", "\x1b[31;1m"),
    };
    let (start, end) = if coloured { (start, "\x1b[0m") } else { ("", "") };
    format!("{start}{label}{end}{message}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        for (level, coloured, line) in [
            (Level::Error, false, "ERROR: no\n"),
            (Level::Warning, false, "Warning: no\n"),
            (Level::Error, true, "\x1b[31;1mERROR: \x1b[0mno\n"),
            (Level::Warning, true, "\x1b[33;1mWarning: \x1b[0mno\n"),
        ] {
            assert_eq!(format_line(level, "no", coloured), line);
        }
    }
}
