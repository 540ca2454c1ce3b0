//! The worker: it says what it can do, pulls its own tasks, works on them one at a time, and posts answers back.
//!
//! In the order of a task's way: [`agent`] (off the queue, its lease kept alive by progress) → [`compute`] (one owned
//! thread per device) → [`job`] (what each kind of work calls) → the answer, its blobs stored first.

pub mod agent;
pub mod compute;
mod error;
mod exports;
pub mod holdings;
pub mod job;
mod open;
mod product;
mod settings;

pub use agent::Agent;
pub use error::WorkerError;
pub use open::open_any;
pub use settings::WorkerSettings;
