//! One owner per colony and bus. Two coordinators would take each other's answers, so whoever runs
//! keeps a claim under a key of the bus, and says again and again that it lives.
//!
//! Nobody's clock is compared with another's: a claim may be taken over once the challenger has, by
//! its own clock, seen it unchanged for as long as the claim itself asks for. Its holder trusts it
//! for a quarter of that time after each renewal, and asks the bus before it settles anything later
//! than that.

use crate::ServiceError;
use crate::status::write_file;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Mutex;
use tokio::time::Instant;
use uspx_bus::{Bus, BusError, Revision, Swapped};
use uspx_colony::{Record, State};
use uspx_domain::TaskId;
use uspx_runtime::Shutdown;
use uspx_wire::subjects::OWNER;

/// The ledger's name, beside it. Not part of it: a ledger's frozen format has no place for one.
const ID_FILE: &str = "owner.id";
/// A claim is renewed so many times within its time.
const RENEWALS: u32 = 12;
/// A renewed claim is trusted for this part of its time.
const TRUSTED: u32 = 4;
/// How often a challenger looks within the time that a claim asks for.
const LOOKS: u32 = 60;
/// How long letting go may take.
const RELEASE_WITHIN: Duration = Duration::from_secs(2);

/// What the owner says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Claim {
    /// The ledger that it keeps.
    ledger: String,
    /// Grows with every owner.
    epoch: u64,
    /// How long it may stand unrenewed.
    takeover_millis: u64,
    /// Whether the owner has let go.
    released: bool,
    /// For people.
    host: String,
    pid: u32,
    since_seconds: i64,
}

impl Claim {
    fn of_this_process(ledger: &str, takeover: Duration) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            ledger: ledger.to_owned(),
            epoch: 0,
            takeover_millis: u64::try_from(takeover.as_millis()).unwrap_or(u64::MAX),
            released: false,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            pid: std::process::id(),
            since_seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        }
    }

    fn encoded(&self) -> Result<Bytes, ServiceError> {
        let text = serde_json::to_vec(self).map_err(std::io::Error::from);
        text.map(Bytes::from).map_err(ServiceError::file(OWNER))
    }

    fn takeover(&self) -> Duration {
        Duration::from_millis(self.takeover_millis)
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, pid, .. } = self;
        let since = chrono::DateTime::from_timestamp(self.since_seconds, 0).unwrap_or_default();
        write!(f, "another coordinator (host {host}, process {pid}, since {since})")
    }
}

/// Who claims a colony, for people who look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimant {
    /// Whether it has let go: no coordinator runs.
    pub released: bool,
    /// Its host.
    pub host: String,
    /// Its process there.
    pub pid: u32,
}

/// Who says so under the key `owner`; none where that cannot be read.
pub fn claimant(value: &[u8]) -> Option<Claimant> {
    let Claim { released, host, pid, .. } = serde_json::from_slice(value).ok()?;
    Some(Claimant { released, host, pid })
}

/// Someone else's claim, as far as it can be read.
fn named(value: &[u8]) -> String {
    match serde_json::from_slice::<Claim>(value) {
        Ok(claim) => claim.to_string(),
        Err(_) => "another coordinator (of a version that this one cannot read)".to_owned(),
    }
}

/// Claims the colony for a ledger; `None` where the end was asked for meanwhile.
///
/// # Errors
/// [`ServiceError::Owned`] as soon as another ledger's claim is seen to be alive, or trouble with
/// the bus that does not pass.
pub(crate) async fn claim(
    bus: &Arc<dyn Bus>,
    ledger: &str,
    takeover: Duration,
    shutdown: &Shutdown,
) -> Result<Option<Owner>, ServiceError> {
    let claim = Claim::of_this_process(ledger, takeover);
    let mut challenger = Challenger { bus: bus.clone(), claim, unchanged: None };
    loop {
        match challenger.look().await {
            Ok(Some(owner)) => return Ok(Some(owner)),
            Ok(None) => {}
            Err(ServiceError::Bus(error)) if error.is_retryable() => {
                tracing::warn!(%error, "the colony cannot be claimed just now");
                // Nobody could renew anything either.
                challenger.unchanged = None;
            }
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            () = tokio::time::sleep(takeover / LOOKS) => {}
        }
    }
}

/// One who wants the colony.
struct Challenger {
    bus: Arc<dyn Bus>,
    claim: Claim,
    /// Another's claim, and since when it stands there unchanged.
    unchanged: Option<(Revision, Instant)>,
}

impl Challenger {
    async fn look(&mut self) -> Result<Option<Owner>, ServiceError> {
        let asked = Instant::now();
        let Some((value, revision)) = self.bus.get_revision(OWNER).await? else {
            return self.take(None, 0).await;
        };
        let theirs = serde_json::from_slice::<Claim>(&value).ok();
        let epoch = theirs.as_ref().map_or(0, |c| c.epoch);
        let is_free = |c: &Claim| c.released || c.ledger == self.claim.ledger;
        if theirs.as_ref().is_some_and(is_free) {
            return self.take(Some(revision), epoch).await;
        }
        let wait = theirs.map_or(Duration::ZERO, |c| c.takeover()).max(self.claim.takeover());
        match self.unchanged {
            None => {
                let owner = named(&value);
                tracing::warn!(
                    owner,
                    ?wait,
                    "the colony has an owner: waiting to see whether it lives"
                );
                self.unchanged = Some((revision, Instant::now()));
                Ok(None)
            }
            Some((before, _)) if before != revision => {
                Err(ServiceError::Owned { owner: named(&value) })
            }
            Some((_, since)) if asked.saturating_duration_since(since) >= wait => {
                tracing::warn!(owner = named(&value), "the owner is gone: taking the colony over");
                self.take(Some(revision), epoch).await
            }
            Some(_) => Ok(None),
        }
    }

    async fn take(
        &mut self,
        expected: Option<Revision>,
        epoch: u64,
    ) -> Result<Option<Owner>, ServiceError> {
        let claim = Claim { epoch: epoch.saturating_add(1), ..self.claim.clone() };
        let (value, at) = (claim.encoded()?, Instant::now());
        match self.bus.swap(OWNER, expected, value.clone()).await? {
            Swapped::Done(revision) => {
                let hold = Hold { revision, trusted_until: at + claim.takeover() / TRUSTED };
                Ok(Some(Owner { bus: self.bus.clone(), claim, value, hold: Mutex::new(hold) }))
            }
            // Somebody was faster, and is looked at anew.
            Swapped::Lost => {
                self.unchanged = None;
                Ok(None)
            }
        }
    }
}

/// The colony's owner: this process, until it finds its claim replaced.
pub(crate) struct Owner {
    bus: Arc<dyn Bus>,
    claim: Claim,
    value: Bytes,
    hold: Mutex<Hold>,
}

struct Hold {
    revision: Revision,
    trusted_until: Instant,
}

impl Owner {
    /// Renews the claim until it is found replaced. While the bus is away it goes on trying.
    pub(crate) async fn keep(&self) -> ServiceError {
        loop {
            tokio::time::sleep(self.claim.takeover() / RENEWALS).await;
            match self.renew(&mut *self.hold.lock().await).await {
                Ok(()) => {}
                Err(error @ ServiceError::Replaced { .. }) => return error,
                Err(error) => tracing::warn!(%error, "the claim on the colony is not renewed yet"),
            }
        }
    }

    /// Makes sure that the colony still is this process', asking the bus where that is not known
    /// from a moment ago. Nothing is settled without it.
    ///
    /// # Errors
    /// [`ServiceError::Replaced`], or the bus cannot say.
    pub(crate) async fn confirm(&self) -> Result<(), ServiceError> {
        let mut hold = self.hold.lock().await;
        if self.bus.is_connected() && Instant::now() < hold.trusted_until {
            return Ok(());
        }
        self.renew(&mut hold).await
    }

    /// Lets go, so that another need not wait.
    pub(crate) async fn release(&self) {
        let hold = self.hold.lock().await;
        let Ok(value) = Claim { released: true, ..self.claim.clone() }.encoded() else { return };
        let released = self.bus.swap(OWNER, Some(hold.revision), value);
        match tokio::time::timeout(RELEASE_WITHIN, released).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the claim on the colony is not released"),
            Err(_) => tracing::debug!("the claim on the colony is not released in time"),
        }
    }

    async fn renew(&self, hold: &mut Hold) -> Result<(), ServiceError> {
        let at = Instant::now();
        hold.trusted_until = at;
        match self.bus.swap(OWNER, Some(hold.revision), self.value.clone()).await {
            Ok(Swapped::Done(revision)) => {
                hold.revision = revision;
                hold.trusted_until = at + self.claim.takeover() / TRUSTED;
                Ok(())
            }
            // A renewal before it may have gone through unheard.
            Ok(Swapped::Lost) => self.look(hold).await,
            // To acknowledge makes room, so it must not wait for room: what is read counts once.
            Err(BusError::NoRoom { .. }) => self.look(hold).await,
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the claim on the bus is this one; made anew where the bus has lost it.
    async fn look(&self, hold: &mut Hold) -> Result<(), ServiceError> {
        match self.bus.get_revision(OWNER).await? {
            Some((value, revision)) if value == self.value => {
                hold.revision = revision;
                Ok(())
            }
            Some((value, _)) => Err(ServiceError::Replaced { owner: named(&value) }),
            None => match self.bus.swap(OWNER, None, self.value.clone()).await? {
                Swapped::Done(revision) => {
                    hold.revision = revision;
                    Ok(())
                }
                Swapped::Lost => {
                    Err(ServiceError::Replaced { owner: "another coordinator".into() })
                }
            },
        }
    }
}

/// The tasks that a ledger issued. The state forgets those of epochs long past; their second answers
/// are ours all the same. A snapshot takes along those since the one before it, and what the state
/// still waits for: second answers come within days, and the ledger is not to grow for ever.
#[derive(Debug, Default)]
pub(crate) struct Issued {
    since: HashSet<TaskId>,
    /// What the last snapshot brought.
    before: HashSet<TaskId>,
}

impl Issued {
    pub(crate) fn note(&mut self, record: &Record) {
        match record {
            Record::EpochOpened { tasks, .. } => {
                self.since.extend(tasks.iter().map(|task| task.id));
            }
            Record::Snapshot(snapshot) => self.go_on_from(&snapshot.issued),
            _ => {}
        }
    }

    pub(crate) fn contains(&self, task: TaskId) -> bool {
        self.since.contains(&task) || self.before.contains(&task)
    }

    /// What a snapshot of now takes along.
    pub(crate) fn lately(&self, state: &State) -> BTreeSet<TaskId> {
        self.since.iter().chain(state.tickets().keys()).copied().collect()
    }

    /// A snapshot that takes these along was written.
    pub(crate) fn go_on_from(&mut self, lately: &BTreeSet<TaskId>) {
        *self = Self { since: HashSet::new(), before: lately.iter().copied().collect() };
    }
}

/// The ledger's name in claims, made at its first start. To be called while the ledger is held.
///
/// # Errors
/// The file cannot be read or written.
pub(crate) fn ledger_id(state: &Path) -> Result<String, ServiceError> {
    let path = state.join(ID_FILE);
    match std::fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => return Ok(id.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(ServiceError::file(path)(error)),
    }
    let id = uuid::Uuid::new_v4().to_string();
    write_file(&path, id.as_bytes())?;
    Ok(id)
}

#[cfg(test)]
mod tests;
