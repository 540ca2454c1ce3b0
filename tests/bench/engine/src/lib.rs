//! What benchmarks share: a checkpoint of a large model's shapes, figures with their bounds, programs
//! that are run and kept, paired differences, and a GPU's memory.

pub mod cells;
pub mod checkpoint;
pub mod device;
pub mod error;
pub mod figure;
pub mod paired;
pub mod place;
pub mod program;
