//! A nats-server of our own, as a child process: found, checked, started on a free port of this
//! machine's loopback with durable JetStream storage, and stopped with us.

mod claim;
mod find;

pub use find::find_program;

use claim::Claim;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io};

/// How long a started server may take until it answers.
const START_WITHIN: Duration = Duration::from_secs(20);
/// How long a server may take to stop before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// What is let through: a payload of [`crate::MAX_PAYLOAD`] and its headers.
const MAX_WIRE_PAYLOAD: usize = crate::MAX_PAYLOAD + (64 << 10);

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// No program was found.
    #[error(
        "no nats-server found (looked at USPX_NATS_SERVER, PATH and .tools/nats-server): run deploy/get-nats-server.sh, \
         or install version {needed} or newer"
    )]
    NotFound {
        /// The oldest version that will do.
        needed: &'static str,
    },
    /// `USPX_NATS_SERVER` names something that is not a program.
    #[error("USPX_NATS_SERVER names {}, which cannot be run: {reason}", path.display())]
    NotRunnable {
        /// What it names.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Only older ones were found.
    #[error(
        "{} is nats-server {found}, and {needed} or newer is needed: run deploy/get-nats-server.sh, or upgrade it",
        path.display()
    )]
    TooOld {
        /// The program.
        path: PathBuf,
        /// Its version.
        found: String,
        /// The oldest that will do.
        needed: &'static str,
    },
    /// Someone else uses the store.
    #[error("{} is in use by another uspx: stop that one, or choose another folder", store.display())]
    Busy {
        /// The folder.
        store: PathBuf,
    },
    /// A file could not be written or read.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// It started, but did not come up.
    #[error("nats-server did not come up ({why}); the end of its log {}:\n{tail}", log.display())]
    DidNotStart {
        /// What was seen.
        why: String,
        /// The log.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ServerError + '_ {
    move |error| ServerError::Io { path: path.to_owned(), error }
}

/// A running nats-server. Stopped when dropped.
#[derive(Debug)]
pub struct NatsServer {
    child: Option<Child>,
    address: SocketAddr,
    program: PathBuf,
    store: PathBuf,
    claim: Claim,
}

impl NatsServer {
    /// Starts a server that keeps its streams under `store`, on `port` or on a free one. Blocks
    /// until it answers.
    ///
    /// A server left behind there by a uspx that was killed is stopped first.
    ///
    /// # Errors
    /// [`ServerError`]: no usable program, the store in use, or it does not come up.
    pub fn start(store: &Path, port: Option<u16>) -> Result<Self, ServerError> {
        Self::start_program(find_program()?, store, port)
    }

    /// The same with a program that was found already.
    ///
    /// # Errors
    /// As for [`NatsServer::start`].
    pub fn start_program(
        program: PathBuf,
        store: &Path,
        port: Option<u16>,
    ) -> Result<Self, ServerError> {
        fs::create_dir_all(store).map_err(at(store))?;
        let store = fs::canonicalize(store).map_err(at(store))?;
        let claim = Claim::take(&store)?;
        let mut child = spawn(&program, &store, port, &claim)?;
        match wait_until_up(&mut child, &store) {
            Ok(address) => Ok(Self { child: Some(child), address, program, store, claim }),
            Err(error) => {
                stop(&mut child);
                Err(error)
            }
        }
    }

    /// Its address for clients.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Its process' id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Stops it: asks, waits a little, then kills. Blocks.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            stop(&mut child);
        }
    }

    /// Kills it without letting it tidy up, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            kill(&mut child);
        }
    }

    /// Starts it again on the same store and port, if it does not run.
    ///
    /// # Errors
    /// As for [`NatsServer::start`].
    pub fn restart(&mut self) -> Result<(), ServerError> {
        self.stop();
        let mut child = spawn(&self.program, &self.store, Some(self.address.port()), &self.claim)?;
        let up = wait_until_up(&mut child, &self.store);
        self.child = Some(child);
        up.map(drop)
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn log_path(store: &Path) -> PathBuf {
    store.join("nats-server.log")
}

/// The configuration. NATS reads JSON.
fn config(store: &Path, port: Option<u16>) -> serde_json::Value {
    serde_json::json!({
        "host": "127.0.0.1",
        "port": port.map_or(-1, i32::from),
        "server_name": "uspx",
        "max_payload": MAX_WIRE_PAYLOAD,
        "jetstream": { "store_dir": store.join("jetstream"), "sync_interval": "always" },
        "ports_file_dir": store,
        "pid_file": store.join(claim::PID_FILE),
        "log_file": log_path(store),
    })
}

fn spawn(
    program: &Path,
    store: &Path,
    port: Option<u16>,
    claim: &Claim,
) -> Result<Child, ServerError> {
    let file = store.join("nats-server.conf");
    fs::write(&file, config(store, port).to_string()).map_err(at(&file))?;
    let mut command = Command::new(program);
    command
        .arg("-c")
        .arg(&file)
        .stdin(claim.for_child()?)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // Ctrl-C is for us: the server goes last, when we say so.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn().map_err(at(program))
}

#[derive(Deserialize)]
struct Ports {
    nats: Vec<String>,
}

/// The server writes its ports to a file named by its process once it listens.
fn wait_until_up(child: &mut Child, store: &Path) -> Result<SocketAddr, ServerError> {
    let file = store.join(format!("nats-server_{}.ports", child.id()));
    let deadline = Instant::now() + START_WITHIN;
    let why = loop {
        if let Some(address) = listening_at(&file).filter(answers) {
            return Ok(address);
        }
        match child.try_wait() {
            Ok(Some(status)) => break format!("it ended: {status}"),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            Ok(None) => break format!("no answer within {START_WITHIN:?}"),
            Err(error) => break error.to_string(),
        }
    };
    let log = log_path(store);
    let text = fs::read_to_string(&log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail =
        lines.iter().skip(lines.len().saturating_sub(8)).copied().collect::<Vec<_>>().join("\n");
    Err(ServerError::DidNotStart { why, log, tail })
}

fn listening_at(ports_file: &Path) -> Option<SocketAddr> {
    let ports: Ports = serde_json::from_slice(&fs::read(ports_file).ok()?).ok()?;
    ports.nats.first()?.strip_prefix("nats://")?.parse().ok()
}

/// Whether it greets, as it does once it takes connections.
fn answers(address: &SocketAddr) -> bool {
    let greeting = || -> io::Result<[u8; 4]> {
        let mut stream = std::net::TcpStream::connect_timeout(address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut word = [0; 4];
        io::Read::read_exact(&mut stream, &mut word)?;
        Ok(word)
    };
    greeting().is_ok_and(|word| &word == b"INFO")
}

fn stop(child: &mut Child) {
    if claim::ask_to_stop(child.id()) {
        let deadline = Instant::now() + STOP_WITHIN;
        while Instant::now() < deadline {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    kill(child);
}

fn kill(child: &mut Child) {
    // Both fail only where it has ended already.
    let _ = child.kill();
    let _ = child.wait();
}
