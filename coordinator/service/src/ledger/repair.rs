//! Repair of a damaged ledger: its longest good beginning is kept, and before anything is cut both
//! files are copied aside. Only a person asks for it (`uspx ledger repair`), never a start.
//!
//! The order on the disk: the copies, the ledger's first bytes where they are damaged, both slots of
//! the head, then the cut. Until the head names the new end the ledger stays refused as it was; from
//! then on it opens with what is kept, whether or not the cut was reached.

use super::disk::{Disk, Folder, Which};
use super::fault::{Damage, Fault};
use super::frame::{self, End, MAGIC};
use super::head::{self, Head};
use super::scan::scan;
use super::start::{self, SHORTENED};
use super::{Extent, decode, salvage};
use crate::ServiceError;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use uspx_colony::{Record, State};
use uspx_domain::TaskId;

/// What a repair did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Repair {
    /// What the ledger holds afterwards.
    pub kept: Extent,
    /// What was wrong, and what it costs; none where nothing is damaged and nothing was changed.
    pub loss: Option<Loss>,
}

/// What damage costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// The damage.
    pub damage: Damage,
    /// Bytes from the end of what is kept to the end of the file.
    pub bytes: u64,
    /// The copies; none where the repair was only told.
    pub aside: Option<Aside>,
    /// Records that were synced and are lost; none where no head says how many there were.
    pub records: Option<u64>,
    /// Records behind the damage that can still be read, in the copy.
    pub readable: u64,
    /// Accepted answers among those: their tasks are done again.
    pub answers: u64,
    /// Tasks of the kept state that are not answered and so are issued again, by kind of work.
    pub unanswered: BTreeMap<String, u64>,
}

/// Where both files lie as they were found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Aside {
    /// The copy of the ledger; its head's lies beside it.
    pub ledger: PathBuf,
    /// Bytes of the ledger's copy.
    pub bytes: u64,
}

/// Cuts the ledger at `path` where it is damaged; with `dry_run` only tells what that would do.
///
/// # Errors
/// A coordinator holds it; there is none, or not one of this version; a kept record is not one that
/// this version reads; a file cannot be read or written.
pub fn repair(path: &Path, dry_run: bool) -> Result<Repair, ServiceError> {
    let mut disk = Folder::hold_existing(path)?;
    let Some(wreck) = Wreck::look(&mut disk)? else { return intact(path) };
    let mut loss = wreck.loss(path)?;
    if !dry_run {
        let ledger = wreck.mend(&mut disk)?;
        loss.aside = Some(Aside { ledger, bytes: wreck.ledger.len() as u64 });
    }
    let End { sequence: records, length: bytes, .. } = wreck.end;
    Ok(Repair { kept: Extent { records, bytes }, loss: Some(loss) })
}

/// A ledger without damage: what a crash left beyond the head is the next start's to mend.
fn intact(path: &Path) -> Result<Repair, ServiceError> {
    let found = super::survey(path, |_| {})?;
    let bytes = found.head.bytes + found.beyond.bytes;
    Ok(Repair { kept: Extent { records: found.records, bytes }, loss: None })
}

/// A damaged ledger, as it was found.
#[derive(Debug)]
pub(super) struct Wreck {
    ledger: Vec<u8>,
    head: Option<Vec<u8>>,
    damage: Damage,
    /// What its first record follows.
    start: End,
    /// Where the longest good beginning ends.
    pub end: End,
}

impl Wreck {
    /// Looks for damage; none where nothing is to be repaired.
    pub fn look(disk: &mut impl Disk) -> Result<Option<Self>, ServiceError> {
        let head = disk.read(Which::Head)?;
        let ledger = disk.read(Which::Ledger)?.unwrap_or_default();
        let Beginning { start, end, .. } = beginning(&ledger);
        let damage = match scan(disk.path(), &ledger, &Head::read(head.as_deref())) {
            Ok(_) => return Ok(None),
            // Nothing can be kept without its snapshot.
            Err(
                error @ ServiceError::Damaged {
                    damage: Damage { fault: Fault::Snapshot, .. }, ..
                },
            ) => {
                return Err(error);
            }
            Err(ServiceError::Damaged { path, damage })
                if end.sequence == 0 && ledger.starts_with(SHORTENED) =>
            {
                let damage = Damage { fault: Fault::Snapshot, ..damage };
                return Err(ServiceError::Damaged { path, damage });
            }
            // Without a record that is whole, other first bytes may be another version's.
            Err(ServiceError::Damaged { path, damage: Damage { fault: Fault::Magic, .. } })
                if end.sequence == 0 && is_other_version(&ledger) =>
            {
                return Err(ServiceError::NotALedger(path));
            }
            Err(ServiceError::Damaged { damage, .. }) => damage,
            Err(ServiceError::NotALedger(_)) if end.sequence > 0 => {
                Damage { at: 0, sequence: 0, fault: Fault::Magic }
            }
            Err(other) => return Err(other),
        };
        Ok(Some(Self { ledger, head, damage, start, end }))
    }

    /// What is lost, and what of the kept state will be asked again.
    fn loss(&self, path: &Path) -> Result<Loss, ServiceError> {
        let (mut state, mut answered) = (State::default(), BTreeSet::new());
        for (sequence, payload) in (self.start.sequence + 1..).zip(beginning(&self.ledger).payloads)
        {
            let record = decode(path, sequence, payload)?;
            answered.extend(accepted(&record));
            state.fold(&record);
        }
        let synced = self.synced();
        let behind = salvage::frames(self.behind(), &self.end, synced);
        let lost: BTreeSet<TaskId> = behind.values().filter_map(|p| readable(p)).collect();
        Ok(Loss {
            damage: self.damage.clone(),
            bytes: self.behind().len() as u64,
            aside: None,
            records: synced.map(|synced| synced.saturating_sub(self.end.sequence)),
            readable: behind.len() as u64,
            answers: lost.difference(&answered).count() as u64,
            unanswered: unanswered(&state),
        })
    }

    /// The last record that was synced, if the head says so and is this ledger's.
    fn synced(&self) -> Option<u64> {
        let head = Head::read(self.head.as_deref()).newest();
        head.filter(|_| self.damage.fault != Fault::OtherHead).map(|end| end.sequence)
    }

    /// What lies behind the good beginning.
    fn behind(&self) -> &[u8] {
        self.ledger.get(self.end.length as usize..).unwrap_or_default()
    }

    /// Cuts the ledger to its good beginning, and says where the copy of all is.
    pub fn mend(&self, disk: &mut impl Disk) -> Result<PathBuf, ServiceError> {
        let aside = disk.set_all_aside(&self.ledger, self.head.as_deref())?;
        let first = start::bytes(&self.start);
        if !self.ledger.starts_with(&first) {
            disk.write(Which::Ledger, 0, &first)?;
        }
        disk.sync(Which::Ledger)?;
        let slot = Head::read(self.head.as_deref()).free_slot();
        for slot in [slot, slot.other()] {
            disk.write(Which::Head, slot.at(), &head::encode(&self.end))?;
            disk.sync(Which::Head)?;
        }
        disk.sync_names()?;
        disk.cut(self.end.length)?;
        disk.sync(Which::Ledger)?;
        Ok(aside)
    }
}

/// The longest beginning whose records are whole and follow from one another.
struct Beginning<'a> {
    start: End,
    payloads: Vec<&'a [u8]>,
    end: End,
}

/// The first bytes are the same in every ledger, or follow from its snapshot: they can be written
/// again.
fn beginning(ledger: &[u8]) -> Beginning<'_> {
    let frames = ledger.get(MAGIC.len()..).unwrap_or_default();
    let starts = [start::read(ledger), start::guess(ledger)];
    let mut found = starts.into_iter().flatten().map(|(start, frames)| follow(start, frames));
    let followed = found.find(|beginning| !beginning.payloads.is_empty());
    followed.unwrap_or_else(|| follow(End::start(), frames))
}

fn follow(start: End, mut rest: &[u8]) -> Beginning<'_> {
    let mut found = Beginning { start, payloads: Vec::new(), end: start };
    while let Ok((payload, after, next)) = frame::take(rest, &found.end) {
        found.payloads.push(payload);
        (rest, found.end) = (after, next);
    }
    found
}

/// Whether the file says that it is a ledger of another version.
fn is_other_version(ledger: &[u8]) -> bool {
    let (name, _) = MAGIC.split_at(MAGIC.len() - 1);
    let found = ledger.strip_prefix(name).and_then(<[u8]>::first);
    let ours = ledger.starts_with(MAGIC) || ledger.starts_with(SHORTENED);
    found.is_some_and(u8::is_ascii_digit) && !ours
}

fn accepted(record: &Record) -> Option<TaskId> {
    if let Record::Accepted { answer } = record { Some(answer.task) } else { None }
}

/// The task that a record behind the damage accepts an answer of, as far as it can be read.
fn readable(payload: &[u8]) -> Option<TaskId> {
    rmp_serde::from_slice(payload).ok().as_ref().and_then(accepted)
}

fn unanswered(state: &State) -> BTreeMap<String, u64> {
    let mut kinds = BTreeMap::new();
    for ticket in state.tickets().values().filter(|ticket| !ticket.is_settled()) {
        *kinds.entry(ticket.task.work.kind().to_owned()).or_default() += 1;
    }
    kinds
}
