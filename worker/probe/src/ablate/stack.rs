//! Stacks of branches: how they begin in their layer, and how they go on.

use super::features::Active;
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

/// A layer of the clean run: what leaves it, `[N, hidden]`, what was seen in it, and its features
/// where some are moved.
pub(super) type Clean<'a> = (&'a Tensor, &'a Seen, Option<&'a Active>);

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

    /// The rows that a branch has where something changes only some rows of its layer's output, and
    /// of these the ones that change there.
    pub fn reached(&self, patch: &Patch, is_last: bool, clean: Clean<'_>) -> Result<[Vec<u32>; 2]> {
        let changed = match (patch, clean) {
            (Patch::Expert { index, mode, .. }, (_, seen, _)) => {
                seen.experts()?.changed(*index, *mode)
            }
            (Patch::Feature { index, base, .. }, (.., Some(active))) => {
                active.changed(*index, *base)
            }
            _ => Vec::new(),
        };
        let needed = self.needed(is_last);
        let of_needed = |row: &u32| needed.binary_search(row).is_ok();
        let changed: Vec<u32> = changed.into_iter().filter(of_needed).collect();
        let reached = if is_last { changed.clone() } else { self.lineage.reached(&changed) };
        Ok([reached, changed])
    }

    /// Begins branches of which each changes some rows of the layer's output: without one expert,
    /// from the outputs that were kept of all, or with one feature moved.
    pub fn begin_where_reached(
        &self,
        clean: Clean<'_>,
        each: Vec<(usize, &Patch, [Vec<u32>; 2])>,
    ) -> Result<Begun> {
        let (x, ..) = clean;
        let (mut patches, mut all) = (Vec::new(), Vec::new());
        // Every row that is needed stands in one table: the clean run's, then those that were moved.
        let (mut table, mut places, mut end) = (vec![x.clone()], Vec::new(), x.dim(0)? as u32);
        for (number, patch, [reached, changed]) in each {
            table.push(self.moved(clean, patch, &changed)?);
            // What is reached only by later layers is still as it was.
            let place = |row: &u32| match changed.binary_search(row) {
                Ok(at) => end + at as u32,
                Err(_) => *row,
            };
            places.extend(reached.iter().map(place));
            end += changed.len() as u32;
            patches.push(number);
            all.push(reached);
        }
        let places = Tensor::from_slice(&places, places.len(), x.device())?;
        Ok(Begun { patches, rows: all, x: Tensor::cat(&table, 0)?.index_select(&places, 0)? })
    }

    /// The layer's output at the rows that a patch changes, `[rows, hidden]`.
    fn moved(&self, (x, seen, active): Clean<'_>, patch: &Patch, rows: &[u32]) -> Result<Tensor> {
        let ids = Tensor::from_slice(rows, rows.len(), x.device())?;
        match (patch, active) {
            (Patch::Expert { index, mode, .. }, _) => {
                let without = seen.experts()?.without(*index, rows, *mode)?;
                Ok((seen.middle()?.index_select(&ids, 0)? + without)?)
            }
            (Patch::Feature { index, base, .. }, Some(active)) => {
                active.moved((*index, *base), rows, &x.index_select(&ids, 0)?)
            }
            _ => Ok(x.index_select(&ids, 0)?),
        }
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
            Site::Router { .. }
            | Site::Z { .. }
            | Site::Channels { .. }
            | Site::ResidPost { .. } => Some(Self::Each),
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
