//! A log for tests, which remembers.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard};

use crate::create::Step;
use crate::{Level, Log};

/// Remembers what phases say: a line `<level>: <message>` each, and what buildpacks print apart from that.
#[derive(Debug, Default)]
pub(crate) struct MemoryLog {
    text: Mutex<String>,
    output: Mutex<Vec<u8>>,
    errors: Mutex<Vec<u8>>,
}

impl MemoryLog {
    /// What phases said.
    pub(crate) fn text(&self) -> String {
        lock(&self.text).clone()
    }

    /// What buildpacks printed.
    pub(crate) fn printed(&self) -> Vec<u8> {
        lock(&self.output).clone()
    }

    /// What of it tells why the phase fails.
    pub(crate) fn printed_with_errors(&self) -> Vec<u8> {
        lock(&self.errors).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of the lock panics")
}

impl Log for MemoryLog {
    fn log(&self, level: Level, message: &str) {
        writeln!(lock(&self.text), "{level:?}: {message}").expect("a string takes any text");
    }

    fn phase(&self, step: Step) {
        writeln!(lock(&self.text), "===> {}", step.heading()).expect("a string takes any text");
    }

    fn output(&self, _: &str) -> Box<dyn crate::Output + '_> {
        Box::new(Output(&self.output))
    }

    fn error_output(&self, _: &str) -> Box<dyn Write + Send + '_> {
        Box::new(Output(&self.errors))
    }
}

struct Output<'a>(&'a Mutex<Vec<u8>>);

impl crate::Output for Output<'_> {
    fn offer(&mut self, bytes: &[u8]) -> usize {
        lock(self.0).offer(bytes)
    }
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
