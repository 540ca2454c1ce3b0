//! `uspx mask diff`: of two files, and of two versions of a colony's mask; `uspx mask show` of one.

use crate::support::{BAD_INPUT, NOT_FOUND, REFUSED, json, refuses, root, uspx};
use assert_cmd::Command;
use libtest_mimic::Trial;
use serde_json::{Value, json as value};
use std::path::Path;
use tempfile::{TempDir, tempdir};
use uspx_coordinator::ledger::{FILE_NAME, head_path, replay_file};
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![
        two_files_differ_by_the_units_that_came_and_went,
        versions_of_a_colony_s_mask_differ_with_their_reasons,
        what_cannot_be_compared_is_refused,
        a_version_is_shown_with_an_interval_for_every_unit_and_how_many_are_misplaced,
    ]
}

/// The small campaign that is frozen.
fn colony() -> TempDir {
    let state = tempdir().unwrap();
    let frozen = root().join("coordinator/service/fixtures/campaign-1");
    let ledger = state.path().join(FILE_NAME);
    std::fs::copy(frozen.join("ledger"), &ledger).unwrap();
    std::fs::copy(frozen.join("ledger.head"), head_path(&ledger)).unwrap();
    std::fs::copy(frozen.join("mask.json"), state.path().join("mask.json")).unwrap();
    state
}

fn mask(at: &Path, model: char, experts: &Value) {
    let keep = value!({"expert": experts, "head": null});
    let model: String = std::iter::repeat_n(model, 64).collect();
    std::fs::write(at, value!({"version": 1, "model": model, "keep": keep}).to_string()).unwrap();
}

fn diff(within: &Path, words: &[&str]) -> Command {
    let mut command = uspx();
    command.current_dir(within).args(["mask", "diff"]).args(words);
    command
}

fn two_files_differ_by_the_units_that_came_and_went() {
    let folder = tempdir().unwrap();
    mask(&folder.path().join("a.json"), 'a', &value!([[0, 1], [2, 3]]));
    // A file may be called as a version is.
    mask(&folder.path().join("7"), 'a', &value!([[0, 1], [1, 3]]));
    let told = json(&mut diff(folder.path(), &["a.json", "./7"]));
    let layers = value!([{"layer": 1, "cut": [2], "restored": [1]}]);
    assert_eq!(told["kinds"], value!([{"kind": "expert", "kept": [4, 4], "layers": layers}]));
    assert_eq!((&told["first"], &told["then"]), (&value!("a.json"), &Value::Null));
    let said = diff(folder.path(), &["a.json", "./7"]).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("1 cut, 1 kept again"), "{said}");
}

fn versions_of_a_colony_s_mask_differ_with_their_reasons() {
    let colony = colony();
    let last = replay_file(&colony.path().join(FILE_NAME)).unwrap().mask().unwrap().version;
    let last = last.to_string();
    let told = json(&mut diff(colony.path(), &["1", &last, "--state", ".", "--prompts", "2"]));
    let changed = told["changed"].as_array().unwrap();
    let layers = told["kinds"][0]["layers"].as_array().unwrap();
    let count = |key: &str| -> usize {
        layers.iter().map(|layer| layer[key].as_array().unwrap().len()).sum()
    };
    let kept = changed.iter().filter(|unit| unit["kept"] == true).count();
    assert!(
        kept > 0 && (kept, changed.len() - kept) == (count("restored"), count("cut")),
        "{told}"
    );
    assert_eq!((&told["then"]["version"], &told["first"]), (&value!(1), &value!("version 1")));
    for unit in changed {
        assert!(unit["now"]["mean"].is_number(), "{unit}");
        assert!(unit["needed_by"].as_array().unwrap().len() <= 2, "{unit}");
    }
    assert_eq!(told["flipped"].as_array().unwrap().len(), 2, "{told}");
    let said = diff(colony.path(), &["1", &last]).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    for words in ["(version 1, ", "needed most by", "to this prompt"] {
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains(words), "no `{words}` in {said}");
    }

    // The mask that the colony wrote is its last version.
    let told = json(&mut diff(colony.path(), &[&last, "mask.json"]));
    assert_eq!((&told["kinds"][0]["layers"], &told["changed"]), (&value!([]), &Value::Null));
}

fn a_version_is_shown_with_an_interval_for_every_unit_and_how_many_are_misplaced() {
    let colony = colony();
    let show = |words: &[&str]| {
        let mut command = uspx();
        command.current_dir(colony.path()).args(["mask", "show"]).args(words);
        command
    };
    let latest = json(&mut show(&["--state", "."]));
    let units = latest["units"].as_array().unwrap();
    for unit in units {
        let number = |at: &Value| at.as_f64().unwrap();
        let (mean, ends) = (number(&unit["score"]["mean"]), &unit["interval"]);
        assert!(number(&ends[0]) <= mean && mean <= number(&ends[1]), "{unit}");
        assert!((0.0..=1.0).contains(&number(&unit["belongs"])), "{unit}");
    }
    let misplaced = &latest["misplaced"];
    let expected = |kept: bool| -> f64 {
        let of_side = units.iter().filter(|unit| unit["kept"] == kept);
        let above = of_side.map(|unit| unit["belongs"].as_f64().unwrap());
        above.map(|above| if kept { 1.0 - above } else { above }).sum()
    };
    for (side, kept) in [("cut", false), ("kept", true)] {
        let told = misplaced[side]["expected"].as_f64().unwrap();
        assert!((told - expected(kept)).abs() < 1e-9, "{misplaced}");
        assert!(misplaced[side]["at_most"].as_f64().unwrap() >= told.floor(), "{misplaced}");
    }
    let version = latest["version"].to_string();
    assert_eq!(json(&mut show(&[&version]))["units"], latest["units"]);
    let said = show(&["--units", "3"]).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in
        ["keeps", "belong above the cut, with 95 % certainty at most", "nearest to the cut"]
    {
        assert!(said.contains(words), "no `{words}` in {said}");
    }
    refuses(&mut show(&["99"]), NOT_FOUND, &["has no version 99"]);
    let file = json(&mut show(&["mask.json"]));
    assert_eq!(
        (&file["kept_per_layer"], &file["units"]),
        (&latest["kept_per_layer"], &Value::Null)
    );
}

fn what_cannot_be_compared_is_refused() {
    let colony = colony();
    let here = colony.path();
    refuses(&mut diff(here, &["1", "99"]), NOT_FOUND, &["has no version 99", "./99"]);
    refuses(
        &mut diff(here, &["1", "2", "--state", "nowhere"]),
        NOT_FOUND,
        &["no coordinator's state folder"],
    );
    refuses(&mut diff(here, &["a.json", "mask.json"]), NOT_FOUND, &["a.json does not exist"]);
    refuses(&mut diff(here, &["ledger", "mask.json"]), BAD_INPUT, &[]);
    mask(&here.join("other.json"), 'b', &value!([[0]]));
    refuses(&mut diff(here, &["1", "other.json"]), REFUSED, &["they are of two models"]);
}
