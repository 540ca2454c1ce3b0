//! How messages travel between coordinator and workers: one trait, two backends, one contract.
//!
//! * [`embedded::EmbeddedBus`] lives in one process' memory. It forgets everything when the process
//!   ends; what is durable there is the coordinator's ledger, which re-issues every unanswered
//!   task.
//! * [`nats::NatsBus`] is JetStream with file storage. This is the only crate that names
//!   `async-nats`.
//!
//! # The contract (`tests/contract.rs` holds both backends to it)
//!
//! * **Durable publish.** `Ok` means that the backend has the message as safely as it can keep one.
//! * **Lease.** A pulled message belongs to its holder for the queue's lease.
//!   [`Delivery::progress`] starts the lease anew. When it runs out the message is delivered again.
//! * **Ack settles, whoever says it.** A backend cannot prove that an ack comes from the present
//!   holder (JetStream's double ack is answered even to a late one). So the contract is: an ack
//!   from anyone who was delivered the message removes it, late or not, and acking what is already
//!   gone is `Ok`. This is safe because a worker acks only after its answer is durable, and the
//!   coordinator drops second answers to a task. Two holders can both do the work.
//! * **After a crash of the broker** nothing acknowledged is lost, but it may have forgotten
//!   deliveries: a leased message can come again before its lease is over, and
//!   [`Delivery::deliveries`] can start over.
//! * **A late holder does no harm.** Once its lease has run out by its own clock,
//!   [`Delivery::progress`] answers [`Lease::Lost`] and [`Delivery::nak`] does nothing: neither can
//!   touch the message of the next holder.
//! * **Dedup window.** A message id published again to the same queue within the window is
//!   [`Published::Duplicate`], even if the first was acked or withdrawn meanwhile: a re-issue takes
//!   a new id.
//! * **Dead letters.** A message whose last allowed delivery ran out or was given back is never
//!   delivered again; it shows up in [`Bus::dead_letters`] and keeps its place in the queue until
//!   [`DeadLetter::settle`].
//! * **Keys.** The bus never deletes a key, and none expires: who lets go of one writes a value that
//!   says so. [`Bus::swap`] changes a key only at the revision that it names; of a race's swaps one
//!   is [`Swapped::Done`] and the others are [`Swapped::Lost`]. A key that an operator deleted has
//!   no value: old revisions lose, and `None` wins.
//! * **Nothing ends in silence.** This crate starts no tasks of its own; where those of its client
//!   library end, listeners end too, and calls are [`BusError::Closed`].
//! * **Backpressure.** A queue that holds `max_messages` refuses with [`BusError::Full`].

mod api;
mod delivery;
pub mod embedded;
mod error;
pub mod nats;
pub mod server;
mod version;

pub use api::{Bus, Listener, MAX_PAYLOAD, Published, QueueSpec, Revision, Swapped};
pub use delivery::{DeadLetter, Delivery, Lease};
pub use embedded::EmbeddedBus;
pub use error::BusError;
pub use nats::{NatsBus, NatsOptions};
pub use version::OLDEST_SERVER;
