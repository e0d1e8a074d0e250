//! The buffers that chunks travel in: a fixed number for the whole run, used again and again.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::compress::{CHUNK, ENCODED};

/// Lends so many slots and no more.
#[derive(Debug)]
pub(super) struct Pool {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    free: Vec<Buffers>,
    /// So many more may be made; small layers need few.
    not_made: usize,
    stopped: bool,
}

#[derive(Debug, Default)]
struct Buffers {
    input: Box<[u8]>,
    output: Box<[u8]>,
}

impl Pool {
    pub(super) fn new(slots: usize) -> Self {
        let state = State { free: Vec::new(), not_made: slots, stopped: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Waits for a free slot. None, once the run has been stopped.
    pub(super) fn take(&self) -> Option<Slot<'_>> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            let buffers = state.free.pop().or_else(|| {
                state.not_made = state.not_made.checked_sub(1)?;
                Some(Buffers { input: vec![0; CHUNK].into(), output: vec![0; ENCODED].into() })
            });
            if let Some(buffers) = buffers {
                return Some(Slot { pool: self, buffers, filled: 0 });
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// From now on nobody gets a slot.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// The state is whole after each statement: a thread that panicked cannot have left a part of a change.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room for one chunk and for its encoding. Goes back to the pool when it is dropped, wherever that happens.
#[derive(Debug)]
pub(super) struct Slot<'p> {
    pool: &'p Pool,
    buffers: Buffers,
    filled: usize,
}

impl Slot<'_> {
    /// The chunk, as far as it is there.
    pub(super) fn chunk(&self) -> &[u8] {
        &self.buffers.input[..self.filled]
    }

    /// What is free behind it.
    pub(super) fn space(&mut self) -> &mut [u8] {
        &mut self.buffers.input[self.filled..]
    }

    /// Makes the chunk longer by what is at the beginning of [`Slot::space`].
    pub(super) fn advance(&mut self, n: usize) {
        assert!(n <= CHUNK - self.filled, "more was filled than there was space");
        self.filled += n;
    }

    pub(super) fn is_full(&self) -> bool {
        self.filled == CHUNK
    }

    /// The chunk, and the place for its encoding.
    pub(super) fn chunk_and_output(&mut self) -> (&[u8], &mut [u8]) {
        (&self.buffers.input[..self.filled], &mut self.buffers.output)
    }

    /// The place for its encoding.
    pub(super) fn output(&self) -> &[u8] {
        &self.buffers.output
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let buffers = std::mem::take(&mut self.buffers);
        self.pool.lock().free.push(buffers);
        self.pool.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn lends_so_many_and_no_more() {
        let pool = Pool::new(2);
        let first = pool.take().unwrap();
        let mut second = pool.take().unwrap();
        second.advance(7);
        thread::scope(|scope| {
            let third = scope.spawn(|| pool.take().unwrap().chunk().len());
            thread::yield_now();
            assert!(!third.is_finished(), "there were only two");
            drop(second);
            assert_eq!(third.join().unwrap(), 0, "a slot is empty when it is lent again");
        });
        drop(first);
        assert_eq!(pool.lock().free.len(), 2);
    }

    #[test]
    fn stopping_wakes_those_who_wait() {
        let pool = Pool::new(1);
        let slot = pool.take();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| pool.take().is_none());
            pool.stop();
            assert!(waiting.join().unwrap());
        });
        drop(slot);
        assert!(pool.take().is_none() && pool.is_stopped());
    }
}
