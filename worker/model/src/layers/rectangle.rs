//! Sequences padded to a rectangle, for the tensor library's products, and the mask over it.

use crate::batch::Span;
use crate::custom_gradient::with_gradient;
use crate::layers::rows::{inverse, pick_or_zero};
use crate::{ModelError, Result};
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use std::ops::Range;

/// What rectangles are made from: where a batch's sequences stand, and what may be seen of them.
#[derive(Debug)]
pub(super) struct Layout {
    pub spans: Vec<Span>,
    /// Positions of the keys seen before, per sequence; `None` pads.
    seen: Option<Vec<Vec<Option<u32>>>>,
    windows: Vec<Option<usize>>,
    pub dtype: DType,
    pub device: Device,
}

/// Neighbouring sequences of a batch padded to `[B, T]`.
#[derive(Debug, Clone)]
pub struct Rectangle {
    pad: Tensor,
    unpad: Tensor,
    /// Where a gradient of a padded place comes from: a row of this rectangle's, or the one after
    /// the last for padding.
    back: Tensor,
    /// The batch's rows that this rectangle unpads to; `None` where some are in several sequences.
    own: Option<Range<usize>>,
    rows: usize,
    width: usize,
    bias: HashMap<Option<usize>, Tensor>,
}

/// A rectangle's places, row by row.
#[derive(Default)]
struct Places {
    /// The batch's row at each place; padding has some row's.
    pad: Vec<u32>,
    /// The places that are not padding.
    unpad: Vec<u32>,
    /// Positions of queries and keys; `None` pads.
    queries: Vec<Vec<Option<u32>>>,
    keys: Vec<Vec<Option<u32>>>,
}

impl Layout {
    pub fn new(
        spans: Vec<Span>,
        seen: Option<Vec<Vec<Option<u32>>>>,
        windows: &[Option<usize>],
        (dtype, device): (DType, &Device),
    ) -> Self {
        Self { spans, seen, windows: windows.to_vec(), dtype, device: device.clone() }
    }

    /// The same of other whole sequences.
    pub fn of_spans(&self, spans: Vec<Span>) -> Self {
        let (windows, device) = (self.windows.clone(), self.device.clone());
        Self { spans, seen: None, windows, dtype: self.dtype, device }
    }

    /// The first position laid out of a sequence. Before a step stands what the cache holds; in a
    /// whole batch every position of a sequence is laid out.
    fn start(&self, span: &Span) -> usize {
        if self.seen.is_some() { span.first } else { 0 }
    }

    /// The places of the sequences `run` in a rectangle of `width`.
    fn places(&self, run: Range<usize>, width: usize) -> Places {
        let mut places = Places::default();
        for (at, span) in self.spans.get(run.clone()).unwrap_or_default().iter().enumerate() {
            let start = self.start(span);
            let positions = (start..start + width).map(|p| (p < span.len()).then_some(p));
            let row = |p: Option<usize>| p.and_then(|p| span.row(p)).unwrap_or(0);
            places.pad.extend(positions.clone().map(row));
            places
                .unpad
                .extend((span.first - start..span.len() - start).map(|t| (at * width + t) as u32));
            places.queries.push(positions.map(|p| p.map(|p| p as u32)).collect());
        }
        places.keys = self.keys(run, &places.queries);
        places
    }

    /// What stands before the queries, then these themselves.
    fn keys(&self, run: Range<usize>, queries: &[Vec<Option<u32>>]) -> Vec<Vec<Option<u32>>> {
        let Some(seen) = &self.seen else { return queries.to_vec() };
        seen.iter()
            .skip(run.start)
            .zip(queries)
            .map(|(s, q)| s.iter().chain(q).copied().collect())
            .collect()
    }
}

impl Rectangle {
    pub(super) fn new(layout: &Layout, run: Range<usize>) -> Result<Self> {
        let (rows, device) = (run.len(), &layout.device);
        let spans = layout.spans.get(run.clone()).unwrap_or_default();
        let width = spans.iter().map(|s| s.len() - layout.start(s)).max().unwrap_or(0);
        let places = layout.places(run, width);
        let mut bias = HashMap::new();
        for window in &layout.windows {
            if !bias.contains_key(window) {
                bias.insert(*window, mask(&places, *window, layout.dtype, device)?);
            }
        }
        let count = places.unpad.len();
        let back = inverse(&places.unpad, rows * width, count as u32);
        let ends =
            spans.first().zip(spans.last()).filter(|_| spans.iter().all(|s| s.prefix.is_empty()));
        Ok(Self {
            pad: Tensor::from_vec(places.pad, rows * width, device)?,
            unpad: Tensor::from_vec(places.unpad, count, device)?,
            back: Tensor::from_vec(back, rows * width, device)?,
            own: ends.map(|(first, last)| first.queries.start as usize..last.queries.end as usize),
            rows,
            width,
            bias,
        })
    }

    /// `[heads, N, d]` to `[heads, B, T, d]`; padding holds the first row's value, which no mask
    /// lets through.
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
        let padded = with_gradient("pad", x, padded, move |_, _, grad| {
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
        Ok(with_gradient("unpad", &x, rows, move |_, _, grad| pick_or_zero(grad, 1, &back))?)
    }

    /// Sequences and places of each.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.rows, self.width)
    }

    /// The batch's rows that it unpads to; none where some are in several sequences.
    pub(super) fn own(&self) -> Option<Range<usize>> {
        self.own.clone()
    }

    /// Of each place, the row of its own that it holds, or the one after the last for padding.
    pub(super) fn places(&self) -> &Tensor {
        &self.back
    }

    /// What is added to the attention scores under `window`: `[1, B, T, keys]`, 0 or a large
    /// negative number.
    ///
    /// # Errors
    /// A window that the frame was not built for.
    pub fn bias(&self, window: Option<usize>) -> Result<&Tensor> {
        self.bias
            .get(&window)
            .ok_or_else(|| ModelError::Request(format!("no mask for window {window:?}")))
    }
}

/// A finite stand-in for −∞: a padded query's row stays free of NaN.
const HIDDEN: f32 = -1e30;

fn mask(places: &Places, window: Option<usize>, dtype: DType, device: &Device) -> Result<Tensor> {
    let sees = |query: Option<u32>, key: Option<u32>| match (query, key) {
        (Some(q), Some(k)) => k <= q && window.is_none_or(|w| ((q - k) as usize) < w),
        _ => false,
    };
    let width = |of: &[Vec<Option<u32>>]| of.first().map_or(0, Vec::len);
    let (b, t, keys) = (places.queries.len(), width(&places.queries), width(&places.keys));
    let mut values = Vec::with_capacity(b * t * keys);
    for (queries, keys) in places.queries.iter().zip(&places.keys) {
        for query in queries {
            values.extend(keys.iter().map(|key| if sees(*query, *key) { 0.0 } else { HIDDEN }));
        }
    }
    Ok(Tensor::from_vec(values, (1, b, t, keys), device)?.to_dtype(dtype)?)
}
