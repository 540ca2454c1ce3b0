//! What benchmarks share: a checkpoint of a large model's shapes, figures with their bounds, programs
//! that are run, and a GPU's memory.

pub mod checkpoint;
pub mod device;
pub mod error;
pub mod figure;
pub mod program;
