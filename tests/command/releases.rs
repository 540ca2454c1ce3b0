//! `uspx student`: what a store holds and what changed between two releases, as their reports say; and
//! going back to an earlier one, which a later pull respects and nothing on the way may damage.

use crate::students::{World, flip};
use crate::support::{BAD_INPUT, NOT_FOUND, REFUSED, UNREACHABLE, USAGE, json, refuses, uspx};
use assert_cmd::Command;
use libtest_mimic::Trial;
use serde_json::{Value, json as value};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::tempdir;
use unicode_width::UnicodeWidthStr;
use uspx_domain::{Digest, Fingerprint, Manifest};
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![
        releases_are_listed_with_what_they_are_worth,
        a_damaged_release_hides_no_other_in_the_list,
        refused_students_are_listed_with_their_reason,
        a_difference_names_units_scores_and_sizes,
        what_cannot_be_listed_or_compared_says_so,
        a_pull_stays_at_what_was_rolled_back_to_until_there_is_a_newer_one,
        a_rollback_goes_further_back_and_forward_again_below_where_it_began,
        the_newest_can_be_asked_for_after_a_rollback,
        a_rollback_goes_to_what_was_in_use_here_before,
        a_rollback_needs_no_store_for_what_is_whole_here,
        a_rollback_fetches_what_is_missing_or_damaged_here,
        a_damaged_release_is_refused_and_the_one_in_use_stays,
        a_rollback_that_leads_nowhere_says_so,
    ]
}

/// A report as the coordinator writes it, as far as it is shown.
fn report(kept: u32, [base, gptq, gguf]: [f64; 3], refusal: Option<&str>) -> Value {
    let bits = |who: &str, bits: f64| value!({"contender": who, "bits_per_byte": bits, "exact_match": bits / 4.0});
    let interval = value!({"mean": gptq - base, "low": -0.3, "high": -0.1, "upper": -0.1});
    let tag = |new: f64| value!({"prompts": 40, "new": new, "old": base});
    value!({
        "student_name": "base-uspx-0123abcd",
        "figures": {
            "campaign": "mine",
            "mask": {
                "kind": "expert", "version": 3, "kept": kept, "units": 8, "rise": 0.1, "random": [0.5],
                "curve": [], "jaccard": null, "bootstrap_jaccard": 0.9, "label_mask": null,
                "exact_pairs": 100,
            },
            "students": [
                bits("teacher", 0.9), bits("base", base), bits("gptq", gptq), bits("gguf", gguf),
                bits("published", 1.9),
            ],
            "compared_prompts": 300,
            "trainings": {"1": {"steps": 60, "before": 2.5, "after": 1.25, "best_epoch": 2}},
            "chosen_recipe": 1,
            "gate": {
                "rival": "base", "prompts": 300, "new": gptq, "old": base, "difference": interval,
                "tags": {"git": tag(gptq + 0.1)}, "refusal": refusal,
            },
        },
    })
}

/// The report's figures of two releases, of which the second is the better one.
const FIRST: [f64; 3] = [2.0, 1.75, 1.8];
const SECOND: [f64; 3] = [2.0, 1.5, 1.6];

/// Publishes a release with a report, a mask of experts, an adapter's form and a student so long.
fn publish(world: &World, number: u64, report: &Value, keep: &Value, bytes: usize) -> Manifest {
    let release = tempdir().unwrap();
    let write = |path: &str, content: &[u8]| {
        let path = release.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    let model = Fingerprint(Digest::of(b"teacher"));
    let mask = value!({"version": 1, "model": model, "keep": {"expert": keep}});
    write("report.json", report.to_string().as_bytes());
    write("mask.json", mask.to_string().as_bytes());
    write("adapter/adapter_config.json", br#"{"r": 8, "lora_alpha": 16.0}"#);
    write("gguf/student.gguf", &vec![number as u8; bytes]);
    world.publish(release.path(), number.checked_sub(1).filter(|n| *n > 0))
}

fn publish_two(world: &World) {
    publish(world, 1, &report(6, FIRST, None), &value!([[0, 1, 2], [0, 1, 3]]), 1000);
    publish(world, 2, &report(5, SECOND, None), &value!([[0, 3], [0, 1, 3]]), 700);
}

/// `uspx student …` on the world's store and folder.
fn student(world: &World, words: &[&str]) -> Command {
    let mut command = uspx();
    command.arg("student").args(words).arg(world.store()).arg("--into").arg(world.dest());
    command
}

/// The same without naming the store.
fn rollback(world: &World, words: &[&str]) -> Command {
    let mut command = uspx();
    command.args(["student", "rollback", "--into"]).arg(world.dest()).args(words);
    command
}

/// The same where no bucket can be reached.
fn away_from(mut command: Command) -> Command {
    command.env("AWS_ENDPOINT_URL", "http://127.0.0.1:9").env("AWS_ALLOW_HTTP", "true");
    command.env("AWS_ACCESS_KEY_ID", "a").env("AWS_SECRET_ACCESS_KEY", "b").env("AWS_REGION", "r");
    command
}

/// Outcome, release in use, and what it was rolled back from.
fn outcome(report: &Value) -> (&str, u64, Option<u64>) {
    let word = report["outcome"].as_str().unwrap();
    (word, report["release"].as_u64().unwrap(), report["rolled_back_from"].as_u64())
}

fn in_use(world: &World) -> u64 {
    let target = world.dest().join("current").canonicalize().unwrap();
    target.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

/// What is printed for a person, no wider than it may be.
fn said(command: &mut Command) -> String {
    let output = command.env_remove("COLUMNS").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    // A path is not broken.
    let wide = |line: &&str| line.width() > 80 && !line.contains('/');
    assert_eq!(text.lines().find(wide), None, "{text}");
    text
}

/// A world with releases 1 to `newest`, all of them pulled one after the other.
fn pulled(newest: u64) -> World {
    let world = World::new();
    for number in 1..=newest {
        world.publish_small(number);
        assert_eq!(outcome(&json(&mut world.pull())), ("fetched", number, None));
    }
    world
}

fn blob_of(world: &World, manifest: &Manifest, path: &str) -> PathBuf {
    let file = manifest.files.iter().find(|f| f.path == path).unwrap();
    let hex = file.chunks[0].digest.hex();
    world.store().join("blobs").join(&hex[..2]).join(&hex)
}

fn releases_are_listed_with_what_they_are_worth() {
    let world = World::new();
    let empty = json(&mut student(&world, &["list"]));
    assert_eq!((&empty["releases"], &empty["newest"]), (&value!([]), &Value::Null));
    publish_two(&world);
    let none = json(&mut student(&world, &["list"]));
    assert_eq!((&none["newest"], &none["current"]), (&value!(2), &Value::Null));
    json(world.pull().args(["--release", "1"]));
    let list = json(&mut student(&world, &["list"]));
    let (first, second) = (&list["releases"][0], &list["releases"][1]);
    assert_eq!(
        (&list["current"], &first["current"], &first["here"]),
        (&1.into(), &true.into(), &true.into())
    );
    assert_eq!((&second["newest"], &second["here"]), (&true.into(), &false.into()));
    assert_eq!(second["bits_per_byte"], value!({"gptq": 1.5, "gguf": 1.6}));
    assert_eq!((&second["base_bits_per_byte"], &second["problem"]), (&2.0.into(), &Value::Null));
    let mask = value!({"kind": "expert", "kept": 5, "units": 8, "fraction": 0.625});
    assert_eq!((&second["mask"], &second["name"]), (&mask, &"base-uspx-0123abcd".into()));
    assert!(second["bytes"].as_u64().unwrap() > 700, "{second}");
    humantime_like(second["stored_at"].as_str().unwrap());

    let text = said(&mut student(&world, &["list"]));
    assert!(text.contains("newest") && text.contains("1.500") && text.contains("62 %"), "{text}");
    // The store is remembered, and without a report there are no figures.
    world.publish_small(3);
    let mut remembered = uspx();
    remembered.args(["student", "list", "--into"]).arg(world.dest());
    let third = &json(&mut remembered)["releases"][2];
    assert_eq!((&third["bits_per_byte"], &third["mask"]), (&value!({}), &Value::Null));
}

/// `2026-01-02T03:04:05Z`.
fn humantime_like(text: &str) {
    assert!(text.len() == 20 && text.contains('T') && text.ends_with('Z'), "{text}");
}

fn a_damaged_release_hides_no_other_in_the_list() {
    let world = World::new();
    publish_two(&world);
    flip(&world.store().join("releases/1/manifest.json"));
    let list = json(&mut student(&world, &["list"]));
    let problem = list["releases"][0]["problem"].as_str().unwrap();
    assert!(problem.contains("releases/1/manifest.json"), "{problem}");
    assert_eq!(list["releases"][1]["bits_per_byte"]["gguf"], 1.6);
    assert!(said(&mut student(&world, &["list"])).contains("releases/1/manifest.json"));
}

fn refused_students_are_listed_with_their_reason() {
    let (world, state) = (World::new(), tempdir().unwrap());
    let of = |world: &World, state: &Path| {
        let mut command = student(world, &["list"]);
        command.arg("--state").arg(state);
        command
    };
    assert_eq!(json(&mut of(&world, state.path()))["refused"], value!([]), "none yet");
    let why = "worse on tag `git`: 1.9000 against 1.8000 bits per byte";
    for (epoch, report) in [
        ("12", report(5, SECOND, Some(why))),
        ("7", report(6, FIRST, Some("not surely better"))),
        ("20", report(5, SECOND, None)),
    ] {
        let folder = state.path().join("reports").join(epoch);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("report.json"), report.to_string()).unwrap();
    }
    let list = json(&mut of(&world, state.path()));
    let told = |at: usize| (&list["refused"][at]["epoch"], &list["refused"][at]["reason"]);
    assert_eq!(
        (told(0), told(1)),
        ((&7.into(), &"not surely better".into()), (&12.into(), &why.into()))
    );
    assert_eq!(list["refused"].as_array().unwrap().len(), 2, "what passed is no refusal");
    assert_eq!(list["refused"][1]["bits_per_byte"]["gptq"], 1.5);
    let text = said(&mut of(&world, state.path()));
    assert!(text.contains("nothing is published") && text.contains("not surely"), "{text}");

    refuses(&mut of(&world, &state.path().join("none")), NOT_FOUND, &["none", "does not exist"]);
    fs::write(state.path().join("reports/12/report.json"), "{").unwrap();
    refuses(&mut of(&world, state.path()), BAD_INPUT, &["12/report.json", "--state"]);
}

fn a_difference_names_units_scores_and_sizes() {
    let world = World::new();
    publish_two(&world);
    let diff = json(&mut student(&world, &["diff", "1", "2"]));
    let layers = value!([{"layer": 0, "cut": [1, 2], "restored": [3]}]);
    assert_eq!(diff["mask"], value!([{"kind": "expert", "kept": [6, 5], "layers": layers}]));
    assert_eq!((&diff["same_teacher"], &diff["same_base"]), (&true.into(), &true.into()));
    let change = |list: &str, name: &str| {
        let rows = diff[list].as_array().unwrap();
        let row = rows.iter().find(|row| row["name"] == name).unwrap();
        (
            row["first"].as_f64().unwrap(),
            row["second"].as_f64().unwrap(),
            row["change"].as_f64().unwrap(),
        )
    };
    assert_eq!(change("scores", "GPTQ, 4 bits"), (1.75, 1.5, -0.25));
    assert_eq!(change("scores", "base student"), (2.0, 2.0, 0.0));
    assert_eq!(change("exact_match", "GPTQ, 4 bits"), (0.4375, 0.375, -0.0625));
    assert_eq!(
        diff["tags_exact_match"],
        value!([]),
        "these reports are from before there were any"
    );
    let (git_first, git_second, git) = change("tags", "git");
    assert!(git_first == 1.85 && git_second == 1.6 && (git + 0.25).abs() < 1e-9);
    assert_eq!(
        diff["scores"].as_array().unwrap().len(),
        4,
        "what was published before is no student of it"
    );
    assert_eq!(diff["sizes"]["gguf"], value!([1000, 700]));
    let training = &diff["training"][1];
    assert_eq!(
        (&training["recipe"], &training["rank"], &training["steps"]),
        (&2.into(), &8.into(), &60.into())
    );

    let text = said(&mut student(&world, &["diff", "1", "2"]));
    for words in ["2 cut, 1 kept again", "1-2", "-0.250", "-300 B", "validation loss after"] {
        assert!(text.contains(words), "`{words}` in {text}");
    }
    let same = json(&mut student(&world, &["diff", "2", "2"]));
    assert_eq!(same["mask"][0]["layers"], value!([]));
    // Of a release without a report there is its size.
    world.publish_small(3);
    let bare = json(&mut student(&world, &["diff", "2", "3"]));
    assert_eq!((&bare["mask"], &bare["training"][1]["recipe"]), (&Value::Null, &Value::Null));
    assert_eq!(bare["scores"][0]["second"], Value::Null);
    said(&mut student(&world, &["diff", "2", "3"]));
}

fn what_cannot_be_listed_or_compared_says_so() {
    let world = World::new();
    let bare = |words: &[&str]| {
        let mut command = uspx();
        command.arg("student").args(words).arg("--into").arg(world.dest());
        command
    };
    for words in [&["list"][..], &["diff", "1", "2"]] {
        refuses(&mut bare(words), USAGE, &["nothing was pulled here before", "name the store"]);
        let gone = [words, &["/none/such"]].concat();
        refuses(&mut bare(&gone), NOT_FOUND, &["/none/such"]);
        let away = [words, &["s3://bucket/uspx"]].concat();
        refuses(&mut away_from(bare(&away)), UNREACHABLE, &["cannot be reached"]);
    }
    publish_two(&world);
    refuses(&mut student(&world, &["diff", "1", "3"]), NOT_FOUND, &["release 3"]);
    refuses(&mut student(&world, &["diff", "1"]), USAGE, &[]);
    let manifest = publish(&world, 3, &value!({"figures": 7}), &value!([[0], [0]]), 1);
    refuses(&mut student(&world, &["diff", "2", "3"]), BAD_INPUT, &["release 3", "report.json"]);
    flip(&blob_of(&world, &manifest, "report.json"));
    refuses(&mut student(&world, &["diff", "2", "3"]), REFUSED, &["blobs/"]);
}

fn a_pull_stays_at_what_was_rolled_back_to_until_there_is_a_newer_one() {
    let world = pulled(2);
    assert_eq!(outcome(&json(&mut rollback(&world, &[]))), ("switched", 1, Some(2)));
    assert_eq!(in_use(&world), 1);
    for _ in 0..2 {
        assert_eq!(outcome(&json(&mut world.pull())), ("up to date", 1, Some(2)));
    }
    let text = said(&mut world.pull());
    assert!(text.contains("rolled back from release 2") && text.contains("--newest"), "{text}");
    let list = json(&mut student(&world, &["list"]));
    assert_eq!((&list["current"], &list["rolled_back_from"]), (&1.into(), &2.into()));
    assert!(said(&mut student(&world, &["list"])).contains("rolled back from release 2"));
    // Damage is mended all the same, and it stays rolled back.
    flip(&world.dest().join("current/README.md"));
    assert_eq!(outcome(&json(&mut world.pull())), ("fetched", 1, Some(2)));
    // Asked for again, it is in use already.
    assert_eq!(outcome(&json(&mut rollback(&world, &["--to", "1"]))), ("up to date", 1, Some(2)));

    world.publish_small(3);
    assert_eq!(outcome(&json(&mut world.pull())), ("fetched", 3, None));
    assert_eq!(json(&mut student(&world, &["list"]))["rolled_back_from"], Value::Null);
    assert!(world.dest().join("releases/2/report.json").exists(), "nothing is removed");
}

fn a_rollback_goes_further_back_and_forward_again_below_where_it_began() {
    let world = pulled(3);
    assert_eq!(outcome(&json(&mut rollback(&world, &[]))), ("switched", 2, Some(3)));
    assert_eq!(outcome(&json(&mut rollback(&world, &[]))), ("switched", 1, Some(3)));
    assert_eq!(outcome(&json(&mut world.pull())), ("up to date", 1, Some(3)));
    assert_eq!(outcome(&json(&mut rollback(&world, &["--to", "2"]))), ("switched", 2, Some(3)));
    assert_eq!(outcome(&json(&mut world.pull())), ("up to date", 2, Some(3)));
    // Whoever goes elsewhere by name is no longer rolled back.
    assert_eq!(outcome(&json(world.pull().args(["--release", "1"]))), ("switched", 1, None));
    assert_eq!(outcome(&json(&mut world.pull())), ("switched", 3, None));
}

fn the_newest_can_be_asked_for_after_a_rollback() {
    let world = pulled(2);
    json(&mut rollback(&world, &[]));
    assert_eq!(outcome(&json(world.pull().arg("--newest"))), ("switched", 2, None));
    assert_eq!(outcome(&json(&mut world.pull())), ("up to date", 2, None));
    refuses(world.pull().args(["--newest", "--release", "1"]), USAGE, &["--release"]);
}

fn a_rollback_goes_to_what_was_in_use_here_before() {
    let world = pulled(1);
    world.publish_small(2);
    world.publish_small(3);
    json(&mut world.pull());
    assert_eq!(outcome(&json(&mut rollback(&world, &[]))), ("switched", 1, Some(3)));
    // The one before by number, where nothing earlier was pulled.
    let other = World::new();
    (1..=3).for_each(|number| drop(other.publish_small(number)));
    json(&mut other.pull());
    assert_eq!(outcome(&json(&mut rollback(&other, &[]))), ("fetched", 2, Some(3)));
}

fn a_rollback_needs_no_store_for_what_is_whole_here() {
    let world = pulled(2);
    fs::remove_dir_all(world.store()).unwrap();
    let report = json(&mut rollback(&world, &[]));
    assert_eq!(
        (outcome(&report), &report["checked"]),
        (("switched", 1, Some(2)), &"verified".into())
    );
}

fn a_rollback_fetches_what_is_missing_or_damaged_here() {
    let world = pulled(2);
    let report = world.dest().join("releases/1/report.json");
    flip(&report);
    let mended = json(&mut rollback(&world, &[]));
    assert_eq!(outcome(&mended), ("fetched", 1, Some(2)));
    assert_eq!(fs::read_to_string(&report).unwrap(), "{\"release\": 1}");
    json(world.pull().arg("--newest"));
    fs::remove_dir_all(world.dest().join("releases/1")).unwrap();
    assert_eq!(outcome(&json(&mut rollback(&world, &["--to", "1"]))), ("fetched", 1, Some(2)));
    assert_eq!(fs::read_to_string(&report).unwrap(), "{\"release\": 1}");
}

fn a_damaged_release_is_refused_and_the_one_in_use_stays() {
    let world = World::new();
    let first = world.publish_small(1);
    json(&mut world.pull());
    world.publish_small(2);
    json(&mut world.pull());
    flip(&world.dest().join("releases/1/report.json"));
    flip(&blob_of(&world, &first, "report.json"));
    let before = world.in_use();
    let words = ["blobs/", "release 1 does not lie whole", "report.json: its hash is"];
    refuses(&mut rollback(&world, &[]), REFUSED, &words);
    assert_eq!((in_use(&world), world.in_use()), (2, before.clone()));
    fs::remove_dir_all(world.store()).unwrap();
    refuses(&mut rollback(&world, &[]), NOT_FOUND, &["report.json: its hash is"]);
    let mut away = away_from(rollback(&world, &["s3://bucket/uspx"]));
    refuses(&mut away, UNREACHABLE, &["cannot be reached", "report.json: its hash is"]);
    assert_eq!((in_use(&world), world.in_use()), (2, before));
}

fn a_rollback_that_leads_nowhere_says_so() {
    let world = World::new();
    refuses(&mut rollback(&world, &[]), NOT_FOUND, &["holds no release", "uspx pull"]);
    assert!(!world.dest().exists(), "a rollback makes no folder");
    world.publish_small(1);
    json(&mut world.pull());
    refuses(&mut rollback(&world, &[]), NOT_FOUND, &["it is the first"]);
    world.publish_small(2);
    json(&mut world.pull());
    refuses(&mut rollback(&world, &["--to", "0"]), NOT_FOUND, &["no release 0"]);
    for later in ["2", "5"] {
        let words = [&format!("release {later} is not earlier"), "uspx pull --release"];
        refuses(&mut rollback(&world, &["--to", later]), BAD_INPUT, &words);
    }
    let lock = fs::File::options().write(true).open(world.dest().join(".lock")).unwrap();
    lock.lock().unwrap();
    refuses(&mut rollback(&world, &[]), REFUSED, &["another pull is running"]);
    assert_eq!(in_use(&world), 2);
}
