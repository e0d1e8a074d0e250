//! Messages on the terminal: information on standard output; warnings, errors and usage on standard error.
//!
//! Specification: `platform.md` § Operator Experience.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use drydock_phases::create::Step;
use drydock_phases::{Level, Log, Output};
use drydock_spec::build_log::{self, Pieces};
use drydock_spec::excerpt::shortened;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{retry_on_intr, write};
use rustix::stdio::{stderr, stdout};

use crate::build_log::{LogFile, Recorder};
use crate::exit::Failure;
use crate::phase::Phase;

use build_log::Stream::{Stderr, Stdout};

const CYAN: &str = "\x1b[36m";
const YELLOW: &str = "\x1b[33;1m";
const RED: &str = "\x1b[31;1m";
const RESET: &str = "\x1b[0m";

/// From which level on messages are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold(Level);

impl Default for Threshold {
    fn default() -> Self {
        Self(Level::Info)
    }
}

impl Threshold {
    /// By a level's name; `None` for any other word.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(Self(match word.to_ascii_lowercase().as_str() {
            "debug" => Level::Debug,
            "info" => Level::Info,
            "warn" | "warning" => Level::Warn,
            // Why a phase fails is always told: every such error is fatal.
            "error" | "fatal" => Level::Error,
            _ => return None,
        }))
    }
}

/// How many characters of a warning or an error are shown.
const MOST: usize = 4_000;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked has at worst left half a line.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of the two streams.
struct Stream {
    writer: Mutex<Box<dyn Write + Send>>,
    /// What may have no room; none in tests.
    descriptor: Option<BorrowedFd<'static>>,
    colour: bool,
}

impl Stream {
    fn lock(&self) -> MutexGuard<'_, Box<dyn Write + Send>> {
        lock(&self.writer)
    }

    /// One message, its line feed appended where it lacks one, in one write.
    fn write(&self, colour: &str, prefix: &str, rest: &str) {
        let (on, off) = if self.colour && !prefix.is_empty() { (colour, RESET) } else { ("", "") };
        let end = if rest.ends_with('\n') { "" } else { "\n" };
        let text = format!("{on}{prefix}{off}{rest}{end}");
        let mut writer = self.lock();
        // A log that nobody reads any more must not stop a build, and there is nowhere left to tell.
        let _ = writer.write_all(text.as_bytes()).and_then(|()| writer.flush());
    }
}

/// The log of an executable.
pub struct Console {
    threshold: Threshold,
    /// The warnings so far: a phase of the creator need not repeat what another has said.
    warned: Mutex<BTreeSet<String>>,
    out: Stream,
    err: Stream,
    /// Makes the build's log of what is said, if there is to be one.
    recorder: Option<Recorder>,
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console").field("threshold", &self.threshold).finish_non_exhaustive()
    }
}

impl Console {
    /// The process's own streams. Colour is shown where the stream is a terminal, unless it is refused.
    pub fn new(threshold: Threshold, colour_refused: bool) -> Self {
        let (out, err) = (stdout(), stderr());
        let colour = |fd: BorrowedFd<'_>| fd.is_terminal() && !colour_refused;
        let (on_out, on_err) =
            ((Box::new(Unbuffered(out)) as _, colour(out)), (Box::new(Unbuffered(err)) as _, colour(err)));
        let mut console = Self::on(threshold, on_out, on_err);
        (console.out.descriptor, console.err.descriptor) = (Some(out), Some(err));
        console
    }

    fn on(
        threshold: Threshold,
        (out, out_colour): (Box<dyn Write + Send>, bool),
        (err, err_colour): (Box<dyn Write + Send>, bool),
    ) -> Self {
        let stream = |writer, colour| Stream { writer: Mutex::new(writer), descriptor: None, colour };
        let (out, err) = (stream(out, out_colour), stream(err, err_colour));
        Self { threshold, warned: Mutex::default(), out, err, recorder: None }
    }

    /// The same, and from now on all that is said goes to the build's log too, once [`Console::keep_log`] says where that is.
    #[must_use]
    pub fn recording(self, process: Phase) -> Self {
        Self { recorder: Some(Recorder::new(process)), ..self }
    }

    /// Says where the build's log goes, if that is not known yet.
    pub fn keep_log(&self, open: impl FnOnce() -> anyhow::Result<LogFile>) {
        if let Some(recorder) = self.recorder.as_ref().filter(|recorder| recorder.is_waiting())
            && let Err(error) = recorder.open(open())
        {
            self.warn(&format!("The build's log is not kept: {error:#}"));
        }
    }

    /// Ends the build's log.
    pub fn end_log(&self, exit: u8) {
        if let Some(recorder) = &self.recorder {
            self.recorded(recorder.end(exit));
        }
    }

    /// Writes a message, which is the phase's own or what a buildpack or extension printed.
    fn write(&self, to: build_log::Stream, module: &str, (colour, prefix): (&str, &str), rest: &str) {
        self.stream(to).write(colour, prefix, rest);
        if self.recorder.is_some() {
            let mut pieces = Pieces::default();
            let text = format!("{prefix}{rest}");
            let mut lines = pieces.push(text.as_bytes());
            lines.extend(pieces.rest());
            self.record(to, module, if text.is_empty() { vec![text] } else { lines });
        }
    }

    fn stream(&self, stream: build_log::Stream) -> &Stream {
        match stream {
            Stdout => &self.out,
            Stderr => &self.err,
        }
    }

    fn record(&self, from: build_log::Stream, module: &str, lines: Vec<String>) {
        if let Some(recorder) = &self.recorder {
            self.recorded(recorder.add(from, module, lines));
        }
    }

    fn recorded(&self, written: io::Result<()>) {
        if let Err(error) = written {
            self.warn(&format!("The build's log is not complete: {error}"));
        }
    }

    /// A message of the phase, or what a buildpack or extension printed.
    fn say(&self, level: Level, module: &str, message: &str) {
        if level < self.threshold.0 {
            return;
        }
        // What is wrong may quote what others wrote, at any length.
        let short = || shortened(message, MOST);
        match level {
            Level::Debug | Level::Info => self.write(Stdout, module, ("", ""), message),
            Level::Warn => {
                let message = short();
                if lock(&self.warned).insert(message.clone()) {
                    self.write(Stderr, module, (YELLOW, "Warning: "), &message);
                }
            }
            Level::Error => self.write(Stderr, module, (RED, "ERROR: "), &short()),
        }
    }

    fn printed(&self, stream: build_log::Stream, module: &str) -> Printed<'_> {
        Printed { console: self, stream, module: module.to_owned(), pieces: Pieces::default() }
    }

    /// Why the phase did not finish, and what to do about it.
    pub fn failure(&self, failure: &Failure) {
        self.error(&failure.message);
        if let Some(help) = &failure.help {
            self.write(Stderr, "", ("", ""), &format!("  help: {help}"));
        }
    }

    /// A text that was asked for, whatever the level.
    pub fn answer(&self, text: &str) {
        self.out.write("", "", text);
    }

    /// What flags there are.
    pub fn usage(&self, text: &str) {
        self.err.write("", "", text);
    }
}

impl Log for Console {
    fn log(&self, level: Level, message: &str) {
        self.say(level, "", message);
    }

    fn quote(&self, level: Level, module: &str, message: &str) {
        self.say(level, module, message);
    }

    fn phase(&self, step: Step) {
        if let Some(recorder) = &self.recorder {
            recorder.begin(step.into());
        }
        if self.threshold.0 <= Level::Info {
            self.write(Stdout, "", (CYAN, &format!("===> {}", step.heading())), "");
        }
    }

    fn output(&self, module: &str) -> Box<dyn Output + '_> {
        Box::new(self.printed(Stdout, module))
    }

    fn error_output(&self, module: &str) -> Box<dyn Write + Send + '_> {
        Box::new(self.printed(Stderr, module))
    }

    fn so_far(&self) -> Option<io::Result<Box<dyn Read + '_>>> {
        self.recorder.as_ref()?.so_far().map(|reader| reader.map(|reader| reader as _))
    }
}

/// A descriptor that is written to at once. Its number is never closed.
struct Unbuffered(BorrowedFd<'static>);

impl Write for Unbuffered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(write(self.0, bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// As many bytes are written to a pipe without waiting, if there is room at all: `PIPE_BUF`.
const ROOM: usize = 4096;

/// What buildpacks print, as it comes. A reader that went away stops no build.
struct Printed<'a> {
    console: &'a Console,
    stream: build_log::Stream,
    module: String,
    /// Of what has been printed, lines for the build's log.
    pieces: Pieces,
}

impl Printed<'_> {
    fn stream(&self) -> &Stream {
        self.console.stream(self.stream)
    }

    fn record(&mut self, bytes: &[u8]) {
        if self.console.recorder.is_some() {
            let lines = self.pieces.push(bytes);
            self.console.record(self.stream, &self.module, lines);
        }
    }
}

impl Drop for Printed<'_> {
    fn drop(&mut self) {
        let rest = self.pieces.rest();
        self.console.record(self.stream, &self.module, rest.into_iter().collect());
    }
}

impl Output for Printed<'_> {
    fn offer(&mut self, bytes: &[u8]) -> usize {
        if self.stream().descriptor.is_some_and(|descriptor| !has_room(descriptor)) {
            return 0;
        }
        let part = &bytes[..bytes.len().min(ROOM)];
        let written = self.stream().lock().write(part);
        let count = match written {
            Ok(count) => count,
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => 0,
            Err(_) => bytes.len(),
        };
        self.record(&bytes[..count]);
        count
    }

    fn room(&self) -> Option<BorrowedFd<'_>> {
        self.stream().descriptor
    }
}

/// Whether writing does not wait, be it that it fails.
fn has_room(descriptor: BorrowedFd<'_>) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::from_borrowed_fd(descriptor, PollFlags::OUT)];
    retry_on_intr(|| poll(&mut fds, Some(&now))) != Ok(0)
}

impl Write for Printed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.stream().lock().write_all(bytes);
        self.record(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.stream().lock().flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::build_log::Kept;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Memory {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut self.0.lock().unwrap())).unwrap()
        }
    }

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    fn console(level: &str, colour: bool) -> (Console, Memory, Memory) {
        let (out, err) = (Memory::default(), Memory::default());
        let streams = ((Box::new(out.clone()) as _, colour), (Box::new(err.clone()) as _, colour));
        (Console::on(Threshold::from_word(level).unwrap(), streams.0, streams.1), out, err)
    }

    fn say_everything(log: &Console) {
        log.debug("d");
        log.info("i\n");
        log.warn("w");
        log.phase(Step::Build);
        log.failure(&Failure { code: 1, message: "e".into(), help: Some("h".into()) });
        assert_eq!(log.output("").offer(b"%s\xff"), 3);
    }

    #[test]
    fn levels_decide_what_is_shown_and_where() {
        for (level, want_out, want_err) in [
            ("debug", "d\ni\n===> BUILDING\n", "Warning: w\nERROR: e\n  help: h\n"),
            ("INFO", "i\n===> BUILDING\n", "Warning: w\nERROR: e\n  help: h\n"),
            ("warning", "", "Warning: w\nERROR: e\n  help: h\n"),
            ("Warn", "", "Warning: w\nERROR: e\n  help: h\n"),
            ("error", "", "ERROR: e\n  help: h\n"),
            ("fatal", "", "ERROR: e\n  help: h\n"),
        ] {
            let (log, out, err) = console(level, false);
            say_everything(&log);
            assert_eq!(err.take(), want_err, "{level}");
            let got = std::mem::take(&mut *out.0.lock().unwrap());
            assert_eq!(got, [want_out.as_bytes(), b"%s\xff"].concat(), "{level}");
        }
    }

    /// All that is shown is in the log, by whoever said it, and nothing else; that the log cannot be written is told once.
    #[test]
    fn what_is_shown_is_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let kept = Kept::InFile(path.clone());
        let (log, out, _) = console("info", true);
        let log = log.recording(Phase::Create);
        log.keep_log(|| LogFile::of_phase(&kept, Phase::Create));
        say_everything(&log);
        log.info("two\n\nlines");
        let mut output = log.output("acme/a");
        for bytes in [&b"a\x1b[1m"[..], b"\xff", b"\nrest"] {
            assert_eq!(output.offer(bytes), bytes.len());
        }
        log.quote(Level::Info, "acme/b", "quoted\n");
        drop(output);
        log.error_output("acme/c").write_all(b"why\n").unwrap();
        log.end_log(7);
        assert!(String::from_utf8_lossy(&out.0.lock().unwrap()).contains("\x1b[36m===> BUILDING\x1b[0m"));
        let text = std::fs::read_to_string(&path).unwrap();
        let got: Vec<String> = text
            .lines()
            .map(|line| build_log::Line::parse(line.as_bytes()).unwrap())
            .map(|line| {
                let exit = line.exit.map(|exit| exit.to_string()).unwrap_or_default();
                format!("{} {} {:?} {}{exit}", line.phase, line.buildpack, line.stream, line.text)
            })
            .collect();
        assert_eq!(
            got,
            [
                "creator  Stdout i",
                "creator  Stderr Warning: w",
                "builder  Stdout ===> BUILDING",
                "builder  Stderr ERROR: e",
                "builder  Stderr   help: h",
                "builder  Stdout %s\u{fffd}",
                "builder  Stdout two",
                "builder  Stdout ",
                "builder  Stdout lines",
                "builder acme/a Stdout a\u{1b}[1m\u{fffd}",
                "builder acme/b Stdout quoted",
                "builder acme/a Stdout rest",
                "builder acme/c Stderr why",
                "creator  Stdout 7",
            ]
        );

        let (log, _, err) = console("info", false);
        let log = log.recording(Phase::Build);
        log.keep_log(|| anyhow::bail!("no room"));
        log.info("i");
        log.end_log(0);
        assert_eq!(err.take(), "Warning: The build's log is not kept: no room\n");
    }

    #[test]
    fn a_warning_is_told_once() {
        let (log, out, err) = console("info", false);
        for message in ["w", "i", "w", "v", "w"] {
            log.warn(message);
            log.info("i");
        }
        assert_eq!(
            (out.take(), err.take()),
            ("i\n".repeat(5), "Warning: w\nWarning: i\nWarning: v\n".into())
        );
    }

    #[test]
    fn what_is_wrong_is_told_at_bounded_length() {
        let (log, out, err) = console("info", false);
        let text = "é".repeat(100_000);
        log.info(&text);
        log.warn(&text);
        log.failure(&Failure { code: 1, message: format!("bad `{text}` in `/x`"), help: None });
        assert_eq!(out.take(), text + "\n");
        let told = err.take();
        assert!(told.chars().count() < 2 * MOST + 50, "{told}");
        assert!(told.contains("ERROR: bad `é") && told.ends_with("é` in `/x`\n"), "{told}");
    }

    #[test]
    fn output_that_tells_why_a_phase_fails_is_among_the_errors() {
        let (log, out, err) = console("error", true);
        log.error_output("").write_all(b"fail: a@1\n").unwrap();
        log.output("").offer(b"fail: a@1\n");
        log.error("e");
        assert_eq!(out.take(), "fail: a@1\n");
        assert_eq!(err.take(), "fail: a@1\n\x1b[31;1mERROR: \x1b[0me\n");
    }

    #[test]
    fn colours() {
        let (log, out, err) = console("info", true);
        log.phase(Step::Analyze);
        log.warn("w");
        log.error("e");
        log.info("i");
        assert_eq!(out.take(), "\x1b[36m===> ANALYZING\x1b[0m\ni\n");
        assert_eq!(err.take(), "\x1b[33;1mWarning: \x1b[0mw\n\x1b[31;1mERROR: \x1b[0me\n");
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let log = Console::on(Threshold::default(), (Box::new(Closed), true), (Box::new(Closed), true));
        say_everything(&log);
    }

    #[test]
    fn a_word_that_names_no_level() {
        for text in ["", "verbose", "debug "] {
            assert_eq!(Threshold::from_word(text), None, "{text}");
        }
    }
}
