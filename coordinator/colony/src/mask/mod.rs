//! Masks from scores: which units stay at a budget.

mod bar;
mod build;
mod candidate;
mod noise;
mod ranks;
mod search;
mod version;

pub use bar::bars;
pub use build::{Budget, Rule, build, random_mask, settle};
pub use candidate::{adopt, near};
pub use ranks::{mean_ranks, ranks_of_prompts};
pub use search::Search;
pub use version::{MaskVersion, as_recorded, jaccard, redraw};
