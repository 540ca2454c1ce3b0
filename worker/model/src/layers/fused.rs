//! Attention on the CPU, one sequence and one KV head at a time: nothing is padded, and no more
//! than a block of scores is laid out at once.
//!
//! The loops index by numbers checked at the door ([`attend`]): every row of a span is a row of q,
//! k and v.

use crate::batch::Span;
use crate::layers::cache::{LayerCache, SequenceCache};
use crate::layers::slices::with_values;
use crate::{ModelError, Result};
use candle_core::Tensor;
use rayon::prelude::*;
use std::ops::Range;

/// Queries whose scores are laid out together.
const BLOCK: usize = 128;

/// The shape of the heads.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub query: usize,
    pub kv: usize,
    pub dim: usize,
    pub window: Option<usize>,
}

/// Queries, keys and values, each `[N, its heads, dim]` row-major.
struct Values<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
}

/// One sequence's keys and values of one KV head, by position.
struct Memory {
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// softmax(q·kᵀ / √d)·v of every span: `[N, heads, dim]`. With a cache its keys come first, and the
/// new ones are added.
pub(super) fn attend(
    heads: Heads,
    [q, k, v]: [&Tensor; 3],
    sinks: Option<&[f32]>,
    spans: &[Span],
    cache: Option<&mut LayerCache>,
) -> Result<Tensor> {
    let n = q.dim(0)?;
    let fits = |span: &Span| {
        span.queries.end as usize <= n && span.prefix.iter().all(|row| (*row as usize) < n)
    };
    if !spans.iter().all(fits) || sinks.is_some_and(|s| s.len() != heads.query) {
        return Err(ModelError::Request(
            "attention was given spans or sinks of another batch or model".into(),
        ));
    }
    let mut caches = cache.map(|c| c.by_sequence(spans.len(), heads.kv)).transpose()?;
    let mut run = |q: &[f32], k: &[f32], v: &[f32]| {
        let values = Values { q, k, v };
        if let Some(caches) = caches.as_deref_mut() {
            for (cache, span) in caches.iter_mut().zip(spans) {
                remember(cache, span, heads, &values);
            }
        }
        let kept: Option<&[SequenceCache]> = caches.as_deref();
        all_spans(heads, &values, sinks, spans, kept)
    };
    let out = with_values(q, |q| with_values(k, |k| with_values(v, |v| run(q, k, v))))????;
    Ok(Tensor::from_vec(out, (n, heads.query, heads.dim), q.device())?)
}

/// One value of `values` per row: row, head and width.
fn at(values: &[f32], row: u32, (head, heads, dim): (usize, usize, usize)) -> &[f32] {
    let start = (row as usize * heads + head) * dim;
    values.get(start..start + dim).unwrap_or_default()
}

/// Rows whose keys a span brings along.
fn new_rows(span: &Span) -> impl Iterator<Item = u32> + '_ {
    span.prefix.iter().copied().chain(span.queries.clone())
}

fn remember(cache: &mut SequenceCache, span: &Span, heads: Heads, values: &Values<'_>) {
    for (head, (keys, kept)) in cache.keys.iter_mut().zip(&mut cache.values).enumerate() {
        for row in new_rows(span) {
            keys.extend_from_slice(at(values.k, row, (head, heads.kv, heads.dim)));
            kept.extend_from_slice(at(values.v, row, (head, heads.kv, heads.dim)));
        }
    }
}

fn all_spans(
    heads: Heads,
    values: &Values<'_>,
    sinks: Option<&[f32]>,
    spans: &[Span],
    caches: Option<&[SequenceCache]>,
) -> Result<Vec<f32>> {
    let tasks: Vec<(usize, usize)> =
        (0..spans.len()).flat_map(|s| (0..heads.kv).map(move |h| (s, h))).collect();
    let group = heads.query / heads.kv;
    let work = |&(s, head): &(usize, usize)| -> Result<Vec<f32>> {
        let missing = || ModelError::Request("a span without its cache".into());
        let span = spans.get(s).ok_or_else(missing)?;
        let own = group * head..group * (head + 1);
        let sinks = sinks.and_then(|s| s.get(own));
        match caches {
            Some(caches) => {
                let cache = caches.get(s).ok_or_else(missing)?;
                let (keys, kept) =
                    cache.keys.get(head).zip(cache.values.get(head)).ok_or_else(missing)?;
                one_head(heads, values.q, (keys, kept), span, head, sinks)
            }
            None => {
                let memory = gathered(span, heads, head, values);
                one_head(heads, values.q, (&memory.keys, &memory.values), span, head, sinks)
            }
        }
    };
    let parts: Vec<Vec<f32>> = tasks.par_iter().map(work).collect::<Result<_>>()?;
    let mut out = vec![0.0; values.q.len()];
    for ((s, head), part) in tasks.iter().zip(parts) {
        let Some(span) = spans.get(*s) else { continue };
        // `part` holds [queries, group × dim].
        let width = group * heads.dim;
        for (row, from) in span.queries.clone().zip(part.chunks_exact(width)) {
            let start = (row as usize * heads.query + head * group) * heads.dim;
            if let Some(into) = out.get_mut(start..start + width) {
                into.copy_from_slice(from);
            }
        }
    }
    Ok(out)
}

fn gathered(span: &Span, heads: Heads, head: usize, values: &Values<'_>) -> Memory {
    let size = (span.prefix.len() + span.queries.len()) * heads.dim;
    let mut memory = Memory { keys: Vec::with_capacity(size), values: Vec::with_capacity(size) };
    for row in new_rows(span) {
        memory.keys.extend_from_slice(at(values.k, row, (head, heads.kv, heads.dim)));
        memory.values.extend_from_slice(at(values.v, row, (head, heads.kv, heads.dim)));
    }
    memory
}

/// One KV head's share for all queries of a span, block by block: `[queries, group × dim]`.
fn one_head(
    heads: Heads,
    q: &[f32],
    (keys, values): (&[f32], &[f32]),
    span: &Span,
    head: usize,
    sinks: Option<&[f32]>,
) -> Result<Vec<f32>> {
    let (group, dim) = (heads.query / heads.kv, heads.dim);
    let total = span.first + span.queries.len();
    if keys.len() != total * dim || values.len() != keys.len() {
        return Err(ModelError::Request(
            "the key-value cache does not reach up to the batch's positions".into(),
        ));
    }
    let scale = 1.0 / (dim as f32).sqrt();
    let mut out = Vec::with_capacity(span.queries.len() * group * dim);
    let rows: Vec<u32> = span.queries.clone().collect();
    for (at_block, block) in rows.chunks(BLOCK).enumerate() {
        let first = span.first + at_block * BLOCK;
        let last = first + block.len() - 1;
        let seen = heads.window.map_or(0, |w| (first + 1).saturating_sub(w))..last + 1;
        // Query by query, head by head within it: the order of the output.
        let mut queries = Vec::with_capacity(block.len() * group * dim);
        for row in block {
            for g in 0..group {
                queries.extend(
                    at(q, *row, (head * group + g, heads.query, dim)).iter().map(|x| x * scale),
                );
            }
        }
        let part =
            |all: &'_ [f32]| all.get(seen.start * dim..seen.end * dim).unwrap_or_default().to_vec();
        let (keys, values) = (part(keys), part(values));
        let (m, width) = (block.len() * group, seen.len());
        let mut scores = vec![0.0; m * width];
        product(&mut scores, (m, width, dim), &queries, &keys, true)?;
        for (i, row) in scores.chunks_exact_mut(width).enumerate() {
            let position = first + i / group;
            let visible =
                heads.window.map_or(0, |w| (position + 1).saturating_sub(w))..position + 1;
            softmax(
                row,
                visible.start - seen.start..visible.end - seen.start,
                sinks.and_then(|s| s.get(i % group)),
            );
        }
        let mut mixed = vec![0.0; m * dim];
        product(&mut mixed, (m, dim, width), &scores, &values, false)?;
        out.extend(mixed);
    }
    Ok(out)
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
    let mut sum = sink.map_or(0.0, |s| (s - largest).exp());
    for x in seen.iter_mut() {
        *x = (*x - largest).exp();
        sum += *x;
    }
    for x in seen {
        *x /= sum;
    }
}

/// out `[m, n]` = a `[m, k]` · b, where b is `[n, k]` if `transposed`, else `[k, n]`; all
/// row-major.
fn product(
    out: &mut [f32],
    (m, n, k): (usize, usize, usize),
    a: &[f32],
    b: &[f32],
    transposed: bool,
) -> Result<()> {
    if out.len() != m * n || a.len() != m * k || b.len() != n * k {
        return Err(ModelError::Request("a product of matrices whose sizes do not fit".into()));
    }
    let (column, row) = if transposed { (k, 1) } else { (1, n) };
    // SAFETY: the three lengths were checked above against the strides given here.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.as_ptr(),
            1,
            k as isize,
            b.as_ptr(),
            column as isize,
            row as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
    Ok(())
}
