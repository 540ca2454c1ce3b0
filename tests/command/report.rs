//! `uspx probe report`: its curves are those of masks that are built and judged one by one, its page
//! needs nothing else, shows the numbers of its JSON and no text of anyone's as markup.

use crate::support::{
    BAD_INPUT, NOT_FOUND, USAGE, copied, json, model, on, prompts, refuses, uspx,
};
use assert_cmd::Command;
use libtest_mimic::Trial;
use quick_xml::events::Event;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::{TempDir, tempdir};
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![
        a_curve_of_experts_is_what_eval_says_of_each_mask,
        heads_and_channels_begin_at_nothing_and_end_at_the_whole,
        the_page_shows_the_numbers_and_runs_nothing,
        what_cannot_be_judged_is_said_before_anything_is_measured,
    ]
}

/// A folder with `fit.jsonl` and `heldout.jsonl`, the first prompts of the shipped files.
fn files(fit: usize, held_out: usize) -> TempDir {
    let place = tempdir().unwrap();
    for (name, from, count) in
        [("fit", "cli-train.jsonl", fit), ("heldout", "cli-heldout.jsonl", held_out)]
    {
        let text = fs::read_to_string(prompts(from)).unwrap();
        let some: Vec<&str> = text.lines().take(count).collect();
        fs::write(place.path().join(format!("{name}.jsonl")), some.join("\n")).unwrap();
    }
    place
}

fn report(model: &Path, place: &TempDir, words: &[&str]) -> Command {
    let file = |name: &str| place.path().join(name);
    let mut command = uspx();
    command.args(["probe", "report", "--threads=1", "--model"]).arg(model);
    command.arg("--prompts").arg(file("fit.jsonl")).arg("--held-out").arg(file("heldout.jsonl"));
    command.arg("--out").arg(file("report.html")).args(words);
    command
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value}"))
}

fn way<'a>(target: &'a Value, name: &str) -> &'a Value {
    let ways = target["ways"].as_array().unwrap();
    ways.iter().find(|way| way["name"] == name).unwrap_or_else(|| panic!("{name}: {target:#}"))
}

/// Values of a curve, by the fraction kept.
fn places<'a>(way: &'a Value, key: &str) -> Vec<&'a Value> {
    way["places"].as_array().unwrap().iter().map(|place| &place[key]).collect()
}

fn a_curve_of_experts_is_what_eval_says_of_each_mask() {
    let place = files(5, 6);
    let words = ["--units=expert", "--methods=easy-ep,reap", "--grid=0.5,0.75", "--random=2"];
    let found = json(&mut report(&model("teacher"), &place, &words));
    let target = &found["targets"][0];
    assert_eq!(found["targets"].as_array().unwrap().len(), 1, "one kind has no union");
    assert_eq!(target["kept"], serde_json::json!([0.125, 0.5, 0.75, 1.0]));
    assert_eq!(target["kept_units"], serde_json::json!([[8], [32], [48], [64]]));
    let held_out = place.path().join("heldout.jsonl");
    let eval = |words: &[&str]| {
        let mut command = uspx();
        command.args(["eval", "--threads=1", "--model"]).arg(model("teacher"));
        number(&json(command.arg("--prompts").arg(&held_out).args(words))["loss"])
    };
    let whole = eval(&[]);
    assert!((number(&target["whole_loss"]) - whole).abs() < 1e-4);
    let empty = number(&target["empty_loss"]);
    assert!(empty > whole);
    for (method, keep, at) in [("easy-ep", "0.5", 1), ("reap", "0.75", 2), ("ensemble", "0.5", 1)] {
        let mask = place.path().join("mask.json");
        let mut build = uspx();
        build.args(["mask", "build", "--threads=1", "--search=0", "--model"]);
        build.arg(model("teacher")).arg("--prompts").arg(place.path().join("fit.jsonl"));
        build.args(["--method", method, "--keep", keep, "--out"]).arg(&mask);
        json(&mut build);
        let wanted = eval(&["--mask", mask.to_str().unwrap()]);
        let point = &way(target, method)["places"][at];
        let loss = number(&point["loss"]);
        assert!((loss - wanted).abs() < 1e-4, "{method}: {loss} against {wanted}");
        let f = (wanted - empty) / (whole - empty);
        assert!((number(&point["faithfulness"]["value"]) - f).abs() < 1e-4, "{point}");
        let (low, high) = (&point["faithfulness"]["low"], &point["faithfulness"]["high"]);
        assert!(number(low) <= f + 1e-4 && number(high) >= f - 1e-4);
    }
    // Exact was not asked for: there is nothing to agree with.
    assert_eq!(target["agreement"]["scores"][0]["with_exact"], Value::Null);
    assert!(number(&target["agreement"]["scores"][0]["between_halves"]["spearman"]["value"]) > 0.0);
    let trace = found["costs"].as_array().unwrap().iter().find(|c| c["estimator"] == "trace");
    assert_eq!(number(&trace.unwrap()["forward_equivalents"]), 1.0);
}

fn heads_and_channels_begin_at_nothing_and_end_at_the_whole() {
    let place = files(6, 5);
    let words = ["--units=head,channel", "--methods=norm,atp,exact", "--grid=0,0.5", "--random=2"];
    let found = json(&mut report(&model("student"), &place, &words));
    let targets = found["targets"].as_array().unwrap();
    let kinds: Vec<&Value> = targets.iter().map(|target| &target["kinds"]).collect();
    assert_eq!(
        serde_json::json!(kinds),
        serde_json::json!([["head"], ["channel"], ["head", "channel"]])
    );
    for target in targets {
        for way in target["ways"].as_array().unwrap() {
            let f = places(way, "faithfulness");
            assert!(number(&f[0]["value"]).abs() < 1e-4, "{way:#}");
            assert_eq!(number(&f[2]["value"]), 1.0);
            let (cmd, cpr) = (number(&way["cmd"]["value"]), number(&way["cpr"]["value"]));
            let middle = number(&f[1]["value"]);
            assert!((cpr - (0.25 * middle + 0.25 * (middle + 1.0))).abs() < 1e-4, "{way:#}");
            assert!(
                (cmd - (0.25 * (1.0 + (1.0 - middle).abs()) + 0.25 * (1.0 - middle).abs())).abs()
                    < 1e-4
            );
        }
    }
    let names = |target: &Value| -> Vec<String> {
        let ways = target["ways"].as_array().unwrap().iter();
        ways.map(|way| way["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&targets[0]), ["ensemble", "norm", "atp", "exact", "random"]);
    assert_eq!(names(&targets[1]), ["ensemble", "atp", "random"], "exact only when asked for");
    assert_eq!(names(&targets[2]), ["ensemble", "atp", "random"], "what ranks all of them");
    assert_eq!(way(&targets[1], "ensemble")["places"], way(&targets[1], "atp")["places"]);
    let [heads, channels] = [&targets[0]["agreement"], &targets[1]["agreement"]];
    let with_exact = &heads["scores"][2]["with_exact"];
    assert!((-1.0..=1.0).contains(&number(&with_exact["spearman"]["value"])));
    assert_eq!((&heads["of_groups"], &channels["of_groups"]), (&false.into(), &true.into()));
    assert_eq!(channels["scores"][1]["with_exact"], Value::Null);
}

/// Cells of all tables, row by row, and how often each element is there.
fn read(page: &str) -> (Vec<Vec<String>>, Vec<String>) {
    let mut reader = quick_xml::Reader::from_str(page);
    let (mut rows, mut names, mut open) = (Vec::new(), Vec::new(), 0);
    let mut cell: Option<String> = None;
    loop {
        match reader.read_event().unwrap_or_else(|e| panic!("{e} at {}", reader.error_position())) {
            Event::Start(tag) => {
                open += 1;
                let name = String::from_utf8(tag.name().as_ref().to_vec()).unwrap();
                match name.as_str() {
                    "tr" => rows.push(Vec::new()),
                    "td" => cell = Some(String::new()),
                    _ => {}
                }
                names.push(name);
            }
            Event::Empty(tag) => {
                names.push(String::from_utf8(tag.name().as_ref().to_vec()).unwrap());
            }
            Event::Text(text) => {
                cell.iter_mut().for_each(|cell| *cell += &text.decode().unwrap());
            }
            Event::End(tag) => {
                open -= 1;
                if tag.name().as_ref() == b"td" {
                    rows.last_mut().unwrap().push(cell.take().unwrap());
                }
            }
            Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!(open, 0, "something is not closed");
    (rows, names)
}

/// The numbers of a cell: a value, and the ends of its interval where it has one. What is not known
/// is no number.
fn numbers(cell: &str) -> Vec<f64> {
    let plain = cell.replace(['[', ']', ','], " ");
    let number = |text: &str| match text {
        "–" => f64::NAN,
        text => text.parse().unwrap_or_else(|_| panic!("{cell}")),
    };
    plain.split_whitespace().map(number).collect()
}

fn same(cell: &str, estimate: &Value) {
    let wanted = ["value", "low", "high"].map(|key| number(&estimate[key]));
    let found = numbers(cell);
    assert_eq!(found.len(), 3, "{cell}");
    assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 5.1e-5), "{cell}: {estimate}");
}

fn the_page_shows_the_numbers_and_runs_nothing() {
    let place = files(6, 6);
    // A model and prompts whose names are markup.
    let evil = place.path().join("<script>alert(1)<b>");
    copied(&model("teacher"), &evil);
    let held_out = place.path().join("heldout.jsonl");
    let text = fs::read_to_string(&held_out).unwrap();
    let long = "word ".repeat(140_000);
    let line = serde_json::json!({"id": "<img src=x>", "prompt": long, "reference": "no"});
    fs::write(&held_out, format!("{text}\n{line}")).unwrap();
    let words = ["--units=expert,head", "--methods=easy-ep,atp,exact", "--grid=0.5,0.75"];
    let found = json(&mut report(&evil, &place, &words));
    let beside: Value =
        serde_json::from_slice(&fs::read(place.path().join("report.json")).unwrap()).unwrap();
    assert_eq!(beside, found, "on stdout and beside the page");
    let page = fs::read_to_string(place.path().join("report.html")).unwrap();
    let (rows, names) = read(&page);
    let loading =
        ["script", "link", "img", "iframe", "image", "object", "embed", "use", "base", "b"];
    for name in loading {
        assert!(!names.iter().any(|n| n == name), "{name}");
    }
    for words in ["http:", "https:", "@import", "src=x>", "href=", "<script"] {
        assert!(!page.contains(words), "{words}");
    }
    assert!(page.contains("&#60;script&#62;") || page.contains("&lt;script&gt;"));
    assert_eq!(found["skipped"][0]["id"], "<img src=x>");
    assert_eq!(names.iter().filter(|n| *n == "figure").count(), 2 * 3, "two for each of three");

    // Every way's row, wherever it stands.
    let row = |first: &str, cells: usize, second: f64| {
        let fits = |row: &&Vec<String>| {
            row.len() == cells
                && row[0].split(' ').next() == Some(first)
                && (numbers(&row[1])[0] - second).abs() < 5.1e-5
        };
        rows.iter().find(fits).unwrap_or_else(|| panic!("{first} {second}: {rows:#?}"))
    };
    for target in found["targets"].as_array().unwrap() {
        for way in target["ways"].as_array().unwrap() {
            let name = way["name"].as_str().unwrap();
            let curve = row(name, 3, number(&way["cmd"]["value"]));
            same(&curve[1], &way["cmd"]);
            same(&curve[2], &way["cpr"]);
            let f = places(way, "faithfulness");
            let all = row(name, 1 + f.len(), number(&f[0]["value"]));
            for (cell, f) in all[1..].iter().zip(f) {
                assert!((numbers(cell)[0] - number(&f["value"])).abs() < 5.1e-5);
            }
        }
        for score in target["agreement"]["scores"].as_array().into_iter().flatten() {
            let Some(exact) = score["with_exact"].as_object() else { continue };
            let name = score["name"].as_str().unwrap();
            let cells = row(name, 5, number(&exact["spearman"]["value"]));
            same(&cells[1], &exact["spearman"]);
            same(&cells[2], &exact["overlap"]);
            same(&cells[3], &score["between_halves"]["spearman"]);
            same(&cells[4], &score["between_halves"]["overlap"]);
        }
    }
    for cost in found["costs"].as_array().unwrap() {
        let name = format!(
            "{} of {}s",
            cost["estimator"].as_str().unwrap(),
            cost["kind"].as_str().unwrap()
        );
        let cells = rows.iter().find(|row| row.first() == Some(&name)).unwrap();
        let equivalents = number(&cost["forward_equivalents"]);
        assert!((numbers(&cells[3])[0] - equivalents).abs() < 5.1e-3, "{cells:?}");
    }
}

fn what_cannot_be_judged_is_said_before_anything_is_measured() {
    let place = files(4, 3);
    let (teacher, student) = (model("teacher"), model("student"));
    let entries = || fs::read_dir(place.path()).unwrap().count();
    let says = |model: &PathBuf, words: &[&str], code: i32, said: &[&str]| {
        refuses(&mut report(model, &place, words), code, said);
        assert_eq!(entries(), 2, "nothing but the prompts is there");
    };
    says(&student, &["--units=expert"], BAD_INPUT, &["has no experts", "--units"]);
    says(&teacher, &["--units=feature"], BAD_INPUT, &["has no features", "--units"]);
    says(&student, &["--units=head", "--methods=reap"], USAGE, &["reap does not rank heads"]);
    says(&teacher, &["--methods=tarot"], USAGE, &["tarot"]);
    says(&teacher, &["--grid=1.5"], USAGE, &["from 0 to 1"]);
    let elsewhere = |flag: &str, path: PathBuf, code: i32, said: &[&str]| {
        let fit = place.path().join("fit.jsonl");
        let mut command = uspx();
        command.args(["probe", "report", "--model"]).arg(&teacher).arg("--prompts").arg(&fit);
        let out = place.path().join("report.html");
        let out = if flag == "--out" { path.clone() } else { out };
        command.arg("--out").arg(out);
        if flag != "--out" {
            command.arg(flag).arg(path);
        }
        refuses(&mut command, code, said);
        assert_eq!(entries(), 2);
    };
    let file = |name: &str| place.path().join(name);
    elsewhere("--out", file("nowhere/report.html"), NOT_FOUND, &["nowhere"]);
    elsewhere("--out", place.path().to_owned(), BAD_INPUT, &["is a folder"]);
    elsewhere("--out", file("report.json"), USAGE, &["where the numbers go"]);
    elsewhere("--held-out", file("none.jsonl"), NOT_FOUND, &["none.jsonl does not exist"]);
    elsewhere("--held-out", file("fit.jsonl"), BAD_INPUT, &["stands in two of the prompt files"]);
    refuses(
        on(&["probe", "report"], "teacher", 1).arg("--out").arg(file("r.html")),
        BAD_INPUT,
        &["one to judge by"],
    );
    refuses(&mut on(&["probe", "report"], "teacher", 4), USAGE, &["--out"]);
    assert_eq!(entries(), 2);
}
