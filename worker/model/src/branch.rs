//! Branches: rows of a batch that run again from some layer on, with something changed before it.
//!
//! Attention is causal, so a change reaches only the rows that come after it. The others stay what
//! they were in the run that was branched off, the *trunk*: its keys and values serve all branches,
//! and many branches run together as rows of one stack.

use crate::batch::{Batch, Span};
use crate::layers::frame::Frame;
use crate::layers::rope::Angles;
use crate::layers::rows::inverse;
use crate::{ModelError, Result};
use candle_core::{Device, Tensor};
use std::ops::Range;

/// How the rows of a batch follow each other, and which of them a loss depends on.
#[derive(Debug)]
pub struct Lineage {
    /// The row of the token before.
    before: Vec<Option<u32>>,
    /// Whether a response token is predicted by the row or by one after it.
    needed: Vec<bool>,
    /// Whether one is predicted by the row itself.
    predicting: Vec<bool>,
}

impl Lineage {
    /// Of a batch's rows.
    pub fn new(batch: &Batch) -> Self {
        let mut before = vec![None; batch.tokens()];
        for span in &batch.spans {
            for (position, row) in (span.first..).zip(span.queries.clone()) {
                let last = position.checked_sub(1).and_then(|p| span.row(p));
                before.get_mut(row as usize).into_iter().for_each(|place| *place = last);
            }
        }
        let mut predicting = vec![false; batch.tokens()];
        for row in &batch.predicting {
            predicting.get_mut(*row as usize).into_iter().for_each(|place| *place = true);
        }
        // What comes after a row has a larger number.
        let mut needed = predicting.clone();
        for (row, before) in before.iter().enumerate().rev() {
            let is_needed = needed.get(row).copied().unwrap_or_default();
            if let Some(before) = before.filter(|_| is_needed) {
                needed.get_mut(before as usize).into_iter().for_each(|place| *place = true);
            }
        }
        Self { before, needed, predicting }
    }

    /// All rows that a loss depends on, ascending.
    pub fn needed(&self) -> Vec<u32> {
        marked(&self.needed)
    }

    /// All rows that predict a response token, ascending.
    pub fn predicting(&self) -> Vec<u32> {
        marked(&self.predicting)
    }

    /// The rows that a change of `rows` reaches and that a loss depends on, ascending.
    pub fn reached(&self, rows: &[u32]) -> Vec<u32> {
        let mut reached = vec![false; self.before.len()];
        for row in rows {
            reached.get_mut(*row as usize).into_iter().for_each(|place| *place = true);
        }
        for (row, before) in self.before.iter().enumerate() {
            let inherits = before.and_then(|b| reached.get(b as usize)).copied().unwrap_or(false);
            if inherits {
                reached.get_mut(row).into_iter().for_each(|place| *place = true);
            }
        }
        let both = reached.iter().zip(&self.needed).map(|(reached, needed)| *reached && *needed);
        marked(&both.collect::<Vec<_>>())
    }

    fn predicts(&self, row: u32) -> bool {
        self.predicting.get(row as usize).copied().unwrap_or_default()
    }
}

fn marked(rows: &[bool]) -> Vec<u32> {
    (0..).zip(rows).filter(|(_, is)| **is).map(|(row, _)| row).collect()
}

/// Rows that ask in attention, and where their keys are. A *place* is a row of the stack.
#[derive(Debug)]
pub(crate) struct Asking {
    /// The places that ask; `None`: all.
    pub places: Option<Tensor>,
    pub angles: Angles,
    /// Queries of each sequence of each branch, numbered as they ask.
    pub spans: Vec<Span>,
    /// For each of `spans`, by position: the row of the trunk, or after all of these the place.
    pub keys: Vec<Vec<u32>>,
}

/// Branches in one stack, each some rows of a batch.
#[derive(Debug)]
pub struct Branches {
    /// The batch's rows at the stack's places, branch after branch, ascending within each.
    rows: Vec<u32>,
    /// The places of each branch.
    ranges: Vec<Range<usize>>,
    /// The same of the places that the last layer's output is asked of.
    last_rows: Vec<u32>,
    last_ranges: Vec<Range<usize>>,
    /// Of all layers but the last, and of the last.
    pub(crate) all: Asking,
    pub(crate) last: Asking,
    /// For devices without an attention that looks up its keys: all places as a batch that begins
    /// with the trunk's rows.
    pub(crate) frame: Option<Frame>,
    /// Rows of the trunk.
    trunk: usize,
    /// Sequences that run.
    sequences: usize,
}

/// What a stack is made of while its branches are put together.
#[derive(Default)]
struct Draft {
    spans: Vec<Span>,
    keys: Vec<Vec<u32>>,
    places: Vec<u32>,
}

impl Draft {
    /// The part of a sequence from `first` on asks.
    fn push(&mut self, keys: &[u32], first: usize, places: Range<u32>) {
        let start = self.places.len() as u32;
        self.places.extend(places);
        let queries = start..self.places.len() as u32;
        self.spans.push(Span { prefix: Vec::new(), queries, first });
        self.keys.push(keys.to_vec());
    }

    fn asking(self, rows: &[u32], angles: &Angles, device: &Device) -> Result<Asking> {
        let asked: Vec<u32> =
            self.places.iter().filter_map(|place| rows.get(*place as usize)).copied().collect();
        let angles = angles.rows(&Tensor::from_slice(&asked, asked.len(), device)?)?;
        let places = (self.places.len() < rows.len())
            .then(|| Tensor::from_slice(&self.places, self.places.len(), device));
        Ok(Asking { places: places.transpose()?, angles, spans: self.spans, keys: self.keys })
    }
}

impl Branches {
    /// Of a batch with this frame: the rows of each branch, as [`Lineage::needed`] or
    /// [`Lineage::reached`] gives them.
    ///
    /// # Errors
    /// Rows that are not of the batch; those of the tensor library.
    pub fn new(
        (batch, lineage, frame): (&Batch, &Lineage, &Frame),
        each: &[Vec<u32>],
        device: &Device,
    ) -> Result<Self> {
        let trunk = batch.tokens();
        let outside = |row: &&u32| **row as usize >= trunk;
        if each.iter().flatten().any(|row| outside(&row)) {
            return Err(ModelError::Request("a branch of rows that are not of its batch".into()));
        }
        let rows: Vec<u32> = each.concat();
        let (mut all, mut last) = (Draft::default(), Draft::default());
        let (mut ranges, mut last_ranges, mut start) = (Vec::new(), Vec::new(), 0);
        for branch in each {
            let from = last.places.len();
            draft((batch, lineage), branch, start, (&mut all, &mut last));
            ranges.push(start..start + branch.len());
            last_ranges.push(from..last.places.len());
            start += branch.len();
        }
        let last_rows: Vec<u32> =
            last.places.iter().filter_map(|place| rows.get(*place as usize)).copied().collect();
        let sequences = all.spans.len();
        let all = all.asking(&rows, frame.angles(), device)?;
        let frame_after = (!frame.looks_up_keys())
            .then(|| frame.of_spans(after(trunk as u32, &all), all.angles.clone()));
        Ok(Self {
            last: last.asking(&rows, frame.angles(), device)?,
            all,
            frame: frame_after,
            rows,
            ranges,
            last_rows,
            last_ranges,
            trunk,
            sequences,
        })
    }

    /// The batch's rows at the places of the stack; after the last layer (`last`), of those that
    /// are left.
    pub fn rows(&self, last: bool) -> &[u32] {
        if last { &self.last_rows } else { &self.rows }
    }

    /// The places of each branch, likewise.
    pub fn ranges(&self, last: bool) -> &[Range<usize>] {
        if last { &self.last_ranges } else { &self.ranges }
    }

    /// Sequences that run, each as often as it has branches.
    pub fn sequences(&self) -> usize {
        self.sequences
    }

    /// The row of what asks for each row of the trunk and each place, or the one after the last.
    pub(crate) fn askers(&self, asking: &Asking) -> Result<Vec<u32>> {
        let count = self.trunk + self.rows.len();
        let shifted = |places: Vec<u32>| -> Vec<u32> {
            places.into_iter().map(|place| place + self.trunk as u32).collect()
        };
        let places = match &asking.places {
            Some(places) => places.to_vec1()?,
            None => (0..self.rows.len() as u32).collect(),
        };
        let many = places.len() as u32;
        Ok(inverse(&shifted(places), count, many))
    }

    /// Rows of the trunk.
    pub(crate) fn trunk(&self) -> usize {
        self.trunk
    }
}

/// All places as sequences of a batch whose first rows are those of a trunk.
fn after(trunk: u32, all: &Asking) -> Vec<Span> {
    let of = |(span, keys): (&Span, &Vec<u32>)| Span {
        prefix: keys.iter().take(span.first).copied().collect(),
        queries: span.queries.start + trunk..span.queries.end + trunk,
        first: span.first,
    };
    all.spans.iter().zip(&all.keys).map(of).collect()
}

/// Adds one branch, whose first row is at place `start`.
fn draft(
    (batch, lineage): (&Batch, &Lineage),
    branch: &[u32],
    start: usize,
    (all, last): (&mut Draft, &mut Draft),
) {
    let trunk = batch.tokens() as u32;
    for span in &batch.spans {
        // A sequence's own rows follow each other: what is reached of them begins somewhere, what is
        // needed ends somewhere.
        let from = branch.partition_point(|row| *row < span.queries.start);
        let to = branch.partition_point(|row| *row < span.queries.end);
        let own = branch.get(from..to).unwrap_or_default();
        let Some(&head) = own.first() else { continue };
        let first = span.first + (head - span.queries.start) as usize;
        let place = |row: u32| match branch.binary_search(&row) {
            Ok(at) => trunk + (start + at) as u32,
            Err(_) => row,
        };
        let keys: Vec<u32> =
            (0..first + own.len()).filter_map(|p| span.row(p)).map(place).collect();
        let places = (start + from) as u32..(start + to) as u32;
        all.push(&keys, first, places.clone());
        if let Some(idle) = own.iter().position(|row| lineage.predicts(*row)) {
            last.push(&keys, first + idle, places.start + idle as u32..places.end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Sequence;

    fn batch() -> Batch {
        let of = |ids: &[u32], response_start| Sequence { ids: ids.to_vec(), response_start };
        // Rows 0-4, then 5-7 after the shared 0 and 1.
        let all = [of(&[1, 2, 3, 9, 8], 3), of(&[1, 2, 4, 9, 7], 4)];
        Batch::sharing(&all.each_ref()).unwrap()
    }

    #[test]
    fn a_change_reaches_what_comes_after_it_and_nothing_that_predicts_nothing() {
        let lineage = Lineage::new(&batch());
        assert_eq!(lineage.needed(), [0, 1, 2, 3, 5, 6]);
        assert_eq!(lineage.predicting(), [2, 3, 6]);
        assert_eq!(lineage.reached(&[1]), [1, 2, 3, 5, 6]);
        assert_eq!(lineage.reached(&[3, 6]), [3, 6]);
        assert!(lineage.reached(&[4, 7]).is_empty());
    }

    #[test]
    fn branches_look_for_keys_in_the_trunk_and_then_among_their_own() {
        let (batch, device) = (batch(), Device::Cpu);
        let lineage = Lineage::new(&batch);
        let rope = crate::config::Rope { theta: 1e4, scaling: crate::config::RopeScaling::None };
        let rotary = crate::layers::rope::Rotary::new(&rope, 2);
        let on = (candle_core::DType::F32, &device);
        let frame = Frame::whole(&batch, &[None], &rotary, on).unwrap();
        let each = [lineage.reached(&[5]), lineage.reached(&[1])];
        let made = Branches::new((&batch, &lineage, &frame), &each, &device).unwrap();
        assert_eq!(made.rows(false), [5, 6, 1, 2, 3, 5, 6]);
        assert_eq!(made.ranges(false), [0..2, 2..7]);
        assert_eq!(made.rows(true), [6, 2, 3, 6]);
        assert_eq!(made.ranges(true), [0..1, 1..4]);
        assert_eq!(made.sequences(), 3);
        let trunk = batch.tokens() as u32;
        let keys: Vec<Vec<u32>> = [
            vec![0, 1, trunk, trunk + 1],
            vec![0, trunk + 2, trunk + 3, trunk + 4],
            vec![0, trunk + 2, trunk + 5, trunk + 6],
        ]
        .to_vec();
        assert_eq!(made.all.keys, keys);
        let firsts =
            |asking: &Asking| -> Vec<usize> { asking.spans.iter().map(|s| s.first).collect() };
        assert_eq!((firsts(&made.all), firsts(&made.last)), (vec![2, 1, 2], vec![3, 2, 3]));
    }
}
