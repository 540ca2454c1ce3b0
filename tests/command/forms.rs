//! The JSON forms of the contract: keys, shapes, and figures that must agree with each other.

use crate::support::{BAD_INPUT, USAGE, json, model, on, refuses, uspx};
use libtest_mimic::Trial;
use serde_json::Value;
use tempfile::tempdir;
use uspx_domain::Estimator;
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![
        eval_adds_up,
        eval_counts_exact_answers_and_compares_models,
        trace_counts_every_choice_of_the_router,
        patch_gives_effects_with_their_errors,
        patch_says_what_it_cost_in_passes,
        exact_patches_take_a_baseline_and_a_mode,
        a_method_without_units_here_says_so,
        an_exact_effect_is_the_loss_of_the_mask_that_cuts_one_expert,
        a_mask_is_built_and_what_it_costs_is_measured,
        every_command_has_an_example_that_begins_with_itself,
        long_work_tells_its_progress_in_json_lines_beside_a_json_answer,
    ]
}

const PROMPTS: usize = 8;
/// The shipped teacher's dimensions.
const LAYERS: usize = 4;
const EXPERTS: usize = 16;
const HEADS: usize = 4;
const TOP_K: f64 = 2.0;

fn number(value: &Value, path: &str) -> f64 {
    value
        .pointer(path)
        .and_then(Value::as_f64)
        .unwrap_or_else(|| panic!("no number at {path}: {value:#}"))
}

/// A table `[layer][unit]` of numbers.
fn grid(value: &Value, path: &str, units: usize) -> Vec<Vec<f64>> {
    let rows = value
        .pointer(path)
        .and_then(Value::as_array)
        .unwrap_or_else(|| panic!("no table at {path}: {value:#}"));
    let row = |r: &Value| -> Vec<f64> {
        r.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    };
    let grid: Vec<Vec<f64>> = rows.iter().map(row).collect();
    assert!(grid.len() == LAYERS && grid.iter().all(|r| r.len() == units), "{path}: {grid:?}");
    grid
}

fn close(a: f64, b: f64, relative: f64) {
    assert!((a - b).abs() <= relative * b.abs().max(1e-9), "{a} against {b}");
}

/// What holds of every evaluation, whatever was measured.
fn adds_up(report: &Value) {
    let rows = report["per_prompt"].as_array().unwrap();
    assert_eq!((rows.len(), number(report, "/prompts")), (PROMPTS, PROMPTS as f64));
    let sum = |key: &str| -> f64 { rows.iter().map(|r| number(r, key)).sum() };
    let nats: f64 = rows.iter().map(|r| number(r, "/loss") * number(r, "/tokens")).sum();
    close(number(report, "/loss"), nats / sum("/tokens"), 1e-9);
    close(number(report, "/bits_per_byte"), nats / std::f64::consts::LN_2 / sum("/bytes"), 1e-9);
    assert!(number(report, "/loss_stderr") > 0.0 && number(report, "/tokens_per_second") > 0.0);
    assert!(number(report, "/peak_rss_bytes") > 1e6);
    assert!(report.as_object().unwrap().contains_key("exact_match"));
    match &report["kl"] {
        Value::Null => assert!(rows.iter().all(|r| r["kl"].is_null())),
        kl => {
            let all: f64 = rows.iter().map(|r| number(r, "/kl") * number(r, "/tokens")).sum();
            assert!((kl.as_f64().unwrap() - all / sum("/tokens")).abs() < 1e-9);
        }
    }
}

fn eval_adds_up() {
    for which in ["teacher", "student"] {
        let report = json(&mut on(&["eval"], which, PROMPTS));
        adds_up(&report);
        assert!(report["kl"].is_null() && report["exact_match"].is_null());
        assert!(report["answer_tokens_per_second"].is_null());
        let ids: Vec<&str> = report["per_prompt"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| r["id"].as_str().unwrap())
            .collect();
        let text = std::fs::read_to_string(crate::support::prompts("cli-heldout.jsonl")).unwrap();
        for ((line, id), row) in text.lines().zip(ids).zip(report["per_prompt"].as_array().unwrap())
        {
            let prompt: Value = serde_json::from_str(line).unwrap();
            assert_eq!(prompt["id"], id);
            assert_eq!(row["bytes"], prompt["reference"].as_str().unwrap().len());
        }
    }
}

fn eval_counts_exact_answers_and_compares_models() {
    let exact =
        json(&mut on(&["eval", "--exact-match", "--max-new-tokens", "16"], "teacher", PROMPTS));
    assert!((0.0..=1.0).contains(&number(&exact, "/exact_match")));
    assert!(number(&exact, "/answer_tokens_per_second") > 0.0);
    let itself = json(on(&["eval", "--against"], "teacher", PROMPTS).arg(model("teacher")));
    adds_up(&itself);
    assert_eq!(number(&itself, "/kl"), 0.0);
    let mut other = on(&["eval", "--against"], "teacher", PROMPTS);
    refuses(other.arg(model("student")), BAD_INPUT, &["another tokenizer", "bits_per_byte"]);
}

fn trace_counts_every_choice_of_the_router() {
    let report = json(&mut on(&["probe", "trace"], "teacher", PROMPTS));
    let shape = |key: &str| number(&report, &format!("/model/{key}")) as usize;
    assert_eq!((shape("layers"), shape("experts"), shape("heads")), (LAYERS, EXPERTS, HEADS));
    assert_eq!(report["model"]["architecture"], "gpt_oss");
    assert_eq!(report["model"]["fingerprint"].as_str().unwrap().len(), 64);
    assert_eq!(number(&report, "/prompts"), PROMPTS as f64);
    let response = number(&report, "/response_tokens");
    assert!(response > 0.0 && number(&report, "/tokens") > response);
    assert!(
        number(&report, "/tokens_per_second") > 0.0 && number(&report, "/peak_rss_bytes") > 1e6
    );
    let table = |key: &str| grid(&report, &format!("/experts/{key}"), EXPERTS);
    let (count, mass) = (table("count"), table("gate_mass"));
    for (count, mass) in count.iter().zip(&mass) {
        assert_eq!(count.iter().sum::<f64>(), TOP_K * response);
        close(mass.iter().sum(), response, 1e-4);
        assert!(count.iter().zip(mass).all(|(c, m)| (*c == 0.0) == (*m == 0.0) && m <= c));
    }
    for key in ["saliency_reap", "saliency_easy_ep"] {
        let values = table(key);
        let same = |(v, c): (&Vec<f64>, &Vec<f64>)| {
            v.iter().zip(c).all(|(v, c)| *v >= 0.0 && (*c > 0.0 || *v == 0.0))
        };
        assert!(values.iter().zip(&count).all(same), "{key}: {values:?}");
    }
    assert!(grid(&report, "/heads/norm", HEADS).iter().flatten().all(|norm| *norm > 0.0));
}

fn patch_gives_effects_with_their_errors() {
    let clean = number(&json(&mut on(&["eval"], "teacher", PROMPTS)), "/loss");
    // What nothing is said of is measured as far as the method does.
    let both = &[("expert", EXPERTS), ("head", HEADS)][..];
    let experts = &both[..1];
    for (method, kinds) in [
        ("exact", both),
        ("atp", both),
        ("eap-ig", both),
        ("reroute", experts),
        ("reroute-ig", experts),
        ("atp-star", both),
        ("relp", both),
    ] {
        let report = json(&mut on(&["probe", "patch", "--method", method], "teacher", PROMPTS));
        assert_eq!(report["effects"].as_object().unwrap().len(), kinds.len());
        assert_eq!(report["method"], method);
        assert!(report.as_object().unwrap().contains_key("baseline"));
        close(number(&report, "/clean_loss"), clean, 1e-6);
        for &(kind, units) in kinds {
            let effects = grid(&report, &format!("/effects/{kind}"), units);
            let errors = grid(&report, &format!("/stderr/{kind}"), units);
            assert!(effects.iter().flatten().any(|e| e.abs() > 1e-3), "{effects:?}");
            assert!(errors.iter().flatten().all(|e| *e >= 0.0), "{errors:?}");
        }
        assert!(number(&report, "/seconds") > 0.0);
    }
}

/// Layers run and differentiated, per layer of the model and prompt: counted by hand here, and
/// where layers run there.
fn patch_says_what_it_cost_in_passes() {
    // A head's cut in layer l runs layers l to the last; an expert's those behind it, where any
    // token that a response depends on went to it.
    let after = |layer: usize| LAYERS - layer;
    let cuts = |units, layers: std::ops::Range<usize>| {
        layers.map(|layer| units * after(layer)).sum::<usize>()
    };
    let exact = |layers_run: usize| (1.0 + layers_run as f64 / LAYERS as f64, 0.0);
    let cost = |flags: &[&str]| {
        let report = json(&mut on(&[&["probe", "patch"], flags].concat(), "teacher", PROMPTS));
        (number(&report, "/forwards"), number(&report, "/backwards"))
    };
    let heads = exact(cuts(HEADS, 0..LAYERS));
    assert_eq!(cost(&["--units=head", "--method=exact"]), heads);
    let both = cost(&["--units=expert,head", "--method=exact"]);
    let most = exact(cuts(HEADS, 0..LAYERS) + cuts(EXPERTS, 1..LAYERS));
    assert!(both.0 > heads.0 && both.0 <= most.0, "{both:?} of {most:?}");
    // However the prompts are batched.
    assert_eq!(cost(&["--units=expert,head", "--method=exact", "--batch-tokens=300"]), both);
    assert_eq!(
        cost(&["--units=head", "--method=exact", "--layers=1..3"]),
        exact(cuts(HEADS, 1..3))
    );
    // The clean run, each layer again for its gradient; before them a run for the mean outputs.
    let [clean, again, mean] = [1.0; 3];
    assert_eq!(
        cost(&["--units=expert,head", "--method=atp", "--baseline=zero"]),
        (clean + again, 1.0)
    );
    assert_eq!(
        cost(&["--units=head", "--method=atp", "--baseline=mean"]),
        (mean + clean + again, 1.0)
    );
    assert_eq!(cost(&["--method=reroute"]), (clean + again, 1.0));
    // Once back for each layer.
    let layers = LAYERS as f64;
    assert_eq!(cost(&["--method=atp-star"]), (mean + clean + layers * again, layers));
    // Five inputs along the path.
    assert_eq!(cost(&["--method=eap-ig"]), (mean + 5.0 * (clean + again), 5.0));
    assert_eq!(cost(&["--method=reroute-ig"]), (5.0 * (clean + again), 5.0));
    // What `mask build` foretells is in the estimators' rows.
    for estimator in Estimator::of_effects() {
        let method = format!("--method={estimator}");
        let Some(passes) = estimator.row().passes else { continue };
        let (forwards, backwards) = cost(&[&method]);
        assert_eq!(forwards + 2.0 * backwards, passes(LAYERS as f64), "{estimator}");
    }
}

fn exact_patches_take_a_baseline_and_a_mode() {
    let exact = |flags: &[&str]| {
        let command = [&["probe", "patch", "--method=exact"], flags].concat();
        json(&mut on(&command, "teacher", 3 * PROMPTS))
    };
    let heads = |report: &Value| grid(report, "/effects/head", HEADS);
    let zero = exact(&["--units=head"]);
    assert_eq!((&zero["baseline"], zero.get("expert_mode")), (&Value::from("zero"), None));
    let mean = exact(&["--units=head", "--baseline=mean"]);
    assert_eq!(mean["baseline"], "mean");
    assert_ne!(heads(&mean), heads(&zero));

    let resampled = |seed| exact(&["--units=head", "--baseline=resample", seed]);
    let report = resampled("--seed=1");
    let from = report["resampled_from"].as_object().unwrap();
    let alone = report["unpaired"].as_array().map_or(0, Vec::len);
    assert_eq!(from.len() + alone, 3 * PROMPTS);
    assert_eq!(number(&report, "/prompts"), from.len() as f64);
    assert!(from.len() > 4 && from.iter().all(|(taker, giver)| giver != taker), "{from:?}");
    assert_eq!(heads(&report), heads(&resampled("--seed=1")));
    assert_ne!(heads(&report), heads(&mean));

    let experts = |mode| exact(&["--units=expert", "--layers=2..4", mode]);
    let (ban, none) = (experts("--expert-mode=ban"), experts("--expert-mode=zero"));
    assert_eq!((&ban["expert_mode"], &none["expert_mode"]), (&"ban".into(), &"zero".into()));
    assert_ne!(ban["effects"], none["effects"]);
    let refused = |flags: &[&str]| {
        let command = [&["probe", "patch"], flags].concat();
        on(&command, "teacher", PROMPTS).output().unwrap().status.code()
    };
    assert_eq!(refused(&["--method=atp", "--expert-mode=zero"]), Some(USAGE));
    assert_eq!(refused(&["--method=atp", "--baseline=resample"]), Some(USAGE));
}

/// What a model has none of is told with what there is to ask for.
fn a_method_without_units_here_says_so() {
    let help = |flags: &[&str]| {
        let output =
            on(&[&["probe", "patch"], flags].concat(), "student", PROMPTS).output().unwrap();
        assert_eq!(output.status.code(), Some(BAD_INPUT));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(help(&["--method=reroute"]).contains("use another --method"));
    assert!(help(&["--method=atp", "--units=expert"]).contains("try --units head"));
}

/// Expert bans measured one by one, against the same ban given as a mask.
fn an_exact_effect_is_the_loss_of_the_mask_that_cuts_one_expert() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("mask.json");
    let trace = json(&mut on(&["probe", "trace"], "teacher", PROMPTS));
    let patch = json(&mut on(
        &["probe", "patch", "--units", "expert", "--layers", "1..2"],
        "teacher",
        PROMPTS,
    ));
    let kept = |layer| (0..EXPERTS).filter(|e| layer != 1 || *e != 8).collect::<Vec<_>>();
    let keep = serde_json::json!({"expert": (0..LAYERS).map(kept).collect::<Vec<_>>(), "head": null, "channel": null});
    let mask =
        serde_json::json!({"version": 1, "model": trace["model"]["fingerprint"], "keep": keep});
    std::fs::write(&path, mask.to_string()).unwrap();
    let masked = json(on(&["probe", "ablate", "--mask"], "teacher", PROMPTS).arg(&path));
    adds_up(&masked);
    let rise = number(&masked, "/loss") - number(&patch, "/clean_loss");
    let effect = number(&patch, "/effects/expert/1/8");
    assert!((rise - effect).abs() < 1e-5, "{rise} against {effect}");
    assert_eq!(
        patch["effects"]["expert"][0],
        serde_json::json!([]),
        "a layer not asked for is empty"
    );
}

fn a_mask_is_built_and_what_it_costs_is_measured() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("mask.json");
    let clean = json(&mut on(&["eval"], "teacher", PROMPTS));
    let build = |keep: &str| {
        json(
            on(
                &["mask", "build", "--units", "expert", "--keep", keep, "--out"],
                "teacher",
                PROMPTS,
            )
            .arg(&path),
        )
    };
    let eval = || json(on(&["eval", "--mask"], "teacher", PROMPTS).arg(&path));

    let mask = build("0.5");
    assert_eq!(serde_json::from_slice::<Value>(&std::fs::read(&path).unwrap()).unwrap(), mask);
    assert_eq!((mask["version"].as_u64(), mask["keep"]["head"].is_null()), (Some(1), true));
    let kept: usize = mask["keep"]["expert"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l.as_array().unwrap().len())
        .sum();
    assert_eq!(kept, LAYERS * EXPERTS / 2);
    let half = eval();
    adds_up(&half);
    assert!(number(&half, "/kl") > 0.0 && number(&half, "/loss") != number(&clean, "/loss"));
    let ablate = json(on(&["probe", "ablate", "--mask"], "teacher", PROMPTS).arg(&path));
    assert_eq!((&ablate["loss"], &ablate["kl"]), (&half["loss"], &half["kl"]));

    build("1.0");
    let whole = eval();
    assert_eq!(number(&whole, "/kl"), 0.0);
    assert_eq!(whole["loss"], clean["loss"]);
}

/// The commands that a help page lists, each with the words before it.
fn commands(words: &[String]) -> Vec<Vec<String>> {
    let output = uspx().args(words).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let listed = help
        .lines()
        .skip_while(|l| !l.starts_with("Commands:"))
        .skip(1)
        .take_while(|l| !l.is_empty());
    let named = listed
        .filter(|l| l.starts_with("  ") && !l.starts_with("   "))
        .filter_map(|l| l.split_whitespace().next());
    let below: Vec<Vec<String>> =
        named.filter(|n| *n != "help").map(|name| [words, &[name.to_owned()]].concat()).collect();
    if below.is_empty() {
        vec![words.to_vec()]
    } else {
        below.iter().flat_map(|w| commands(w)).collect()
    }
}

fn every_command_has_an_example_that_begins_with_itself() {
    let all = commands(&[]);
    assert!(all.len() >= 12, "{all:?}");
    let mut without = Vec::new();
    for words in all {
        let help =
            String::from_utf8(uspx().args(&words).arg("--help").output().unwrap().stdout).unwrap();
        let example = format!("Example: uspx {}", words.join(" "));
        if !help.split_whitespace().collect::<Vec<_>>().join(" ").contains(&example) {
            without.push(words.join(" "));
        }
    }
    assert!(without.is_empty(), "no `Example: uspx …` in the help of {without:?}");
}

fn long_work_tells_its_progress_in_json_lines_beside_a_json_answer() {
    let output = on(&["eval", "--batch-tokens=300", "--json"], "teacher", 12).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<Value> = said
        .lines()
        .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}")))
        .collect();
    let done: Vec<u64> = lines.iter().map(|l| l["done"].as_u64().unwrap()).collect();
    assert!(done.is_sorted() && done.last() == Some(&12), "{said}");
    assert!(lines.iter().all(|l| l["stage"] == "evaluating" && l["total"] == 12), "{said}");
    let person = on(&["eval"], "teacher", 2).output().unwrap();
    let said = String::from_utf8(person.stderr).unwrap();
    let told = "2 prompts are scored on the reference\n";
    assert_eq!(said, told, "a person without a terminal gets no lines of progress");
}
