//! The log of a build: what this process prints, as lines of JSON in a file ([`drydock_spec::build_log`]).
//!
//! Nothing is opened before root is dropped; what is said until then is kept in memory. A log that cannot be written is a
//! warning, and the build goes on.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use anyhow::Context as _;
use drydock_io::file::open_to_append;
use drydock_io::lock::mark_written;
use drydock_io::read::ReadAt;
use drydock_layout::Spool;
use drydock_model::reference::{LayoutDir, LayoutPath};
use drydock_spec::build_log::{IN_LAYERS, Line, MAX_LOG, Stream, time};

use crate::phase::Phase;

/// So many bytes are kept in memory until there is a file.
const MAX_WAITING: usize = 1 << 20;

/// Where a log is kept, as platforms ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// In this file, after what is there.
    InFile(PathBuf),
    /// Beside the image, in its layout; until that is written, in the layers directory or, in the creator, in a file that is
    /// gone when the process is.
    BesideImage {
        /// The layers directory.
        layers_dir: PathBuf,
    },
}

/// A log that is written to.
#[derive(Debug)]
pub struct LogFile {
    file: File,
    /// Removes the file in the end.
    _spool: Option<Spool>,
    /// What is kept beside an image has a limit.
    beside_image: bool,
    size: u64,
}

impl LogFile {
    /// That of a phase.
    pub fn of_phase(kept: &Kept, phase: Phase) -> anyhow::Result<Self> {
        let (path, beside_image) = match kept {
            Kept::InFile(path) => (path.clone(), false),
            Kept::BesideImage { layers_dir } => (layers_dir.join(IN_LAYERS), true),
        };
        // It runs first: what is there is another build's.
        if beside_image && phase == Phase::Analyze {
            remove(&path)?;
        }
        let file = open_to_append(&path).with_context(|| format!("open {}", path.display()))?;
        // Without the mark, who follows the log does not see that the phase was killed.
        let _is_marked = mark_written(&file);
        let size = file.metadata().with_context(|| format!("look at {}", path.display()))?.len();
        Ok(Self { file, _spool: None, beside_image, size })
    }

    /// That of the creator, for an image of this name, which is to have it beside it.
    pub fn of_image(dir: &LayoutDir, image: &LayoutPath) -> anyhow::Result<Self> {
        let spool = Spool::create(dir, image)?;
        let file = spool.file().try_clone().context("open the log once more")?;
        Ok(Self { file, _spool: Some(spool), beside_image: true, size: 0 })
    }

    /// Lines are written at once, as others may write to the same file.
    fn write(&mut self, lines: &str, is_last: bool) -> io::Result<()> {
        if self.beside_image && self.size > MAX_LOG && !is_last {
            return Ok(());
        }
        self.size += lines.len() as u64;
        self.file.write_all(lines.as_bytes())
    }
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Makes lines of what is said.
pub(crate) struct Recorder {
    /// What this process is.
    process: Phase,
    state: Mutex<State>,
}

struct State {
    /// Which phase speaks.
    phase: Phase,
    to: Sink,
}

enum Sink {
    /// It is not known yet where to.
    Waiting(String),
    File(LogFile),
    /// Nowhere any more.
    Closed,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("process", &self.process).finish_non_exhaustive()
    }
}

impl Recorder {
    pub(crate) fn new(process: Phase) -> Self {
        let state = State { phase: process, to: Sink::Waiting(String::new()) };
        Self { process, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked has at worst left a line out.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is said from now on, this phase says.
    pub(crate) fn begin(&self, phase: Phase) {
        self.lock().phase = phase;
    }

    /// Whether it is not known yet where to.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.lock().to, Sink::Waiting(_))
    }

    /// Writes what was said until now, and then all that is said.
    pub(crate) fn open(&self, file: anyhow::Result<LogFile>) -> anyhow::Result<()> {
        let state = &mut *self.lock();
        let Sink::Waiting(waiting) = std::mem::replace(&mut state.to, Sink::Closed) else { return Ok(()) };
        let mut file = file?;
        file.write(&waiting, false).context("write to it")?;
        state.to = Sink::File(file);
        Ok(())
    }

    /// Lines that were printed. An error comes once: nothing is written after it.
    pub(crate) fn add(&self, stream: Stream, buildpack: &str, texts: Vec<String>) -> io::Result<()> {
        let state = &mut *self.lock();
        if texts.is_empty() || matches!(state.to, Sink::Closed) {
            return Ok(());
        }
        let (now, phase) = (time(SystemTime::now()), state.phase.executable());
        let line = |text| {
            let (time, phase, buildpack) = (now.clone(), phase.to_owned(), buildpack.to_owned());
            format!("{}\n", Line { time, phase, buildpack, stream, text, exit: None })
        };
        state.write(&texts.into_iter().map(line).collect::<String>(), false)
    }

    /// The last line.
    pub(crate) fn end(&self, exit: u8) -> io::Result<()> {
        let (time, phase) = (time(SystemTime::now()), self.process.executable().to_owned());
        let (buildpack, text, stream) = (String::new(), String::new(), Stream::Stdout);
        let last = Line { time, phase, buildpack, stream, text, exit: Some(exit) };
        let state = &mut *self.lock();
        let written = state.write(&format!("{last}\n"), true);
        state.to = Sink::Closed;
        written
    }

    /// What is in the file now, if it is to be kept beside the image.
    pub(crate) fn so_far(&self) -> Option<io::Result<Box<dyn Read>>> {
        match &self.lock().to {
            Sink::File(LogFile { file, beside_image: true, .. }) => {
                Some(file.try_clone().map(|file| Box::new(ReadAt { file, at: 0 }) as _))
            }
            _ => None,
        }
    }
}

impl State {
    fn write(&mut self, lines: &str, is_last: bool) -> io::Result<()> {
        let written = match &mut self.to {
            Sink::Waiting(waiting) => {
                if waiting.len() + lines.len() <= MAX_WAITING {
                    waiting.push_str(lines);
                }
                Ok(())
            }
            Sink::File(file) => file.write(lines, is_last),
            Sink::Closed => Ok(()),
        };
        if written.is_err() {
            self.to = Sink::Closed;
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(String, String, String, Option<u8>)> {
        let parse = |line: &str| {
            let line = Line::parse(line.as_bytes()).unwrap();
            assert!(line.time.len() == 24 && line.time.ends_with('Z'), "{}", line.time);
            (line.phase, line.buildpack, line.text, line.exit)
        };
        text.lines().map(parse).collect()
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn what_is_said_before_there_is_a_file_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "earlier\n").unwrap();
        let kept = Kept::InFile(path.clone());
        let recorder = Recorder::new(Phase::Create);
        recorder.add(Stream::Stderr, "", texts(&["early"])).unwrap();
        recorder.open(LogFile::of_phase(&kept, Phase::Create)).unwrap();
        recorder.begin(Phase::Build);
        recorder.add(Stream::Stdout, "acme/a", texts(&["one", "two"])).unwrap();
        assert!(recorder.so_far().is_none(), "it is not for the image");
        recorder.end(51).unwrap();
        recorder.add(Stream::Stdout, "", texts(&["late"])).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let line = |phase: &str, buildpack: &str, text: &str, exit| {
            (phase.to_owned(), buildpack.to_owned(), text.to_owned(), exit)
        };
        assert_eq!(
            lines(text.strip_prefix("earlier\n").unwrap()),
            [
                line("creator", "", "early", None),
                line("builder", "acme/a", "one", None),
                line("builder", "acme/a", "two", None),
                line("creator", "", "", Some(51)),
            ]
        );
    }

    #[test]
    fn phases_hand_on_what_is_for_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::BesideImage { layers_dir: dir.path().to_owned() };
        let say = |phase: Phase, text: &str| {
            let recorder = Recorder::new(phase);
            recorder.open(LogFile::of_phase(&kept, phase)).unwrap();
            recorder.add(Stream::Stdout, "", texts(&[text])).unwrap();
            let so_far = io::read_to_string(recorder.so_far().unwrap().unwrap()).unwrap();
            recorder.end(0).unwrap();
            lines(&so_far).into_iter().map(|(.., text, _)| text).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(say(Phase::Analyze, "a"), "a");
        assert_eq!(say(Phase::Detect, "b"), "a  b");
        assert_eq!(say(Phase::Export, "c"), "a  b  c");
        assert_eq!(say(Phase::Analyze, "another build"), "another build");
    }

    #[test]
    fn an_error_comes_once() {
        let recorder = Recorder::new(Phase::Build);
        let kept = Kept::InFile("/nonexistent/log".into());
        let error = recorder.open(LogFile::of_phase(&kept, Phase::Build)).unwrap_err();
        assert_eq!(format!("{error:#}"), "open /nonexistent/log: No such file or directory (os error 2)");
        recorder.add(Stream::Stdout, "", texts(&["x"])).unwrap();
        recorder.end(0).unwrap();

        let full = File::options().append(true).open("/dev/full").unwrap();
        let recorder = Recorder::new(Phase::Build);
        recorder.open(Ok(LogFile { file: full, _spool: None, beside_image: true, size: 0 })).unwrap();
        let error = recorder.add(Stream::Stdout, "", texts(&["x"])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        recorder.add(Stream::Stdout, "", texts(&["x"])).unwrap();
        assert!(recorder.so_far().is_none());
    }

    #[test]
    fn memory_and_what_is_for_the_image_have_limits() {
        let recorder = Recorder::new(Phase::Build);
        let long = "x".repeat(1000);
        for _ in 0..2000 {
            recorder.add(Stream::Stdout, "", texts(&[&long])).unwrap();
        }
        assert!(matches!(&recorder.lock().to, Sink::Waiting(text) if text.len() <= MAX_WAITING));

        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::BesideImage { layers_dir: dir.path().to_owned() };
        let mut file = LogFile::of_phase(&kept, Phase::Build).unwrap();
        file.size = MAX_LOG;
        for (lines, is_last) in [("crosses\n", false), ("beyond\n", false), ("last\n", true)] {
            file.write(lines, is_last).unwrap();
        }
        assert_eq!(fs::read_to_string(dir.path().join(IN_LAYERS)).unwrap(), "crosses\nlast\n");
    }
}
