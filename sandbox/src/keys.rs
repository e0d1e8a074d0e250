//! The keys of a terminal, on their way to a sandbox.
//!
//! The sandbox has a terminal of its own, whose signals (Ctrl-C) the kernel keeps from its first process if that does nothing about
//! them. So keys come through here: the runtime has a pseudo-terminal for its standard input, and what is typed is looked at before.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal as _, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use rustix::fs::OFlags;
use rustix::process::Pid;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr,
    tcsetwinsize,
};
use signal_hook::consts::{SIGINT, SIGQUIT, SIGWINCH};

use crate::ending::listens;
use crate::signals::pass_on;

/// Ctrl-C and Ctrl-\, unless a program has chosen others.
const SIGNALS: [u8; 2] = [3, 0x1c];

/// The keys, until this is dropped: then the terminal is as it was.
pub(crate) struct Keys {
    before: Termios,
    master: OwnedFd,
    size: Winsize,
    /// The last of [`SIGNALS`] that was not looked at; 0 for none.
    pressed: Arc<AtomicU8>,
}

impl Keys {
    /// From now on what is typed at standard input goes to what is given back.
    pub(crate) fn begin() -> io::Result<(Self, Stdio)> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let (before, size) = (tcgetattr(io::stdin())?, tcgetwinsize(io::stdin())?);
        let master = openpt(flags)?;
        unlockpt(&master)?;
        let inner = ioctl_tiocgptpeer(&master, flags)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&inner, OptionalActions::Now, &raw)?;
        tcsetwinsize(&inner, size)?;
        let keys = Self { before, master, size, pressed: Arc::default() };
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        let mut from = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let (mut to, pressed) = (File::from(keys.master.try_clone()?), Arc::clone(&keys.pressed));
        let carry = move || {
            let mut typed = [0; 1024];
            loop {
                let typed = match from.read(&mut typed) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Ok(n @ 1..) => &typed[..n],
                    // The terminal is gone, and that is a signal, too.
                    _ => return,
                };
                if to.write_all(typed).is_err() {
                    return;
                }
                if let Some(key) = typed.iter().rfind(|key| SIGNALS.contains(key)) {
                    pressed.store(*key, Ordering::Relaxed);
                }
            }
        };
        thread::Builder::new().spawn(carry)?;
        Ok((keys, Stdio::from(inner)))
    }

    /// Tells the runtime that the terminal has another size.
    pub(crate) fn pass_on_size(&mut self, runtime: Pid) {
        let size = tcgetwinsize(io::stdin()).unwrap_or(self.size);
        if size != self.size && tcsetwinsize(&self.master, size).is_ok() {
            self.size = size;
            pass_on(SIGWINCH.cast_unsigned() as usize, runtime);
        }
    }

    /// The signal that a key has asked for and that the first process does not hear of, as it neither handles nor ignores it; 0 if there is
    /// none.
    pub(crate) fn lost(&self, init: &dyn Fn() -> Option<u64>) -> usize {
        let lost = |key| {
            let pid = init()?;
            let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
            let (status, stat) = (read("status")?, read("stat")?);
            // What follows its name: state, parent, group, session, terminal, group in the foreground there.
            let stat: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            let flags = (OFlags::NOCTTY | OFlags::NONBLOCK).bits().cast_signed();
            let terminal =
                OpenOptions::new().read(true).custom_flags(flags).open(format!("/proc/{pid}/fd/0"));
            let settings = tcgetattr(&terminal.ok()?).ok()?;
            let codes = [(SpecialCodeIndex::VINTR, SIGINT), (SpecialCodeIndex::VQUIT, SIGQUIT)];
            let (_, signal) = codes.into_iter().find(|(code, _)| settings.special_codes[*code] == key)?;
            let signal = usize::try_from(signal).ok()?;
            let is_sent = settings.local_modes.contains(LocalModes::ISIG) && stat.get(2) == stat.get(5);
            (is_sent && !listens(&status, signal)?).then_some(signal)
        };
        let key = self.pressed.swap(0, Ordering::Relaxed);
        Some(key).filter(|key| *key != 0).and_then(lost).unwrap_or(0)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // If that fails, the terminal is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Who changes the settings of a terminal in the background is stopped until it is in the foreground, but for the first process of a
/// namespace, which would try for ever: whoever is about to start that comes here before.
pub fn come_to_foreground() {
    if io::stdin().is_terminal()
        && io::stdout().is_terminal()
        && let Ok(settings) = tcgetattr(io::stdin())
    {
        // What comes next fails, too, and says so.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &settings);
    }
}
