//! `uspx probe sae --confirm N`: what features tell about good answers is only a correlation. The best
//! are taken out of the model, each alone, and those that change the loss are kept.

use super::super::effects::Z;
use crate::commands::eval::pooled_stderr;
use crate::error::Result;
use crate::output;
use serde::Serialize;
use uspx_domain::{Cut, Unit, UnitKind};
use uspx_model::{LoadedModel, Progress, Readable};
use uspx_probe::ablate::ablate_sequences;
use uspx_sae::rank::Ranked;

/// A feature that was taken out.
#[derive(Debug, Serialize)]
pub(super) struct Confirmed {
    feature: u32,
    /// What it tells about good answers.
    bits: f64,
    /// The change of the loss without it, nats per response token.
    effect: f64,
    /// Its standard error over prompts; null of a single one.
    stderr: f64,
    /// Whether the 95 % interval of the effect excludes 0.
    kept: bool,
}

/// Takes each of these features of a layer out of every prompt.
pub(super) fn confirm(
    (model, layer): (&LoadedModel, usize),
    ranked: &[Ranked],
    prompts: &Readable,
    batch_tokens: usize,
    progress: &dyn Progress,
) -> Result<Vec<Confirmed>> {
    let unit = |index| Unit { kind: UnitKind::Feature, layer: layer as u32, index };
    let cuts: Vec<Cut> = ranked.iter().map(|r| Cut::Unit(unit(r.feature))).collect();
    let nats = ablate_sequences(model, &prompts.sequences, &cuts, batch_tokens, progress)?;
    let Some((clean, rows)) = nats.split_first() else { return Ok(Vec::new()) };
    let tokens: Vec<u32> = prompts.sequences.iter().map(|s| s.response_len() as u32).collect();
    let all: f64 = tokens.iter().copied().map(f64::from).sum();
    let of = |(ranked, row): (&Ranked, &Vec<f64>)| {
        let rises: Vec<f32> = row.iter().zip(clean).map(|(a, b)| (a - b) as f32).collect();
        let effect = rises.iter().copied().map(f64::from).sum::<f64>() / all;
        let stderr = pooled_stderr(&rises, &tokens);
        let kept = effect.abs() > Z * stderr;
        Confirmed { feature: ranked.feature, bits: ranked.bits, effect, stderr, kept }
    };
    Ok(ranked.iter().zip(rows).map(of).collect())
}

/// Those that are kept, and how many were tried.
pub(super) fn print(layer: usize, confirmed: &[Confirmed]) -> Result<()> {
    if confirmed.is_empty() {
        return Ok(());
    }
    let kept: Vec<&Confirmed> = confirmed.iter().filter(|c| c.kept).collect();
    output::line("")?;
    output::paragraph(&format!(
        "taken out, {} of {} features surely change the loss:",
        kept.len(),
        confirmed.len()
    ))?;
    let mut table = output::table(&["feature", "bits", "nats per token", "95 %"]);
    for c in kept {
        let (low, high) = (c.effect - Z * c.stderr, c.effect + Z * c.stderr);
        table.add_row([
            format!("feature:{layer}.{}", c.feature),
            format!("{:.4}", c.bits),
            format!("{:+.5}", c.effect),
            format!("[{low:+.5}, {high:+.5}]"),
        ]);
    }
    output::line(&table.to_string())
}
