//! What the units of one kind score by every estimator, prompt by prompt, and what that cost. Of
//! kinds with many units a value a prompt would be too much: theirs are sums over groups of prompts.

use super::Bench;
use crate::error::Result;
use crate::grid::{Grid, zeros};
use crate::measured::needed;
use crate::progress::Bar;
use crate::rows::Ranking;
use crate::scores::{combined, scores};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;
use uspx_domain::{Baseline, Deposit, Estimator, ModelShape, Statistic, Unit, UnitKind};
use uspx_model::{NoProgress, PerPrompt, Progress};
use uspx_probe::{ProbeRequest, mean_outputs, measure};

/// Groups of prompts.
const GROUPS: usize = 16;

/// What an estimator cost on the prompts that units are scored by.
#[derive(Debug, Serialize)]
pub(super) struct Cost {
    pub estimator: &'static str,
    /// All units of this kind.
    pub kind: UnitKind,
    /// Per prompt: layers run ÷ layers of the model.
    pub forwards: f64,
    /// Per prompt: layers differentiated ÷ layers of the model.
    pub backwards: f64,
    /// Both, a backward pass counting two.
    pub forward_equivalents: f64,
    /// Of all prompts.
    pub seconds: f64,
}

/// Sums of statistics over blocks of prompts: single prompts, or groups.
pub(super) struct Evidence {
    pub kind: UnitKind,
    shape: ModelShape,
    /// Of each layer, the units before it.
    before: Vec<usize>,
    pub blocks: usize,
    /// `[unit][block]`, flat.
    values: BTreeMap<Statistic, Vec<f32>>,
}

impl Evidence {
    /// Measures all that the ways to rank `kind` need, each estimator once.
    pub(super) fn measured(bench: &Bench<'_>, kind: UnitKind) -> Result<(Self, Vec<Cost>)> {
        let prompts = bench.fit.sequences.len();
        let (parts, blocks) = match kind.is_large() {
            true => (groups(prompts), groups(prompts).len()),
            false => (std::iter::once(0..prompts).collect(), prompts),
        };
        let mut before = vec![0];
        for width in bench.shape.widths(kind) {
            before.push(before.last().copied().unwrap_or(0) + width as usize);
        }
        let (shape, values) = (bench.shape.clone(), BTreeMap::new());
        let mut this = Self { kind, shape, before, blocks, values };
        let needed = needed(&bench.args.rankings(kind), &[kind]);
        let each = needed.into_iter().map(|(estimator, _)| this.ask(bench, estimator, &parts));
        let costs = each.collect::<Result<_>>()?;
        Ok((this, costs))
    }

    /// Asks one estimator. What it replaces units by are means, as in the circuits that are judged.
    fn ask(&mut self, bench: &Bench<'_>, by: Estimator, parts: &[Range<usize>]) -> Result<Cost> {
        let Bench { model, fit, batch_tokens, .. } = bench;
        let (kinds, transformer) = ([self.kind], &model.transformer);
        let bar = bench.bar(&format!("scoring {}s by {by}", self.kind));
        let (start, earlier) = (Instant::now(), transformer.passes());
        let takes_means = by.row().baselines.contains(&Baseline::Mean);
        let baseline = if takes_means { Baseline::Mean } else { by.usual_baseline() };
        let means = match takes_means && parts.len() > 1 {
            true => Some(mean_outputs(model, fit, &kinds, *batch_tokens, &NoProgress)?),
            false => None,
        };
        for (number, part) in parts.iter().enumerate() {
            let some = fit.part(part.clone());
            let request = ProbeRequest {
                kinds: &kinds,
                baseline,
                means: means.as_ref(),
                ..ProbeRequest::all(by, model, &some, *batch_tokens)
            };
            let progress = PartOf { bar: &bar, number: number as u64, parts: parts.len() as u64 };
            self.take(number, &measure(by, &request, &progress)?);
        }
        bar.finish();
        let seconds = start.elapsed().as_secs_f64();
        let PerPrompt { forwards, backwards } = transformer
            .passes()
            .since(earlier)
            .per_prompt(transformer.layers(), fit.sequences.len());
        let forward_equivalents = forwards + 2.0 * backwards;
        let (estimator, kind) = (by.name(), self.kind);
        Ok(Cost { estimator, kind, forwards, backwards, forward_equivalents, seconds })
    }

    /// Takes what was found on all prompts, one by one, or on a group of them.
    fn take(&mut self, group: usize, found: &Deposit) {
        for column in &found.columns {
            for (block, value) in column.values.iter().enumerate() {
                self.put(column.statistic, column.unit, block, *value);
            }
        }
        for moments in &found.moments {
            for (unit, [sum, ..]) in moments.units() {
                self.put(moments.statistic, unit, group, sum);
            }
        }
    }

    fn put(&mut self, statistic: Statistic, unit: Unit, block: usize, value: f32) {
        let all = self.units() * self.blocks;
        let Some(first) = self.before.get(unit.layer as usize) else { return };
        let at = (first + unit.index as usize) * self.blocks + block;
        let values = self.values.entry(statistic).or_insert_with(|| vec![0.0; all]);
        values.get_mut(at).into_iter().for_each(|place| *place = value);
    }

    /// All units.
    pub(super) fn units(&self) -> usize {
        self.before.last().copied().unwrap_or(0)
    }

    /// Sums over the blocks, each counted once or as often as `counts` says.
    fn sums(&self, statistic: Statistic, counts: Option<&[u32]>) -> Grid {
        let mut grid = zeros(&self.shape, self.kind, &(0..self.shape.depth()));
        let values = self.values.get(&statistic).map(Vec::as_slice).unwrap_or_default();
        let places = grid.iter_mut().flatten();
        for (place, row) in places.zip(values.chunks_exact(self.blocks.max(1))) {
            let row = row.iter().copied().map(f64::from);
            *place = match counts {
                None => row.sum(),
                Some(counts) => row.zip(counts).map(|(v, n)| v * f64::from(*n)).sum(),
            };
        }
        grid
    }

    /// The score of each unit, larger for what matters more.
    pub(super) fn scores(&self, by: Ranking, counts: Option<&[u32]>) -> BTreeMap<Unit, f64> {
        combined(&scores(by, self.kind, &self.shape, |statistic| self.sums(statistic, counts)))
    }
}

/// Prompts in groups of about the same size.
fn groups(prompts: usize) -> Vec<Range<usize>> {
    let count = GROUPS.min(prompts);
    let end = |number: usize| number * prompts / count.max(1);
    (0..count).map(|number| end(number)..end(number + 1)).collect()
}

/// The progress of one part of several.
struct PartOf<'a> {
    bar: &'a Bar,
    number: u64,
    parts: u64,
}

impl Progress for PartOf<'_> {
    fn report(&self, done: u64, total: u64) -> uspx_model::Result<()> {
        self.bar.report(self.number * total + done, self.parts * total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hold_every_prompt_once() {
        for prompts in [0, 1, 5, 16, 100] {
            let all: Vec<usize> = groups(prompts).into_iter().flatten().collect();
            assert_eq!(all, (0..prompts).collect::<Vec<_>>());
            assert!(groups(prompts).len() <= GROUPS);
        }
    }
}
