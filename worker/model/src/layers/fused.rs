//! Attention on the CPU, one sequence and one KV head at a time: nothing is padded, and no more
//! than a block of scores is laid out at once, in the backward pass as in the forward one.
//!
//! Every row of a span is a row of q, k and v: that is checked at the door ([`attend`]).

use crate::batch::Span;
use crate::branch::Asking;
use crate::layers::cache::{LayerCache, SequenceCache};
use crate::layers::slices::with_values;
use crate::{ModelError, Result};
use candle_core::Tensor;
use rayon::prelude::*;
use std::borrow::Cow;

mod back;
mod block;

pub(super) use back::attend_back;
use block::{Block, Strided, product};

/// The shape of the heads.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub query: usize,
    pub kv: usize,
    pub dim: usize,
    pub window: Option<usize>,
}

impl Heads {
    /// Query heads for each KV head.
    fn group(self) -> usize {
        self.query / self.kv
    }

    /// What scores are multiplied by.
    fn scale(self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }
}

/// Queries, keys and values, each `[N, its heads, dim]` row-major.
struct Values<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
}

/// One sequence's keys and values of one KV head, by position.
struct Memory<'a> {
    keys: Cow<'a, [f32]>,
    values: Cow<'a, [f32]>,
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
    check_all(n, heads, sinks, spans)?;
    let mut caches = cache.map(|c| c.by_sequence(spans.len(), heads.kv)).transpose()?;
    let mut run = |q: &[f32], k: &[f32], v: &[f32]| {
        let values = Values { q, k, v };
        if let Some(caches) = caches.as_deref_mut() {
            for (cache, span) in caches.iter_mut().zip(spans) {
                remember(cache, span, heads, &values);
            }
        }
        let missing = || ModelError::Request("a span without its cache".into());
        let kept: Option<&[SequenceCache]> = caches.as_deref();
        all_spans(heads, q, sinks, spans, &|s, head| match kept {
            Some(caches) => {
                let cache = caches.get(s).ok_or_else(missing)?;
                let both = cache.keys.get(head).zip(cache.values.get(head));
                let (keys, values) = both.ok_or_else(missing)?;
                Ok(Memory { keys: keys.into(), values: values.into() })
            }
            None => {
                let rows: Vec<u32> = spans.get(s).into_iter().flat_map(new_rows).collect();
                Ok(gathered(&rows, [k, v], &[], (head, heads)))
            }
        })
    };
    let out = with_values(q, |q| with_values(k, |k| with_values(v, |v| run(q, k, v))))????;
    Ok(Tensor::from_vec(out, (n, heads.query, heads.dim), q.device())?)
}

/// The same for queries whose keys and values lie elsewhere: of `asking` span by span and position
/// by position, numbered through the rows of the `trunk` and then through `own`. `[queries, heads,
/// dim]`.
pub(super) fn attend_onto(
    heads: Heads,
    q: &Tensor,
    (trunk, own): ([&Tensor; 2], [&Tensor; 2]),
    sinks: Option<&[f32]>,
    asking: &Asking,
) -> Result<Tensor> {
    let n = q.dim(0)?;
    check_all(n, heads, sinks, &asking.spans)?;
    let all = (trunk[0].dim(0)? + own[0].dim(0)?) as u32;
    if asking.keys.iter().flatten().any(|row| *row >= all) {
        return Err(ModelError::Request("attention was given keys of another batch".into()));
    }
    let run = |q: &[f32], trunk: [&[f32]; 2], own: [&[f32]; 2]| {
        all_spans(heads, q, sinks, &asking.spans, &|s, head| {
            let rows = asking.keys.get(s).map(Vec::as_slice).unwrap_or_default();
            Ok(gathered(rows, trunk, &own, (head, heads)))
        })
    };
    let [[k, v], [own_k, own_v]] = [trunk, own];
    let out = with_values(q, |q| {
        with_values(k, |k| {
            with_values(v, |v| {
                with_values(own_k, |own_k| {
                    with_values(own_v, |own_v| run(q, [k, v], [own_k, own_v]))
                })
            })
        })
    })??????;
    Ok(Tensor::from_vec(out, (n, heads.query, heads.dim), q.device())?)
}

fn check_all(n: usize, heads: Heads, sinks: Option<&[f32]>, spans: &[Span]) -> Result<()> {
    let fits = |span: &Span| {
        span.queries.end as usize <= n && span.prefix.iter().all(|row| (*row as usize) < n)
    };
    if !spans.iter().all(fits) || sinks.is_some_and(|s| s.len() != heads.query) {
        return Err(ModelError::Request(
            "attention was given spans or sinks of another batch or model".into(),
        ));
    }
    Ok(())
}

fn check(span: &Span, heads: Heads, keys: &[f32], values: &[f32]) -> Result<()> {
    let total = span.first + span.queries.len();
    if keys.len() != total * heads.dim || values.len() != keys.len() {
        return Err(ModelError::Request(
            "the key-value cache does not reach up to the batch's positions".into(),
        ));
    }
    Ok(())
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

/// `memory` gives a span's keys and values of a KV head.
fn all_spans<'a>(
    heads: Heads,
    q: &[f32],
    sinks: Option<&[f32]>,
    spans: &[Span],
    memory: &(dyn Fn(usize, usize) -> Result<Memory<'a>> + Sync),
) -> Result<Vec<f32>> {
    let tasks = tasks(spans, heads);
    let group = heads.group();
    let work = |&(s, head): &(usize, usize)| -> Result<Vec<f32>> {
        let Some(span) = spans.get(s) else { return Ok(Vec::new()) };
        let own = group * head..group * (head + 1);
        let sinks = sinks.and_then(|s| s.get(own));
        let Memory { keys, values } = memory(s, head)?;
        one_head(heads, q, (&keys, &values), span, head, sinks)
    };
    let parts: Vec<Vec<f32>> = tasks.par_iter().map(work).collect::<Result<_>>()?;
    let mut out = vec![0.0; q.len()];
    for ((s, head), part) in tasks.iter().zip(parts) {
        let Some(span) = spans.get(*s) else { continue };
        // `part` holds [queries, group × dim].
        add(&mut out, &part, span.queries.clone(), (*head, heads.kv, group * heads.dim));
    }
    Ok(out)
}

/// Adds a row of `from` to each of `rows` of `into`: its part `at` of `parts`, each of `width`.
fn add(
    into: &mut [f32],
    from: &[f32],
    rows: impl Iterator<Item = u32>,
    (at, parts, width): (usize, usize, usize),
) {
    for (row, from) in rows.zip(from.chunks_exact(width)) {
        let start = (row as usize * parts + at) * width;
        let into = into.get_mut(start..start + width).unwrap_or_default();
        into.iter_mut().zip(from).for_each(|(sum, value)| *sum += value);
    }
}

/// Every sequence with every KV head.
fn tasks(spans: &[Span], heads: Heads) -> Vec<(usize, usize)> {
    (0..spans.len()).flat_map(|s| (0..heads.kv).map(move |h| (s, h))).collect()
}

/// Keys and values at `rows`, those of `first` and then those of `second`.
fn gathered<'a>(
    rows: &[u32],
    first: [&[f32]; 2],
    second: &[&[f32]],
    (head, heads): (usize, Heads),
) -> Memory<'a> {
    let parts = (head, heads.kv, heads.dim);
    let of = |first: &[f32], second: Option<&&[f32]>| -> Cow<'a, [f32]> {
        let before = (first.len() / (heads.kv * heads.dim)) as u32;
        let mut values = Vec::with_capacity(rows.len() * heads.dim);
        for &row in rows {
            values.extend_from_slice(match (row.checked_sub(before), second) {
                (Some(row), Some(second)) => at(second, row, parts),
                _ => at(first, row, parts),
            });
        }
        values.into()
    };
    let [keys, values] = first;
    Memory { keys: of(keys, second.first()), values: of(values, second.get(1)) }
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
    check(span, heads, keys, values)?;
    let dim = heads.dim;
    let mut out = Vec::with_capacity(span.queries.len() * heads.group() * dim);
    for rows in Block::all(span) {
        let block = Block::new(heads, (q, keys), (span, rows), head, sinks)?;
        let mut mixed = vec![0.0; block.count * dim];
        let weights = Strided::plain(&block.weights, block.width());
        product(
            &mut mixed,
            (block.count, dim, block.width()),
            weights,
            block.seen(values, dim),
            false,
        )?;
        out.extend(mixed);
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
