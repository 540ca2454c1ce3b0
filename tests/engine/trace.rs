//! What a trace tells, against PyTorch.

use crate::support::{nano, prompts, root};
use serde::Deserialize;
use std::collections::BTreeMap;
use uspx_domain::{Deposit, Estimator, ModelShape, Statistic, Unit, UnitKind};
use uspx_model::{LoadedModel, NoProgress};
use uspx_probe::ProbeRequest;
use uspx_probe::trace::{More, Traced, trace};

/// `tests/data/trace.json`, which `tests/parity/trace_golden.py` writes.
#[derive(Deserialize)]
struct Golden {
    prompts: Vec<String>,
    /// The layer, and of the teacher the expert, whose channels are told.
    layer: u32,
    expert: u32,
    teacher: Parts,
    student: Parts,
}

#[derive(Deserialize)]
struct Parts {
    response: Tables,
    prompt: Tables,
}

/// By name, `[layer][unit]`.
type Tables = BTreeMap<String, Vec<Vec<f64>>>;

fn golden() -> Golden {
    let text = std::fs::read_to_string(root().join("tests/data/trace.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn traced(model: &LoadedModel, kinds: &[UnitKind], more: More, batch_tokens: usize) -> Traced {
    let sixteen = prompts("cli-heldout.jsonl", 16);
    assert!(sixteen.iter().zip(&golden().prompts).all(|(p, id)| p.id == *id));
    let sixteen = model.readable(&sixteen).unwrap();
    let all = ProbeRequest::all(Estimator::TRACE, model, &sixteen, batch_tokens);
    trace(&ProbeRequest { kinds, ..all }, more, &NoProgress).unwrap()
}

const MORE: More = More { prompt_tokens: true, co_activation: true };

/// A unit's sum over all prompts.
fn sums(deposit: &Deposit, statistic: Statistic) -> BTreeMap<Unit, f64> {
    let columns = deposit.columns.iter().filter(|c| c.statistic == statistic);
    let columns = columns.map(|c| (c.unit, c.values.iter().copied().map(f64::from).sum::<f64>()));
    let moments = deposit.moments.iter().filter(|m| m.statistic == statistic);
    let moments = moments.flat_map(|m| m.units().map(|(unit, sums)| (unit, f64::from(sums[0]))));
    columns.chain(moments).collect()
}

/// Of every layer, all units of a kind.
fn table(deposit: &Deposit, shape: &ModelShape, kind: UnitKind, of: Statistic) -> Vec<Vec<f64>> {
    let sums = sums(deposit, of);
    let row = |layer| {
        let unit = |index| Unit { kind, layer, index };
        (0..shape.width(kind, layer)).map(|index| sums[&unit(index)]).collect()
    };
    (0..shape.depth()).map(row).collect()
}

fn close(found: &[Vec<f64>], want: &[Vec<f64>], what: &str) {
    let largest = want.iter().flatten().fold(0.0f64, |most, value| most.max(value.abs()));
    assert_eq!(found.concat().len(), want.concat().len());
    for (found, want) in found.iter().flatten().zip(want.iter().flatten()) {
        assert!((found - want).abs() <= 1e-3 * largest, "{what}: {found} against {want}");
    }
}

/// Σ|a| and Σa² of some channels of a layer.
fn channels(
    deposit: &Deposit,
    kind: UnitKind,
    layer: u32,
    range: std::ops::Range<u32>,
) -> Vec<Vec<f64>> {
    let of = |statistic| {
        let sums = sums(deposit, statistic);
        range.clone().map(|index| sums[&Unit { kind, layer, index }]).collect()
    };
    vec![of(Statistic::CHANNEL_SIZE), of(Statistic::CHANNEL_ENERGY)]
}

#[test]
fn a_teachers_trace_agrees_with_transformers() {
    let (model, golden) = (nano("teacher"), golden());
    let kinds = [UnitKind::Expert, UnitKind::Head, UnitKind::ExpertChannel];
    let Traced { responses, prompts, co_activation } = traced(&model, &kinds, MORE, 256);
    let (shape, prompts) = (model.shape(), prompts.unwrap());
    let inner = shape.width(UnitKind::ExpertChannel, golden.layer)
        / shape.width(UnitKind::Expert, golden.layer);
    let own = golden.expert * inner..(golden.expert + 1) * inner;
    for (deposit, want) in
        [(&responses, &golden.teacher.response), (&prompts, &golden.teacher.prompt)]
    {
        for (kind, statistic) in [
            (UnitKind::Expert, Statistic::COUNT),
            (UnitKind::Expert, Statistic::MARGIN),
            (UnitKind::Expert, Statistic::SALIENCY),
            (UnitKind::Expert, Statistic::EASY_EP),
            (UnitKind::Head, Statistic::HEAD_ENERGY),
        ] {
            let name = statistic.name();
            close(&table(deposit, &shape, kind, statistic), &want[name], name);
        }
        let found = channels(deposit, UnitKind::ExpertChannel, golden.layer, own.clone());
        close(&found, &want["channels"], "channels");
    }
    let together = co_activation.unwrap().into_iter().map(|table| table.concat());
    let together: Vec<Vec<f64>> =
        together.map(|row| row.into_iter().map(|n| n as f64).collect()).collect();
    assert_eq!(together, golden.teacher.response["co_activation"]);
}

#[test]
fn a_students_trace_agrees_with_transformers() {
    let (model, golden) = (nano("student"), golden());
    let kinds = [UnitKind::Head, UnitKind::Channel];
    let Traced { responses, prompts, .. } = traced(&model, &kinds, MORE, 256);
    let shape = model.shape();
    for (deposit, want) in
        [(&responses, &golden.student.response), (&prompts.unwrap(), &golden.student.prompt)]
    {
        let energy = table(deposit, &shape, UnitKind::Head, Statistic::HEAD_ENERGY);
        close(&energy, &want["head_energy"], "head energy");
        let width = shape.width(UnitKind::Channel, golden.layer);
        let found = channels(deposit, UnitKind::Channel, golden.layer, 0..width);
        close(&found, &want["channels"], "channels");
    }
}

/// Moments of channels are those of whole prompts, however these are batched.
#[test]
fn batching_does_not_change_a_trace() {
    let model = nano("student");
    let kinds = [UnitKind::Head, UnitKind::Channel];
    let [one, all] =
        [1, 1 << 20].map(|tokens| traced(&model, &kinds, More::default(), tokens).responses);
    assert_eq!(one.moments.len(), 2 * model.shape().layers.len());
    for (a, b) in one.moments.iter().zip(&all.moments) {
        for (a, b) in [(&a.x, &b.x), (&a.xx, &b.xx), (&a.xt, &b.xt)] {
            assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-3 * a.abs().max(1e-3)));
        }
    }
    for (a, b) in one.columns.iter().zip(&all.columns) {
        assert!(a.values.iter().zip(&b.values).all(|(a, b)| (a - b).abs() <= 1e-3 * a.abs()));
    }
}
