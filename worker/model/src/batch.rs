//! Sequences packed into a ragged batch, and the frame that attention needs of it.

use crate::layers::rope::{Angles, Rotary};
use crate::{ModelError, Result};
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;

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

/// Sequences one after another.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Token ids of all sequences, `[N]`.
    pub ids: Vec<u32>,
    /// Tokens of each sequence.
    pub lengths: Vec<usize>,
    /// Rows that predict response tokens (the position before each).
    pub predicting: Vec<u32>,
    /// The response tokens, one for each of `predicting`.
    pub targets: Vec<u32>,
    /// Response tokens of each sequence.
    pub responses: Vec<usize>,
    /// For each of the N tokens: which sequence, and whether it is a response token.
    pub place: Vec<(u32, bool)>,
}

impl Batch {
    /// Packs `sequences`.
    ///
    /// # Errors
    /// An empty sequence, or an answer with no token before it.
    pub fn new(sequences: &[&Sequence]) -> Result<Self> {
        let mut batch = Self {
            ids: Vec::new(),
            lengths: Vec::new(),
            predicting: Vec::new(),
            targets: Vec::new(),
            responses: Vec::new(),
            place: Vec::new(),
        };
        for (at, sequence) in sequences.iter().enumerate() {
            batch.push(at as u32, sequence)?;
        }
        Ok(batch)
    }

    fn push(&mut self, at: u32, sequence: &Sequence) -> Result<()> {
        let start = sequence.response_start;
        if sequence.ids.is_empty() || (start == 0 && sequence.response_len() > 0) {
            return Err(ModelError::Request("a sequence needs at least one token before its answer".into()));
        }
        let base = self.ids.len();
        self.ids.extend(&sequence.ids);
        self.lengths.push(sequence.ids.len());
        self.responses.push(sequence.response_len());
        self.place.extend((0..sequence.ids.len()).map(|i| (at, i >= start)));
        for (i, &id) in sequence.ids.iter().enumerate().skip(start) {
            self.predicting.push((base + i - 1) as u32);
            self.targets.push(id);
        }
        Ok(())
    }

    /// Tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Last row of each sequence.
    pub fn last_rows(&self) -> Vec<u32> {
        let mut end = 0;
        self.lengths
            .iter()
            .map(|l| {
                end += l;
                (end - 1) as u32
            })
            .collect()
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

/// How a batch's tokens stand in time: positions, padding and which key each query may see.
#[derive(Debug)]
pub struct Frame {
    angles: Angles,
    pad: Tensor,
    unpad: Tensor,
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
    pub fn whole(lengths: &[usize], windows: &[Option<usize>], rotary: &Rotary, on: (DType, &Device)) -> Result<Self> {
        let width = lengths.iter().copied().max().unwrap_or(0);
        let row = |l: &usize| (0..width).map(|p| (p < *l).then_some(p as u32)).collect::<Vec<_>>();
        let grid: Vec<_> = lengths.iter().map(row).collect();
        Self::build(Grid { queries: grid.clone(), keys: grid }, windows, rotary, on)
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
        let queries = positions.iter().map(|p| vec![Some(*p)]).collect();
        let with = |(keys, p): (&Vec<Option<u32>>, &u32)| keys.iter().copied().chain([Some(*p)]).collect();
        let keys = seen.iter().zip(positions).map(with).collect();
        Self::build(Grid { queries, keys }, windows, rotary, on)
    }

    fn build(
        grid: Grid,
        windows: &[Option<usize>],
        rotary: &Rotary,
        (dtype, device): (DType, &Device),
    ) -> Result<Self> {
        let (rows, width) = (grid.queries.len(), grid.queries.first().map_or(0, Vec::len));
        let flat: Vec<Option<u32>> = grid.queries.iter().flatten().copied().collect();
        let mut next = 0;
        let pad: Vec<u32> = flat
            .iter()
            .map(|p| {
                if p.is_some() {
                    next += 1;
                    next - 1
                } else {
                    0
                }
            })
            .collect();
        let unpad: Vec<u32> = flat.iter().zip(0..).filter_map(|(p, at)| p.map(|_| at)).collect();
        let positions: Vec<u32> = flat.iter().flatten().copied().collect();
        let mut bias = HashMap::new();
        for window in windows {
            if !bias.contains_key(window) {
                bias.insert(*window, mask(&grid, *window, dtype, device)?);
            }
        }
        Ok(Self {
            angles: rotary.angles(&positions, dtype, device)?,
            pad: Tensor::from_vec(pad, rows * width, device)?,
            unpad: Tensor::from_vec(unpad, positions.len(), device)?,
            rows,
            width,
            bias,
        })
    }

    /// Rotary angles of the N tokens.
    pub fn angles(&self) -> &Angles {
        &self.angles
    }

    /// `[heads, N, d]` to `[heads, B, T, d]`; padding holds the first token's value, which no mask lets through.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn pad(&self, x: &Tensor) -> Result<Tensor> {
        let (heads, _, d) = x.dims3()?;
        Ok(x.index_select(&self.pad, 1)?.reshape((heads, self.rows, self.width, d))?)
    }

    /// `[heads, B, T, d]` to `[heads, N, d]`.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn unpad(&self, x: &Tensor) -> Result<Tensor> {
        let (heads, b, t, d) = x.dims4()?;
        Ok(x.reshape((heads, b * t, d))?.index_select(&self.unpad, 1)?)
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
}
