//! Sequences packed into a ragged batch, and the frame that attention needs of it.

use crate::cuda::Ragged;
use crate::layers::rope::{Angles, Rotary};
use crate::layers::rows::{inverse, pick_or_zero};
use crate::link::link;
use crate::{ModelError, Result};
use candle_core::{DType, Device, Tensor};
use std::cell::OnceCell;
use std::collections::HashMap;
use std::ops::Range;

/// A tokenised prompt and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// Token ids: the prompt's, then the answer's.
    pub ids: Vec<u32>,
    /// Where the answer's first token is; equal to `ids.len()` where there is no answer.
    pub response_start: usize,
}

impl Sequence {
    /// Answer tokens.
    pub fn response_len(&self) -> usize {
        self.ids.len().saturating_sub(self.response_start)
    }
}

/// The rows of one sequence in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Rows of another sequence that begins with the same tokens: positions 0, 1, …
    pub prefix: Vec<u32>,
    /// Its own rows, at the positions after those.
    pub queries: Range<u32>,
    /// Position of the first of its own rows.
    pub first: usize,
}

/// Sequences one after another.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Token ids of all rows, `[N]`.
    pub ids: Vec<u32>,
    /// Tokens of each sequence.
    pub lengths: Vec<usize>,
    /// Rows that predict response tokens (the position before each).
    pub predicting: Vec<u32>,
    /// The response tokens, one for each of `predicting`.
    pub targets: Vec<u32>,
    /// Response tokens of each sequence.
    pub responses: Vec<usize>,
    /// For each of the N rows: which sequence, and whether it is a response token. A shared row is of the first sequence
    /// that has it.
    pub place: Vec<(u32, bool)>,
    /// Where each sequence's rows are.
    pub spans: Vec<Span>,
}

/// Rows of prompts met so far: (row before, token) to row.
type Trie = HashMap<(Option<u32>, u32), u32>;

impl Batch {
    /// Packs `sequences`, every token a row of its own: for what is measured or differentiated row by row.
    ///
    /// # Errors
    /// An empty sequence, or an answer with no token before it.
    pub fn new(sequences: &[&Sequence]) -> Result<Self> {
        Self::pack(sequences, None)
    }

    /// Packs `sequences`, prompts that begin alike sharing the rows of their common beginning: under causal attention
    /// these are the same in all of them. No response token shares its row.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn sharing(sequences: &[&Sequence]) -> Result<Self> {
        Self::pack(sequences, Some(Trie::new()))
    }

    fn pack(sequences: &[&Sequence], mut trie: Option<Trie>) -> Result<Self> {
        let mut batch = Self::default();
        for (at, sequence) in sequences.iter().enumerate() {
            batch.push(at as u32, sequence, trie.as_mut())?;
        }
        Ok(batch)
    }

    fn push(&mut self, at: u32, sequence: &Sequence, trie: Option<&mut Trie>) -> Result<()> {
        let start = sequence.response_start;
        if sequence.ids.is_empty() || (start == 0 && sequence.response_len() > 0) {
            return Err(ModelError::Request("a sequence needs at least one token before its answer".into()));
        }
        let base = self.ids.len() as u32;
        let prefix = trie.map(|trie| shared(trie, sequence, base)).unwrap_or_default();
        let first = prefix.len();
        self.ids.extend(sequence.ids.iter().skip(first));
        self.lengths.push(sequence.ids.len());
        self.responses.push(sequence.response_len());
        self.place.extend((first..sequence.ids.len()).map(|i| (at, i >= start)));
        let span = Span { prefix, queries: base..self.ids.len() as u32, first };
        for (i, &id) in sequence.ids.iter().enumerate().skip(start) {
            self.predicting.extend(span.row(i - 1));
            self.targets.push(id);
        }
        self.spans.push(span);
        Ok(())
    }

    /// Rows to run.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Last row of each sequence.
    pub fn last_rows(&self) -> Vec<u32> {
        self.spans.iter().filter_map(|s| s.row(s.len().checked_sub(1)?)).collect()
    }
}

/// The rows that hold the beginning of `sequence` already; the rest of its prompt is entered, its rows from `base`.
fn shared(trie: &mut Trie, sequence: &Sequence, base: u32) -> Vec<u32> {
    let mut rows = Vec::new();
    let mut last = None;
    let mut next = base;
    // The last token stays a row of its own, so that every sequence has one.
    let may_share = sequence.response_start.min(sequence.ids.len() - 1);
    for id in sequence.ids.iter().take(may_share) {
        let known = trie.get(&(last, *id)).copied();
        let row = known.unwrap_or(next);
        match known {
            Some(row) => rows.push(row),
            None => {
                trie.insert((last, *id), row);
                next += 1;
            }
        }
        last = Some(row);
    }
    rows
}

impl Span {
    /// Tokens of the sequence.
    pub fn len(&self) -> usize {
        self.first + self.queries.len()
    }

    /// Whether it has no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The row of a position.
    pub fn row(&self, position: usize) -> Option<u32> {
        match position.checked_sub(self.first) {
            None => self.prefix.get(position).copied(),
            Some(own) => self.queries.clone().nth(own),
        }
    }
}

/// Groups of sequence indices, each of at most `budget` tokens when padded to its longest (one sequence at least).
///
/// Sequences of like length share a group, so little is padded.
pub fn pack(lengths: &[usize], budget: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|i| (lengths.get(*i).copied(), *i));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for i in order {
        // Ascending lengths: this one is the longest of its group.
        let length = lengths.get(i).copied().unwrap_or(0);
        match groups.last_mut() {
            Some(group) if (group.len() + 1) * length <= budget => group.push(i),
            _ => groups.push(vec![i]),
        }
    }
    groups
}

/// How a batch's tokens stand in time: positions, and which key each query may see.
#[derive(Debug)]
pub struct Frame {
    angles: Angles,
    spans: Vec<Span>,
    /// Positions of the keys seen before, per sequence; `None` pads.
    seen: Option<Vec<Vec<Option<u32>>>>,
    windows: Vec<Option<usize>>,
    dtype: DType,
    device: Device,
    /// The batch in one rectangle, and in several of like lengths.
    whole: OnceCell<Vec<Rectangle>>,
    parts: OnceCell<Vec<Rectangle>>,
    /// The same on a GPU that needs no rectangle.
    ragged: OnceCell<Ragged>,
}

/// Neighbouring sequences of a batch padded to `[B, T]`, for the tensor library's products.
#[derive(Debug)]
pub struct Rectangle {
    pad: Tensor,
    unpad: Tensor,
    /// Where a gradient of a padded place comes from: a row of this rectangle's, or the one after the last for padding.
    back: Tensor,
    /// The batch's rows that this rectangle unpads to; `None` where some are in several sequences.
    own: Option<Range<usize>>,
    rows: usize,
    width: usize,
    bias: HashMap<Option<usize>, Tensor>,
}

/// Positions of queries and keys in the padded rectangle; `None` pads.
struct Grid {
    queries: Vec<Vec<Option<u32>>>,
    keys: Vec<Vec<Option<u32>>>,
}

impl Frame {
    /// The frame of whole sequences, each from position 0.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn whole(batch: &Batch, windows: &[Option<usize>], rotary: &Rotary, on: (DType, &Device)) -> Result<Self> {
        Self::new(batch.spans.clone(), None, windows, rotary, on)
    }

    /// The frame of one new token per sequence, at `positions`, with the keys of `seen` before it (`None`: padding).
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn step(
        positions: &[u32],
        seen: &[Vec<Option<u32>>],
        windows: &[Option<usize>],
        rotary: &Rotary,
        on: (DType, &Device),
    ) -> Result<Self> {
        let span = |(row, position): (u32, &u32)| Span {
            prefix: Vec::new(),
            queries: row..row + 1,
            first: *position as usize,
        };
        let spans = (0..).zip(positions).map(span).collect();
        Self::new(spans, Some(seen.to_vec()), windows, rotary, on)
    }

    fn new(
        spans: Vec<Span>,
        seen: Option<Vec<Vec<Option<u32>>>>,
        windows: &[Option<usize>],
        rotary: &Rotary,
        (dtype, device): (DType, &Device),
    ) -> Result<Self> {
        // Rows come sequence by sequence, so these are the rows' positions in order.
        let positions: Vec<u32> =
            spans.iter().flat_map(|s| s.queries.clone().zip(s.first as u32..)).map(|(_, p)| p).collect();
        Ok(Self {
            angles: rotary.angles(&positions, dtype, device)?,
            spans,
            seen,
            windows: windows.to_vec(),
            dtype,
            device: device.clone(),
            whole: OnceCell::new(),
            parts: OnceCell::new(),
            ragged: OnceCell::new(),
        })
    }

    /// Rotary angles of the N rows.
    pub fn angles(&self) -> &Angles {
        &self.angles
    }

    /// Where each sequence's rows are.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Where the sequences are, for the GPU's own attention; all layers of a model have heads of the same shape.
    pub(crate) fn ragged(&self, group: usize, dim: usize) -> Result<&Ragged> {
        if let Some(made) = self.ragged.get() {
            return Ok(made);
        }
        let made = Ragged::new(&self.spans, group, dim, &self.device)?;
        Ok(self.ragged.get_or_init(|| made))
    }

    /// The batch padded to rectangles, made when they are first asked for: one if `whole`, else as many as keep sequences
    /// of like lengths together. The rows that they unpad to are, one after another, those of the batch.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn rectangles(&self, whole: bool) -> Result<&[Rectangle]> {
        let cell = if whole { &self.whole } else { &self.parts };
        if let Some(made) = cell.get() {
            return Ok(made);
        }
        let runs = if whole { std::iter::once(0..self.spans.len()).collect() } else { runs(&self.spans) };
        let made = runs.into_iter().map(|run| Rectangle::new(self, run)).collect::<Result<_>>()?;
        Ok(cell.get_or_init(|| made))
    }
}

/// Runs of neighbours whose longest is at most a quarter longer than their first, or 8 tokens.
fn runs(spans: &[Span]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut first = 0;
    for (at, span) in spans.iter().enumerate() {
        match runs.last_mut() {
            Some(run) if span.len() >= first && span.len() <= first + (first / 4).max(8) => run.end = at + 1,
            _ => {
                first = span.len();
                runs.push(at..at + 1);
            }
        }
    }
    runs
}

impl Rectangle {
    fn new(frame: &Frame, run: Range<usize>) -> Result<Self> {
        let (rows, dtype, device) = (run.len(), frame.dtype, &frame.device);
        let spans = frame.spans.get(run.clone()).unwrap_or_default();
        // Before a step stands what the cache holds; in a whole batch every position of a sequence is laid out.
        let start = |span: &Span| if frame.seen.is_some() { span.first } else { 0 };
        let width = spans.iter().map(|s| s.len() - start(s)).max().unwrap_or(0);
        let (mut pad, mut unpad, mut queries) = (Vec::new(), Vec::new(), Vec::new());
        for (at, span) in spans.iter().enumerate() {
            let positions = (start(span)..start(span) + width).map(|p| (p < span.len()).then_some(p));
            let row = |p: Option<usize>| p.and_then(|p| span.row(p)).unwrap_or(0);
            pad.extend(positions.clone().map(row));
            let own = span.first - start(span)..span.len() - start(span);
            unpad.extend(own.map(|t| (at * width + t) as u32));
            queries.push(positions.map(|p| p.map(|p| p as u32)).collect::<Vec<_>>());
        }
        let keys = match &frame.seen {
            None => queries.clone(),
            Some(seen) => {
                seen.iter().skip(run.start).zip(&queries).map(|(s, q)| s.iter().chain(q).copied().collect()).collect()
            }
        };
        let grid = Grid { queries, keys };
        let mut bias = HashMap::new();
        for window in &frame.windows {
            if !bias.contains_key(window) {
                bias.insert(*window, mask(&grid, *window, dtype, device)?);
            }
        }
        let count = unpad.len();
        let back = inverse(&unpad, rows * width, count as u32);
        let ends = spans.first().zip(spans.last()).filter(|_| spans.iter().all(|s| s.prefix.is_empty()));
        Ok(Self {
            pad: Tensor::from_vec(pad, rows * width, device)?,
            unpad: Tensor::from_vec(unpad, count, device)?,
            back: Tensor::from_vec(back, rows * width, device)?,
            own: ends.map(|(first, last)| first.queries.start as usize..last.queries.end as usize),
            rows,
            width,
            bias,
        })
    }

    /// `[heads, N, d]` to `[heads, B, T, d]`; padding holds the first row's value, which no mask lets through.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn pad(&self, x: &Tensor) -> Result<Tensor> {
        let (heads, n, d) = x.dims3()?;
        let shape = (heads, self.rows, self.width, d);
        let Some(own) = self.own.clone().filter(|_| x.track_op()) else {
            return Ok(x.index_select(&self.pad, 1)?.reshape(shape)?);
        };
        // Nothing flows back from padding: each row's gradient lies in one place.
        let padded = x.detach().index_select(&self.pad, 1)?;
        let (unpad, after) = (self.unpad.clone(), n - own.end);
        let padded = link("pad", x, padded, move |_, _, grad| {
            grad.index_select(&unpad, 1)?.pad_with_zeros(1, own.start, after)
        })?;
        Ok(padded.reshape(shape)?)
    }

    /// `[heads, B, T, d]` to `[heads, rows, d]`, the rows of its own sequences.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn unpad(&self, x: &Tensor) -> Result<Tensor> {
        let (heads, b, t, d) = x.dims4()?;
        let x = x.reshape((heads, b * t, d))?;
        let rows = x.detach().index_select(&self.unpad, 1)?;
        let back = self.back.clone();
        Ok(link("unpad", &x, rows, move |_, _, grad| pick_or_zero(grad, 1, &back))?)
    }

    /// What is added to the attention scores under `window`: `[1, B, T, keys]`, 0 or a large negative number.
    ///
    /// # Errors
    /// A window that the frame was not built for.
    pub fn bias(&self, window: Option<usize>) -> Result<&Tensor> {
        self.bias.get(&window).ok_or_else(|| ModelError::Request(format!("no mask for window {window:?}")))
    }
}

/// A finite stand-in for −∞: a padded query's row stays free of NaN.
const HIDDEN: f32 = -1e30;

fn mask(grid: &Grid, window: Option<usize>, dtype: DType, device: &Device) -> Result<Tensor> {
    let sees = |query: Option<u32>, key: Option<u32>| match (query, key) {
        (Some(q), Some(k)) => k <= q && window.is_none_or(|w| ((q - k) as usize) < w),
        _ => false,
    };
    let (b, t, keys) =
        (grid.queries.len(), grid.queries.first().map_or(0, Vec::len), grid.keys.first().map_or(0, Vec::len));
    let mut values = Vec::with_capacity(b * t * keys);
    for (queries, keys) in grid.queries.iter().zip(&grid.keys) {
        for query in queries {
            values.extend(keys.iter().map(|key| if sees(*query, *key) { 0.0 } else { HIDDEN }));
        }
    }
    Ok(Tensor::from_vec(values, (1, b, t, keys), device)?.to_dtype(dtype)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_keeps_every_sequence_once_and_the_budget() {
        let lengths = [5, 90, 3, 40, 41, 7, 200, 1];
        let groups = pack(&lengths, 100);
        let mut seen: Vec<usize> = groups.iter().flatten().copied().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
        for group in &groups {
            let longest = group.iter().map(|i| lengths[*i]).max().unwrap();
            assert!(group.len() == 1 || group.len() * longest <= 100);
        }
    }

    #[test]
    fn predicting_rows_stand_one_before_their_targets() {
        let a = Sequence { ids: vec![9, 8, 7, 6], response_start: 2 };
        let b = Sequence { ids: vec![5, 4], response_start: 1 };
        let batch = Batch::new(&[&a, &b]).unwrap();
        assert_eq!(batch.predicting, vec![1, 2, 4]);
        assert_eq!(batch.targets, vec![7, 6, 4]);
        assert_eq!(batch.responses, vec![2, 1]);
        assert_eq!(batch.last_rows(), vec![3, 5]);
        assert!(Batch::new(&[&Sequence { ids: vec![1], response_start: 0 }]).is_err());
    }

    #[test]
    fn prompts_that_begin_alike_share_rows_and_answers_never_do() {
        let of = |ids: &[u32], response_start| Sequence { ids: ids.to_vec(), response_start };
        let all = [of(&[1, 2, 3, 9], 3), of(&[1, 2, 4, 9], 3), of(&[1, 2, 3, 9], 3), of(&[1, 2], 2)];
        let batch = Batch::sharing(&all.each_ref()).unwrap();
        assert_eq!(batch.ids, vec![1, 2, 3, 9, 4, 9, 9, 2]);
        assert_eq!(batch.spans[1], Span { prefix: vec![0, 1], queries: 4..6, first: 2 });
        assert_eq!(batch.spans[2], Span { prefix: vec![0, 1, 2], queries: 6..7, first: 3 });
        assert_eq!(batch.spans[3], Span { prefix: vec![0], queries: 7..8, first: 1 });
        assert_eq!(batch.predicting, vec![2, 4, 2]);
        assert_eq!(batch.last_rows(), vec![3, 5, 6, 7]);
        for (span, sequence) in batch.spans.iter().zip(&all) {
            let ids: Vec<u32> = (0..span.len()).map(|p| batch.ids[span.row(p).unwrap() as usize]).collect();
            assert_eq!(ids, sequence.ids);
        }
    }
}
