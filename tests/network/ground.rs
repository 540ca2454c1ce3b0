//! What a colony stands on in a test: a nats-server, a store, a small campaign, and the processes
//! of its parts.

use crate::process::{Ended, Process, run, uspx, wait_for};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use uspx_bus::server::{NatsServer, find_program};
use uspx_tests::Need;
use uspx_tests::moto::Moto;

/// A campaign may take this long, on a machine that does other things too.
pub const CAMPAIGN_WITHIN: Duration = Duration::from_secs(240);
/// The workers of a test's colony.
pub const WORKERS: [&str; 2] = ["one", "two"];

/// Everything small, so that it ends within seconds; one recipe, one training, a few rounds of
/// probing, and no finish: that has its own tests, and takes as long as all the rest.
pub const CAMPAIGN: &str = "
name = 'small'
seed = 7
[campaign.probe]
trace_batch = 12
patch_prompts = 16
patch_batch = 8
exact_pairs = 1280
exact_least = 1280
round_pairs = 320
round_prompts = 8
units_per_task = 8
candidates = 2
[campaign.judge]
batch = 24
masks_per_task = 4
random_masks = 4
curve = [0.25, 0.5]
[campaign.dream]
rounds = 0
[campaign.finish]
passes = 0
[campaign.distil]
label_batch = 12
calibration = 24
judge_batch = 24
resamples = 200
recipes = [{ rank = 8, alpha = 16.0, epochs = 8, learning_rate = 0.005, batch_tokens = 512, teacher_weight = 0.5, seed = 1 }]
";

pub fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/assets")
}

pub fn models() -> [PathBuf; 2] {
    ["teacher", "student"].map(|which| assets().join("nano").join(which))
}

/// What tests need beside the binary.
pub struct Needs {
    pub nats: Need,
    pub s3: Need,
}

impl Needs {
    pub fn look() -> Self {
        Self {
            nats: Need::new("nats-server", "USPX_REQUIRE_NATS", find_program().is_ok()),
            s3: Moto::need(),
        }
    }
}

/// The place of one colony.
pub struct Ground {
    pub server: NatsServer,
    pub folder: TempDir,
    pub store: String,
    env: Vec<(String, String)>,
}

impl Ground {
    /// A colony whose store is a folder.
    pub fn new() -> Self {
        Self::over(None, Vec::new())
    }

    /// A colony whose store is at `url`, reached with `env`.
    pub fn over(url: Option<&str>, env: Vec<(String, String)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server =
            NatsServer::start(&folder.path().join("nats"), None).unwrap_or_else(|e| panic!("{e}"));
        let store =
            url.map_or_else(|| folder.path().join("store").display().to_string(), str::to_owned);
        write_prompts(folder.path());
        let here = |name: &str| folder.path().join(name).display().to_string();
        let config = format!(
            "colony = 'test'\nnats = '{}'\nstore = '{store}'\nstate = '{}'\ntrain = '{}'\nvalidation = '{}'\n\
             gate = '{}'\nsilence = 4\nlease = 5\ntakeover = 3\n[campaign]\n{CAMPAIGN}",
            server.url(),
            here("state"),
            here("train.jsonl"),
            here("validation.jsonl"),
            here("gate.jsonl"),
        );
        std::fs::write(folder.path().join("uspx.toml"), config).unwrap();
        Self { server, folder, store, env }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Changes the configuration that coordinators are started with: `from`, which stands there, becomes `to`.
    pub fn configure(&self, from: &str, to: &str) {
        let file = self.path("uspx.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "no `{from}` in {text}");
        std::fs::write(&file, text.replace(from, to)).unwrap();
    }

    /// Has the campaign end with its mask.
    pub fn stop_at_mask(&self) {
        self.configure("seed = 7", "seed = 7\nstop_at_mask = true");
    }

    pub fn ledger(&self) -> PathBuf {
        self.path("state/ledger")
    }

    /// The coordinator, up as soon as it has shown its status. One that is started again after its
    /// release may be over before anybody looks; one that fails is a failed test.
    pub fn coordinator(&self, run: &str) -> Process {
        std::fs::remove_file(self.path("state/status.json")).ok();
        let mut command = self.command();
        command.args(["coordinator", "-c"]).arg(self.path("uspx.toml"));
        let mut process =
            Process::start(command, self.folder.path(), &format!("coordinator-{run}"));
        wait_for("the coordinator is up", Duration::from_secs(60), || {
            if process.has_ended() {
                let ended = process.end(Duration::from_secs(1));
                assert_eq!(ended.code, Some(0), "the coordinator has failed: {ended:?}");
                return Some(());
            }
            self.status_file().map(|_| ())
        });
        process
    }

    pub fn worker(&self, name: &str) -> Process {
        self.worker_at(name, |command| {
            command.arg("--store").arg(&self.store);
        })
    }

    /// A worker with what `change` adds to its command line: a store, at least.
    pub fn worker_at(&self, name: &str, change: impl FnOnce(&mut Command)) -> Process {
        let [teacher, student] = models();
        let models = format!("{},{}", teacher.display(), student.display());
        let mut command = self.command();
        command.args(["worker", "--name", name, "--nats", &self.server.url()]);
        command.args(["--models", &models, "--threads", "1"]);
        command.arg("--state").arg(self.path(&format!("worker-{name}")));
        change(&mut command);
        Process::start(command, self.folder.path(), &format!("worker-{name}"))
    }

    pub fn workers(&self) -> [Process; 2] {
        WORKERS.map(|name| self.worker(name))
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(uspx());
        command.envs(self.env.iter().cloned());
        command
    }

    /// The status as the coordinator last wrote it.
    pub fn status_file(&self) -> Option<Value> {
        serde_json::from_slice(&std::fs::read(self.path("state/status.json")).ok()?).ok()
    }

    /// Waits until the campaign is in `stage`, or beyond it, with a worker at work on a task, and
    /// names the worker.
    pub fn at_work_in(&self, stage: &str) -> String {
        wait_for(&format!("a worker is at work in {stage}"), CAMPAIGN_WITHIN, || {
            let status = self.status_file().filter(|s| has_reached(s, stage))?;
            let mut working =
                status["workers"].as_array()?.iter().filter(|w| !w["current"].is_null());
            working.next()?["worker"].as_str().map(str::to_owned)
        })
    }

    /// Waits until the campaign is in `stage`, or beyond it: on a fast machine a stage is over
    /// soon.
    pub fn in_stage(&self, stage: &str) {
        wait_for(stage, CAMPAIGN_WITHIN, || self.status_file().filter(|s| has_reached(s, stage)));
    }

    /// `uspx status` over the network, as JSON.
    pub fn status(&self) -> Value {
        let said = run(&["status", "--nats", &self.server.url(), "--json"], &self.env);
        assert_eq!(said.code, Some(0), "{said:?}");
        serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {said:?}"))
    }

    /// `uspx pull` into a folder of its own, as JSON.
    pub fn pull(&self) -> (Value, PathBuf) {
        let into = self.path("laptop");
        let said =
            run(&["pull", &self.store, "--into", &into.display().to_string(), "--json"], &self.env);
        assert_eq!(said.code, Some(0), "{said:?}");
        (serde_json::from_str(&said.out).unwrap(), into)
    }
}

/// Whether a status is of `stage` or a later one.
fn has_reached(status: &Value, stage: &str) -> bool {
    const ORDER: [&str; 9] = [
        "trace",
        "patch",
        "explore",
        "judge masks",
        "label",
        "distil",
        "export",
        "judge students",
        "done: published release 1",
    ];
    let place = |name: &str| ORDER.iter().position(|s| *s == name);
    status["stage"].as_str().and_then(place) >= Some(place(stage).expect("a stage"))
}

/// The coordinator's end must be a release.
pub fn assert_published(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.out.contains("published release 1"), "{ended:?}");
}

/// The coordinator's end must be a mask.
pub fn assert_measured(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.out.contains("the mask is measured"), "{ended:?}");
}

/// Gate and validation prompts are train prompts under other names: a student of seconds learns
/// those by heart, and the gate lets it pass. What a real student is worth is measured elsewhere;
/// here the way counts.
pub fn write_prompts(folder: &Path) {
    let all = std::fs::read_to_string(assets().join("prompts/cli-train.jsonl")).unwrap();
    let lines: Vec<&str> = all.lines().take(48).collect();
    let renamed = |lines: &[&str], mark: &str| -> Vec<String> {
        lines.iter().map(|l| l.replacen("\"id\": \"", &format!("\"id\": \"{mark}-"), 1)).collect()
    };
    let write = |name: &str, lines: Vec<String>| {
        std::fs::write(folder.join(name), lines.join("\n")).unwrap()
    };
    write("train.jsonl", renamed(&lines, "train"));
    write("validation.jsonl", renamed(&lines[..8], "validation"));
    write("gate.jsonl", renamed(&lines[8..32], "gate"));
}
