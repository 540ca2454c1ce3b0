//! The coordinator: it listens to workers, keeps the ledger, sends out tasks and publishes
//! releases.
//!
//! It decides nothing: every decision is [`uspx_colony`]'s. In the order of an answer's way:
//! `intake` (off the bus, decoded) → [`service`] (one owner of the state) → [`ledger`] (durable) →
//! `dispatch` (what follows from it, on its way) → `release` (a student, published, its `adapter`
//! in two files) and `report` (what was found, whatever the end). `owner` sees to it that nobody
//! else does the same, `registry` knows who is alive, [`status`] says how things stand and
//! [`lacking`] who lacks a model, `warnings` logs what a person should hear of, [`word`] is what
//! a person says, [`errbench`] are prompts that they add. [`collect`] deletes blobs that nothing names any more.

mod adapter;
mod changes;
pub mod collect;
mod dispatch;
pub mod errbench;
mod error;
mod intake;
pub mod lacking;
pub mod ledger;
mod names;
mod owner;
pub mod prompts;
mod registry;
mod release;
mod report;
pub mod service;
mod settings;
pub mod split;
pub mod status;
mod warnings;
pub mod word;

pub use error::ServiceError;
pub use ledger::Ledger;
pub use owner::{Claimant, claimant};
pub use prompts::{PromptBook, Prompts};
pub use report::{PAGE_STYLE, Paths as ReportPaths};
pub use service::{Coordinator, Finished};
pub use settings::{CampaignPlan, CoordinatorSettings};
pub use status::{CampaignProgress, WorkerProgress};
