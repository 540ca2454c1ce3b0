//! The losses of what each way keeps at each fraction, on the held-out prompts, one value a prompt.
//! Ways that keep the same units are run once.

use super::Bench;
use super::target::{Target, Way};
use crate::error::Result;
use std::collections::HashMap;
use uspx_colony::faithfulness::Ends;
use uspx_domain::{LossRow, Mask};
use uspx_probe::Means;
use uspx_probe::circuits::{circuits, emptied};

/// Losses, in nats summed over a prompt's response.
pub(super) struct Judged {
    whole: Vec<f32>,
    empty: Vec<f32>,
    tokens: Vec<u32>,
    /// Of each mask.
    masked: Vec<Vec<f32>>,
    /// The mask of each way, run and share.
    places: Vec<Vec<Vec<usize>>>,
}

impl Judged {
    pub(super) fn of(
        bench: &Bench<'_>,
        target: &Target<'_>,
        ways: &[Way],
        means: &Means,
    ) -> Result<Self> {
        let (masks, places) = masks(target, ways);
        let Bench { model, held_out, batch_tokens, .. } = bench;
        let names: Vec<&str> = target.kinds.iter().map(|kind| kind.name()).collect();
        let bar = bench.bar(&format!("judging {} masks of {}s", masks.len(), names.join(" and ")));
        let rows = circuits(model, held_out, (&masks, means), *batch_tokens, &bar)?;
        bar.finish();
        let bar = bench.bar(&format!("no {}s", names.join(" and ")));
        let of = (target.kinds.as_slice(), means);
        let empty = emptied(model, held_out, of, *batch_tokens, &bar)?.nats;
        bar.finish();
        let mut rows = rows.into_iter();
        let LossRow { prompts, nats: whole, .. } = rows.next().unwrap_or_default();
        let tokens = prompts.iter().map(|p| p.tokens).collect();
        Ok(Self { whole, empty, tokens, masked: rows.map(|row| row.nats).collect(), places })
    }

    /// What curves are held against.
    pub(super) fn ends(&self) -> Ends<'_> {
        Ends { whole: &self.whole, empty: &self.empty, tokens: &self.tokens }
    }

    /// The losses of a way, `[run][share]`.
    pub(super) fn runs(&self, way: usize) -> Vec<Vec<&[f32]>> {
        let row = |at: &usize| self.masked.get(*at).map(Vec::as_slice).unwrap_or_default();
        let runs = self.places.get(way).into_iter().flatten();
        runs.map(|shares| shares.iter().map(row).collect()).collect()
    }
}

/// Every mask once, and which one each way, run and share has.
fn masks(target: &Target<'_>, ways: &[Way]) -> (Vec<Mask>, Vec<Vec<Vec<usize>>>) {
    let (mut masks, mut known) = (Vec::new(), HashMap::new());
    let mut place = |mask: Mask| {
        *known.entry(mask).or_insert_with_key(|mask| {
            masks.push(mask.clone());
            masks.len() - 1
        })
    };
    let mut of_ways = Vec::new();
    for way in ways {
        let mut of_runs = Vec::new();
        for scores in &way.runs {
            let each = target.shares.iter().map(|share| target.mask(scores, *share));
            of_runs.push(each.map(&mut place).collect());
        }
        of_ways.push(of_runs);
    }
    (masks, of_ways)
}
