//! Measures distillation recipes on the shipped models and prompts, and prints a table.
//!
//! `cargo run -p uspx-distill --example tune -- [--judge] [--prompts=N] [--dreams=ROUNDS]
//! [RECIPE…]`, a recipe being `key=value` pairs joined by commas over the default one: `rank alpha
//! epochs lr batch weight seed loss`, and for a training that is shared `machines every told outer momentum`. The last 200 training prompts are the validation split; `--judge`
//! adds the held-out set: bits per byte, and the paired bootstrap interval of the change from the
//! base.

use candle_core::{DType, Device};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;
use uspx_distill::{
    DistilRequest, Distilled, Keeping, Labels, Sharing, distil, dream, make_labels,
    recipe_references, recipe_teacher,
};
use uspx_domain::{DistilLoss, DistilRecipe, Prompt, parse_prompts};
use uspx_model::chat::Bounds;
use uspx_model::taps::NoTaps;
use uspx_model::{LoadedModel, NoProgress, Placement, batches, loss};

type Any<T> = Result<T, Box<dyn Error>>;

const VALIDATION: usize = 200;

fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets")
}

fn open(which: &str) -> Any<LoadedModel> {
    Ok(LoadedModel::open(
        &assets().join("nano").join(which),
        Placement::floats(DType::F32, &Device::Cpu),
    )?)
}

fn prompts(file: &str) -> Any<Vec<Prompt>> {
    Ok(parse_prompts(&std::fs::read_to_string(assets().join("prompts").join(file))?, false)?
        .prompts)
}

fn recipe(text: &str) -> Any<(DistilRecipe, Option<Sharing>)> {
    let (mut recipe, mut sharing) = (recipe_teacher(), Sharing::among(1));
    for pair in text.split(',').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or("a recipe is key=value,key=value")?;
        match key {
            "rank" => recipe.rank = value.parse()?,
            "alpha" => recipe.alpha = value.parse()?,
            "epochs" => recipe.epochs = value.parse()?,
            "lr" => recipe.learning_rate = value.parse()?,
            "batch" => recipe.batch_tokens = value.parse()?,
            "weight" => recipe.teacher_weight = value.parse()?,
            "seed" => recipe.seed = value.parse()?,
            "machines" => sharing.machines = value.parse()?,
            "every" => sharing.steps = value.parse()?,
            "told" => sharing.told = value.parse()?,
            "outer" => sharing.rate = value.parse()?,
            "momentum" => sharing.momentum = value.parse()?,
            "loss" => recipe.loss = DistilLoss::named(value).ok_or("no such loss")?,
            other => return Err(format!("no key {other}").into()),
        }
    }
    Ok((recipe, (sharing.machines > 1).then_some(sharing)))
}

/// Nats and reference bytes of every prompt.
fn losses(model: &LoadedModel, prompts: &[Prompt]) -> Any<Vec<(f64, f64)>> {
    let sequences = model.readable(prompts)?.sequences;
    let mut out = vec![(0.0, 0.0); prompts.len()];
    for (group, batch) in batches(&sequences, 4096)? {
        let frame = model.transformer.frame(&batch)?;
        let x = model.transformer.forward(&batch, &frame, &mut NoTaps)?;
        let nll =
            loss::token_nll(&model.transformer.logits(&x, &batch.predicting)?, &batch.targets)?;
        for (at, nats) in group.iter().zip(loss::per_sequence(&nll, &batch)?) {
            let bytes = prompts.get(*at).and_then(|p| p.reference.as_ref()).map_or(0, |r| r.len());
            if let Some(place) = out.get_mut(*at) {
                *place = (nats, bytes as f64);
            }
        }
    }
    Ok(out)
}

fn bits_per_byte(rows: &[(f64, f64)]) -> f64 {
    rows.iter().map(|r| r.0).sum::<f64>()
        / rows.iter().map(|r| r.1).sum::<f64>()
        / std::f64::consts::LN_2
}

/// The 95 % interval of the change of bits per byte, resampling prompts.
fn interval(new: &[(f64, f64)], old: &[(f64, f64)]) -> (f64, f64) {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut changes: Vec<f64> = (0..2000)
        .map(|_| {
            let (mut nats, mut bytes) = (0.0, 0.0);
            for _ in 0..new.len() {
                let at = random.random_range(0..new.len());
                if let (Some(n), Some(o)) = (new.get(at), old.get(at)) {
                    (nats, bytes) = (nats + n.0 - o.0, bytes + n.1);
                }
            }
            nats / bytes / std::f64::consts::LN_2
        })
        .collect();
    changes.sort_by(f64::total_cmp);
    let at = |q: usize| changes.get(q).copied().unwrap_or(f64::NAN);
    (at(50), at(1949))
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn labels(prompts: &[Prompt]) -> Any<Labels> {
    let start = Instant::now();
    let labels = make_labels(
        &open("teacher")?,
        prompts,
        None,
        Keeping::Likeliest(32),
        (Bounds::answer(64), usize::MAX),
        &NoProgress,
    )?
    .0;
    let bytes = labels.to_bytes()?.len();
    let (tokens, taken) = (labels.tokens(), start.elapsed());
    eprintln!(
        "{} prompts, {tokens} tokens labelled in {taken:.1?}, {bytes} bytes, peak {} MiB",
        prompts.len(),
        peak_mib()
    );
    Ok(labels)
}

fn main() -> Any<()> {
    let (flags, recipes): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|a| a.starts_with("--"));
    let judge = flags.iter().any(|f| f == "--judge");
    let all = prompts("cli-train.jsonl")?;
    let (train, validation) = all.split_at(all.len().saturating_sub(VALIDATION));
    let few =
        flags.iter().find_map(|f| f.strip_prefix("--prompts=")).map(str::parse).transpose()?;
    let train = train.get(..few.unwrap_or(train.len())).unwrap_or(train);
    let heldout = if judge { prompts("cli-heldout.jsonl")? } else { Vec::new() };
    let (mut train_labels, validation_labels) = (vec![labels(train)?], labels(validation)?);
    let rounds = flags
        .iter()
        .find_map(|f| f.strip_prefix("--dreams="))
        .map(str::parse)
        .transpose()?
        .unwrap_or(0);
    for seed in 0..rounds {
        let start = Instant::now();
        let dreams = dream(&open("teacher")?, train, None, 96, seed, &NoProgress)?;
        eprintln!("{} prompts dreamt in {:.1?}", dreams.len(), start.elapsed());
        train_labels.push(labels(&dreams)?);
    }
    let base = open("student")?;
    let base_heldout = losses(&base, &heldout)?;
    println!("{:<60} {:>7} {:>6} {:>6} {:>6}", "recipe", "val bpb", "epoch", "sec", "MiB");
    println!("{:<60} {:>7.4}", "base", bits_per_byte(&losses(&base, validation)?));
    if judge {
        println!("{:<60} held-out {:.4}", "base", bits_per_byte(&base_heldout));
    }
    let recipes: Vec<(String, (DistilRecipe, Option<Sharing>))> = match recipes.is_empty() {
        true => vec![
            ("references".into(), (recipe_references(), None)),
            ("references + teacher".into(), (recipe_teacher(), None)),
        ],
        false => recipes.into_iter().map(|t| Ok((t.clone(), recipe(&t)?))).collect::<Any<_>>()?,
    };
    for (name, (recipe, sharing)) in recipes {
        let mut student = open("student")?;
        let start = Instant::now();
        let (train, check) = (train_labels.as_slice(), std::slice::from_ref(&validation_labels));
        let request = DistilRequest { sharing, ..DistilRequest::new(train, check, &recipe) };
        let Distilled { summary, exchanged, .. } = distil(&mut student, &request, &NoProgress)?;
        let seconds = start.elapsed().as_secs_f64();
        let value = bits_per_byte(&losses(&student, validation)?);
        println!(
            "{name:<60} {value:>7.4} {:>6} {seconds:>6.1} {:>6}",
            summary.best_epoch,
            peak_mib()
        );
        if exchanged.rounds > 0 {
            println!("{name:<60} {exchanged:?}");
        }
        if judge {
            let rows = losses(&student, &heldout)?;
            let (low, high) = interval(&rows, &base_heldout);
            println!(
                "{name:<60} held-out {:.4}, change [{low:.4}, {high:.4}]",
                bits_per_byte(&rows)
            );
        }
    }
    Ok(())
}
