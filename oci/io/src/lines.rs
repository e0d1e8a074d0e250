//! The lines of a file that others write, and may still be writing.

use std::io::{self, BufRead, ErrorKind};

/// Reads lines, each within a limit.
#[derive(Debug)]
pub struct Lines<R> {
    reader: R,
    limit: usize,
    line: Vec<u8>,
    state: State,
    skipped: u64,
}

/// What is in the buffer.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// A line that was handed out.
    Whole,
    /// The beginning of one.
    Begun,
    /// Nothing: the line is too long.
    TooLong,
}

impl<R: BufRead> Lines<R> {
    /// The lines of at most `limit` bytes. Longer ones are passed over.
    pub fn new(reader: R, limit: usize) -> Self {
        Self { reader, limit, line: Vec::new(), state: State::Whole, skipped: 0 }
    }

    /// How many lines were passed over.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// What it reads from.
    pub fn reader(&self) -> &R {
        &self.reader
    }

    /// The next line, without its line feed; none if the reader has no whole one. Asked again, it may have: what has no line
    /// feed is kept until there is one.
    pub fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            let available = match self.reader.fill_buf() {
                Ok([]) => return Ok(None),
                Ok(available) => available,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if self.state == State::Whole {
                self.line.clear();
                self.state = State::Begun;
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let part = &available[..end.unwrap_or(available.len())];
            if self.line.len() + part.len() > self.limit {
                self.line.clear();
                self.state = State::TooLong;
            }
            if self.state == State::Begun {
                self.line.extend_from_slice(part);
            }
            let taken = part.len() + usize::from(end.is_some());
            self.reader.consume(taken);
            if end.is_some() {
                if std::mem::replace(&mut self.state, State::Whole) == State::Begun {
                    return Ok(Some(&self.line));
                }
                self.skipped += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::io::{BufReader, Write as _};

    use super::*;

    fn all(lines: &mut Lines<impl BufRead>) -> Vec<String> {
        let mut found = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            found.push(String::from_utf8(line.to_vec()).unwrap());
        }
        found
    }

    #[test]
    fn whole_lines_within_the_limit() {
        let text = "one\n\nfour5\nsix789\ntwo\nhalf";
        for capacity in 1..text.len() {
            let mut lines = Lines::new(BufReader::with_capacity(capacity, text.as_bytes()), 5);
            assert_eq!(all(&mut lines), ["one", "", "four5", "two"], "{capacity}");
            assert_eq!(lines.skipped(), 1);
        }
    }

    #[test]
    fn a_file_that_grows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "a\nb").unwrap();
        let mut lines = Lines::new(BufReader::new(File::open(&path).unwrap()), 10);
        assert_eq!(all(&mut lines), ["a"]);
        let mut writer = OpenOptions::new().append(true).open(&path).unwrap();
        for (more, want) in [("c", &[][..]), ("\nd\n", &["bc", "d"]), ("", &[])] {
            writer.write_all(more.as_bytes()).unwrap();
            assert_eq!(all(&mut lines), want);
        }
    }
}
