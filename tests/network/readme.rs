//! The commands of README.md, as they stand: each line of its blocks goes to a shell, in a folder with
//! the files that it names. Only the server's address is another, and a small campaign comes from the
//! environment.

use crate::ground::{CAMPAIGN_WITHIN, Needs, assets, models};
use crate::process::{Ended, Process, uspx};
use libtest_mimic::Trial;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;
use uspx_bus::server::NatsServer;
use uspx_tests::moto::Moto;
use uspx_tests::trials;

pub fn trials(needs: &Needs) -> Vec<Trial> {
    let mut all = trials![every_block_is_run_by_a_test, a_person_s_own_case];
    all.extend(needs.s3.of_all(needs.nats.of_all(trials![a_colony_of_several_machines])));
    all
}

/// The campaign's budgets, as the environment says them: a mask of few pairs, one recipe.
const SMALL: [(&str, &str); 12] = [
    ("PROBE__PATCH_PROMPTS", "8"),
    ("PROBE__EXACT_PAIRS", "320"),
    ("PROBE__EXACT_LEAST", "320"),
    ("PROBE__ROUND_PAIRS", "320"),
    ("PROBE__CANDIDATES", "2"),
    ("JUDGE__RANDOM_MASKS", "4"),
    ("JUDGE__CURVE", "[0.5]"),
    ("DREAM__ROUNDS", "0"),
    ("DISTIL__CALIBRATION", "24"),
    ("FINISH__PASSES", "0"),
    ("DISTIL__RESAMPLES", "200"),
    (
        "DISTIL__RECIPES",
        "[{rank=16,alpha=32.0,epochs=4,learning_rate=0.002,batch_tokens=512,teacher_weight=0.5,seed=1}]",
    ),
];

/// The lines of README's blocks for a shell.
fn blocks() -> Vec<Vec<String>> {
    let text = fs::read_to_string(assets().join("../../README.md")).unwrap();
    let block = |text: &str| text.lines().map(str::to_owned).collect();
    text.split("```sh\n").skip(1).map(|rest| block(rest.split("```").next().unwrap())).collect()
}

/// The block whose first line begins so.
fn block(first: &str) -> Vec<String> {
    let mut found = blocks().into_iter().filter(|lines| lines[0].starts_with(first));
    found.next().unwrap_or_else(|| panic!("README.md has no block that begins with `{first}`"))
}

/// Prompts that a student needs to become better in the campaign above.
const LEARNED: usize = 800;

const DEMO: &str = "cargo run --release -- demo";
const OWN: &str = "uspx up ";
const ONE_BY_ONE: &str = "uspx eval ";
const REPORT: &str = "uspx probe report ";
const COLONY: &str = "uspx config init";
const MOVE: &str = "uspx ledger export";

fn every_block_is_run_by_a_test() {
    let blocks = blocks();
    // The first is what `.ci/run` and the demo's own tests do, the report has the command's tests.
    let known = [DEMO, OWN, ONE_BY_ONE, REPORT, COLONY, MOVE];
    assert_eq!(blocks.len(), known.len(), "a block of README.md that no test runs: {blocks:#?}");
    for (lines, first) in blocks.iter().zip(known) {
        assert!(lines[0].starts_with(first), "{lines:?}");
    }
    assert_eq!(blocks[0].len(), 2);
    assert!(blocks[0][1].starts_with("make test "));
    let makefile = fs::read_to_string(assets().join("../../Makefile")).unwrap();
    assert!(makefile.lines().any(|line| line.starts_with("test:")));
}

/// A person's folder.
struct Home {
    folder: TempDir,
    /// Where README's NATS server is in truth.
    server: String,
    env: Vec<(String, String)>,
}

impl Home {
    /// With models and these files of prompts, so many each.
    fn new(files: &[(&str, usize)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, from) in ["teacher", "student"].into_iter().zip(models()) {
            std::os::unix::fs::symlink(from.canonicalize().unwrap(), folder.path().join(name))
                .unwrap();
        }
        let all = fs::read_to_string(assets().join("prompts/cli-train.jsonl")).unwrap();
        let mut lines = all.lines();
        for (name, count) in files {
            let taken: Vec<&str> = lines.by_ref().take(*count).collect();
            fs::write(folder.path().join(name), taken.join("\n")).unwrap();
        }
        fs::create_dir(folder.path().join("bin")).unwrap();
        std::os::unix::fs::symlink(uspx(), folder.path().join("bin/uspx")).unwrap();
        let small = SMALL.map(|(key, value)| (format!("USPX_CAMPAIGN__{key}"), value.to_owned()));
        Self { folder, server: String::new(), env: small.into() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A line as the shell gets it.
    fn command(&self, line: &str) -> Command {
        let line = line.replace("nats://box:4222", &self.server);
        let mut command = Command::new("sh");
        // The shell becomes the program, so that a signal reaches it; two commands stay a shell's.
        let line = if line.contains("&&") { line } else { format!("exec {line}") };
        command.args(["-c", &line]).current_dir(self.folder.path());
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", self.path("bin").display()));
        command.env("HOME", self.folder.path()).env("RAYON_NUM_THREADS", "1");
        command.env_remove("XDG_DATA_HOME").env_remove("XDG_STATE_HOME");
        command.envs(self.env.iter().cloned());
        command
    }

    fn start(&self, line: &str, name: &str) -> Process {
        Process::start(self.command(line), self.folder.path(), name)
    }

    /// Runs a line, which must succeed.
    fn run(&self, line: &str) -> Ended {
        let ended = self.start(line, "line").end(CAMPAIGN_WITHIN);
        assert_eq!(ended.code, Some(0), "{line}\n{}\n{}", ended.out, ended.err);
        ended
    }
}

fn a_person_s_own_case() {
    let home = Home::new(&[("mine.jsonl", LEARNED), ("heldout.jsonl", 16)]);
    for line in block(OWN) {
        assert!(!home.run(&line).out.trim().is_empty(), "{line} says nothing");
    }
    // What follows measures by itself, on as many prompts as there are.
    let all = fs::read_to_string(home.path("mine.jsonl")).unwrap();
    let few: Vec<&str> = all.lines().take(16).collect();
    fs::write(home.path("mine.jsonl"), few.join("\n")).unwrap();
    for line in block(ONE_BY_ONE) {
        home.run(&line);
    }
    for made in
        ["uspx-up/colony/report.html", "sae/cfg.json", "mask.json", "adapter", "mine/student.gguf"]
    {
        assert!(home.path(made).exists(), "{made}");
    }
}

fn a_colony_of_several_machines() {
    let (moto, nats) = (Moto::start(), tempfile::tempdir().unwrap());
    moto.bucket("bucket");
    let server = NatsServer::start(nats.path(), None).unwrap();
    let mut home = Home::new(&[("train.jsonl", LEARNED), ("gate.jsonl", 100)]);
    home.env.extend(moto.env());
    home.server = server.url();
    let lines = block(COLONY);
    let line = |begins: &str| {
        let mut found = lines.iter().filter(|line| line.starts_with(begins));
        found.next().unwrap_or_else(|| panic!("no line begins with `{begins}`"))
    };
    assert_eq!(lines.len(), 7, "a line that this test does not run: {lines:#?}");
    home.run(line("uspx config init"));
    home.run(line("uspx config check"));
    let mut coordinator = home.start(line("uspx coordinator"), "coordinator");
    let _worker = home.start(line("uspx worker"), "worker");
    let watch = home.start(line("uspx status"), "status");
    let ended = coordinator.end(CAMPAIGN_WITHIN);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    watch.interrupt();
    home.run(line("uspx ledger check"));
    home.run(line("uspx pull"));
    let lines = block(MOVE);
    assert_eq!(lines.len(), 2, "{lines:#?}");
    home.run(&lines[0]);
    // The new machine has no state yet.
    fs::rename(home.path("colony"), home.path("old")).unwrap();
    home.run(&lines[1]);
    home.run(line("uspx ledger check"));
}
