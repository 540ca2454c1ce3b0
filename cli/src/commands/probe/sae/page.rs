//! What `uspx probe sae` tells: its JSON form, and the same for a person.

use super::confirm::{self, Confirmed};
use crate::error::Result;
use crate::left_out::LeftOut;
use crate::output;
use serde::Serialize;
use std::path::PathBuf;
use uspx_domain::Fingerprint;
use uspx_sae::Evaluation;
use uspx_sae::rank::Ranked;

/// The JSON form.
#[derive(Serialize)]
pub(super) struct SaeReport {
    pub model: Fingerprint,
    pub layer: usize,
    /// The layer that its features are units of.
    #[serde(skip)]
    pub unit_layer: usize,
    pub site: &'static str,
    pub kind: &'static str,
    pub features: usize,
    /// None of an SAE that chooses by thresholds.
    pub k: Option<usize>,
    pub out: Option<PathBuf>,
    pub training: Option<TrainingReport>,
    pub evaluation: EvaluationReport,
    /// What the features tell about good answers (a loss below the median), the most telling first.
    pub ranking: Vec<Ranked>,
    /// Of --confirm: the most telling ones, taken out of the model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub confirmed: Vec<Confirmed>,
    pub streamed: bool,
    pub batch_tokens: usize,
    pub peak_rss_bytes: Option<u64>,
    pub skipped: Vec<LeftOut>,
}

/// How the training went.
#[derive(Serialize)]
pub(super) struct TrainingReport {
    pub prompts: usize,
    pub steps: u64,
    /// Steps that a checkpoint brought along.
    pub resumed_steps: u64,
    /// Tokens learned from in this run.
    pub tokens: u64,
    pub seconds: f64,
    pub tokens_per_second: f64,
    /// The last step's unexplained share of the variance.
    pub last_loss: f64,
}

/// What the SAE costs in its activations' place.
#[derive(Serialize)]
pub(super) struct EvaluationReport {
    pub prompts: usize,
    pub tokens: u64,
    pub l0: f64,
    pub explained_variance: f64,
    /// Features that are active on none of these tokens.
    pub dead_features: usize,
    /// Nats per response token: untouched, with the SAE's reconstruction, with zeros, with the mean.
    pub clean_loss: f64,
    pub sae_loss: f64,
    pub zero_loss: f64,
    pub mean_loss: f64,
    /// (zero − sae) ÷ (zero − clean).
    pub loss_recovered: f64,
    /// (mean − sae) ÷ (mean − clean).
    pub loss_recovered_over_mean: f64,
    /// KL from the untouched model, nats per response token.
    pub kl: f64,
    pub zero_kl: f64,
    pub mean_kl: f64,
    /// 1 − kl ÷ zero_kl.
    pub kl_recovered: f64,
    pub seconds: f64,
}

impl EvaluationReport {
    /// Of what was found in so many seconds.
    pub fn new(found: &Evaluation, seconds: f64) -> Self {
        let Evaluation { sae, zero, mean, .. } = found;
        Self {
            prompts: found.losses.len(),
            tokens: found.tokens,
            l0: found.l0,
            explained_variance: found.explained_variance,
            dead_features: found.dead(),
            clean_loss: found.clean,
            sae_loss: sae.loss,
            zero_loss: zero.loss,
            mean_loss: mean.loss,
            loss_recovered: found.recovered(zero),
            loss_recovered_over_mean: found.recovered(mean),
            kl: sae.kl,
            zero_kl: zero.kl,
            mean_kl: mean.kl,
            kl_recovered: found.kl_recovered(zero),
            seconds,
        }
    }
}

/// Prints it for a person.
pub(super) fn print(report: &SaeReport, top: usize) -> Result<()> {
    let SaeReport { evaluation: e, layer, site, kind, features, .. } = report;
    if let Some(TrainingReport { prompts, steps, seconds, tokens_per_second, .. }) =
        &report.training
    {
        output::paragraph(&format!(
            "trained on {prompts} prompts in {steps} steps and {}, {tokens_per_second:.0} tokens per second",
            output::time(*seconds)
        ))?;
    }
    output::paragraph(&format!(
        "a {kind} SAE of {features} features at {site} of layer {layer}, judged on {} prompts:",
        e.prompts
    ))?;
    let mut table = output::table(&["in its place", "loss", "KL"]);
    let rows = [
        ("nothing: the model as it is", e.clean_loss, 0.0),
        ("the SAE's reconstruction", e.sae_loss, e.kl),
        ("the mean", e.mean_loss, e.mean_kl),
        ("zeros", e.zero_loss, e.zero_kl),
    ];
    for (name, loss, kl) in rows {
        table.add_row([name.to_owned(), format!("{loss:.4}"), format!("{kl:.4}")]);
    }
    output::line(&table.to_string())?;
    output::paragraph(&format!(
        "loss recovered {:.3} against zeros, {:.3} against the mean; L0 {:.2}; explained variance \
         {:.3}; {} of {features} features are active on none of {} tokens",
        e.loss_recovered,
        e.loss_recovered_over_mean,
        e.l0,
        e.explained_variance,
        e.dead_features,
        e.tokens
    ))?;
    features_table(report, top)?;
    confirm::print(report.unit_layer, &report.confirmed)?;
    match &report.out {
        Some(out) => output::paragraph(&format!("the SAE is in {}", out.display())),
        None => Ok(()),
    }
}

fn features_table(report: &SaeReport, top: usize) -> Result<()> {
    if report.ranking.is_empty() || top == 0 {
        return Ok(());
    }
    output::line("")?;
    output::paragraph(&format!(
        "the {} features that tell most about good answers (a loss below the median):",
        top.min(report.ranking.len())
    ))?;
    let mut table = output::table(&["feature", "bits", "prompts", "loss active", "else"]);
    let loss = |loss: Option<f64>| loss.map_or("-".to_owned(), |loss| format!("{loss:.3}"));
    for r in report.ranking.iter().take(top) {
        let cells =
            [format!("feature:{}.{}", report.unit_layer, r.feature), format!("{:.4}", r.bits)];
        let more = [r.prompts.to_string(), loss(r.loss_active), loss(r.loss_silent)];
        table.add_row(cells.into_iter().chain(more));
    }
    output::line(&table.to_string())
}
