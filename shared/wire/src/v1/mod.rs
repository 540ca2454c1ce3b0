//! Version 1 of every message, as it stands in the bytes: plain structures of texts, numbers and
//! byte strings, apart from the domain's nouns, which may change without it. Frozen; a change of
//! meaning is a module `v2` beside this one.
//!
//! Whatever a later release may add to is a *name* (statistics, estimators, kinds of unit, formats,
//! reasons) or a map with one key ([`one_of`]), so that what is not known here can be told from
//! damage. Ids are the domain's own types, which are plain in bytes: a worker is a text, a digest
//! or fingerprint 64 hexadecimal digits, a task 16 bytes, a blob a digest and a length.

#[macro_use]
mod one_of;

mod answer;
mod deposit;
mod floats;
mod heartbeat;
mod jobs;
mod label;
mod mask;
mod names;
mod part;
mod shape;
mod status;
mod task;

pub(crate) use answer::Answer;
pub(crate) use heartbeat::Heartbeat;
pub(crate) use mask::MaskMessage;
pub use status::{
    CampaignStatus, CoverageStatus, CurrentTask, DriftStatus, LackStatus, MaskStatus, ReasonStatus,
    SeamStatus, SkipStatus, StatusMessage, StudentsStatus, WorkerStatus, WrongStatus,
};
pub(crate) use task::Task;

use crate::Unread;

/// Whether a count goes without saying: messages from before there was any have none.
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// The bytes' form of each.
fn all<'a, A, B: From<&'a A>>(items: &'a [A]) -> Vec<B> {
    items.iter().map(B::from).collect()
}

/// The domain's form of each.
fn try_all<A, B: TryFrom<A, Error = Unread>>(items: Vec<A>) -> Result<Vec<B>, Unread> {
    items.into_iter().map(B::try_from).collect()
}
