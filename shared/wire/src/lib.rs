//! What crosses the network: every subject, stream, consumer and bucket name, and the versioned
//! MessagePack messages.
//!
//! Messages are not the domain's nouns: `v1` has the bytes of the first version, with conversions
//! to and from the nouns. A message that was ever released is frozen: its bytes stand in
//! `fixtures/`, and old bytes decode for ever. New meaning is a new version. [`envelope`] has the
//! layout and says what may be added to a known version; [`large`] has what is done with content
//! that is too large for a message.

pub mod envelope;
mod error;
pub mod large;
mod message;
pub mod subjects;
#[cfg(test)]
mod two_versions;
mod v1;

pub use envelope::{MAX_MESSAGE, Message, Unread, decode, encode};
pub use error::{Flaw, WireError};
pub use large::{
    Content, INLINE_LIMIT, MAX_BLOB, Packed, pack_answer, pack_task, unpack_answer, unpack_task,
};
pub use message::{HeartbeatMessage, HeldModel, MaskMessage};
pub use v1::{
    CampaignStatus, CoverageStatus, CurrentTask, DriftStatus, LackStatus, MaskStatus, ReasonStatus,
    SeamStatus, SkipStatus, StatusMessage, StudentsStatus, WorkerStatus, WrongStatus,
};
