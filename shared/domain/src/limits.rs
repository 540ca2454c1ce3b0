//! How long the blobs that messages name may be, in bytes. Whoever fetches one by a reference that
//! came from outside says so much at most: a reference costs nothing to write.

use crate::{Judge, Subject, Work};

/// The labels of one task.
pub const LABELS: u64 = 1 << 30;
/// An adapter, before it is merged, and what a machine tells of its part of a training.
pub const ADAPTER: u64 = 4 << 30;
/// One file of an exported student.
pub const STUDENT_FILE: u64 = 32 << 30;

/// One file of a sparse autoencoder.
pub const SAE_FILE: u64 = 8 << 30;
/// The state of a training under way: an adapter or an autoencoder, its two moments, and the best so far.
pub const STATE: u64 = 5 * SAE_FILE;

/// The most that a blob which a task names may have.
pub fn of_work<P>(work: &Work<P>) -> u64 {
    match work {
        Work::Distil(_) => LABELS,
        Work::Export(_) | Work::Part(_) => ADAPTER,
        Work::Judge(Judge { subject: Subject::Exported { .. }, .. }) => STUDENT_FILE,
        Work::Judge(_) => ADAPTER,
        Work::Estimate(_) | Work::Ablate(_) | Work::Label(_) | Work::Sae(_) => 0,
    }
}
