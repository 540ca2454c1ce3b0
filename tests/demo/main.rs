//! The demo, whole: `uspx demo` on the shipped models, and the figures that it must show.

use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use uspx_tests::uspx;

fn number(value: &Value, path: &str) -> f64 {
    value
        .pointer(path)
        .and_then(Value::as_f64)
        .unwrap_or_else(|| panic!("the demo's JSON lacks {path}: {value:#}"))
}

#[test]
fn the_demo_shows_what_it_promises() {
    let dir = tempfile::tempdir().unwrap();
    let out =
        Command::new(uspx()).args(["demo", "--json", "--out"]).arg(dir.path()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let page: Value = serde_json::from_slice(&out.stdout).unwrap();
    println!("{page:#}");

    // Half of the experts pruned cost less than a quarter of what random masks of the same size and
    // rule cost.
    assert_eq!(number(&page, "/mask/kept_fraction"), 0.5);
    assert_eq!(number(&page, "/mask/random_masks"), 20.0);
    let (ours, random) = (
        number(&page, "/mask/heldout_loss_rise"),
        number(&page, "/mask/random_masks_mean_loss_rise"),
    );
    assert!(ours < 0.25 * random, "{ours} against {random}");
    assert_eq!(page["mask"]["curve"].as_array().unwrap().len(), 6);

    // The released 4-bit student is at least 0.2 bits per byte below the base, with its interval.
    let of = |who: &str| number(&page, &format!("/student/{who}_bits_per_byte"));
    let upper = page["student"]["gptq_against_base"][2].as_f64().unwrap();
    assert!(upper < -0.2, "the interval of the 4-bit student's gain ends at {upper}");
    assert!(of("references_and_teacher") < of("references_only"));
    assert!(of("teacher") < of("gptq"));

    // GPTQ costs less than rounding to nearest, and under 1.5 %.
    let cost = |who: &str| of(who) / of("distilled") - 1.0;
    assert!(cost("gptq") < cost("rtn"), "{} against {}", cost("gptq"), cost("rtn"));
    assert!(cost("gptq") < 0.015, "GPTQ costs {}", cost("gptq"));
    assert!(cost("gguf") < 0.03, "GGUF costs {}", cost("gguf"));

    let peak = number(&page, "/peak_rss_bytes");
    assert!(peak < 2.0 * f64::from(1u32 << 30), "peak memory {peak} bytes");

    // What was pulled is there, whole, and started again the demo has nothing left to do.
    let release = PathBuf::from(page["release"].as_str().unwrap());
    for file in [
        "manifest.json",
        "report.json",
        "README.md",
        "mask.json",
        "gptq/model.safetensors",
        "gguf/student.gguf",
    ] {
        assert!(release.join(file).is_file(), "{file}");
    }
    // The store's list tells the same of it.
    let store = dir.path().join("store");
    let list = Command::new(uspx())
        .args(["student", "list", "--json", "--state"])
        .arg(dir.path().join("colony"))
        .arg(&store)
        .arg("--into")
        .arg(dir.path().join("student"))
        .output()
        .unwrap();
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!((&list["releases"][0]["current"], &list["refused"]), (&true.into(), &json!([])));
    for (format, bits) in list["releases"][0]["bits_per_byte"].as_object().unwrap() {
        assert_eq!(bits.as_f64().unwrap(), of(format));
    }
    let again =
        Command::new(uspx()).args(["demo", "--json", "--out"]).arg(dir.path()).output().unwrap();
    let again: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(again["student"], page["student"]);
    assert_eq!(again["release_number"], page["release_number"]);
}
