//! How a batch's tokens stand in time: what attention needs to know of the batch, made once for all
//! layers.

use crate::Result;
use crate::batch::{Batch, Span};
use crate::cuda::Ragged;
use crate::layers::rectangle::{Layout, Rectangle};
use crate::layers::rope::{Angles, Rotary};
use candle_core::{DType, Device};
use std::cell::OnceCell;
use std::ops::Range;

/// Positions, and which key each query may see.
#[derive(Debug)]
pub struct Frame {
    angles: Angles,
    layout: Layout,
    /// The batch in one rectangle, and in several of like lengths.
    whole: OnceCell<Vec<Rectangle>>,
    parts: OnceCell<Vec<Rectangle>>,
    /// The same on a GPU that needs no rectangle.
    ragged: OnceCell<Ragged>,
}

impl Frame {
    /// The frame of whole sequences, each from position 0.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn whole(
        batch: &Batch,
        windows: &[Option<usize>],
        rotary: &Rotary,
        on: (DType, &Device),
    ) -> Result<Self> {
        Self::new(Layout::new(batch.spans.clone(), None, windows, on), rotary)
    }

    /// The frame of one new token per sequence, at `positions`, with the keys of `seen` before it
    /// (`None`: padding).
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
        Self::new(Layout::new(spans, Some(seen.to_vec()), windows, on), rotary)
    }

    fn new(layout: Layout, rotary: &Rotary) -> Result<Self> {
        // Rows come sequence by sequence, so these are the rows' positions in order.
        let own = |s: &Span| (s.first as u32..).take(s.queries.len());
        let positions: Vec<u32> = layout.spans.iter().flat_map(own).collect();
        Ok(Self {
            angles: rotary.angles(&positions, layout.dtype, &layout.device)?,
            layout,
            whole: OnceCell::new(),
            parts: OnceCell::new(),
            ragged: OnceCell::new(),
        })
    }

    /// A frame of other sequences of the same model, whose own rows have these angles.
    pub(crate) fn of_spans(&self, spans: Vec<Span>, angles: Angles) -> Self {
        Self {
            angles,
            layout: self.layout.of_spans(spans),
            whole: OnceCell::new(),
            parts: OnceCell::new(),
            ragged: OnceCell::new(),
        }
    }

    /// Whether attention looks its keys up row by row (`fused`), so that they may lie anywhere.
    pub(crate) fn looks_up_keys(&self) -> bool {
        self.layout.device.is_cpu() && self.layout.dtype == DType::F32
    }

    /// Rotary angles of the N rows.
    pub fn angles(&self) -> &Angles {
        &self.angles
    }

    /// Rows of its sequences' own.
    pub(crate) fn rows(&self) -> usize {
        self.spans().iter().map(|span| span.queries.len()).sum()
    }

    /// Where each sequence's rows are.
    pub fn spans(&self) -> &[Span] {
        &self.layout.spans
    }

    /// Where the sequences are, for the GPU's own attention; all layers of a model have heads of
    /// the same shape.
    pub(crate) fn ragged(&self, group: usize, dim: usize) -> Result<&Ragged> {
        if let Some(made) = self.ragged.get() {
            return Ok(made);
        }
        let made = Ragged::new(self.spans(), group, dim, &self.layout.device)?;
        Ok(self.ragged.get_or_init(|| made))
    }

    /// The batch padded to rectangles, made when they are first asked for: one if `whole`, else as
    /// many as keep sequences of like lengths together. The rows that they unpad to are, one after
    /// another, those of the batch.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn rectangles(&self, whole: bool) -> Result<&[Rectangle]> {
        let cell = if whole { &self.whole } else { &self.parts };
        if let Some(made) = cell.get() {
            return Ok(made);
        }
        let all = 0..self.spans().len();
        let runs = if whole { std::iter::once(all).collect() } else { runs(self.spans()) };
        let made =
            runs.into_iter().map(|run| Rectangle::new(&self.layout, run)).collect::<Result<_>>()?;
        Ok(cell.get_or_init(|| made))
    }
}

/// Runs of neighbours whose longest is at most a quarter longer than their first, or 8 tokens.
fn runs(spans: &[Span]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut first = 0;
    for (at, span) in spans.iter().enumerate() {
        match runs.last_mut() {
            Some(run) if span.len() >= first && span.len() <= first + (first / 4).max(8) => {
                run.end = at + 1
            }
            _ => {
                first = span.len();
                runs.push(at..at + 1);
            }
        }
    }
    runs
}
