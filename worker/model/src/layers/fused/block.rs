//! A block of queries of one sequence with the heads that share a KV head: what they see, and how
//! much of each.

use super::{Heads, at};
use crate::batch::Span;
use crate::{ModelError, Result};
use std::ops::Range;
use uspx_kernel::exp_shifted;

/// Queries whose scores are laid out together.
const BLOCK: usize = 128;

/// Probabilities of a block.
pub(super) struct Block {
    /// Rows of the batch that ask.
    pub rows: Range<u32>,
    /// Positions of the keys that any of them sees.
    positions: Range<usize>,
    /// Queries times query heads: query by query, head by head within it.
    pub count: usize,
    /// The queries, scaled: `[count, dim]`.
    pub queries: Vec<f32>,
    /// Attention probabilities, `[count, positions]`.
    pub weights: Vec<f32>,
}

impl Block {
    /// The rows of each block of a span.
    pub fn all(span: &Span) -> impl Iterator<Item = Range<u32>> {
        let end = span.queries.end;
        span.queries.clone().step_by(BLOCK).map(move |start| start..end.min(start + BLOCK as u32))
    }

    /// softmax(q·kᵀ / √d) of the query heads beside KV head `head`.
    pub fn new(
        heads: Heads,
        (q, keys): (&[f32], &[f32]),
        (span, rows): (&Span, Range<u32>),
        head: usize,
        sinks: Option<&[f32]>,
    ) -> Result<Self> {
        let (group, dim) = (heads.group(), heads.dim);
        let first = span.first + (rows.start - span.queries.start) as usize;
        let seen = |position: usize| heads.window.map_or(0, |w| (position + 1).saturating_sub(w));
        let positions = seen(first)..first + rows.len();
        let scale = heads.scale();
        let mut queries = of_rows(q, rows.clone(), heads, head);
        queries.iter_mut().for_each(|x| *x *= scale);
        let (count, width) = (rows.len() * group, positions.len());
        let mut block = Self { rows, positions, count, queries, weights: Vec::new() };
        let mut scores = vec![0.0; count * width];
        let all = Strided::plain(&block.queries, dim);
        product(&mut scores, (count, width, dim), all, block.seen(keys, dim).turned(), false)?;
        for (i, row) in scores.chunks_exact_mut(width).enumerate() {
            let position = first + i / group;
            let start = block.positions.start;
            let visible = seen(position) - start..position + 1 - start;
            softmax(row, visible, sinks.and_then(|s| s.get(i % group)));
        }
        block.weights = scores;
        Ok(block)
    }

    /// Keys that are seen.
    pub fn width(&self) -> usize {
        self.positions.len()
    }

    /// The part of keys or values by position, `[total, dim]`, that is seen.
    pub fn seen<'a>(&self, all: &'a [f32], dim: usize) -> Strided<'a> {
        Strided::plain(all.get(self.range(dim)).unwrap_or_default(), dim)
    }

    /// The same, to be added to.
    pub fn seen_mut<'a>(&self, all: &'a mut [f32], dim: usize) -> &'a mut [f32] {
        all.get_mut(self.range(dim)).unwrap_or_default()
    }

    fn range(&self, dim: usize) -> Range<usize> {
        self.positions.start * dim..self.positions.end * dim
    }
}

/// The values of some rows for the query heads beside KV head `head`: `[rows × group, dim]`.
pub(super) fn of_rows(all: &[f32], rows: Range<u32>, heads: Heads, head: usize) -> Vec<f32> {
    let (group, dim) = (heads.group(), heads.dim);
    let mut values = Vec::with_capacity(rows.len() * group * dim);
    for row in rows {
        for g in 0..group {
            values.extend_from_slice(at(all, row, (head * group + g, heads.query, dim)));
        }
    }
    values
}

/// Softmax over the visible part of a row of scores, 0 elsewhere. A sink joins the sum and gets no
/// place.
fn softmax(row: &mut [f32], visible: Range<usize>, sink: Option<&f32>) {
    let start = visible.start.min(row.len());
    let (before, rest) = row.split_at_mut(start);
    let (seen, after) = rest.split_at_mut(visible.len().min(rest.len()));
    before.fill(0.0);
    after.fill(0.0);
    let largest = seen.iter().copied().fold(sink.copied().unwrap_or(f32::NEG_INFINITY), f32::max);
    let sum = sink.map_or(0.0, |s| (s - largest).exp()) + exp_shifted(seen, largest);
    for x in seen {
        *x /= sum;
    }
}

/// A matrix in plain memory, read row by row or column by column.
#[derive(Clone, Copy)]
pub(super) struct Strided<'a> {
    values: &'a [f32],
    row: usize,
    column: usize,
}

impl<'a> Strided<'a> {
    /// Row-major, each row `width` values.
    pub fn plain(values: &'a [f32], width: usize) -> Self {
        Self { values, row: width, column: 1 }
    }

    /// Its transpose.
    pub fn turned(self) -> Self {
        Self { row: self.column, column: self.row, ..self }
    }

    /// Whether it is `[rows, columns]`.
    fn is(&self, rows: usize, columns: usize) -> bool {
        let (whole, wide) = (self.values.len() == rows * columns, self.row == columns);
        whole && ((wide && self.column == 1) || (self.row == 1 && self.column == rows))
    }
}

/// out `[m, n]` = a `[m, k]` · b `[k, n]`, or added to what is there; out row-major.
pub(super) fn product(
    out: &mut [f32],
    (m, n, k): (usize, usize, usize),
    a: Strided<'_>,
    b: Strided<'_>,
    add: bool,
) -> Result<()> {
    if out.len() != m * n || !a.is(m, k) || !b.is(k, n) {
        return Err(ModelError::Request("a product of matrices whose sizes do not fit".into()));
    }
    // SAFETY: the three lengths were checked above against the strides given here.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            add,
            a.values.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.values.as_ptr(),
            b.column as isize,
            b.row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
    Ok(())
}
