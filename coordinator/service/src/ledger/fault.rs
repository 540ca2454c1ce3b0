//! What can be wrong with a ledger, where, and in words.

use serde::Serialize;

/// Damage: something that was synced is no longer there as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The first byte of the ledger that cannot be relied on: all before it is whole.
    pub at: u64,
    /// The record that belongs there, counted from 1; 0 is what stands before the first.
    pub sequence: u64,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Fault {
    /// The first bytes of the file are not a ledger's.
    #[error("the file no longer begins as a ledger does")]
    Magic,
    /// The snapshot at the beginning of a shortened ledger is not whole.
    #[error("the snapshot that it begins with is not whole, without which nothing after it counts")]
    Snapshot,
    /// The file ends too early.
    #[error("the file ends before this record does, though the whole record was synced")]
    Cut,
    /// A record's length goes beyond the file, or beyond all bounds.
    #[error("the record's length, {bytes} bytes, cannot be right")]
    Length {
        /// The length as it stands there.
        bytes: u32,
    },
    /// A record's bytes do not give its hash.
    #[error("the record's bytes have changed")]
    Changed,
    /// A whole record with another number.
    #[error("record {found} stands in this one's place: records were removed, repeated or moved")]
    Misplaced {
        /// Its number.
        found: u64,
    },
    /// A whole record with the right number that names another record before it.
    #[error(
        "the record is whole but does not follow from the one before it: it is another ledger's"
    )]
    Unchained,
    /// The last synced record is not the one that the head file names.
    #[error("the head file names another record of this number: it is another ledger's")]
    OtherHead,
    /// There are records, but no head file.
    #[error(
        "its head file is missing, without which nobody can tell how far the ledger was synced"
    )]
    HeadMissing,
    /// Neither slot of the head file can be read.
    #[error(
        "both slots of its head file are damaged, so nobody can tell how far the ledger was synced"
    )]
    HeadBroken,
}

impl Fault {
    /// What a person can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::OtherHead | Self::HeadMissing | Self::HeadBroken => {
                "A ledger and its head file belong together: copy both, from the same place at the same time. \
                 Without them, `uspx ledger repair --state DIR` keeps the records that are whole"
            }
            Self::Snapshot => {
                "Nothing was changed. Restore the ledger together with its head file from a copy; without one, \
                 `ledger.before` and `ledger.before.head` beside it hold every record that the snapshot stands for: \
                 move them to `ledger` and `ledger.head`, and what came since is done again"
            }
            _ => {
                "Nothing was changed. Restore the ledger together with its head file from a copy; without one, \
                 `uspx ledger repair --state DIR` keeps what comes before the damage (--dry-run tells what is lost)"
            }
        }
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { at, sequence, fault } = self;
        match fault {
            Fault::HeadMissing | Fault::HeadBroken => {
                write!(
                    f,
                    "not to be relied on: {fault} ({} records are whole)",
                    sequence.saturating_sub(1)
                )
            }
            _ => write!(f, "damaged at byte {at}, record {sequence}: {fault}"),
        }
    }
}
