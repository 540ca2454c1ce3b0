//! What benchmarks share: a checkpoint of a large model's shapes, and figures with their bounds.

pub mod checkpoint;
pub mod error;
pub mod figure;
