//! The worker: it says what it can do, pulls its own tasks, works on them one at a time, and posts
//! answers back.
//!
//! In the order of a task's way: [`agent`] (off the queue, its `lease` kept alive by progress) →
//! [`compute`] (one owned thread per device) → [`jobs`] (how each kind of job runs, on
//! [`open_models`] that are placed by [`planning`]) → [`spool`] (finished work on the disk) →
//! `answering` (its blobs stored, then the answer posted). `claim` keeps a second
//! worker of the same name out.

pub mod agent;
mod answering;
mod checkpoints;
mod claim;
pub mod compute;
mod error;
mod heartbeat;
pub mod holdings;
pub mod jobs;
mod lease;
pub mod open_models;
pub mod planning;
pub mod product;
mod rehearsal;
mod settings;
mod sharing;
pub mod spool;

pub use agent::Agent;
pub use error::WorkerError;
pub use rehearsal::rehearse;
pub use settings::WorkerSettings;
pub use uspx_export::open_any;
