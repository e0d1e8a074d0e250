//! What is to be done next: workers take from it, and bring back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::Error;
use super::layer::Layer;
use super::pool::Slot;
use crate::compress::{Checksum, Compression};

/// A chunk on its way.
#[derive(Debug)]
pub(super) struct Chunk<'p> {
    /// The job that it belongs to.
    pub(super) job: usize,
    /// Its place in the layer.
    pub(super) index: u64,
    pub(super) slot: Slot<'p>,
    /// Length of the encoding, in the slot's output; 0 where none is wanted.
    pub(super) encoded: usize,
    pub(super) checksum: Checksum,
}

/// What a worker does next.
#[derive(Debug)]
pub(super) enum Step<'p> {
    /// Compress a chunk.
    Compress(Chunk<'p>, Compression),
    /// Hash and write a layer's next chunk.
    Finish(Layer, Chunk<'p>),
}

/// The chunks and layers that are in work.
#[derive(Debug)]
pub(super) struct Board<'p, E> {
    state: Mutex<State<'p, E>>,
    /// There may be something to do for workers.
    work: Condvar,
    /// A layer may be done.
    done: Condvar,
}

#[derive(Debug)]
struct State<'p, E> {
    to_compress: VecDeque<(Chunk<'p>, Compression)>,
    /// By job.
    layers: BTreeMap<usize, InWork<'p, E>>,
    /// Jobs whose layer is here, and so is its next chunk.
    ready: VecDeque<usize>,
    /// Threads that may still begin layers.
    lanes: usize,
    /// A thread has panicked: nothing is waited for any more.
    broken: bool,
}

#[derive(Debug)]
struct InWork<'p, E> {
    /// None while a worker has it, or after a failure.
    layer: Option<Layer>,
    /// The number of the chunk that is to be finished next.
    next: u64,
    /// Chunks that may be finished when it is their turn.
    waiting: BTreeMap<u64, Chunk<'p>>,
    failure: Option<Error<E>>,
}

impl<E> InWork<'_, E> {
    fn is_ready(&self) -> bool {
        self.layer.is_some() && self.waiting.contains_key(&self.next)
    }
}

impl<'p, E> Board<'p, E> {
    /// For so many threads that begin layers. Each must [`Board::leave`], unless one breaks off.
    pub(super) fn new(lanes: usize) -> Self {
        let state = State {
            to_compress: VecDeque::new(),
            layers: BTreeMap::new(),
            ready: VecDeque::new(),
            lanes,
            broken: false,
        };
        Self { state: Mutex::new(state), work: Condvar::new(), done: Condvar::new() }
    }

    /// Begins a layer.
    pub(super) fn begin(&self, job: usize, layer: Layer) {
        let in_work = InWork { layer: Some(layer), next: 0, waiting: BTreeMap::new(), failure: None };
        self.lock().layers.insert(job, in_work);
    }

    /// Adds a chunk of a layer that was begun; [`Compression::NONE`] needs no encoding.
    pub(super) fn add(&self, chunk: Chunk<'p>, compression: Compression) {
        if compression == Compression::NONE {
            self.finish_in_turn(chunk);
        } else {
            self.lock().to_compress.push_back((chunk, compression));
            self.work.notify_one();
        }
    }

    /// Gives a chunk that needs nothing more before its turn.
    pub(super) fn finish_in_turn(&self, chunk: Chunk<'p>) {
        let mut state = self.lock();
        let job = chunk.job;
        // A layer that failed is not there any more.
        let Some(layer) = state.layers.get_mut(&job) else { return };
        let was_ready = layer.is_ready();
        layer.waiting.insert(chunk.index, chunk);
        if !was_ready && layer.is_ready() {
            state.ready.push_back(job);
            self.work.notify_one();
        }
    }

    /// Gives a layer back whose next chunk is finished; or tells why it is not.
    pub(super) fn give_back(&self, job: usize, outcome: Result<Layer, Error<E>>) {
        let mut state = self.lock();
        if let Some(layer) = state.layers.get_mut(&job) {
            layer.next += 1;
            match outcome {
                Ok(done) => layer.layer = Some(done),
                Err(failure) => layer.failure = Some(failure),
            }
            if layer.is_ready() {
                state.ready.push_back(job);
            }
        }
        drop(state);
        self.work.notify_one();
        self.done.notify_all();
    }

    /// Waits until a layer's chunks, of which there are so many, are all finished. None: something else has failed.
    pub(super) fn end(&self, job: usize, chunks: u64) -> Option<Result<Layer, Error<E>>> {
        let mut state = self.lock();
        loop {
            let layer = state.layers.get_mut(&job)?;
            if let Some(failure) = layer.failure.take() {
                state.forget(job);
                return Some(Err(failure));
            }
            if let Some(whole) = layer.layer.take_if(|_| layer.next == chunks) {
                state.forget(job);
                return Some(Ok(whole));
            }
            if state.broken {
                return None;
            }
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Drops a layer that will not be whole; its chunks go when they come. If writing it has failed, that is why.
    pub(super) fn abandon(&self, job: usize) -> Option<Error<E>> {
        let mut state = self.lock();
        let failure = state.layers.get_mut(&job).and_then(|layer| layer.failure.take());
        state.forget(job);
        failure
    }

    /// Says that one thread begins no more layers.
    pub(super) fn leave(&self) {
        self.lock().lanes -= 1;
        self.work.notify_all();
    }

    /// Says that what is on its way may never be finished.
    pub(super) fn break_off(&self) {
        self.lock().broken = true;
        self.work.notify_all();
        self.done.notify_all();
    }

    /// Waits for something to do. None, once there will be nothing more.
    pub(super) fn next(&self) -> Option<Step<'p>> {
        let mut state = self.lock();
        loop {
            if let Some(step) = state.finish() {
                return Some(step);
            }
            if let Some((chunk, compression)) = state.to_compress.pop_front() {
                return Some(Step::Compress(chunk, compression));
            }
            if state.lanes == 0 || state.broken {
                return None;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Each change is whole when the lock is released, in whatever way.
    fn lock(&self) -> MutexGuard<'_, State<'p, E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'p, E> State<'p, E> {
    /// Takes the next chunk of a layer.
    fn finish(&mut self) -> Option<Step<'p>> {
        let job = self.ready.pop_front()?;
        let layer = self.layers.get_mut(&job)?;
        let chunk = layer.waiting.remove(&layer.next)?;
        Some(Step::Finish(layer.layer.take()?, chunk))
    }

    fn forget(&mut self, job: usize) {
        self.layers.remove(&job);
        self.ready.retain(|&ready| ready != job);
        self.to_compress.retain(|(chunk, _)| chunk.job != job);
    }
}
