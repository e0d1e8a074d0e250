//! Layers as blobs: compression ([`compress`]), and the pipeline that hashes, compresses and writes layers in
//! one pass ([`pipeline`]).

pub mod compress;
#[cfg(test)]
mod model;
pub mod pipeline;
mod sync;
#[cfg(test)]
mod tests;
