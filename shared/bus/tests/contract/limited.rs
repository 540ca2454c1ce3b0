//! A nats-server of little room: with limits of its own, or on a disk of a few megabytes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use uspx_bus::server::find_program;

/// A server whose JetStream may keep so much.
pub struct Limited {
    child: Child,
    pub url: String,
    _folder: TempDir,
}

impl Limited {
    /// A server with its store in `store`, or in a folder of its own.
    pub fn start(max_file_store: u64, store: Option<&Path>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("nats.conf");
        let own: PathBuf = folder.path().join("jetstream");
        let settings = serde_json::json!({
            "host": "127.0.0.1", "port": -1, "ports_file_dir": folder.path(),
            "jetstream": {
                "store_dir": store.unwrap_or(&own), "max_file_store": max_file_store,
                "sync_interval": "always"
            },
        });
        std::fs::write(&config, settings.to_string()).unwrap();
        let mut command = Command::new(find_program().unwrap());
        let child = command.arg("-c").arg(&config).stderr(Stdio::null()).spawn().unwrap();
        let url = url_in(&folder.path().join(format!("nats-server_{}.ports", child.id())));
        Self { child, url, _folder: folder }
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The address that a server writes down once it listens.
pub fn url_in(ports_file: &Path) -> String {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let ports = std::fs::read(ports_file)
            .ok()
            .and_then(|b| serde_json::from_slice::<serde_json::Value>(&b).ok());
        if let Some(url) = ports.as_ref().and_then(|p| p["nats"][0].as_str()) {
            return url.to_owned();
        }
        assert!(Instant::now() < deadline, "the server did not come up");
        std::thread::sleep(Duration::from_millis(10));
    }
}
