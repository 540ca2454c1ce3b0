//! What a trace tells on demand, and units ranked by several scores.

use crate::support::{USAGE, json, on};
use libtest_mimic::Trial;
use serde_json::Value;
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![
        an_ensemble_is_the_mean_of_the_ranks_that_its_scores_give,
        what_an_ensemble_has_no_say_in_is_refused,
        a_trace_tells_parts_tags_and_pairs_on_demand,
        a_trace_of_channels_sums_their_sizes,
    ]
}

const PROMPTS: usize = 8;
/// The shipped teacher's heads, a layer's and all.
const HEADS: usize = 16;

/// All numbers of a table, in order.
fn flat(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(flat).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

fn patch(flags: &[&str]) -> Value {
    json(&mut on(&[&["probe", "patch", "--units=head"], flags].concat(), "teacher", PROMPTS))
}

/// For each value, how many lie below it.
fn ranks(values: &[f64]) -> Vec<f64> {
    values.iter().map(|v| values.iter().filter(|other| *other < v).count() as f64).collect()
}

fn an_ensemble_is_the_mean_of_the_ranks_that_its_scores_give() {
    let report = patch(&["--method=ensemble"]);
    assert_eq!((&report["method"], &report["baseline"]), (&"ensemble".into(), &Value::Null));
    assert_eq!(report["scores"]["head"], serde_json::json!(["eap_ig_abs", "atp_abs"]));
    let score = |method: &str| ranks(&flat(&patch(&[method])["magnitudes"]["head"]));
    let scores = [score("--method=eap-ig"), score("--method=atp")];
    let (found, errors) = (flat(&report["effects"]["head"]), flat(&report["stderr"]["head"]));
    assert_eq!((found.len(), errors.len()), (HEADS, HEADS));
    for (at, rank) in found.iter().enumerate() {
        let want = (scores[0][at] + scores[1][at]) / 2.0 / HEADS as f64;
        assert!((rank - want).abs() < 1e-9, "{rank} against {want}");
    }
    assert!(errors.iter().all(|e| (0.0..0.5).contains(e)) && errors.iter().any(|e| *e > 0.0));
    // Either of its estimators once.
    for passes in ["forwards", "backwards"] {
        let cost = |method: &str| patch(&[method])[passes].as_f64().unwrap();
        let both = cost("--method=eap-ig") + cost("--method=atp");
        assert_eq!(report[passes].as_f64().unwrap(), both, "{passes}");
    }
}

fn what_an_ensemble_has_no_say_in_is_refused() {
    let refused = |flags: &[&str]| {
        let command = [&["probe", "patch"], flags].concat();
        let output = on(&command, "teacher", PROMPTS).output().unwrap();
        assert_eq!(output.status.code(), Some(USAGE));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused(&["--method=ensemble", "--baseline=zero"]).contains("leave out --baseline"));
    let channels = refused(&["--method=ensemble", "--units=expert_channel"]);
    assert!(channels.contains("name one --method"), "{channels}");
    assert!(refused(&["--method=atp", "--steps=9"]).contains("use --method eap-ig"));
    let steps = patch(&["--method=eap-ig", "--steps=3"]);
    assert_eq!((&steps["backwards"], &steps["forwards"]), (&3.0.into(), &7.0.into()));
    let usual = patch(&["--method=eap-ig"]);
    assert_ne!(steps["effects"], usual["effects"]);
    assert_eq!(patch(&["--method=eap-ig", "--steps=5"])["effects"], usual["effects"]);
}

fn trace(which: &str, flags: &[&str]) -> Value {
    json(&mut on(&[&["probe", "trace"], flags].concat(), which, PROMPTS))
}

fn a_trace_tells_parts_tags_and_pairs_on_demand() {
    let report = trace("teacher", &["--prompt-tokens", "--co-activation", "--by-tag"]);
    let number = |key: &str| report[key].as_f64().unwrap();
    let choices = |report: &Value| flat(&report["experts"]["count"]).iter().sum::<f64>();
    // Two experts a token, in four layers.
    let (tokens, responses) = (number("tokens"), number("response_tokens"));
    assert_eq!(choices(&report), 8.0 * responses);
    assert_eq!(choices(&report["prompt_tokens"]), 8.0 * (tokens - responses));
    assert!(flat(&report["experts"]["margin"]).iter().all(|margin| *margin >= 0.0));
    let pairs = flat(&report["co_activation"]);
    assert_eq!(pairs.iter().sum::<f64>(), 4.0 * 4.0 * responses, "each token's two by two");
    // Every prompt is of the command line, so that tag's prompts are all of them.
    let tags = report["tags"].as_object().unwrap();
    assert_eq!(tags["cli"]["experts"], report["experts"]);
    assert_eq!(tags["cli"]["prompt_tokens"], report["prompt_tokens"]);
    assert_eq!(tags["cli"]["co_activation"], report["co_activation"]);
    assert!(tags.len() > 1 && tags.values().all(|tag| tag["prompts"].as_u64() > Some(0)));
    let some = tags.iter().find(|(name, _)| *name != "cli").unwrap().1;
    assert_eq!(choices(some), 8.0 * some["response_tokens"].as_f64().unwrap());
    // Nothing of it is told unasked.
    let plain = trace("teacher", &[]);
    assert_eq!(plain["experts"], report["experts"]);
    for key in ["prompt_tokens", "co_activation", "tags", "channels"] {
        assert!(plain.get(key).is_none(), "{key}");
    }
}

fn a_trace_of_channels_sums_their_sizes() {
    let report = trace("student", &["--units=channel"]);
    assert!(report.get("heads").is_none() && report.get("experts").is_none());
    let of = |key: &str| flat(&report["channels"][key]);
    let (sizes, energies) = (of("magnitude"), of("energy"));
    assert!(!sizes.is_empty() && sizes.len() == energies.len());
    // By Cauchy and Schwarz: (Σ|a|)² is at most the tokens times Σa².
    let tokens = report["response_tokens"].as_f64().unwrap();
    for (size, energy) in sizes.iter().zip(&energies) {
        assert!(*size > 0.0 && size * size <= tokens * energy * (1.0 + 1e-5), "{size} {energy}");
    }
    let refused = on(&["probe", "trace", "--units=feature"], "student", PROMPTS).output().unwrap();
    assert_eq!(refused.status.code(), Some(USAGE));
}
