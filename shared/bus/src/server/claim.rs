//! Who may use a store. A uspx that was killed leaves its nats-server behind; two servers on one
//! store would ruin it.
//!
//! Two lock files tell the cases apart. `owner.lock` is locked by the uspx process. `server.lock`
//! is handed to the nats-server as its standard input, so the lock lasts exactly as long as that
//! server does, whatever becomes of us.

use super::{ServerError, at};
use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Where the server writes its process id.
pub(super) const PID_FILE: &str = "nats-server.pid";
/// How long a server that was left behind may take to stop.
const LEFT_BEHIND_WITHIN: Duration = Duration::from_secs(10);

/// The right to run a server on a store.
#[derive(Debug)]
pub(super) struct Claim {
    _owner: File,
    server: File,
}

impl Claim {
    /// Claims the store, and stops the server that a killed uspx left there.
    pub fn take(store: &Path) -> Result<Self, ServerError> {
        let owner = lock_file(store, "owner.lock")?;
        if !locked(&owner, store)? {
            return Err(ServerError::Busy { store: store.to_owned() });
        }
        let server = lock_file(store, "server.lock")?;
        let deadline = Instant::now() + LEFT_BEHIND_WITHIN;
        while !locked(&server, store)? {
            if Instant::now() >= deadline || !ask_left_behind(store) {
                return Err(ServerError::Busy { store: store.to_owned() });
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(Self { _owner: owner, server })
    }

    /// The lock as a child's standard input. Duplicates share the lock, so it is free only when all
    /// are closed.
    pub fn for_child(&self) -> Result<Stdio, ServerError> {
        self.server.try_clone().map(Stdio::from).map_err(at(Path::new("server.lock")))
    }
}

fn lock_file(store: &Path, name: &str) -> Result<File, ServerError> {
    let path = store.join(name);
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(at(&path))
}

fn locked(file: &File, store: &Path) -> Result<bool, ServerError> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(at(store)(error)),
    }
}

/// The lock being held proves that the process is alive, and only servers on this store write the
/// file.
fn ask_left_behind(store: &Path) -> bool {
    let pid = std::fs::read_to_string(store.join(PID_FILE))
        .ok()
        .and_then(|text| text.trim().parse().ok());
    tracing::warn!(?pid, store = %store.display(), "stopping a nats-server that was left behind");
    pid.is_some_and(ask_to_stop)
}

/// Asks a process to end. `false` where that is not possible.
#[cfg(unix)]
pub(super) fn ask_to_stop(pid: u32) -> bool {
    use rustix::process::{Pid, Signal, kill_process};
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok())
}

/// Asks a process to end. `false` where that is not possible.
#[cfg(not(unix))]
pub(super) fn ask_to_stop(_pid: u32) -> bool {
    false
}
