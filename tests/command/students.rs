//! A release from the store to an answer: pulled, run in both formats, and refused whole where a
//! byte is wrong.

use crate::support::{BAD_INPUT, FAILED, NOT_FOUND, REFUSED, json, model, prompts, refuses, uspx};
use assert_cmd::Command;
use candle_core::{DType, Device};
use libtest_mimic::Trial;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::{TempDir, tempdir};
use uspx_artifact::{Draft, Store, silent};
use uspx_domain::{Digest, ExportFormat, Fingerprint, Manifest};
use uspx_export::{ExportRequest, ExportSettings, export};
use uspx_model::{LoadedModel, NoProgress, Placement};
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![
        a_release_is_pulled_and_answers_in_both_formats,
        a_tampered_blob_is_refused_and_the_release_before_stays,
        a_tampered_manifest_is_refused_and_the_release_before_stays,
        a_newer_release_replaces_the_older_and_the_older_can_be_had_again,
        only_one_pull_at_a_time_goes_into_a_folder,
        what_is_damaged_is_told_by_verify_and_mended_by_a_pull,
        a_log_in_a_file_has_no_escape_codes,
        #[cfg(unix)]
        what_the_system_says_of_a_disk_reaches_the_person,
    ]
}

/// Prompts that calibrate the exports: enough to run, not to be good.
const CALIBRATION: usize = 16;

pub fn student() -> LoadedModel {
    LoadedModel::open(&model("student"), Placement::floats(DType::F32, &Device::Cpu)).unwrap()
}

/// Writes the shipped student into a folder as the colony would.
pub fn write(student: &LoadedModel, format: ExportFormat, out: &Path) {
    let text = fs::read_to_string(prompts("cli-train.jsonl")).unwrap();
    let mut some = uspx_domain::parse_prompts(&text, false).unwrap().prompts;
    some.truncate(CALIBRATION);
    let request = ExportRequest {
        student,
        base: &model("student"),
        name: "student",
        calibration: &student.readable(&some).unwrap().sequences,
        batch_tokens: 2048,
        conversations: &some,
        labels: &[],
        format,
        settings: ExportSettings::shipped(format).unwrap(),
    };
    export(&request, out, &NoProgress).unwrap();
}

/// A store in a folder, and a folder beside it to pull into.
pub struct World {
    folder: TempDir,
}

impl World {
    pub fn new() -> Self {
        let folder = tempdir().unwrap();
        fs::create_dir(folder.path().join("store")).unwrap();
        Self { folder }
    }

    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    pub fn dest(&self) -> PathBuf {
        self.folder.path().join("into")
    }

    /// Publishes a folder as the next release.
    pub fn publish(&self, release: &Path, previous: Option<u64>) -> Manifest {
        let print = |name: &str| Fingerprint(Digest::of(name.as_bytes()));
        let draft = Draft {
            colony: "test".into(),
            teacher: print("teacher"),
            base: print("base"),
            previous,
        };
        let store = Store::folder(&self.store()).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(store.publish(release, &draft, &silent)).unwrap()
    }

    /// Publishes a release of two small files, of which one differs from number to number.
    pub fn publish_small(&self, number: u64) -> Manifest {
        let release = tempdir().unwrap();
        fs::write(release.path().join("README.md"), "the same in all").unwrap();
        fs::write(release.path().join("report.json"), format!("{{\"release\": {number}}}"))
            .unwrap();
        self.publish(release.path(), number.checked_sub(1).filter(|n| *n > 0))
    }

    pub fn pull(&self) -> Command {
        let mut command = uspx();
        command.arg("pull").arg(self.store()).arg("--into").arg(self.dest());
        command
    }

    fn run(&self, format: &str) -> Command {
        let mut command = uspx();
        command.args(["run", "--threads", "1", "--format", format, "--from"]).arg(self.dest());
        command.args(["--max-new-tokens", "24", "List files"]);
        command
    }

    /// The files of the release in use, by path.
    pub fn in_use(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.dest().join("current").canonicalize().unwrap()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.insert(path.clone(), fs::read(path).unwrap());
                }
            }
        }
        files
    }

    /// Pulls release 1, publishes release 2, spoils it, and pulls again: refused, and release 1 is
    /// as it was.
    fn refuses_release_2(&self, spoil: impl Fn(&Manifest), words: &[&str]) {
        self.publish_small(1);
        assert_eq!(json(&mut self.pull())["release"], 1);
        let before = self.in_use();
        spoil(&self.publish_small(2));
        refuses(&mut self.pull(), REFUSED, words);
        assert_eq!(self.in_use(), before);
        assert!(
            !self.dest().join("releases/2").exists(),
            "nothing of a refused release may look like one"
        );
    }
}

/// Changes one byte in the middle of a file.
pub fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn a_release_is_pulled_and_answers_in_both_formats() {
    let (world, release, student) = (World::new(), tempdir().unwrap(), student());
    write(&student, ExportFormat::GPTQ, &release.path().join("gptq"));
    write(&student, ExportFormat::GGUF, &release.path().join("gguf"));
    fs::write(release.path().join("README.md"), "# A student").unwrap();
    let manifest = world.publish(release.path(), None);

    let pulled = json(&mut world.pull());
    assert_eq!(
        (pulled["outcome"].as_str(), pulled["release"].as_u64()),
        (Some("fetched"), Some(1))
    );
    assert_eq!(pulled["files"], manifest.files.len());
    let bytes: u64 = manifest.files.iter().map(|f| f.bytes).sum();
    assert_eq!(
        (pulled["bytes"].as_u64(), pulled["fetched_bytes"].as_u64()),
        (Some(bytes), Some(bytes))
    );
    for file in &manifest.files {
        let (from, to) =
            (release.path().join(&file.path), world.dest().join("current").join(&file.path));
        assert_eq!(fs::read(from).unwrap(), fs::read(to).unwrap(), "{}", file.path);
    }

    let again = json(&mut world.pull());
    assert_eq!(
        (again["outcome"].as_str(), again["fetched_bytes"].as_u64()),
        (Some("up to date"), Some(0))
    );
    assert_eq!(again["checked"], "unchanged since verified (by size, time and inode)");
    // The store is remembered.
    assert_eq!(json(uspx().arg("pull").arg("--into").arg(world.dest()))["outcome"], "up to date");

    for format in ["gguf", "gptq"] {
        let answer = json(&mut world.run(format));
        assert!(!answer["text"].as_str().unwrap().trim().is_empty(), "{format}: {answer}");
        let tokens = answer["tokens"].as_u64().unwrap();
        assert!(
            (1..=24).contains(&tokens) && (answer["ended"] == true || tokens == 24),
            "{format}: {answer}"
        );
        assert_eq!(json(&mut world.run(format))["text"], answer["text"], "greedy answers repeat");
    }
    evaluates(&world, release.path());
}

/// Four bits cost little, even with so little calibration, in whichever format.
fn evaluates(world: &World, release: &Path) {
    let loss = |path: &Path| {
        let mut command = uspx();
        command.args(["eval", "--threads", "1", "--limit", "16", "--model"]).arg(path);
        json(command.arg("--prompts").arg(prompts("cli-heldout.jsonl")))["loss"].as_f64().unwrap()
    };
    let full = loss(&model("student"));
    for path in ["current/gguf/student.gguf", "current/gptq"] {
        let four = loss(&world.dest().join(path));
        assert!(four != full && (four / full - 1.0).abs() < 0.05, "{path}: {four} against {full}");
    }
    let half = tempdir().unwrap();
    let path = half.path().join("student.gguf");
    let whole = fs::read(release.join("gguf/student.gguf")).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let mut command = uspx();
    command.args(["eval", "--model"]).arg(&path).arg("--prompts").arg(prompts("cli-heldout.jsonl"));
    refuses(&mut command, BAD_INPUT, &["student.gguf"]);
}

fn a_tampered_blob_is_refused_and_the_release_before_stays() {
    let world = World::new();
    let spoil = |manifest: &Manifest| {
        let report = manifest.files.iter().find(|f| f.path == "report.json").unwrap();
        let hex = report.chunks[0].digest.hex();
        flip(&world.store().join("blobs").join(&hex[..2]).join(&hex));
    };
    world.refuses_release_2(spoil, &["blobs/", "hash"]);
    // Mended in the store, it can be pulled.
    fs::remove_dir_all(world.store().join("blobs")).unwrap();
    refuses(&mut world.pull(), NOT_FOUND, &["blobs/"]);
}

fn a_tampered_manifest_is_refused_and_the_release_before_stays() {
    for (from, to) in
        [("report.json", "retort.json"), ("\"colony\":\"test\"", "\"colony\":\"pest\""), ("{", "")]
    {
        let world = World::new();
        let spoil = |_: &Manifest| {
            let path = world.store().join("releases/2/manifest.json");
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains(from));
            fs::write(&path, text.replacen(from, to, 1)).unwrap();
        };
        world.refuses_release_2(spoil, &["releases/2/manifest.json"]);
    }
}

fn a_newer_release_replaces_the_older_and_the_older_can_be_had_again() {
    let world = World::new();
    let outcome = |report: serde_json::Value| {
        (report["outcome"].as_str().unwrap().to_owned(), report["release"].clone())
    };
    world.publish_small(1);
    assert_eq!(outcome(json(&mut world.pull())), ("fetched".to_owned(), 1.into()));
    world.publish_small(2);
    let second = json(&mut world.pull());
    assert_eq!((second["release"].as_u64(), second["previous"].as_u64()), (Some(2), Some(1)));
    assert_eq!(
        outcome(json(world.pull().args(["--release", "1"]))),
        ("switched".to_owned(), 1.into())
    );
    refuses(world.pull().args(["--release", "3"]), NOT_FOUND, &["release 3"]);
    assert!(world.in_use().keys().all(|path| path.to_string_lossy().contains("releases/1/")));
}

fn only_one_pull_at_a_time_goes_into_a_folder() {
    let world = World::new();
    world.publish_small(1);
    json(&mut world.pull());
    let (before, path) = (world.in_use(), world.dest().join(".lock"));
    let lock = fs::File::options().write(true).open(&path).unwrap();
    lock.lock().unwrap();
    fs::write(&path, "4711").unwrap();
    world.publish_small(2);
    let words = ["another pull is running", &world.dest().display().to_string(), "4711"];
    refuses(&mut world.pull(), REFUSED, &words);
    assert_eq!(world.in_use(), before);
    lock.unlock().unwrap();
    assert_eq!(json(&mut world.pull())["release"], 2);
}

fn a_log_in_a_file_has_no_escape_codes() {
    let world = World::new();
    world.publish_small(1);
    let output = world.pull().arg("-v").env_remove("NO_COLOR").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("INFO") && said.contains("pulled"), "nothing was logged: {said}");
    assert!(!said.contains('\u{1b}'), "{said:?}");
}

/// The system's own words, at the end of the message.
#[cfg(unix)]
fn what_the_system_says_of_a_disk_reaches_the_person() {
    let world = World::new();
    world.publish_small(1);
    let mut below_a_file = uspx();
    below_a_file
        .arg("pull")
        .arg(world.store())
        .arg("--into")
        .arg(world.store().join("releases/1/manifest.json/x"));
    refuses(&mut below_a_file, FAILED, &["manifest.json/x", "Not a directory"]);

    // As on a disk that is full: no file may grow beyond some blocks, which the system says of the
    // first that does.
    let release = tempdir().unwrap();
    fs::write(release.path().join("student.gguf"), vec![7; 1 << 20]).unwrap();
    world.publish(release.path(), Some(1));
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" pull \"$1\" --into \"$2\""]);
    limited.arg(uspx_tests::uspx()).arg(world.store()).arg(world.dest());
    refuses(&mut limited, FAILED, &["student.gguf", "File too large (os error 27)"]);
}

fn what_is_damaged_is_told_by_verify_and_mended_by_a_pull() {
    let world = World::new();
    world.publish_small(1);
    assert_eq!(json(&mut world.pull())["checked"], "verified");
    let verify = || {
        let mut command = uspx();
        command.args(["pull", "--verify", "--into"]).arg(world.dest());
        command
    };
    assert_eq!(json(&mut verify())["outcome"], "verified");
    flip(&world.dest().join("current/README.md"));
    let before = world.in_use();
    refuses(&mut verify(), REFUSED, &["README.md", "its hash is", "uspx pull --repair"]);
    assert_eq!(world.in_use(), before, "it only tells");
    let mended = json(&mut world.pull());
    assert_eq!(
        (mended["outcome"].as_str(), mended["checked"].as_str()),
        (Some("fetched"), Some("verified"))
    );
    assert_eq!(json(&mut verify())["outcome"], "verified");
}
