//! The backward pass of attention on the CPU. Probabilities are computed once more, block by block,
//! rather than kept: memory grows with the tokens, not with their square (Dao et al. 2022, arXiv
//! 2205.14135, algorithm 4).

use super::block::{Block, Strided, of_rows, product};
use super::{Heads, Values, add, check, check_all, gathered, new_rows, tasks};
use crate::Result;
use crate::batch::Span;
use crate::error::ModelError;
use crate::layers::slices::with_values;
use candle_core::Tensor;
use rayon::prelude::*;

/// Gradients with respect to q, k and v, each of its shape, from the gradient of what
/// [`attend`](super::attend) gives, `[N, heads, dim]`; q and k have theirs only where one through
/// the probabilities (`weights`) is asked for. There was no cache.
pub(in crate::layers) fn attend_back(
    heads: Heads,
    [q, k, v]: [&Tensor; 3],
    sinks: Option<&[f32]>,
    spans: &[Span],
    (grad, weights): (&Tensor, bool),
) -> Result<[Option<Tensor>; 3]> {
    check_all(q.dim(0)?, heads, sinks, spans)?;
    let run = |q: &[f32], k: &[f32], v: &[f32], grad: &[f32]| {
        all_spans(heads, &Values { q, k, v }, sinks, spans, (grad, weights))
    };
    let found = with_values(q, |q| {
        with_values(k, |k| with_values(v, |v| with_values(grad, |grad| run(q, k, v, grad))))
    })?????;
    let [by_q, by_k, by_v] = found;
    let tensor = |values, like: &Tensor| Tensor::from_vec(values, like.shape(), like.device());
    let by_v = Some(tensor(by_v, v)?);
    Ok(match weights {
        true => [Some(tensor(by_q, q)?), Some(tensor(by_k, k)?), by_v],
        false => [None, None, by_v],
    })
}

fn all_spans(
    heads: Heads,
    values: &Values<'_>,
    sinks: Option<&[f32]>,
    spans: &[Span],
    grad: (&[f32], bool),
) -> Result<[Vec<f32>; 3]> {
    let tasks = tasks(spans, heads);
    let group = heads.group();
    let work = |&(s, head): &(usize, usize)| -> Result<Part> {
        let missing = || ModelError::Request("attention of a sequence that is not there".into());
        let span = spans.get(s).ok_or_else(missing)?;
        let sinks = sinks.and_then(|s| s.get(group * head..group * (head + 1)));
        one_head(heads, values, span, head, (sinks, grad))
    };
    let parts: Vec<Part> = tasks.par_iter().map(work).collect::<Result<_>>()?;
    let mut sums = [values.q, values.k, values.v].map(|like| vec![0.0; like.len()]);
    let [q, k, v] = &mut sums;
    for ((s, head), part) in tasks.iter().zip(parts) {
        let Some(span) = spans.get(*s) else { continue };
        let width = group * heads.dim;
        add(q, &part.q, span.queries.clone(), (*head, heads.kv, width));
        add(k, &part.k, new_rows(span), (*head, heads.kv, heads.dim));
        add(v, &part.v, new_rows(span), (*head, heads.kv, heads.dim));
    }
    Ok(sums)
}

/// What one sequence and one KV head add to the gradients.
struct Part {
    /// `[queries, group × dim]`.
    q: Vec<f32>,
    /// By position, `[total, dim]`.
    k: Vec<f32>,
    v: Vec<f32>,
}

fn one_head(
    heads: Heads,
    values: &Values<'_>,
    span: &Span,
    head: usize,
    (sinks, (grad, weighed)): (Option<&[f32]>, (&[f32], bool)),
) -> Result<Part> {
    let rows: Vec<u32> = new_rows(span).collect();
    let memory = gathered(&rows, [values.k, values.v], &[], (head, heads));
    check(span, heads, &memory.keys, &memory.values)?;
    let (dim, scale) = (heads.dim, heads.scale());
    let size = memory.keys.len();
    let mut part = Part { q: Vec::new(), k: vec![0.0; size], v: vec![0.0; size] };
    for rows in Block::all(span) {
        let block = Block::new(heads, (values.q, &memory.keys), (span, rows), head, sinks)?;
        let (count, width) = (block.count, block.width());
        let grad = of_rows(grad, block.rows.clone(), heads, head);
        let grad = Strided::plain(&grad, dim);
        let weights = Strided::plain(&block.weights, width);
        let by_values = block.seen_mut(&mut part.v, dim);
        product(by_values, (width, dim, count), weights.turned(), grad, true)?;
        if !weighed {
            continue;
        }
        let mut by_scores = vec![0.0; count * width];
        let seen = block.seen(&memory.values, dim).turned();
        product(&mut by_scores, (count, width, dim), grad, seen, false)?;
        through_softmax(&mut by_scores, &block.weights, width);
        let by_scores = Strided::plain(&by_scores, width);
        let mut by_queries = vec![0.0; count * dim];
        let keys = block.seen(&memory.keys, dim);
        product(&mut by_queries, (count, dim, width), by_scores, keys, false)?;
        part.q.extend(by_queries.iter().map(|x| x * scale));
        let queries = Strided::plain(&block.queries, dim);
        let by_keys = block.seen_mut(&mut part.k, dim);
        product(by_keys, (width, dim, count), by_scores.turned(), queries, true)?;
    }
    Ok(part)
}

/// From gradients of probabilities to those of the scores: p · (g − Σ p·g), row by row. A sink's
/// probability goes nowhere, so it adds nothing to the sum.
fn through_softmax(grad: &mut [f32], weights: &[f32], width: usize) {
    for (grad, weights) in grad.chunks_exact_mut(width).zip(weights.chunks_exact(width)) {
        let along: f32 = grad.iter().zip(weights).map(|(g, p)| g * p).sum();
        grad.iter_mut().zip(weights).for_each(|(g, p)| *g = p * (*g - along));
    }
}
