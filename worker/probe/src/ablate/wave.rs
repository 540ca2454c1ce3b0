//! Waves: as many patches as there is room for go through the layers together.

use super::features::Active;
use super::losses::Losses;
use super::patch::Patch;
use super::seen::Seen;
use super::stack::{Begun, Stack, Trunk};
use crate::Result;
use candle_core::Tensor;
use std::collections::HashMap;
use std::rc::Rc;
use uspx_model::batch::Batch;
use uspx_model::branch::Lineage;
use uspx_model::transformer::Layer;
use uspx_model::{Dictionaries, LoadedModel, ModelError, Spool};

/// A wave has room for so many stacks at least. What of them does not fit in memory between two
/// layers is in a temporary file.
const STACKS: usize = 16;

/// Steps of all patches on a batch: a layer that the clean run or a patch goes through.
pub(super) fn steps(model: &LoadedModel, patches: &[Patch]) -> u64 {
    let depth = model.transformer.layers();
    let of = |patch: &Patch| depth - patch.layer().unwrap_or(depth).min(depth);
    (depth + patches.iter().map(of).sum::<usize>()) as u64
}

/// Summed nats of a batch's sequences, `[1 + patches][sequences]`: without a patch first. At most
/// `at_once` rows run together; `report` is told the steps that are done. `sources` are the rows that
/// resampled heads come from.
pub(super) fn all(
    (model, batch, sources): (&LoadedModel, &Batch, Option<&[u32]>),
    patches: &[Patch],
    at_once: usize,
    report: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Vec<Vec<f64>>> {
    let transformer = &model.transformer;
    let (frame, lineage) = (transformer.frame(batch)?, Lineage::new(batch));
    if lineage.needed().is_empty() {
        return Ok(vec![vec![0.0; batch.spans.len()]; patches.len() + 1]);
    }
    let trunk = Trunk { transformer, batch, frame, lineage, sources };
    let mut order: Vec<usize> = (0..patches.len())
        .filter(|number| patches.get(*number).and_then(Patch::layer).is_some())
        .collect();
    order.sort_by_key(|number| patches.get(*number).and_then(Patch::layer));
    let width = 4 * transformer.config().hidden;
    let room = (transformer.boundaries() / 3 / width).max(STACKS * at_once);
    let together = (room / trunk.lineage.needed().len().max(1)).max(1);
    let [boundaries, before, after] = transformer.spools();
    let waves = order.len().div_ceil(together);
    let mut run = Run {
        trunk,
        patches,
        at_once,
        dictionaries: &model.dictionaries,
        features: HashMap::new(),
        boundaries: (waves > 1).then_some(boundaries),
        spools: [before, after],
        losses: Losses::new(transformer, batch, patches.len(), at_once),
        done: 0,
        report,
    };
    let mut open = order.as_slice();
    let mut first = true;
    while first || !open.is_empty() {
        let (wave, rest) = open.split_at(together.min(open.len()));
        run.wave(wave, first)?;
        (open, first) = (rest, false);
    }
    run.losses.rows()
}

/// All patches on one batch.
struct Run<'a> {
    trunk: Trunk<'a>,
    patches: &'a [Patch],
    at_once: usize,
    dictionaries: &'a Dictionaries,
    /// The batch's features behind the layers whose features are moved.
    features: HashMap<usize, Rc<Active>>,
    /// What enters each layer of the clean run, where a later wave goes on from there.
    boundaries: Option<Spool>,
    /// The stacks' residual streams before and behind a layer.
    spools: [Spool; 2],
    losses: Losses<'a>,
    done: u64,
    report: &'a mut dyn FnMut(u64) -> Result<()>,
}

/// A layer in a wave.
type At<'a> = (&'a Layer<'a>, bool, &'a Seen);

impl<'a> Run<'a> {
    fn wave(&mut self, wave: &[usize], first: bool) -> Result<()> {
        let (transformer, patches) = (self.trunk.transformer, self.patches);
        let layer_of = |number: &usize| patches.get(*number).and_then(Patch::layer);
        let start = if first { 0 } else { wave.first().and_then(layer_of).unwrap_or(0) };
        let mut x = match self.boundaries.as_ref().filter(|_| !first) {
            Some(kept) => kept.get(start)?,
            None => transformer.embed(&self.trunk.batch.ids)?,
        };
        let mut stacks: Vec<Stack> = Vec::new();
        let mut begins = wave;
        for index in start..transformer.layers() {
            if let Some(kept) = self.boundaries.as_mut().filter(|_| first) {
                kept.push(&x)?;
            }
            let here = begins.partition_point(|number| layer_of(number) == Some(index));
            let (own, rest) = begins.split_at(here);
            begins = rest;
            let layer = transformer.layer(index)?;
            let is_expert = |n: &usize| matches!(patches.get(*n), Some(Patch::Expert { .. }));
            let mut seen = Seen::of_layer(index, transformer, own.iter().any(is_expert));
            x = layer.run(x, &self.trunk.frame, &mut seen)?;
            seen.finish()?;
            if first {
                self.step(1)?;
            }
            let at = (&layer, index + 1 == transformer.layers(), &seen);
            if at.1 {
                self.losses.clean(&x)?;
            }
            self.go_on(at, &stacks)?;
            self.begin(at, &x, own, &mut stacks)?;
            let [fresh, ..] = transformer.spools::<3>();
            let [before, after] = &mut self.spools;
            *before = std::mem::replace(after, fresh);
        }
        self.losses.finish()
    }

    fn step(&mut self, steps: usize) -> Result<()> {
        self.done += steps as u64;
        (self.report)(self.done)
    }

    /// Runs a layer on all stacks.
    fn go_on(&mut self, at: At<'_>, stacks: &[Stack]) -> Result<()> {
        for (number, stack) in stacks.iter().enumerate() {
            let [before, after] = &mut self.spools;
            let x = stack.run(at, self.patches, &before.take(number)?)?;
            if at.1 {
                let branches = &stack.branches;
                let ranges =
                    stack.patches.iter().copied().zip(branches.ranges(true).iter().cloned());
                self.losses.add(&x, branches.rows(true), ranges)?;
            } else {
                after.push(&x)?;
            }
            self.step(stack.patches.len())?;
        }
        Ok(())
    }

    /// Begins the patches that bite first in a layer, whose clean output is x.
    fn begin(
        &mut self,
        at: At<'_>,
        x: &Tensor,
        numbers: &[usize],
        stacks: &mut Vec<Stack>,
    ) -> Result<()> {
        let patches = self.patches;
        let own: Vec<(usize, &Patch)> =
            numbers.iter().filter_map(|number| Some((*number, patches.get(*number)?))).collect();
        let (some_rows, others): (Vec<_>, Vec<_>) =
            own.into_iter().partition(|(_, patch)| patch.changes_some_rows());
        let (middle, heads): (Vec<_>, Vec<_>) = others
            .into_iter()
            .partition(|(_, patch)| matches!(patch, Patch::Cut { at_heads: false, .. }));
        let needed = self.trunk.lineage.needed().len();
        let many = (self.at_once / needed.max(1)).max(1);
        for group in heads.chunks(many).chain(middle.chunks(many)) {
            let begun = self.trunk.begin_at_all_rows(at, group)?;
            self.begun(begun, at.1, stacks)?;
        }
        self.begin_where_reached(at, x, some_rows, stacks)
    }

    /// Begins those that change some rows of their layer's output alone.
    fn begin_where_reached(
        &mut self,
        at: At<'_>,
        x: &Tensor,
        each: Vec<(usize, &'a Patch)>,
        stacks: &mut Vec<Stack>,
    ) -> Result<()> {
        let of_feature = each.iter().find_map(|(_, patch)| patch.layer_of_feature());
        let active = of_feature.map(|layer| self.active(layer, x)).transpose()?;
        let clean = (x, at.2, active.as_deref());
        let (mut open, mut rows) = (Vec::new(), 0);
        for (number, patch) in each {
            let reached = self.trunk.reached(patch, at.1, clean)?;
            let [all, _] = &reached;
            if all.is_empty() {
                // No token that matters has it: nothing changes.
                let left = self.trunk.transformer.layers() - patch.layer().unwrap_or_default();
                self.step(left)?;
                continue;
            }
            if rows + all.len() > self.at_once && !open.is_empty() {
                let begun = self.trunk.begin_where_reached(clean, std::mem::take(&mut open))?;
                self.begun(begun, at.1, stacks)?;
                rows = 0;
            }
            rows += all.len();
            open.push((number, patch, reached));
        }
        if !open.is_empty() {
            let begun = self.trunk.begin_where_reached(clean, open)?;
            self.begun(begun, at.1, stacks)?;
        }
        Ok(())
    }

    /// The batch's features behind a layer whose clean output is x; later waves ask again.
    fn active(&mut self, layer: usize, x: &Tensor) -> Result<Rc<Active>> {
        if let Some(known) = self.features.get(&layer) {
            return Ok(known.clone());
        }
        let missing = || ModelError::Request(format!("layer {layer} has no features"));
        let dictionary = self.dictionaries.of_layer(layer).ok_or_else(missing)?.clone();
        let found = Rc::new(Active::new(dictionary, x)?);
        self.features.insert(layer, found.clone());
        Ok(found)
    }

    /// What has begun goes on with the next layer, or has come to the end.
    fn begun(&mut self, begun: Begun, is_last: bool, stacks: &mut Vec<Stack>) -> Result<()> {
        let count = begun.patches.len();
        if is_last {
            self.losses.add(&begun.x, &begun.rows.concat(), begun.ranges())?;
        } else {
            let (stack, x) = self.trunk.stacked(begun)?;
            let [_, after] = &mut self.spools;
            after.push(&x)?;
            stacks.push(stack);
        }
        self.step(count)
    }
}
