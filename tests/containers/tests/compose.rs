//! docker-compose.yml as it stands, on images of this build: coordinator and workers come up
//! together, find each other, and measure.

use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use uspx_tests_containers::{build, on_path};

/// Until a prompt is traced, with both images just made.
const WITHIN: Duration = Duration::from_secs(240);
/// The images are not the project's own names: an engine may hold real ones.
const IMAGES: &str = "version: \"3.7\"\nservices:\n  nats: { image: uspx-test-nats }\n  coordinator: { image: uspx-test }\n  worker-1: { image: uspx-test }\n  worker-2: { image: uspx-test }\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn images() {
    let root = root();
    let uspx =
        std::env::var_os("USPX_BIN").map_or_else(|| root.join("target/debug/uspx"), PathBuf::from);
    assert!(uspx.is_file(), "{} is not built: run `cargo build -p uspx`", uspx.display());
    let service = root.join("deploy/uspx-service.sh");
    let files =
        [(uspx.as_path(), "/usr/local/bin/uspx"), (&service, "/usr/local/bin/uspx-service")];
    build("uspx-test", &files, "/usr/local/bin/uspx").unwrap();
    // As the tests of the workspace look for it.
    let installed = root.join(".tools/nats-server");
    let nats = match std::env::var_os("USPX_NATS_SERVER") {
        Some(named) => named.into(),
        None if installed.is_file() => installed,
        None => on_path("nats-server").unwrap(),
    };
    build("uspx-test-nats", &[(&nats, "/usr/local/bin/nats-server")], "/usr/local/bin/nats-server")
        .unwrap();
}

/// The project in a folder of its own, with the shipped models and prompts; down with its handle.
struct Project {
    folder: TempDir,
}

impl Project {
    fn new() -> Self {
        let (root, folder) = (root(), tempfile::tempdir().unwrap());
        let to = |path: &str| folder.path().join(path);
        for (from, into) in [
            ("cli/assets/nano/teacher", "models/teacher"),
            ("cli/assets/nano/student", "models/student"),
            ("deploy", "deploy"),
        ] {
            fs::create_dir_all(to(into)).unwrap();
            for entry in fs::read_dir(root.join(from)).unwrap() {
                let entry = entry.unwrap();
                fs::copy(entry.path(), to(into).join(entry.file_name())).unwrap();
            }
        }
        for name in ["prompts", "state"] {
            fs::create_dir(to(name)).unwrap();
        }
        let prompts = root.join("cli/assets/prompts");
        fs::copy(prompts.join("cli-train.jsonl"), to("prompts/train.jsonl")).unwrap();
        fs::copy(prompts.join("cli-heldout.jsonl"), to("prompts/gate.jsonl")).unwrap();
        fs::copy(root.join("docker-compose.yml"), to("docker-compose.yml")).unwrap();
        fs::write(to("images.yml"), IMAGES).unwrap();
        Self { folder }
    }

    /// `docker compose`, or `docker-compose` where that is what there is.
    fn compose(&self, words: &[&str]) -> Output {
        let is_plugin = Command::new("docker").args(["compose", "version"]).output();
        let is_plugin = is_plugin.is_ok_and(|output| output.status.success());
        let mut command = Command::new(if is_plugin { "docker" } else { "docker-compose" });
        command.args(is_plugin.then_some("compose")).args([
            "-f",
            "docker-compose.yml",
            "-f",
            "images.yml",
        ]);
        let owner = fs::metadata(self.folder.path()).unwrap();
        command.env("UID_GID", format!("{}:{}", owner.uid(), owner.gid()));
        command.current_dir(self.folder.path()).args(words).output().unwrap()
    }

    fn status(&self) -> Option<Value> {
        let path = self.folder.path().join("state/coordinator/status.json");
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        self.compose(&["down", "--volumes"]);
    }
}

#[test]
fn the_services_come_up_together_and_measure() {
    images();
    let project = Project::new();
    let output = project.compose(&["up", "--detach"]);
    assert!(output.status.success(), "{output:?}");
    let end = Instant::now() + WITHIN;
    let measures = |status: &Value| {
        status["workers"].as_array().is_some_and(|w| w.len() == 2)
            && status["tasks_answered"].as_u64() > Some(0)
    };
    while !project.status().as_ref().is_some_and(measures) {
        if Instant::now() > end {
            let logs = project.compose(&["logs", "--no-color"]);
            panic!("no task was answered by two workers within {WITHIN:?}: {logs:?}");
        }
        std::thread::sleep(Duration::from_millis(250));
    }
}
