//! `uspx eval` and `uspx probe ablate`: the loss of a model, whole or masked.

use crate::args::{AblateArgs, EvalArgs, ProbeArgs};
use crate::error::{CliError, Exit, Result};
use crate::left_out::{self, LeftOut};
use crate::models::{self, Subject};
use crate::output;
use crate::progress::Bar;
use crate::saes::Saes;
use crate::scored::Scored;
use serde::Serialize;
use std::f64::consts::LN_2;
use std::path::Path;
use std::time::Instant;
use uspx_model::LoadedModel;
use uspx_model::budget::Workload;
use uspx_model::chat::Bounds;
use uspx_model::taps::{NoTaps, Taps};
use uspx_probe::answered::{Answered, answered};
use uspx_probe::evaluate::{Against, Evaluation, evaluate};
use uspx_runtime::{Shutdown, memory};

/// The JSON form of `eval` and `probe ablate`.
#[derive(Serialize)]
struct Report {
    prompts: usize,
    scored: Scored,
    loss: f64,
    loss_stderr: f64,
    bits_per_byte: f64,
    kl: Option<f64>,
    exact_match: Option<f64>,
    /// Of answers that are written one at a time; none of a model that is read from its file.
    answer_tokens_per_second: Option<f64>,
    tokens_per_second: f64,
    streamed: bool,
    batch_tokens: usize,
    peak_rss_bytes: Option<u64>,
    /// Prompts whose whole text has other tokens than its use: those in use are measured.
    seam_prompts: u32,
    per_prompt: Vec<PromptReport>,
    skipped: Vec<LeftOut>,
}

#[derive(Serialize)]
struct PromptReport {
    id: String,
    loss: f64,
    kl: Option<f64>,
    tokens: u32,
    bytes: u32,
}

/// `uspx eval`.
pub fn run(args: &EvalArgs, shutdown: &Shutdown) -> Result<()> {
    let with = (Workload::Forward, Saes::read(&args.saes)?);
    let subject = models::subject(&args.common, with, shutdown)?;
    let other =
        args.against.as_deref().map(|path| comparable(path, args, &subject.model)).transpose()?;
    let against = match (&other, &args.mask) {
        (Some(other), _) => Against::Other(&other.transformer),
        (None, Some(_)) => Against::Itself,
        (None, None) => Against::Nothing,
    };
    let exact = args.exact_match.then_some(args.common.run.bounds(args.common.max_new_tokens));
    measure(&subject, args.mask.as_deref(), &against, exact, &args.common, shutdown)
}

/// `uspx probe ablate`.
pub fn ablate(args: &AblateArgs, shutdown: &Shutdown) -> Result<()> {
    let with = (Workload::Forward, Saes::read(&args.saes)?);
    let subject = models::subject(&args.common, with, shutdown)?;
    measure(&subject, Some(&args.mask), &Against::Itself, None, &args.common, shutdown)
}

/// KL compares token by token: both models must cut text alike.
fn comparable(path: &Path, args: &EvalArgs, model: &LoadedModel) -> Result<LoadedModel> {
    let other = models::model(path, &args.common.run)?;
    if other.chat.tokens() != model.chat.tokens()
        || other.transformer.config().vocab != model.transformer.config().vocab
    {
        let message = format!(
            "{} has another tokenizer: token distributions cannot be compared",
            path.display()
        );
        return Err(CliError::new(Exit::BadInput, message)
            .help("compare bits_per_byte of two evaluations instead"));
    }
    Ok(other)
}

fn measure(
    subject: &Subject,
    mask: Option<&Path>,
    against: &Against<'_>,
    exact: Option<Bounds>,
    args: &ProbeArgs,
    shutdown: &Shutdown,
) -> Result<()> {
    let Subject { model, prompts, batch_tokens, .. } = subject;
    let mut taps: Box<dyn Taps> = match mask {
        None => Box::new(NoTaps),
        Some(path) => Box::new(models::cut(path, model)?),
    };
    let bar = Bar::new("evaluating", args.run.json, shutdown);
    let start = Instant::now();
    let found = evaluate(model, prompts, *batch_tokens, taps.as_mut(), against, &bar)?;
    let seconds = start.elapsed().as_secs_f64();
    bar.finish();
    let told = (args.run.json, shutdown);
    let own = exact.map(|bounds| answers(subject, bounds, taps.as_mut(), told)).transpose()?;
    let report = report(&found, subject, own.as_ref(), seconds);
    if args.run.json { output::json(&report) } else { print(&report) }
}

fn report(found: &Evaluation, subject: &Subject, own: Option<&Answered>, seconds: f64) -> Report {
    let row = &found.losses;
    let kl_of = |at: usize| found.kl.as_ref().and_then(|kl| kl.get(at)).copied();
    let per_prompt: Vec<PromptReport> = row
        .prompts
        .iter()
        .zip(row.nats.iter().zip(&row.bytes))
        .enumerate()
        .map(|(at, (p, (nats, bytes)))| PromptReport {
            id: p.id.clone(),
            loss: f64::from(*nats) / f64::from(p.tokens.max(1)),
            kl: kl_of(at).map(|kl| kl / f64::from(p.tokens.max(1))),
            tokens: p.tokens,
            bytes: *bytes,
        })
        .collect();
    let nats: f64 = row.nats.iter().copied().map(f64::from).sum();
    let tokens: f64 = row.prompts.iter().map(|p| f64::from(p.tokens)).sum();
    let bytes: f64 = row.bytes.iter().copied().map(f64::from).sum();
    Report {
        prompts: per_prompt.len(),
        scored: subject.scored,
        loss: nats / tokens,
        loss_stderr: pooled_stderr(
            &row.nats,
            &row.prompts.iter().map(|p| p.tokens).collect::<Vec<_>>(),
        ),
        bits_per_byte: nats / LN_2 / bytes,
        kl: found.kl.as_ref().map(|kl| kl.iter().sum::<f64>() / tokens),
        exact_match: own.and_then(Answered::share),
        answer_tokens_per_second: own.and_then(|own| own.pace?.tokens_per_second()),
        tokens_per_second: found.tokens as f64 / seconds,
        streamed: subject.model.transformer.is_streamed(),
        batch_tokens: subject.batch_tokens,
        peak_rss_bytes: memory::peak_rss(),
        seam_prompts: subject.prompts.seams,
        per_prompt,
        skipped: left_out::listed(&subject.prompts.skipped),
    }
}

/// Standard error of Σ nats ÷ Σ tokens over prompts (delta method of a ratio of sums).
pub(super) fn pooled_stderr(nats: &[f32], tokens: &[u32]) -> f64 {
    let n = nats.len() as f64;
    let all: f64 = tokens.iter().copied().map(f64::from).sum();
    let ratio = nats.iter().copied().map(f64::from).sum::<f64>() / all;
    let squares: f64 =
        nats.iter().zip(tokens).map(|(x, t)| (f64::from(*x) - ratio * f64::from(*t)).powi(2)).sum();
    if n < 2.0 { f64::NAN } else { (squares * n / (n - 1.0)).sqrt() / all }
}

/// The model's own answers to the prompts.
fn answers(
    subject: &Subject,
    bounds: Bounds,
    taps: &mut dyn Taps,
    (json, shutdown): (bool, &Shutdown),
) -> Result<Answered> {
    let bar = Bar::new("answering", json, shutdown);
    let (prompts, bounds) = (&subject.prompts.prompts, (bounds, subject.batch_tokens));
    let found = answered(&subject.model, prompts, bounds, taps, &bar)?;
    bar.finish();
    Ok(found)
}

fn print(report: &Report) -> Result<()> {
    let loss = format!("{:.4} ± {:.4}", report.loss, report.loss_stderr);
    let kl = report.kl.map(|kl| format!("{kl:.4}"));
    let exact = report.exact_match.map(|exact| format!("{:.1} %", exact * 100.0));
    let answering = report.answer_tokens_per_second.map(|speed| format!("{speed:.1}"));
    let rows = [
        ("prompts", Some(report.prompts.to_string()), ""),
        ("loss", Some(loss), "nats per response token"),
        ("bits per byte", Some(format!("{:.4}", report.bits_per_byte)), ""),
        ("KL", kl, "nats per response token"),
        ("exact match", exact, ""),
        ("answers", answering, "tokens per second, one answer at a time"),
        ("speed", Some(format!("{:.0}", report.tokens_per_second)), "tokens per second"),
    ];
    let mut table = output::table(&["", "value", ""]);
    for (name, value, unit) in rows {
        if let Some(value) = value {
            table.add_row([name, value.as_str(), unit]);
        }
    }
    output::line(&table.to_string())
}

#[cfg(test)]
mod tests {
    use super::pooled_stderr;

    #[test]
    fn the_error_of_equal_lengths_is_that_of_a_mean() {
        let nats = [1.0f32, 3.0, 2.0, 6.0];
        let mean = 3.0;
        let variance: f64 = nats.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / 3.0;
        let expected = (variance / 4.0).sqrt() / 5.0;
        assert!((pooled_stderr(&nats, &[5, 5, 5, 5]) - expected).abs() < 1e-12);
    }
}
