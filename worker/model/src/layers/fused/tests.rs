//! Attention and its gradients against the formula, and spans that do not fit.

use super::*;
use candle_core::Device;

/// Attention by its formula, in f64, without blocks.
fn by_formula(
    heads: Heads,
    [q, k, v]: &[Vec<f64>; 3],
    sinks: Option<&[f32]>,
    spans: &[Span],
) -> Vec<f64> {
    let (group, dim) = (heads.group(), heads.dim);
    let mut out = vec![0.0; q.len()];
    for span in spans {
        let rows: Vec<usize> = new_rows(span).map(|row| row as usize).collect();
        for position in span.first..rows.len() {
            for head in 0..heads.query {
                let row = |of: &[f64], at: usize, head: usize, all: usize| -> Vec<f64> {
                    of[(rows[at] * all + head) * dim..][..dim].to_vec()
                };
                let asks = row(q, position, head, heads.query);
                let start = heads.window.map_or(0, |w| (position + 1).saturating_sub(w));
                let scores: Vec<f64> = (start..=position)
                    .map(|at| {
                        let key = row(k, at, head / group, heads.kv);
                        let dot: f64 = asks.iter().zip(&key).map(|(a, b)| a * b).sum();
                        (dot / (dim as f64).sqrt()).exp()
                    })
                    .collect();
                let sink = sinks.map_or(0.0, |s| f64::from(s[head]).exp());
                let sum = scores.iter().sum::<f64>() + sink;
                for (at, score) in (start..).zip(scores) {
                    let value = row(v, at, head / group, heads.kv);
                    let into = (rows[position] * heads.query + head) * dim;
                    for (d, value) in value.iter().enumerate() {
                        out[into + d] += score / sum * value;
                    }
                }
            }
        }
    }
    out
}

fn numbers(count: usize, seed: u64) -> Vec<f64> {
    (0..count as u64).map(|i| ((i * 7919 + seed * 104_729) % 211) as f64 / 70.0 - 1.5).collect()
}

/// Two sequences, the second of which begins with the first one's first rows, and one of several
/// blocks.
fn spans() -> (usize, Vec<Span>) {
    let whole = |queries: std::ops::Range<u32>| Span { prefix: Vec::new(), queries, first: 0 };
    let shared = Span { prefix: vec![0, 1, 2], queries: 6..10, first: 3 };
    (160, vec![whole(0..6), shared, whole(10..160)])
}

#[test]
fn values_and_gradients_agree_with_the_formula_and_its_finite_differences() {
    let sinks = [0.5f32, -1.0, 0.25, 1.5];
    for (window, sinks) in
        [(None, None), (Some(5), None), (None, Some(&sinks[..])), (Some(3), Some(&sinks[..]))]
    {
        let heads = Heads { query: 4, kv: 2, dim: 3, window };
        let (n, spans) = spans();
        let inputs = [numbers(n * 12, 1), numbers(n * 6, 2), numbers(n * 6, 3)];
        let tensor = |values: &[f64], heads: usize| {
            let values: Vec<f32> = values.iter().map(|x| *x as f32).collect();
            Tensor::from_vec(values, (n, heads, 3), &Device::Cpu).unwrap()
        };
        let [q, k, v] = [(0, 4), (1, 2), (2, 2)].map(|(i, h)| tensor(&inputs[i], h));
        let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();

        let out = attend(heads, [&q, &k, &v], sinks, &spans, None).unwrap();
        for (got, want) in flat(&out).iter().zip(by_formula(heads, &inputs, sinks, &spans)) {
            assert!((f64::from(*got) - want).abs() < 1e-5, "{got} against {want}");
        }

        let weights = numbers(n * 12, 4);
        let grad = tensor(&weights, 4);
        let back =
            |weighed| attend_back(heads, [&q, &k, &v], sinks, &spans, (&grad, weighed)).unwrap();
        let found = back(true).map(Option::unwrap);
        let [no_q, no_k, of_values] = back(false);
        assert!(no_q.is_none() && no_k.is_none(), "the probabilities were given");
        assert_eq!(flat(&of_values.unwrap()), flat(&found[2]));
        let loss = |inputs: &[Vec<f64>; 3]| -> f64 {
            let out = by_formula(heads, inputs, sinks, &spans);
            out.iter().zip(&weights).map(|(a, b)| a * b).sum()
        };
        for (which, found) in found.iter().enumerate() {
            let found = flat(found);
            assert_eq!(found.len(), inputs[which].len());
            for at in (0..found.len()).step_by(found.len() / 37) {
                let moved = |by: f64| {
                    let mut inputs = inputs.clone();
                    inputs[which][at] += by;
                    loss(&inputs)
                };
                let (got, want) = (f64::from(found[at]), (moved(1e-5) - moved(-1e-5)) / 2e-5);
                let near = 2e-5 * want.abs().max(1.0);
                assert!((got - want).abs() < near, "input {which}, {at}: {got} against {want}");
            }
        }
    }
}

#[test]
fn spans_and_sinks_of_another_batch_are_refused() {
    let heads = Heads { query: 2, kv: 1, dim: 2, window: None };
    let zeros =
        |n, heads| Tensor::zeros((n, heads, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
    let (q, k) = (zeros(3, 2), zeros(3, 1));
    let span = |end| [Span { prefix: Vec::new(), queries: 0..end, first: 0 }];
    for (spans, sinks) in [(span(4), None), (span(3), Some(&[0.0f32][..]))] {
        assert!(attend(heads, [&q, &k, &k], sinks, &spans, None).is_err());
        assert!(attend_back(heads, [&q, &k, &k], sinks, &spans, (&q, true)).is_err());
    }
}
