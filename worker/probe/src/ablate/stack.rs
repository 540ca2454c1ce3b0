//! Stacks of branches: how they begin in their layer, and how they go on.

use super::patch::Patch;
use super::seen::Seen;
use crate::Result;
use candle_core::Tensor;
use std::ops::Range;
use uspx_model::batch::Batch;
use uspx_model::branch::{Branches, Lineage};
use uspx_model::cuts::CutTaps;
use uspx_model::layers::frame::Frame;
use uspx_model::taps::{AtExpert, NoTaps, Site, Taps};
use uspx_model::transformer::{Layer, Transformer};

/// A batch whose rows are branched off.
pub(super) struct Trunk<'a> {
    pub transformer: &'a Transformer,
    pub batch: &'a Batch,
    pub frame: Frame,
    pub lineage: Lineage,
    /// For each row, the one that resampling takes a head's output from.
    pub sources: Option<&'a [u32]>,
}

/// Branches that go through the layers together.
pub(super) struct Stack {
    /// The patch of each.
    pub patches: Vec<usize>,
    pub branches: Branches,
}

/// Branches at the end of their first layer.
pub(super) struct Begun {
    /// The patch of each.
    pub patches: Vec<usize>,
    /// The rows of the batch that each has.
    pub rows: Vec<Vec<u32>>,
    /// The residual stream at them, one after another, `[places, hidden]`.
    pub x: Tensor,
}

impl Begun {
    /// The places of each branch.
    pub fn ranges(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        let mut start = 0;
        let ranges = self.rows.iter().map(move |rows| {
            start += rows.len();
            start - rows.len()..start
        });
        self.patches.iter().copied().zip(ranges)
    }
}

impl Trunk<'_> {
    /// The rows that a loss depends on behind `layer`.
    fn needed(&self, is_last: bool) -> Vec<u32> {
        if is_last { self.lineage.predicting() } else { self.lineage.needed() }
    }

    /// Begins branches whose patches change a layer's heads, or what follows them at every row.
    pub fn begin_at_all_rows(
        &self,
        (layer, is_last, seen): (&Layer<'_>, bool, &Seen),
        each: &[(usize, &Patch)],
    ) -> Result<Begun> {
        let rows = self.needed(is_last);
        let device = self.transformer.device();
        let ids = Tensor::from_slice(&rows, rows.len(), device)?;
        let at_heads = |patch: &Patch| !matches!(patch, Patch::Cut { at_heads: false, .. });
        let mut taps = StackTaps::default();
        let (mut before, mut heads) = (Vec::new(), Vec::new());
        let from_heads = each.iter().all(|(_, patch)| at_heads(patch));
        for (at, (_, patch)) in each.iter().enumerate() {
            if from_heads {
                before.push(seen.before()?.index_select(&ids, 0)?);
                heads.push(self.heads(patch, seen.heads()?, &ids)?);
            } else {
                before.push(seen.middle()?.index_select(&ids, 0)?);
            }
            if let Patch::Cut { taps: cut, .. } = patch {
                taps.parts.push((at * rows.len()..(at + 1) * rows.len(), cut));
            }
        }
        let before = Tensor::cat(&before, 0)?;
        let sequences = each.len() * self.batch.spans.len();
        let x = match from_heads {
            true => {
                let heads = Tensor::cat(&heads, 0)?;
                layer.run_from_heads((&before, heads), sequences, &mut taps)?
            }
            false => layer.run_from_middle(before, sequences, &mut taps)?,
        };
        let patches = each.iter().map(|(number, _)| *number).collect();
        Ok(Begun { patches, rows: vec![rows; each.len()], x })
    }

    fn heads(&self, patch: &Patch, heads: &Tensor, ids: &Tensor) -> Result<Tensor> {
        let source = self.sources.map(|sources| -> Result<Tensor> {
            let sources = Tensor::from_slice(sources, sources.len(), heads.device())?;
            Ok(heads.index_select(&sources.index_select(ids, 0)?, 0)?)
        });
        patch.heads(&heads.index_select(ids, 0)?, source.transpose()?.as_ref())
    }

    /// The rows that a branch without one expert has, and of these the ones that change in its own
    /// layer.
    pub fn reached(&self, patch: &Patch, is_last: bool, seen: &Seen) -> Result<[Vec<u32>; 2]> {
        let Patch::Expert { index, mode, .. } = patch else { return Ok([Vec::new(), Vec::new()]) };
        let changed = seen.experts()?.changed(*index, *mode);
        let needed = self.needed(is_last);
        let of_needed = |row: &u32| needed.binary_search(row).is_ok();
        let changed: Vec<u32> = changed.into_iter().filter(of_needed).collect();
        let reached = if is_last { changed.clone() } else { self.lineage.reached(&changed) };
        Ok([reached, changed])
    }

    /// Begins branches without one expert each, from the outputs that were kept of all. `x` is the
    /// clean run's residual stream behind the layer, `[N, hidden]`.
    pub fn begin_without_experts(
        &self,
        (x, seen): (&Tensor, &Seen),
        each: Vec<(usize, &Patch, [Vec<u32>; 2])>,
    ) -> Result<Begun> {
        let device = x.device();
        let (mut patches, mut all, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        for (number, patch, [reached, changed]) in each {
            let Patch::Expert { index, mode, .. } = patch else { continue };
            let ids = Tensor::from_slice(&changed, changed.len(), device)?;
            let without = seen.experts()?.without(*index, &changed, *mode)?;
            let moved = (seen.middle()?.index_select(&ids, 0)? + without)?;
            // What is reached only by later layers is still as it was.
            let after = x.dim(0)? as u32;
            let place = |row: &u32| match changed.binary_search(row) {
                Ok(at) => after + at as u32,
                Err(_) => *row,
            };
            let places: Vec<u32> = reached.iter().map(place).collect();
            let places = Tensor::from_slice(&places, places.len(), device)?;
            parts.push(Tensor::cat(&[x, &moved], 0)?.index_select(&places, 0)?);
            patches.push(number);
            all.push(reached);
        }
        Ok(Begun { patches, rows: all, x: Tensor::cat(&parts, 0)? })
    }

    /// Makes branches ready for the next layer.
    pub fn stacked(&self, begun: Begun) -> Result<(Stack, Tensor)> {
        let of = (self.batch, &self.lineage, &self.frame);
        let branches = Branches::new(of, &begun.rows, begun.x.device())?;
        Ok((Stack { patches: begun.patches, branches }, begun.x))
    }
}

impl Stack {
    /// Runs a layer on it.
    pub fn run(
        &self,
        (layer, is_last, seen): (&Layer<'_>, bool, &Seen),
        patches: &[Patch],
        x: &Tensor,
    ) -> Result<Tensor> {
        let keys = seen.keys_and_values()?;
        let ranges = self.patches.iter().zip(self.branches.ranges(is_last));
        let later = |(number, range): (&usize, &Range<usize>)| {
            patches.get(*number).and_then(Patch::later).map(|cut| (range.clone(), cut))
        };
        let mut taps = StackTaps { parts: ranges.filter_map(later).collect() };
        match taps.parts.is_empty() {
            true => layer.branch(x, &self.branches, keys, &mut NoTaps),
            false => layer.branch(x, &self.branches, keys, &mut taps),
        }
    }
}

/// Cuts of some branches of a stack, each at its own places.
#[derive(Default)]
struct StackTaps<'a> {
    /// Ascending.
    parts: Vec<(Range<usize>, &'a CutTaps)>,
}

/// The places of the rows at a site that cuts are at.
enum Places<'a> {
    /// A row for every place.
    Each,
    /// A row for every slot of an expert, in the order of their places.
    Slots(AtExpert<'a>),
}

impl<'a> Places<'a> {
    fn of(site: Site<'a>) -> Option<Self> {
        match site {
            Site::Router { .. } | Site::Z { .. } | Site::Channels { .. } => Some(Self::Each),
            Site::ExpertChannels(at) => Some(Self::Slots(at)),
            _ => None,
        }
    }

    /// The rows of a range of places.
    fn rows(&self, places: &Range<usize>) -> Range<usize> {
        match self {
            Self::Each => places.clone(),
            Self::Slots(at) => {
                let before = |place: usize| {
                    at.slots.partition_point(|slot| (*slot as usize / at.routing.top_k) < place)
                };
                before(places.start)..before(places.end)
            }
        }
    }
}

impl Taps for StackTaps<'_> {
    fn at(&mut self, site: Site<'_>, value: &Tensor) -> Result<Option<Tensor>> {
        let Some(places) = Places::of(site) else { return Ok(None) };
        let (mut pieces, mut end, mut cuts) = (Vec::new(), 0, false);
        for (range, cut) in &self.parts {
            let own = places.rows(range);
            if own.is_empty() {
                continue;
            }
            if own.start > end {
                pieces.push(value.narrow(0, end, own.start - end)?);
            }
            let part = value.narrow(0, own.start, own.len())?;
            let replaced = cut.replaced(site, &part)?;
            cuts |= replaced.is_some();
            pieces.push(replaced.unwrap_or(part));
            end = own.end;
        }
        if !cuts {
            return Ok(None);
        }
        let all = value.dim(0)?;
        if end < all {
            pieces.push(value.narrow(0, end, all - end)?);
        }
        Ok(Some(Tensor::cat(&pieces, 0)?))
    }
}
