//! What is to be done, and who does it: every thread takes from the board, and waits only if there is
//! nothing.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

use super::chunk::Chunk;
use super::output::Output;
use super::resources::Resources;
use super::sync::{Condvar, Mutex, MutexGuard, PoisonError, thread};
use super::{Done, Error, Settings};
use crate::compress::Encoder;

/// The jobs, layers, chunks and encoders of a run.
#[derive(Debug)]
pub(super) struct Board<E> {
    pub(super) settings: Settings,
    state: Mutex<State<E>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<E> {
    /// How many jobs there are, and how many of them were begun.
    jobs: usize,
    begun: usize,
    done: BTreeMap<usize, Done>,
    /// By job.
    in_work: BTreeMap<usize, InWork>,
    to_compress: VecDeque<Chunk>,
    free_chunks: Vec<Chunk>,
    /// Those that are not in use; `None` has not been made yet.
    free_encoders: Vec<Option<Encoder>>,
    /// Of the first job that failed by itself.
    failure: Option<(usize, Error<E>)>,
    /// There was a failure or a panic: nothing is done any more.
    stopped: bool,
}

/// A layer in work.
#[derive(Debug)]
struct InWork {
    /// None while a thread writes to it.
    output: Option<Box<Output>>,
    /// Whether its chunks are compressed.
    encoded: bool,
    /// Which chunk is to be written next.
    next: u64,
    /// Chunks that may be written when it is their turn.
    waiting: BTreeMap<u64, Chunk>,
}

impl InWork {
    /// The chunk that is to be written next, and where.
    fn next(&mut self) -> Option<(Chunk, Box<Output>)> {
        let output = self.output.take_if(|_| self.waiting.contains_key(&self.next))?;
        Some((self.waiting.remove(&self.next)?, output))
    }
}

/// A piece of work.
enum Work {
    Compress(Chunk, Option<Encoder>),
    /// Hash and write a layer's next chunk.
    Write(Chunk, Box<Output>),
}

impl<E> Board<E> {
    pub(super) fn new(jobs: usize, settings: Settings, resources: &Resources) -> Self {
        let state = State {
            jobs,
            begun: 0,
            done: BTreeMap::new(),
            in_work: BTreeMap::new(),
            to_compress: VecDeque::new(),
            free_chunks: std::iter::repeat_with(Chunk::default).take(resources.chunks).collect(),
            free_encoders: std::iter::repeat_with(|| None).take(resources.workers).collect(),
            failure: None,
            stopped: false,
        };
        Self { settings, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The number of a job that nobody has begun; that is the caller's part then.
    pub(super) fn next_job(&self) -> Option<usize> {
        let mut state = self.lock();
        let job = state.begun;
        let is_there = !state.stopped && job < state.jobs;
        state.begun += usize::from(is_there);
        is_there.then_some(job)
    }

    /// Begins a job's layer.
    pub(super) fn begin(&self, job: usize, output: Output) {
        let encoded = output.is_encoded();
        let output = Some(Box::new(output));
        self.lock().in_work.insert(job, InWork { output, encoded, next: 0, waiting: BTreeMap::new() });
    }

    /// A chunk for a source to fill. `None`: the run has been stopped.
    pub(super) fn free_chunk(&self) -> Option<Chunk> {
        self.work_until(|state| state.free_chunks.pop())
    }

    /// Adds a filled chunk of a layer that was begun.
    pub(super) fn add(&self, chunk: Chunk) {
        let mut state = self.lock();
        let layer = state.layer(chunk.job);
        if layer.encoded {
            state.to_compress.push_back(chunk);
        } else {
            layer.waiting.insert(chunk.index, chunk);
        }
        self.changed.notify_all();
    }

    /// Ends a layer of so many chunks, once all are written. `None`: the run has been stopped.
    pub(super) fn end(&self, job: usize, chunks: u64) -> Option<Box<Output>> {
        self.work_until(|state| {
            let layer = state.layer(job);
            let output = layer.output.take_if(|_| layer.next == chunks)?;
            state.in_work.remove(&job);
            Some(output)
        })
    }

    /// Says what became of a job.
    pub(super) fn finish(&self, job: usize, outcome: Result<Done, Error<E>>) {
        let mut state = self.lock();
        match outcome {
            Ok(done) => drop(state.done.insert(job, done)),
            Err(error) => state.fail(job, error),
        }
        self.changed.notify_all();
    }

    /// Works until all jobs are done, or one has failed.
    pub(super) fn work(&self) {
        self.work_until(|state| (state.done.len() == state.jobs).then_some(()));
    }

    /// The results, in the order of the jobs, once all threads are through.
    pub(super) fn outcome(&self) -> Result<Vec<Done>, Error<E>> {
        let mut state = self.lock();
        match state.failure.take() {
            Some((_, error)) => Err(error),
            None => Ok(mem::take(&mut state.done).into_values().collect()),
        }
    }

    /// Does what there is to do until `end` gives something. `None`: the run has been stopped.
    fn work_until<T>(&self, mut end: impl FnMut(&mut State<E>) -> Option<T>) -> Option<T> {
        let mut state = self.lock();
        while !state.stopped {
            if let Some(result) = end(&mut state) {
                return Some(result);
            }
            state = match state.next() {
                Some(work) => {
                    drop(state);
                    self.perform(work)
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        None
    }

    /// Does a piece of work, and brings back what came of it.
    fn perform(&self, work: Work) -> MutexGuard<'_, State<E>> {
        let mut state;
        match work {
            Work::Compress(mut chunk, encoder) => {
                let mut encoder = encoder.unwrap_or_else(|| self.settings.compression.encoder());
                chunk.encode(&mut encoder);
                state = self.lock();
                state.free_encoders.push(Some(encoder));
                state.layer(chunk.job).waiting.insert(chunk.index, chunk);
            }
            Work::Write(chunk, mut output) => {
                let written = output.write(&chunk);
                state = self.lock();
                match written {
                    Ok(()) => {
                        let layer = state.layer(chunk.job);
                        layer.next += 1;
                        layer.output = Some(output);
                        state.free_chunks.push(chunk);
                    }
                    Err(error) => state.fail(chunk.job, error),
                }
            }
        }
        self.changed.notify_all();
        state
    }

    /// Each change is whole when the lock is released, in whatever way.
    fn lock(&self) -> MutexGuard<'_, State<E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E> State<E> {
    fn next(&mut self) -> Option<Work> {
        if let Some((chunk, output)) = self.in_work.values_mut().find_map(InWork::next) {
            return Some(Work::Write(chunk, output));
        }
        if self.to_compress.is_empty() {
            return None;
        }
        let encoder = self.free_encoders.pop()?;
        self.to_compress.pop_front().map(|chunk| Work::Compress(chunk, encoder))
    }

    fn layer(&mut self, job: usize) -> &mut InWork {
        self.in_work.get_mut(&job).expect("a layer is in work until all its chunks are written")
    }

    fn fail(&mut self, job: usize, error: Error<E>) {
        self.stopped = true;
        if self.failure.as_ref().is_none_or(|&(first, _)| job < first) {
            self.failure = Some((job, error));
        }
    }
}

/// Ends the run if the thread that has it panics: others would wait for that thread.
#[derive(Debug)]
pub(super) struct StopOnPanic<'a, E>(pub(super) &'a Board<E>);

impl<E> Drop for StopOnPanic<'_, E> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.lock().stopped = true;
            self.0.changed.notify_all();
        }
    }
}
