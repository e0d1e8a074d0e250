//! Layers as blobs: compression ([`compress`]), and the pipeline that hashes, compresses and writes layers in
//! one pass ([`pipeline`]).

pub mod compress;
pub mod pipeline;
