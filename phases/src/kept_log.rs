//! The build's log on its way beside the image: what is not a line of one is left out, and what is too long is cut.

use std::fmt::Display;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write as _};
use std::time::SystemTime;

use anyhow::Context as _;
use drydock_io::dir::Place;
use drydock_io::file::TempFile;
use drydock_io::lines::Lines;
use drydock_layout::NewLog;
use drydock_model::digest::Digest;
use drydock_model::hash::Hasher;
use drydock_spec::build_log::{self, Line, MAX_LINE, MAX_LOG, Stream};

use crate::Log;

/// What was said until now, in a temporary file of this folder; none if it is not to be kept. It never costs the image: what
/// goes wrong is a warning.
pub(crate) fn take(log: &dyn Log, beside: &Place) -> Option<NewLog> {
    let lines = log.so_far()?;
    let taken = lines.context("read what was logged").and_then(|lines| copy(lines, beside, MAX_LOG));
    taken.map_err(|error| warn(log, &error)).ok()
}

/// Says that the image has no log.
pub(crate) fn warn(log: &dyn Log, error: &anyhow::Error) {
    log.warn(&format!("The build's log is not kept beside the image: {error:#}"));
}

fn copy(from: impl Read, beside: &Place, limit: u64) -> anyhow::Result<NewLog> {
    let failed = || format!("create a file in {}", beside.folder().display());
    let mut file = TempFile::create_beside(beside).with_context(failed)?;
    let (digest, size) = copy_to(file.file(), from, limit)?;
    Ok(NewLog { file, digest, size })
}

fn copy_to(file: &mut File, from: impl Read, limit: u64) -> anyhow::Result<(Digest, u64)> {
    // What is no line is read, too: where there is no end of it, the rest is left out.
    let mut lines = Lines::new(BufReader::new(from.take(2 * (limit + MAX_LINE as u64))), MAX_LINE);
    let mut others = 0_u64;
    let mut copied = Copied { to: BufWriter::new(file), hash: Hasher::new(), size: 0 };
    let mut is_cut = false;
    while let Some(line) = lines.next_line().context("read what was logged")? {
        let Some(line) = Line::parse(line) else {
            others += 1;
            continue;
        };
        let text = format!("{line}\n");
        if copied.size + text.len() as u64 > limit {
            is_cut = true;
            break;
        }
        copied.put(&text)?;
    }
    is_cut |= lines.reader().get_ref().limit() == 0;
    others += lines.skipped();
    if others > 0 {
        copied.note(format!("{others} lines are left out here, which are none of a build's log"))?;
    }
    if is_cut {
        copied.note(format!("The log has more than {limit} bytes: the rest is left out"))?;
    }
    let Copied { mut to, hash, size } = copied;
    to.flush().context("write the build's log")?;
    Ok((Digest::from_hash(hash), size))
}

struct Copied<'a> {
    to: BufWriter<&'a mut File>,
    hash: Hasher,
    size: u64,
}

impl Copied<'_> {
    fn put(&mut self, text: &str) -> anyhow::Result<()> {
        self.hash.update(text.as_bytes());
        self.size += text.len() as u64;
        self.to.write_all(text.as_bytes()).context("write the build's log")
    }

    fn note(&mut self, text: impl Display) -> anyhow::Result<()> {
        let line = Line {
            time: build_log::time(SystemTime::now()),
            phase: "exporter".to_owned(),
            buildpack: String::new(),
            stream: Stream::Stderr,
            text: text.to_string(),
            exit: None,
        };
        self.put(&format!("{line}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> String {
        format!("{{\"time\":\"t\",\"phase\":\"builder\",\"stream\":\"stdout\",\"text\":\"{text}\"}}\n")
    }

    /// The texts of what is kept, of which digest and size must be right.
    fn kept(from: &str, limit: u64) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let log = copy(from.as_bytes(), &Place::by_path(&dir.path().join("log")), limit).unwrap();
        let bytes = std::fs::read(log.file.path()).unwrap();
        assert_eq!((log.digest, log.size), (Digest::of(&bytes), bytes.len() as u64));
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| Line::parse(line).unwrap().text).collect()
    }

    #[test]
    fn lines_are_kept_and_what_is_none_is_counted() {
        assert_eq!(kept("", 1000), [""; 0]);
        assert_eq!(kept(&(line("a") + &line("b")), 1000), ["a", "b"]);
        let long = line(&"x".repeat(MAX_LINE));
        let from = format!("{}text\n{{}}\n{long}{}{}", line("a"), line("b"), line("half").trim_end());
        assert_eq!(
            kept(&from, 1000),
            ["a", "b", "3 lines are left out here, which are none of a build's log"]
        );
    }

    /// Ends before it has read far, whatever is there.
    #[test]
    fn what_never_ends_is_left() {
        struct Unread;
        impl Read for Unread {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                panic!("it is read without end")
            }
        }
        let dir = tempfile::tempdir().unwrap();
        for byte in [0, b'\n'] {
            let from = line("a").into_bytes();
            let from = from.chain(std::io::repeat(byte).take(1 << 20)).chain(Unread);
            let log = copy(from, &Place::by_path(&dir.path().join("log")), 1000).unwrap();
            let kept = std::fs::read_to_string(log.file.path()).unwrap();
            assert!(kept.starts_with(&line("a")) && kept.contains("more than 1000 bytes"), "{kept}");
        }
    }

    #[test]
    fn what_is_too_long_is_cut_after_a_whole_line() {
        let size = line("a").len() as u64;
        let from = line("a").repeat(3);
        assert_eq!(kept(&from, 3 * size), ["a"; 3]);
        for limit in [2 * size, 3 * size - 1] {
            let note = format!("The log has more than {limit} bytes: the rest is left out");
            assert_eq!(kept(&from, limit), ["a", "a", &note]);
        }
    }
}
