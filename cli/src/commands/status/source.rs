//! Where a status comes from, and whether the coordinator that wrote it lives.
//!
//! A picture is written twice a second, so that an old one is a coordinator's that is gone or held
//! up. On this machine the ledger's lock tells which; over the bus the claim on the colony says
//! whether it has let go, and otherwise a second look, because two machines' clocks may differ.

use crate::args::StatusArgs;
use crate::connect::Address;
use crate::error::{CliError, Exit, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use uspx_bus::{Bus, NatsBus};
use uspx_coordinator::{ServiceError, claimant, ledger};
use uspx_wire::subjects::{OWNER, STATUS};
use uspx_wire::{StatusMessage, decode};

/// A glance should not wait long for a server that is not there.
const PATIENCE: Duration = Duration::from_secs(3);
/// From so old on a picture is doubted.
const FRESH: Duration = Duration::from_secs(3);
/// Between two looks at a picture that is doubted.
const SECOND_LOOK: Duration = Duration::from_millis(1500);

/// Where a status comes from.
pub(super) enum Source {
    Bus(Arc<NatsBus>),
    Folder(PathBuf),
}

/// A status, and what is known of who wrote it.
pub(super) struct Picture {
    pub status: StatusMessage,
    /// How old it is by this machine's clock.
    pub age: Duration,
    pub life: Life,
}

/// Whether the coordinator lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Life {
    /// It does.
    Alive,
    /// It ended with its campaign.
    Ended,
    /// No process holds the ledger, or it has let go of the colony.
    Gone,
    /// Nothing was heard of it; it is this one.
    Silent(Option<String>),
}

impl Life {
    /// None where that cannot be told from here.
    pub(super) fn is_alive(&self) -> Option<bool> {
        match self {
            Self::Alive => Some(true),
            Self::Ended | Self::Gone => Some(false),
            Self::Silent(_) => None,
        }
    }
}

impl Source {
    /// What the arguments name.
    pub(super) async fn of(args: &StatusArgs) -> Result<Self> {
        match (&args.bus.nats, &args.state) {
            (Some(url), _) => {
                let (credentials, namespace) =
                    (args.bus.credentials.as_deref(), args.bus.namespace.as_deref());
                let address = Address { url, credentials, namespace };
                Ok(Self::Bus(address.connect("uspx status", Some(PATIENCE)).await?))
            }
            (None, Some(folder)) => Ok(Self::Folder(folder.clone())),
            (None, None) => Err(CliError::new(Exit::Usage, "which colony?").help(
                "name its server (--nats URL) or its coordinator's state folder (--state DIR)",
            )),
        }
    }

    /// The status, and who wrote it.
    pub(super) async fn look(&self) -> Result<Picture> {
        let status = self.read().await?;
        let age = age(&status);
        let ended = status.campaign.as_ref().is_some_and(|c| c.ended);
        let life = match age {
            Some(age) if age < FRESH && !ended => Life::Alive,
            _ if ended => Life::Ended,
            _ => self.doubted(&status).await?,
        };
        Ok(Picture { status, age: age.unwrap_or_default(), life })
    }

    async fn doubted(&self, status: &StatusMessage) -> Result<Life> {
        match self {
            Self::Folder(folder) => Ok(held(folder)),
            Self::Bus(bus) => {
                let claim = bus.get(OWNER).await?.and_then(|value| claimant(&value));
                if claim.as_ref().is_some_and(|c| c.released) {
                    return Ok(Life::Gone);
                }
                tokio::time::sleep(SECOND_LOOK).await;
                let again = self.read().await?;
                let renewed = again.written_unix_millis != status.written_unix_millis;
                let who = claim.map(|c| format!("host {}, process {}", c.host, c.pid));
                Ok(if renewed { Life::Alive } else { Life::Silent(who) })
            }
        }
    }

    async fn read(&self) -> Result<StatusMessage> {
        match self {
            Self::Bus(bus) => {
                let bytes = bus.get(STATUS).await?.ok_or_else(|| {
                    CliError::new(Exit::NotFound, "this NATS server knows of no colony")
                        .help("start one: uspx coordinator -c uspx.toml")
                })?;
                decode(&bytes).map_err(|e| CliError::new(Exit::Refused, e))
            }
            Self::Folder(folder) => {
                let path = folder.join("status.json");
                let text = std::fs::read(&path).map_err(|e| {
                    CliError::file(&path, &e).help(
                        "name the state folder of a coordinator that was started on this machine",
                    )
                })?;
                serde_json::from_slice(&text)
                    .map_err(|e| CliError::new(Exit::BadInput, format!("{}: {e}", path.display())))
            }
        }
    }
}

/// By this machine's clock; none where the picture is from its future.
fn age(status: &StatusMessage) -> Option<Duration> {
    let written = UNIX_EPOCH + Duration::from_millis(status.written_unix_millis);
    SystemTime::now().duration_since(written).ok()
}

/// Whether a process holds the folder's ledger. A folder without one, or one that may not be looked
/// into, tells nothing.
fn held(folder: &Path) -> Life {
    match ledger::hold(&folder.join(ledger::FILE_NAME)) {
        Ok(_) => Life::Gone,
        Err(ServiceError::Locked(_)) => Life::Alive,
        Err(_) => Life::Silent(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_coordinator::Ledger;

    #[test]
    fn the_ledger_s_lock_tells_whether_the_coordinator_lives() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(held(folder.path()), Life::Silent(None), "there is no ledger");
        let ledger = Ledger::open(&folder.path().join(ledger::FILE_NAME), |_| {}).unwrap();
        assert_eq!(held(folder.path()), Life::Alive);
        drop(ledger);
        assert_eq!(held(folder.path()), Life::Gone);
    }
}
