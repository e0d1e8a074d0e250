//! Answers on standard output.

use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal as _, StdoutLock, Write as _};

use anyhow::Result;
use serde::Serialize;

/// What was to be said could not be written to standard output.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the answer")]
pub(crate) struct Unwritten(#[from] pub(crate) io::Error);

/// Standard output.
pub(crate) struct Output {
    writer: BufWriter<StdoutLock<'static>>,
    colour: bool,
}

/// How a text looks on a terminal.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Style {
    Heading,
    Good,
    Bad,
    Note,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Heading => "\x1b[1m",
            Self::Good => "\x1b[32m",
            Self::Bad => "\x1b[31m",
            Self::Note => "\x1b[33m",
        }
    }
}

impl Output {
    /// With colour on a terminal, unless it is refused.
    pub(crate) fn new(no_color: bool) -> Self {
        let stdout = io::stdout();
        let colour = stdout.is_terminal() && !no_color;
        Self { writer: BufWriter::with_capacity(64 << 10, stdout.lock()), colour }
    }

    /// A line. What would move the cursor or ring a bell is shown as an escape: it comes from images.
    pub(crate) fn line(&mut self, text: &str) -> Result<()> {
        Ok(writeln!(self.writer, "{}", printable(text)).map_err(Unwritten)?)
    }

    /// A line whose beginning has a style.
    pub(crate) fn styled(&mut self, style: Style, beginning: &str, rest: &str) -> Result<()> {
        let (on, off) = if self.colour { (style.code(), "\x1b[0m") } else { ("", "") };
        let written = writeln!(self.writer, "{on}{}{off}{}", printable(beginning), printable(rest));
        Ok(written.map_err(Unwritten)?)
    }

    /// Whether there may be colour.
    pub(crate) fn has_colour(&self) -> bool {
        self.colour
    }

    /// What was said until now is out.
    pub(crate) fn flush(&mut self) -> Result<()> {
        Ok(self.writer.flush().map_err(Unwritten)?)
    }

    /// Bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.writer.write_all(bytes).map_err(Unwritten)?)
    }

    /// A value as JSON, for people to read too.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<()> {
        serde_json::to_writer_pretty(&mut self.writer, value).map_err(|error| Unwritten(error.into()))?;
        self.bytes(b"\n")
    }

    /// Rows under headings, in columns. Those of which the number is in `right` end below each other.
    pub(crate) fn table(&mut self, headings: &[&str], right: &[usize], rows: &[Vec<String>]) -> Result<()> {
        let width = |text: &str| printable(text).chars().count();
        let mut widths: Vec<usize> = headings.iter().map(|heading| width(heading)).collect();
        for row in rows {
            for (most, cell) in widths.iter_mut().zip(row) {
                *most = width(cell).max(*most);
            }
        }
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = String::new();
            for (column, (cell, most)) in cells.zip(&widths).enumerate() {
                let room = most - width(cell);
                let (before, after) = if right.contains(&column) { (room, 0) } else { (0, room) };
                write!(line, "{:before$}{cell}{:after$}  ", "", "")
                    .expect("a String takes whatever it is given");
            }
            line.trim_end().to_owned()
        };
        let text = line(&mut headings.iter().copied());
        self.styled(Style::Heading, &text, "")?;
        for row in rows {
            let text = line(&mut row.iter().map(String::as_str));
            self.line(&text)?;
        }
        Ok(())
    }

    /// A heading and lines below it, unless there are none.
    pub(crate) fn section(&mut self, heading: &str, lines: &[String]) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        self.styled(Style::Heading, heading, "")?;
        lines.iter().try_for_each(|line| self.line(&format!("  {line}")))
    }

    /// All that was said is out.
    pub(crate) fn finish(mut self) -> Result<()> {
        Ok(self.writer.flush().map_err(Unwritten)?)
    }
}

/// Without control characters.
pub(crate) fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        // These turn the direction of what follows, and can make one name look like another.
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        out
    })
}

/// Bytes for people: `1.50 MB`.
pub(crate) fn bytes(n: u64) -> String {
    if n < 1000 { format!("{n} B") } else { indicatif::DecimalBytes(n).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_an_image_moves_the_cursor() {
        for (text, want) in [
            ("plain naïve 日本", "plain naïve 日本"),
            ("\x1b[2Jgone\r\n", "\\u{1b}[2Jgone\\r\\n"),
            ("a\u{202e}gpj.exe", "a\\u{202e}gpj.exe"),
        ] {
            assert_eq!(printable(text), want);
        }
    }

    #[test]
    fn bytes_are_readable() {
        for (n, want) in [(0, "0 B"), (999, "999 B"), (1500, "1.50 kB"), (1_234_567_890, "1.23 GB")] {
            assert_eq!(bytes(n), want);
        }
    }
}
