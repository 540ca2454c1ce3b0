//! From scores to a mask: the best units, or the best of many masks tried near them.

use crate::args::MaskBuildArgs;
use crate::error::Result;
use crate::models::Subject;
use crate::progress::Bar;
use crate::scores::{best_units, combined};
use std::collections::BTreeMap;
use uspx_colony::Dice;
use uspx_colony::mask::{Budget, Search};
use uspx_domain::{Cut, LossRow, Mask, Unit};
use uspx_probe::ablate::ablate;
use uspx_runtime::Shutdown;

/// Masks tried where no method is named.
const USUAL: usize = 64;
/// Masks of a round.
const ROUND: usize = 16;
/// Prompts that masks are tried on, at most.
const PROMPTS: usize = 256;

/// How many masks are to be tried.
pub(super) fn count(args: &MaskBuildArgs) -> usize {
    args.search.unwrap_or(if args.method.is_some() { 0 } else { USUAL })
}

/// Prompts that masks are tried on.
pub(super) fn prompts(all: usize) -> usize {
    all.min(PROMPTS)
}

/// The mask of the best units; where masks are to be tried, the best of those within what is left
/// by `before`, which cuts units of other kinds.
pub(super) fn best(
    args: &MaskBuildArgs,
    subject: &Subject,
    (budget, found, before): (Budget<'_>, &[BTreeMap<Unit, f64>], &Mask),
    shutdown: &Shutdown,
) -> Result<Mask> {
    let first = best_units(&budget, &combined(found));
    let count = count(args);
    // A budget that keeps everything leaves nothing to look for.
    if count == 0 || budget.kept(&first).len() == budget.shape.count(budget.kind) {
        return Ok(first);
    }
    let Subject { model, prompts: all, batch_tokens, .. } = subject;
    let some = all.part(0..prompts(all.sequences.len()));
    let tokens: Vec<u32> = some.sequences.iter().map(|s| s.response_len() as u32).collect();
    let mut search = Search::new(budget, found, &tokens);
    let mut dice = Dice::new(0, "mask search", 0);
    let mut left = count;
    while left > 0 {
        let masks = search.next(&mut dice, left.min(ROUND));
        if masks.is_empty() {
            break;
        }
        left = left.saturating_sub(masks.len());
        let stage = format!("trying masks, {} of {count}", count - left);
        let bar = Bar::new(&stage, args.common.run.json, shutdown);
        let within = |mask: &Mask| {
            let mut both = before.clone();
            both.keep.0.extend(mask.keep.0.clone());
            Cut::Mask(both)
        };
        let first = (!before.keep.0.is_empty()).then(|| Cut::Mask(before.clone()));
        let above = usize::from(first.is_some());
        let cuts: Vec<Cut> = first.into_iter().chain(masks.iter().map(within)).collect();
        let rows = ablate(model, &some, &cuts, *batch_tokens, &bar)?;
        bar.finish();
        search.learn(masks.into_iter().zip(rises(rows.get(above..).unwrap_or_default())));
    }
    Ok(search.best().unwrap_or(first))
}

/// Nats that each row but the first lies above the first, prompt by prompt.
fn rises(rows: &[LossRow]) -> impl Iterator<Item = Vec<f64>> {
    let (clean, rest) = rows.split_first().map_or((&[][..], rows), |(c, r)| (&c.nats[..], r));
    let rise = |(nats, clean): (&f32, &f32)| f64::from(*nats) - f64::from(*clean);
    rest.iter().map(move |row| row.nats.iter().zip(clean).map(rise).collect())
}
