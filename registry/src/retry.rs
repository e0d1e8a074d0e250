//! Trying again what may work a moment later.

use std::thread;
use std::time::Duration;

use crate::error::ErrorKind;
use crate::options::Retry;

/// The attempts at one thing.
#[derive(Debug)]
pub(crate) struct Attempts<'a> {
    retry: &'a Retry,
    made: u32,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(retry: &'a Retry) -> Self {
        Self { retry, made: 0 }
    }

    /// Counts from the beginning again.
    pub(crate) fn reset(&mut self) {
        self.made = 0;
    }

    /// After a failure: waits, and returns if the same is worth to be tried again.
    pub(crate) fn failed(&mut self, error: ErrorKind) -> Result<(), ErrorKind> {
        self.made += 1;
        let left = self.retry.left()?;
        match self.wait(&error) {
            Some(wait) if left.is_none_or(|left| wait < left) => {
                thread::sleep(wait);
                Ok(())
            }
            _ => Err(error),
        }
    }

    fn wait(&self, error: &ErrorKind) -> Option<Duration> {
        if !error.passes() || self.made >= self.retry.attempts {
            return None;
        }
        let asked = match error {
            ErrorKind::TooManyRequests { wait } => *wait,
            _ => None,
        };
        let own = self.retry.first_wait.saturating_mul(1 << (self.made - 1).min(16));
        let wait = asked.unwrap_or(own.min(self.retry.longest_wait));
        Some(wait).filter(|&wait| wait <= self.retry.longest_wait)
    }
}

/// Does it until it works, or is not worth to be tried again.
pub(crate) fn with_retries<T>(
    retry: &Retry,
    mut attempt: impl FnMut() -> Result<T, ErrorKind>,
) -> Result<T, ErrorKind> {
    let mut attempts = Attempts::new(retry);
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) => attempts.failed(error)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        let seconds = Duration::from_secs;
        let retry =
            Retry { first_wait: seconds(1), longest_wait: seconds(10), attempts: 7, ..Retry::default() };
        let broken = || ErrorKind::Broken { reason: String::new() };
        let busy = |wait| ErrorKind::TooManyRequests { wait: Some(seconds(wait)) };
        for (made, error, want) in [
            (1, broken(), Some(1)),
            (3, broken(), Some(4)),
            (6, broken(), Some(10)),
            (7, broken(), None),
            (1, busy(7), Some(7)),
            (1, busy(10), Some(10)),
            (1, busy(11), None),
            (1, ErrorKind::TooManyRequests { wait: None }, Some(1)),
            (1, ErrorKind::NotFound { what: "blob" }, None),
        ] {
            let attempts = Attempts { retry: &retry, made };
            assert_eq!(attempts.wait(&error), want.map(seconds), "{made} {error}");
        }
    }
}
