//! The log of a build: what the phases print, as lines of JSON.
//!
//! One line each:
//!
//! | key | what |
//! |---|---|
//! | `time` | when the line was complete: RFC 3339, UTC, milliseconds |
//! | `phase` | whose line it is: `analyzer`, `detector`, `restorer`, `builder`, `exporter`; `creator` where it is none of theirs; `dockerfile` of an image that a Dockerfile builds |
//! | `buildpack` | the ID of the buildpack or extension that printed it; left out for what the phase itself says |
//! | `stream` | where the phase printed it: `stdout` or `stderr`. What programs of buildpacks print on either goes to `stdout` |
//! | `text` | the line without its line feed, and without colour that is the phase's own. What was not UTF-8 is U+FFFD. A line of more than [`MAX_TEXT`] bytes comes in several pieces |
//! | `exit` | only in the last line of a phase's process, whose text is empty: its exit code |
//!
//! Phases append: a file has the lines of all that were given it, in the order in which they were printed. Keys do not
//! change their meaning, and new ones may come. What is not such a line is passed over by whoever reads.
//!
//! Beside an image the lines are the one layer of an artifact, both of type `application/vnd.drydock.build-log.v1+jsonl`; its
//! `subject` is the image. There a log has at most [`MAX_LOG`] bytes; what comes after these is left out, and the last line says so.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::time::rfc3339;

/// Bytes in the text of one line.
pub const MAX_TEXT: usize = 64 << 10;

/// Bytes in a line: text may take six times as many when it is escaped.
pub const MAX_LINE: usize = 6 * MAX_TEXT + (4 << 10);

/// The log's file in the layers directory, by which phases that run one by one hand it on to the exporter.
pub const IN_LAYERS: &str = "build-log.jsonl";

/// Bytes in a log that is kept beside an image. Logs of real builds have some hundred kB.
pub const MAX_LOG: u64 = 32 << 20;

/// What stands for a phase in the log of an image that a Dockerfile builds.
pub const DOCKERFILE: &str = "dockerfile";

/// Where a phase printed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Information, and what buildpacks print.
    Stdout,
    /// Warnings and errors.
    Stderr,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When it was complete.
    pub time: String,
    /// Whose it is.
    pub phase: String,
    /// Who printed it, if not the phase itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub buildpack: String,
    /// Where.
    pub stream: Stream,
    /// What.
    pub text: String,
    /// How the process ended that this is the last line of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<u8>,
}

impl Line {
    /// A line of a file; none if it is no such line.
    pub fn parse(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// Whether the build is over with it: a phase has failed, or the one that makes the image has ended.
    pub fn ends_build(&self) -> bool {
        match self.exit {
            Some(0) => matches!(self.phase.as_str(), "exporter" | "creator" | DOCKERFILE),
            Some(_) => true,
            None => false,
        }
    }
}

/// JSON, without a line feed.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

/// A time as lines have it.
pub fn time(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).ok().and_then(rfc3339).unwrap_or_default();
    format!("{}.{:03}Z", seconds.trim_end_matches('Z'), since.subsec_millis())
}

/// Makes lines of text of bytes as they come.
#[derive(Debug, Default)]
pub struct Pieces {
    /// The beginning of a line.
    begun: Vec<u8>,
}

impl Pieces {
    /// Takes more bytes, and gives the lines that are complete with them.
    pub fn push(&mut self, mut bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let room = MAX_TEXT - self.begun.len();
            let taken = end.unwrap_or(bytes.len()).min(room);
            self.begun.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if end == Some(taken) {
                bytes = &bytes[1..];
                lines.extend([self.take(self.begun.len())]);
            } else if self.begun.len() == MAX_TEXT {
                lines.extend([self.take(whole_characters(&self.begun))]);
            }
        }
        lines
    }

    /// The rest, which has no line feed.
    pub fn rest(&mut self) -> Option<String> {
        (!self.begun.is_empty()).then(|| self.take(self.begun.len()))
    }

    fn take(&mut self, length: usize) -> String {
        let taken: Vec<u8> = self.begun.drain(..length).collect();
        String::from_utf8_lossy(&taken).into_owned()
    }
}

/// So many bytes at the beginning end with a whole character, or with what is none.
fn whole_characters(bytes: &[u8]) -> usize {
    let last = bytes.iter().rposition(|byte| byte & 0xc0 != 0x80).unwrap_or_default();
    match std::str::from_utf8(&bytes[last..]) {
        // The last one lacks something that may come.
        Err(error) if error.error_len().is_none() && last > 0 => last,
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn line(exit: Option<u8>, phase: &str) -> Line {
        let (time, text) = ("t".to_owned(), "a\u{1b}[1m\"\n\u{fffd}".to_owned());
        Line { time, phase: phase.into(), buildpack: String::new(), stream: Stream::Stdout, text, exit }
    }

    #[test]
    fn lines_are_json_without_what_is_not_there() {
        let plain = line(None, "builder");
        let want = r#"{"time":"t","phase":"builder","stream":"stdout","text":"a\u001b[1m\"\n�"}"#;
        assert_eq!(plain.to_string(), want);
        let full =
            Line { buildpack: "acme/a".into(), stream: Stream::Stderr, exit: Some(51), ..plain.clone() };
        for line in [plain, full] {
            assert_eq!(Line::parse(line.to_string().as_bytes()), Some(line));
        }
        let newer = br#"{"time":"","phase":"","stream":"stderr","text":"","later":[1]}"#;
        assert!(Line::parse(newer).is_some());
        for other in [&b""[..], b"text", b"{}", b"[]", b"{\"time\":1}", b"\xff"] {
            assert_eq!(Line::parse(other), None);
        }
    }

    #[test]
    fn the_last_phase_or_a_failure_ends_a_build() {
        for (phase, exit, want) in [
            ("builder", None, false),
            ("builder", Some(0), false),
            ("builder", Some(51), true),
            ("exporter", Some(0), true),
            ("exporter", None, false),
            ("creator", Some(0), true),
            (DOCKERFILE, Some(0), true),
            (DOCKERFILE, Some(4), true),
            (DOCKERFILE, None, false),
        ] {
            assert_eq!(line(exit, phase).ends_build(), want, "{phase} {exit:?}");
        }
    }

    #[test]
    fn times_have_milliseconds() {
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_045);
        assert_eq!(time(at), "2023-11-14T22:13:20.045Z");
        assert_eq!(time(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn bytes_become_lines_however_they_come() {
        let text = "one\n\ntwo\r\nthrée\nlast".as_bytes();
        for size in 1..=text.len() {
            let mut pieces = Pieces::default();
            let mut lines: Vec<String> = text.chunks(size).flat_map(|bytes| pieces.push(bytes)).collect();
            lines.extend(pieces.rest());
            assert_eq!(lines, ["one", "", "two\r", "thrée", "last"], "{size}");
            assert_eq!(pieces.rest(), None);
        }
        assert_eq!(Pieces::default().push(b"a\xffb\xe9\n"), ["a\u{fffd}b\u{fffd}"]);
    }

    #[test]
    fn a_line_without_end_comes_in_pieces_of_whole_characters() {
        for unit in ["x", "é", "日", "😀", "x😀"] {
            let text = unit.repeat(3 * MAX_TEXT / unit.len());
            let mut pieces = Pieces::default();
            let mut lines = Vec::new();
            for bytes in text.as_bytes().chunks(1000) {
                lines.extend(pieces.push(bytes));
                assert!(pieces.begun.len() < MAX_TEXT);
            }
            assert!(lines.iter().all(|line| line.len() <= MAX_TEXT), "{unit}");
            lines.extend(pieces.rest());
            assert!(lines.concat() == text, "{unit}");
        }
        let mut pieces = Pieces::default();
        assert_eq!(pieces.push(&vec![0x80; MAX_TEXT])[0].chars().count(), MAX_TEXT);
        assert!(line(None, "").to_string().len() < MAX_LINE);
    }
}
