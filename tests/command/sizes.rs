//! A student cut to a size: what `mask build --target-bytes` says that its file will take is what it takes.

use crate::support::{BAD_INPUT, REFUSED, USAGE, json, model, on, prompts, refuses, uspx};
use assert_cmd::Command;
use libtest_mimic::Trial;
use std::fs;
use std::path::Path;
use tempfile::tempdir;
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![
        a_student_is_cut_to_the_bytes_that_its_file_may_take,
        a_student_that_fits_is_not_cut,
        sizes_that_cannot_be_are_refused_with_the_remedy,
    ]
}

fn build(which: &str, flags: &[&str], out: &Path) -> Command {
    let mut command = on(&["mask", "build", "--out"], which, 4);
    command.arg(out).args(flags);
    command
}

const UNIFORM: [&str; 2] = ["--units=head,channel", "--spread=uniform"];

fn a_student_is_cut_to_the_bytes_that_its_file_may_take() {
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mask = path("mask.json");
    let flags = ["--method=atp", "--target-bytes=800kB"];
    let mut command = build("student", &UNIFORM, &mask);
    let built = json(command.args(flags));
    let target = &built["target"];
    let (bytes, whole) = (target["bytes"].as_u64().unwrap(), target["bytes_whole"].as_u64());
    assert_eq!((&target["format"], &target["bytes_at_most"]), (&"gptq".into(), &800_000.into()));
    assert!(bytes <= 800_000 && whole.unwrap() > 800_000, "{target}");

    let mut export = uspx();
    export.args(["mask", "export", "--model"]).arg(model("student")).arg("--mask").arg(&mask);
    let cut = json(export.arg("--out").arg(path("cut")));
    assert_eq!((&cut["heads"], &cut["channels"]), (&target["heads"], &target["channels"]));
    let mut export = uspx();
    export.args(["export", "--format=gptq", "--threads=1", "--limit=4", "--finish=0", "--model"]);
    export.arg(path("cut")).arg("--prompts").arg(prompts("cli-train.jsonl"));
    json(export.arg("--out").arg(path("gptq")));
    assert_eq!(fs::metadata(path("gptq/model.safetensors")).unwrap().len(), bytes);

    // As floats even more bytes leave less of it.
    let flags = ["--method=atp", "--target-bytes=900kB", "--target-format=hf"];
    let mut command = build("student", &UNIFORM, &mask);
    let floats = json(command.args(flags));
    assert!(floats["target"]["channels"].as_u64() < target["channels"].as_u64(), "{floats}");
}

fn a_student_that_fits_is_not_cut() {
    let folder = tempdir().unwrap();
    let mask = folder.path().join("mask.json");
    let mut command = build("student", &UNIFORM, &mask);
    let output = command.arg("--target-bytes=3GiB").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("nothing is cut"), "{said}");
    let mut export = uspx();
    export.args(["mask", "export", "--model"]).arg(model("student")).arg("--mask").arg(&mask);
    export.arg("--out").arg(folder.path().join("out"));
    refuses(&mut export, REFUSED, &["keeps every head and channel"]);
}

fn sizes_that_cannot_be_are_refused_with_the_remedy() {
    let folder = tempdir().unwrap();
    let mask = folder.path().join("mask.json");
    for (which, flags, code, words) in [
        (
            "student",
            &["--units=head,channel", "--spread=uniform", "--target-bytes=100kB"][..],
            BAD_INPUT,
            ["2 of 4 heads and 32 of 384 channels", "--spread layers"],
        ),
        (
            "student",
            &["--units=head,channel", "--target-bytes=800kB"],
            USAGE,
            ["same in every layer", "--spread uniform"],
        ),
        (
            "student",
            &["--units=expert", "--spread=uniform", "--target-bytes=800kB"],
            USAGE,
            ["experts", "--units head,channel"],
        ),
        (
            "teacher",
            &["--units=head,channel", "--spread=uniform", "--target-bytes=800kB"],
            REFUSED,
            ["experts", "--keep"],
        ),
        (
            "student",
            &["--units=head", "--keep=0.5", "--target-bytes=800kB"],
            USAGE,
            ["--keep", "cannot be used with"],
        ),
    ] {
        refuses(&mut build(which, flags, &mask), code, &words);
        assert!(!mask.exists());
    }
}
