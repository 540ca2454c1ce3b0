//! The table against the code: defaults, flags, and the file that is made of it.

use super::table::{Key, Role, Usual, keys, keys_of};
use super::*;
use crate::args::Cli;
use clap::CommandFactory;
use serde_json::Value;
use std::collections::BTreeSet;
use uspx_colony::Share;
use uspx_coordinator::{CampaignPlan, CoordinatorSettings};
use uspx_domain::DistilLoss;
use uspx_wire::subjects::DEFAULT_NAMESPACE;

/// A file of some keys with what the table says of them.
fn file(wanted: impl Fn(&Key) -> bool) -> String {
    let (mut text, mut last) = (String::new(), "");
    for key in keys().filter(|key| wanted(key)) {
        let (table, name) = key.place();
        if table != last {
            text.push_str(&format!("[{table}]\n"));
            last = table;
        }
        text.push_str(&format!("{name} = {}\n", key.usual.shown()));
    }
    text
}

fn read(text: &str) -> Sources {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Sources::read(Some(file.path()), serde_json::json!({})).unwrap()
}

fn coordinator(text: &str) -> CoordinatorFile {
    read(text).settings().unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn worker(text: &str) -> WorkerFile {
    read(text).settings().unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn is_needed(key: &Key) -> bool {
    matches!(key.usual, Usual::Needed(_))
}

fn leaves(value: &Value, path: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(name, value)| leaves(value, &format!("{path}.{name}"), into));
        }
        _ => {
            into.insert(path.to_owned());
        }
    }
}

/// A plan with all set that it is silent about otherwise: the sizes of tasks, the steps of a training, what answers
/// have to stand.
fn with_sizes() -> CampaignPlan {
    let mut plan = CampaignPlan::default();
    let CampaignPlan { probe, judge, distil, .. } = &mut plan;
    for size in [
        &mut probe.trace_batch,
        &mut probe.patch_batch,
        &mut probe.units_per_task,
        &mut judge.batch,
        &mut distil.label_batch,
        &mut distil.judge_batch,
    ] {
        *size = Some(1);
    }
    plan.sae.recipe.steps = Some(1);
    plan.distil.nf4 = true;
    plan.mind.memory = 1;
    plan.distil.fresh = Share(1);
    plan.distil.hours_a_day = 1.0;
    for bound in [&mut plan.answers.min_consistency, &mut plan.answers.max_reference_nats] {
        *bound = Some(1.0);
    }
    plan
}

#[test]
fn the_table_has_every_key_of_a_campaign_and_no_other() {
    let mut code = BTreeSet::new();
    leaves(&serde_json::to_value(with_sizes()).unwrap(), "campaign", &mut code);
    let paths = keys().map(|key| key.path.to_owned());
    let table: BTreeSet<String> = paths.filter(|path| path.starts_with("campaign.")).collect();
    assert_eq!(table, code);
    let all: BTreeSet<&str> = keys().map(|key| key.path).collect();
    assert_eq!(all.len(), keys().count(), "a key stands twice");
}

#[test]
fn the_table_s_defaults_are_the_code_s() {
    let all = file(|key| is_needed(key) || matches!(key.usual, Usual::Is(_)));
    let (given, bare) = (coordinator(&all), coordinator(&file(is_needed)));
    assert_eq!(given.campaign, CampaignPlan::default());
    assert_eq!(given.namespace.as_deref(), Some(DEFAULT_NAMESPACE));
    let flags = |f: &CoordinatorFile| (f.text, f.skip_bad, f.allow_secrets);
    assert_eq!(flags(&given), flags(&bare));
    let usual = CoordinatorSettings::new("home", &given.state);
    for service in [given.service(), bare.service()] {
        assert_eq!(format!("{service:?}"), format!("{usual:?}"));
    }
    let (given, bare) = (worker(&all), worker(&file(is_needed)));
    assert_eq!(WorkerFile { namespace: None, ..given }, bare);
}

#[test]
fn a_file_to_begin_with_is_the_defaults() {
    let text = commented();
    assert_eq!(read(&text).keys_of_file().unwrap(), Vec::<String>::new());
    // The needed keys stand before the first table.
    let needed = file(is_needed);
    assert_eq!(coordinator(&format!("{needed}{text}")), coordinator(&needed));
    assert_eq!(worker(&format!("{needed}{text}")), worker(&needed));
}

#[test]
fn every_key_of_a_file_to_begin_with_can_be_put_in_force() {
    let text = commented();
    let names: Vec<&str> = keys().map(|key| key.place().1).collect();
    let in_force = |line: &str| match line.strip_prefix("# ") {
        Some(rest) if names.iter().any(|name| rest.starts_with(&format!("{name} = "))) => {
            rest.to_owned()
        }
        _ => line.to_owned(),
    };
    let whole: Vec<String> = text.lines().map(in_force).collect();
    let whole = whole.join("\n");
    let mut found = read(&whole).keys_of_file().unwrap();
    let mut wanted: Vec<&str> = keys().map(|key| key.path).collect();
    found.sort();
    wanted.sort_unstable();
    assert_eq!(found, wanted);
    assert!(unknown::of(&found).is_empty());
    assert!(coordinator(&whole).campaign.teacher.is_some());
    assert_eq!(worker(&whole).batch_tokens, Some(4096));
}

#[test]
fn a_recipe_may_name_its_loss() {
    let with = |loss: &str| {
        format!(
            "{}[campaign.distil]\nrecipes = [{{ rank = 1, alpha = 1.0, epochs = 1, learning_rate = 0.1, \
             batch_tokens = 1, teacher_weight = 1.0, seed = 0{loss} }}]\n",
            file(is_needed)
        )
    };
    let named = |loss| coordinator(&with(loss)).campaign.distil.recipes[0].loss;
    assert_eq!(named(""), DistilLoss::HYBRID);
    assert_eq!(named(", loss = \"alm\""), DistilLoss::ALM);
    let refused = read(&with(", loss = \"secret\"")).settings::<CoordinatorFile>().unwrap_err();
    assert!(refused.to_string().contains("not the name of a distillation loss"), "{refused}");
}

#[test]
fn flags_of_the_table_and_of_the_commands_are_the_same() {
    let own = ["help", "verbose", "version", "config", "with-parent"];
    for role in [Role::Coordinator, Role::Worker] {
        let cli = Cli::command();
        let command = cli.find_subcommand(role.to_string()).unwrap();
        let flags = command.get_arguments().filter_map(|arg| arg.get_long());
        let flags: BTreeSet<&str> = flags.filter(|flag| !own.contains(flag)).collect();
        let table: BTreeSet<&str> =
            keys_of(role).map(|key| key.flag).filter(|flag| !flag.is_empty()).collect();
        assert_eq!(table, flags, "{role}");
    }
}

#[test]
fn what_is_missing_is_named_at_once_with_every_way_to_set_it() {
    let error = missing::refuse(Role::Coordinator, &read("nats = 'x'\n")).unwrap_err().to_string();
    for word in ["--store, USPX_STORE or store in the file", "--state", "--train", "--gate"] {
        assert!(error.contains(word), "{error}");
    }
    assert!(!error.contains("USPX_NATS ") && !error.contains("--name"), "{error}");
    let of_worker = missing::refuse(Role::Worker, &read("")).unwrap_err().to_string();
    assert!(of_worker.contains("--models, USPX_MODELS or models in the file"), "{of_worker}");
}

#[test]
fn a_configuration_is_explained_with_its_faults() {
    let text = "nats = 'nats://me:secret@box'\nkepp = 1\n[campaign.mask]\nkeep = 500000\n";
    let both = explain(&[Role::Coordinator, Role::Worker], &read(text)).unwrap();
    assert_eq!(both.roles.len(), 2);
    let said = both.wrong.join("; ");
    assert!(said.contains("`kepp` is no key") && said.contains("millionths"), "{said}");
    assert!(!said.contains("missing:"), "flags may add what a file lacks: {said}");
    let whole = serde_json::to_string(&both).unwrap();
    assert!(whole.contains("nats://box") && !whole.contains("secret@"), "{whole}");

    let one = explain(&[Role::Worker], &read("name = 'a b'\n")).unwrap();
    let said = one.wrong.join("; ");
    assert!(said.contains("name: ") && said.contains("missing: models"), "{said}");
    let range = explain(&[Role::Coordinator], &read("[campaign.trust]\nduplicates = 0.5\n"));
    let said = range.unwrap().wrong.join("; ");
    assert!(said.contains("`trust.duplicates` is out of range"), "{said}");
}
