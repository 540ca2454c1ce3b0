//! The colony's decisions, pure: (state, event) → (records, commands).
//!
//! Nothing here waits, reads a clock, opens a file or makes its own randomness (invariant 2), and
//! nothing that decides uses a float operation beyond + − × ÷ and square root, so that a ledger
//! replays to the same bytes on any machine (invariant 1). How it reads: a [`Colony`] takes an
//! [`Event`], checks answers ([`check`]), folds [`Record`]s into a [`State`] (evidence → trails →
//! scores → mask), asks [`plan`] what comes next and [`assign`] who does it.

pub mod advice;
pub mod agreement;
pub mod answers;
pub mod assign;
pub mod bootstrap;
pub mod campaign;
pub mod check;
pub mod cliff;
pub mod combine;
pub mod compare;
mod contender;
pub mod controlled;
mod dice;
pub mod diff;
pub mod drift;
pub mod faithfulness;
mod fixed;
pub mod gate;
mod interval;
pub mod mask;
pub mod masked_teacher;
pub mod misplaced;
pub mod mix;
mod normal;
mod order;
pub mod plan;
pub mod reasons;
mod record;
pub mod regressions;
pub mod report;
pub mod resample;
mod share;
pub mod state;
mod step;
mod task;
pub mod together;
pub mod trail;
pub mod why;
mod worth;

pub use campaign::{CampaignConfig, Change, ConfigError, PromptEntry, Split, change};
pub use contender::Contender;
pub use dice::Dice;
pub use fixed::Fixed;
pub use gate::GateReport;
pub use mask::{MaskVersion, Rule};
pub use order::ReleaseOrder;
pub use record::{Amendment, Blame, Cause, Decision, Ending, Founding, More, RULES, Record};
pub use report::{CampaignReport, report};
pub use share::Share;
pub use state::{KeptBack, Snapshot, SnapshotError, Spent, Stage, State, Ticket};
pub use step::{Amending, Colony, Command, Event, Step, Verdict};
pub use task::{AttachError, PlannedTask, Purpose, TrialRole};

/// A model of alike layers of experts, for tests.
#[cfg(test)]
fn test_shape(layers: u32, experts: u32) -> uspx_domain::ModelShape {
    use uspx_domain::{LayerShape, MlpShape, ModelShape};
    let mlp = MlpShape::Experts { experts, top_k: 2, channels: 8 };
    ModelShape::uniform(layers, LayerShape::new(4, mlp))
}
