//! One worker of a name. Two would pull each other's tasks and look like one that is at two places, so
//! whoever runs keeps a claim under a key of the bus and renews it; the second one refuses to start.
//!
//! Nobody's clock is compared with another's: a claim may be taken over once it was seen unchanged for as
//! long as it asks for. The same state folder, which one process holds ([`Seat`]), takes over at once: a
//! worker that was killed and is started again need not wait.

use crate::{WorkerError, WorkerSettings};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use uspx_bus::{Bus, BusError, Revision, Swapped};
use uspx_domain::WorkerId;
use uspx_runtime::{Shutdown, host};
use uspx_wire::subjects::worker_claim;

/// A claim may stand unrenewed for so many heartbeats.
const HEARTBEATS: u32 = 5;
/// How long letting go may take.
const RELEASE_WITHIN: Duration = Duration::from_secs(2);
/// The state folder's name, and what its holder locks.
const ID_FILE: &str = "worker.id";

/// A state folder that this process holds.
pub(crate) struct Seat {
    id: String,
    _locked: File,
}

impl Seat {
    /// Takes the state folder, and names it where it has no name yet.
    ///
    /// # Errors
    /// [`WorkerError::Busy`] where another process holds it; the disk's.
    pub fn take(state: &Path) -> Result<Self, WorkerError> {
        let unusable = |source| WorkerError::State { folder: state.to_owned(), source };
        let path = state.join(ID_FILE);
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).read(true).write(true).open(&path);
        let file = file.map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(WorkerError::Busy(state.to_owned())),
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        let mut id = std::fs::read_to_string(&path).map_err(unusable)?;
        if id.trim().is_empty() {
            id = uuid::Uuid::new_v4().to_string();
            std::fs::write(&path, &id).map_err(unusable)?;
        }
        Ok(Self { id: id.trim().to_owned(), _locked: file })
    }
}

/// What a worker says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Claim {
    /// Its state folder.
    seat: String,
    /// This start of it.
    start: String,
    /// How long it may stand unrenewed.
    takeover_millis: u64,
    /// Whether the worker has let go.
    released: bool,
    /// For people.
    host: String,
    pid: u32,
}

impl Claim {
    fn encoded(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    fn takeover(&self) -> Duration {
        Duration::from_millis(self.takeover_millis)
    }
}

/// Someone else's claim, as far as it can be read.
fn named(value: &[u8]) -> String {
    match serde_json::from_slice::<Claim>(value) {
        Ok(Claim { host, pid, .. }) => format!("host {host}, process {pid}"),
        Err(_) => "of a version that this one cannot read".to_owned(),
    }
}

/// The name, held on the bus.
pub(crate) struct Name {
    bus: Arc<dyn Bus>,
    worker: WorkerId,
    key: String,
    every: Duration,
    claim: Claim,
    value: Bytes,
    held: tokio::sync::Mutex<Option<Revision>>,
}

impl Name {
    /// A name that is not claimed yet.
    pub fn new(bus: Arc<dyn Bus>, settings: &WorkerSettings, seat: &Seat) -> Self {
        let (every, worker) = (settings.heartbeat_every, settings.id.clone());
        let takeover = (every * HEARTBEATS).as_millis();
        let claim = Claim {
            seat: seat.id.clone(),
            start: uuid::Uuid::new_v4().to_string(),
            takeover_millis: u64::try_from(takeover).unwrap_or(u64::MAX),
            released: false,
            host: host::name(),
            pid: std::process::id(),
        };
        let (key, value) = (worker_claim(&worker), claim.encoded());
        Self { bus, worker, key, every, claim, value, held: Default::default() }
    }

    /// Claims the name; `false` where the end was asked for meanwhile.
    ///
    /// # Errors
    /// [`WorkerError::Taken`] as soon as another's claim is seen to be alive, or trouble with the bus
    /// that does not pass.
    pub async fn take(&self, shutdown: &Shutdown) -> Result<bool, WorkerError> {
        let mut unchanged = None;
        loop {
            match self.look(&mut unchanged).await {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(WorkerError::Bus(error)) if error.is_retryable() => {
                    tracing::warn!(%error, "the worker's name cannot be claimed just now");
                    // Nobody could renew anything either.
                    unchanged = None;
                }
                Err(error) => return Err(error),
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(false),
                () = tokio::time::sleep(self.every / 4) => {}
            }
        }
    }

    /// Takes the name if it is free. `unchanged` is another's claim, and since when it stands there.
    async fn look(&self, unchanged: &mut Option<(Revision, Instant)>) -> Result<bool, WorkerError> {
        let asked = Instant::now();
        let Some((value, revision)) = self.bus.get_revision(&self.key).await? else {
            return self.swap(None).await;
        };
        let theirs = serde_json::from_slice::<Claim>(&value).ok();
        let is_free = |c: &Claim| c.released || c.seat == self.claim.seat;
        if theirs.as_ref().is_some_and(is_free) {
            return self.swap(Some(revision)).await;
        }
        let wait = theirs.map_or(Duration::ZERO, |c| c.takeover()).max(self.claim.takeover());
        match *unchanged {
            None => {
                let other = named(&value);
                tracing::warn!(worker = %self.worker, other, ?wait, "a worker of this name was here: waiting to see whether it lives");
                *unchanged = Some((revision, Instant::now()));
                Ok(false)
            }
            Some((before, _)) if before != revision => Err(self.taken(&value)),
            Some((_, since)) if asked.saturating_duration_since(since) >= wait => {
                self.swap(Some(revision)).await
            }
            Some(_) => Ok(false),
        }
    }

    async fn swap(&self, expected: Option<Revision>) -> Result<bool, WorkerError> {
        match self.bus.swap(&self.key, expected, self.value.clone()).await? {
            Swapped::Done(revision) => {
                *self.held.lock().await = Some(revision);
                tracing::info!(worker = %self.worker, "the name is this worker's");
                Ok(true)
            }
            // Somebody was faster, and is looked at anew.
            Swapped::Lost => Ok(false),
        }
    }

    fn taken(&self, value: &[u8]) -> WorkerError {
        WorkerError::Taken { worker: self.worker.clone(), other: named(value) }
    }

    /// Renews the claim until it is found replaced. While the bus is away it goes on trying.
    pub async fn keep(&self) -> WorkerError {
        loop {
            tokio::time::sleep(self.every).await;
            match self.renew().await {
                Ok(()) => {}
                Err(error @ WorkerError::Taken { .. }) => return error,
                Err(error) => tracing::debug!(%error, "the claim on the name is not renewed yet"),
            }
        }
    }

    async fn renew(&self) -> Result<(), WorkerError> {
        let mut held = self.held.lock().await;
        match self.bus.swap(&self.key, *held, self.value.clone()).await {
            Ok(Swapped::Done(revision)) => *held = Some(revision),
            // A renewal before it may have gone through unheard; or the bus has lost the claim.
            Ok(Swapped::Lost) | Err(BusError::NoRoom { .. }) => {
                match self.bus.get_revision(&self.key).await? {
                    Some((value, revision)) if value == self.value => *held = Some(revision),
                    Some((value, _)) => return Err(self.taken(&value)),
                    None => *held = None,
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Lets go, so that another need not wait.
    pub async fn release(&self) {
        let held = *self.held.lock().await;
        let Some(revision) = held else { return };
        let value = Claim { released: true, ..self.claim.clone() }.encoded();
        let released = self.bus.swap(&self.key, Some(revision), value);
        if let Ok(Err(error)) = tokio::time::timeout(RELEASE_WITHIN, released).await {
            tracing::debug!(%error, "the claim on the name is not released");
        }
    }
}

#[cfg(test)]
mod tests;
