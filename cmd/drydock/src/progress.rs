//! How far something is, on standard error; and Ctrl-C.

use std::cell::Cell;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use drydock_extend::in_place::Going;
use drydock_images::Watch;
use drydock_registry::ErrorKind;
use drydock_sandbox::signals;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value as Json, json};
use signal_hook::flag;
use signal_hook::low_level::pipe;

use crate::output::{bytes, printable};

/// Signals that stop the work.
#[derive(Debug, Clone)]
pub(crate) struct Signals {
    /// The number of the first that came; 0 as long as there was none.
    first: Arc<AtomicUsize>,
    /// The next one ends the process at once: it is another one, or there is nothing to undo.
    at_once: Arc<AtomicBool>,
}

impl Signals {
    /// From now on they are noted.
    pub(crate) fn watch() -> Result<Self> {
        let signals = Self { first: Arc::default(), at_once: Arc::default() };
        for signal in signals::that_end() {
            let number = usize::try_from(signal).context("a signal's number is positive")?;
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&signals.at_once))
                .and_then(|_| flag::register_usize(signal, Arc::clone(&signals.first), number))
                .context(CANNOT_WATCH)?;
        }
        Ok(signals)
    }

    /// Work that waits for somebody else looks for no signals, as at a registry that says nothing: another one ends the process
    /// at once, and after `patience` it ends as it does when it is killed. This starts a thread.
    pub(crate) fn end_what_hangs(&self, patience: Option<Duration>) -> Result<()> {
        let (mut told, tells) = UnixStream::pair().context(CANNOT_WATCH)?;
        for signal in signals::that_end() {
            pipe::register(signal, tells.try_clone().context(CANNOT_WATCH)?).context(CANNOT_WATCH)?;
        }
        let (first, at_once) = (Arc::clone(&self.first), Arc::clone(&self.at_once));
        let end = move || {
            if told.read_exact(&mut [0]).is_err() {
                return;
            }
            thread::sleep(SAME);
            at_once.store(true, Ordering::Relaxed);
            if let Some(patience) = patience {
                thread::sleep(patience);
                let first = first.load(Ordering::Relaxed);
                signal_hook::low_level::exit(128 + i32::try_from(first).unwrap_or_default());
            }
        };
        if thread::Builder::new().spawn(end).is_err() {
            // No more threads can be had.
            for signal in signals::that_end() {
                flag::register(signal, Arc::clone(&self.at_once)).context(CANNOT_WATCH)?;
            }
        }
        Ok(())
    }

    /// Waits for somebody, when there is nothing to undo: a signal ends the process at once.
    pub(crate) fn at_once<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.at_once.store(true, Ordering::Relaxed);
        let came = wait();
        self.at_once.store(self.exit_code().is_some(), Ordering::Relaxed);
        came
    }

    /// Whether the work goes on: an error if a signal stops it, or if its time is over.
    fn go_on(&self, until: Option<Instant>) -> io::Result<()> {
        if self.exit_code().is_some() {
            return Err(io::Error::other("stopped by a signal"));
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            return Err(io::Error::other(ErrorKind::TimeIsOver));
        }
        // Whatever was waited for is there.
        self.at_once.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// The exit code of a process that was stopped by a signal.
    pub(crate) fn exit_code(&self) -> Option<u8> {
        let first = self.first.load(Ordering::Relaxed);
        u8::try_from(first).ok().filter(|first| *first > 0).map(|first| 128 + first)
    }
}

/// For so long work may go on after a signal, where nothing has a time of its own to end in.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// What comes within this time is one signal: `timeout` and others send it to a process and to its group, and in a room it comes
/// from outside, too.
const SAME: Duration = Duration::from_secs(1);

const CANNOT_WATCH: &str = "cannot watch for signals";

/// How progress is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Not at all.
    Quiet,
    /// A bar.
    Bar,
    /// A line when a task begins, and another every [`EVERY`].
    Lines,
    /// Events.
    Json,
}

/// Between two lines about one task.
const EVERY: Duration = Duration::from_secs(10);

/// Between two events about one task.
const EVERY_EVENT: Duration = Duration::from_millis(200);

/// Tells how far something is.
pub(crate) struct Progress {
    mode: Mode,
    quiet: bool,
    pub(crate) signals: Signals,
    /// When the command is to be stopped.
    pub(crate) until: Option<Instant>,
    task: Mutex<Option<Task>>,
}

struct Task {
    name: String,
    total: u64,
    done: u64,
    told: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `talks` is for commands of which people expect that they take long: without a terminal, they tell in lines.
    pub(crate) fn new(
        quiet: bool,
        json: bool,
        talks: bool,
        signals: Signals,
        until: Option<Instant>,
    ) -> Self {
        let mode = match (quiet, json, io::stderr().is_terminal()) {
            (true, ..) => Mode::Quiet,
            (_, true, _) => Mode::Json,
            (_, _, true) => Mode::Bar,
            _ if talks => Mode::Lines,
            _ => Mode::Quiet,
        };
        Self { mode, quiet, signals, until, task: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Task>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line of its own, above the bar if there is one.
    pub(crate) fn say(&self, text: &str) {
        match self.lock().as_ref().and_then(|task| task.bar.as_ref()) {
            Some(bar) => bar.println(text),
            None => eprint_line(text),
        }
    }

    /// What is asked again and again while a context is read.
    pub(crate) fn going(&self) -> Going {
        let (signals, until) = (self.signals.clone(), self.until);
        Rc::new(move || signals.go_on(until))
    }

    /// What is asked again and again while something is waited for: says once so, and ends with the command's time.
    pub(crate) fn waiting(&self, text: &str) -> impl Fn() -> io::Result<()> {
        let told = Cell::new(false);
        move || {
            if !told.replace(true) {
                self.note(text);
            }
            self.advance(0)
        }
    }

    fn event(event: &Json) {
        eprint_line(&event.to_string());
    }
}

/// Where nobody reads, nobody is to be told.
pub(crate) fn eprint_line(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

impl Watch for Progress {
    fn begin(&self, name: &str, total: u64) {
        let bar = (self.mode == Mode::Bar && total > 0).then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let template =
                "{msg} [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}";
            let style = ProgressStyle::with_template(template).expect("the template is well-formed");
            bar.set_style(style.progress_chars("=> "));
            bar.set_message(name.to_owned());
            bar
        });
        match self.mode {
            Mode::Lines if total > 0 => eprint_line(&format!("{name}: {}", bytes(total))),
            Mode::Json => Self::event(&json!({"event": "begin", "task": name, "bytes": total})),
            _ => {}
        }
        *self.lock() = Some(Task { name: name.to_owned(), total, done: 0, told: Instant::now(), bar });
    }

    fn advance(&self, more: u64) -> io::Result<()> {
        self.signals.go_on(self.until)?;
        let mut task = self.lock();
        let Some(task) = task.as_mut() else { return Ok(()) };
        task.done += more;
        match (self.mode, &task.bar) {
            (Mode::Bar, Some(bar)) => bar.set_position(task.done),
            (Mode::Lines, _) if task.told.elapsed() >= EVERY => {
                task.told = Instant::now();
                eprint_line(&format!("{}: {} of {}", task.name, bytes(task.done), bytes(task.total)));
            }
            (Mode::Json, _) if task.told.elapsed() >= EVERY_EVENT => {
                task.told = Instant::now();
                let (name, done, total) = (&task.name, task.done, task.total);
                Self::event(&json!({"event": "progress", "task": name, "done": done, "bytes": total}));
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&self) {
        let Some(task) = self.lock().take() else { return };
        if let Some(bar) = &task.bar {
            bar.finish_and_clear();
        }
        if self.mode == Mode::Json {
            Self::event(&json!({"event": "end", "task": task.name}));
        }
    }

    fn note(&self, text: &str) {
        // Nothing has been done yet, and a lock may be waited for without end.
        self.signals.at_once.store(true, Ordering::Relaxed);
        match self.mode {
            Mode::Json => Self::event(&json!({"event": "note", "text": text})),
            _ if self.quiet => {}
            _ => self.say(&printable(text)),
        }
    }
}
