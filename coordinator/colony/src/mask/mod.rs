//! Masks from scores: which units stay at a budget.

mod build;
mod candidate;
mod version;

pub use build::{Budget, Rule, build, random_mask, settle};
pub use candidate::{adopt, near};
pub use version::{MaskVersion, as_recorded, jaccard, redraw};
