//! Exact patching against brute force: each patch alone, by a forward pass of the whole model on
//! every token of every prompt.

use crate::support::{in_f64, nano, opened, prompts, whole};
use candle_core::Tensor;
use std::collections::BTreeMap;
use uspx_domain::{Baseline, Cut, Estimator, KeepLists, Mask, Unit, UnitKind};
use uspx_model::batch::Sequence;
use uspx_model::taps::{NoTaps, Site, Taps};
use uspx_model::{Holding, LoadedModel, NoProgress, Result};
use uspx_probe::ablate::ablate_sequences;
use uspx_probe::resample::sources;
use uspx_probe::{ExpertMode, ProbeRequest, measure};

/// Of a loss, what roundings in f32 may come to; in f64 the same is held to much less.
pub const F32: f64 = 6e-6;

fn units(model: &LoadedModel, kind: UnitKind, some: impl Fn(&Unit) -> bool) -> Vec<Unit> {
    model.shape().units(kind).filter(some).collect()
}

/// Holds losses against those of whole passes: `bound` is relative to the loss.
fn same(what: &str, found: &[Vec<f64>], wanted: &[Vec<f64>], bound: f64) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    let mut worst = 0f64;
    for (cut, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        for (prompt, (found, wanted)) in found.iter().zip(wanted).enumerate() {
            let off = (found - wanted).abs() / wanted.max(1.0);
            assert!(off <= bound, "{what}: cut {cut}, prompt {prompt}: {found} against {wanted}");
            worst = worst.max(off);
        }
    }
    let (clean, rest) = wanted.split_first().unwrap();
    let moves = |row: &Vec<f64>| row.iter().zip(clean).any(|(a, b)| (a - b).abs() > 1e-3 * b);
    assert!(rest.iter().filter(|row| moves(row)).count() * 2 > rest.len(), "{what}: little moves");
    println!("{what}: at worst {worst:.1e} of a loss apart");
}

/// All prompts share their beginning, some all but their end, and one is there twice with another
/// answer.
fn sequences(model: &LoadedModel) -> Vec<Sequence> {
    let mut some = prompts("cli-heldout.jsonl", 7);
    some.extend(prompts("math-heldout.jsonl", 1));
    let mut again = some[0].clone();
    again.id = "again".into();
    again.reference = Some("ls -l".into());
    some.push(again);
    model.readable(&some).unwrap().sequences
}

fn cuts_of(units: Vec<Unit>) -> Vec<Cut> {
    units.into_iter().map(Cut::Unit).collect()
}

fn by_brute_force(model: &LoadedModel, sequences: &[Sequence], cuts: &[Cut]) -> Vec<Vec<f64>> {
    let cut = |cut: &Cut| whole(model, sequences, &mut model.cut(cut).unwrap());
    std::iter::once(whole(model, sequences, &mut NoTaps)).chain(cuts.iter().map(cut)).collect()
}

#[test]
fn every_unit_alone_costs_what_a_whole_pass_without_it_says() {
    let mut teacher = nano("teacher");
    let some = sequences(&teacher);
    let mut cuts: Vec<Cut> = [UnitKind::Expert, UnitKind::Head]
        .into_iter()
        .flat_map(|kind| cuts_of(units(&teacher, kind, |_| true)))
        .collect();
    cuts.extend(cuts_of(units(&teacher, UnitKind::ExpertChannel, |u| u.index % 511 == u.layer)));
    let wanted = by_brute_force(&teacher, &some, &cuts);
    let found =
        |model: &LoadedModel, tokens| ablate_sequences(model, &some, &cuts, tokens, &NoProgress);
    for tokens in [8192, 200, 1] {
        let what = format!("teacher, {tokens} tokens");
        same(&what, &found(&teacher, tokens).unwrap(), &wanted, F32);
    }
    // Hardly any memory between layers: many waves, and residual streams in files.
    teacher.transformer.set_boundaries(3000);
    same("teacher, in files", &found(&teacher, 60).unwrap(), &wanted, F32);
    let mut streamed = opened("teacher", Holding::Streamed);
    streamed.transformer.set_boundaries(3000);
    same("teacher, streamed", &found(&streamed, 400).unwrap(), &wanted, F32);

    let student = nano("student");
    let some = sequences(&student);
    let mut cuts = cuts_of(units(&student, UnitKind::Head, |_| true));
    cuts.extend(cuts_of(units(&student, UnitKind::Channel, |u| u.index % 48 == u.layer)));
    let wanted = by_brute_force(&student, &some, &cuts);
    let found = ablate_sequences(&student, &some, &cuts, 2048, &NoProgress).unwrap();
    assert_eq!(found.len(), wanted.len());
    for (found, wanted) in found.iter().flatten().zip(wanted.iter().flatten()) {
        assert!((found - wanted).abs() <= F32 * wanted.max(1.0), "{found} against {wanted}");
    }
}

/// Where attention is laid out in rectangles, as on GPUs without a kernel for it.
#[test]
fn padded_attention_looks_up_the_same_keys() {
    let model = in_f64("teacher");
    let some = sequences(&model);
    let mut cuts = cuts_of(units(&model, UnitKind::Expert, |u| u.index % 5 == 0));
    cuts.extend(cuts_of(units(&model, UnitKind::Head, |u| u.index == 1)));
    let found = ablate_sequences(&model, &some, &cuts, 2048, &NoProgress).unwrap();
    same("teacher in f64", &found, &by_brute_force(&model, &some, &cuts), 2e-7);
}

/// A mask that keeps what `keeps` says of the teacher's units.
fn mask(model: &LoadedModel, keeps: impl Fn(UnitKind, u32, u32) -> bool) -> Cut {
    let shape = model.shape();
    let lists = |kind| -> Vec<Vec<u32>> {
        let of = |layer| (0..shape.width(kind, layer)).filter(|i| keeps(kind, layer, *i)).collect();
        (0..shape.depth()).map(of).collect()
    };
    let mut keep = KeepLists::default();
    for kind in [UnitKind::Expert, UnitKind::Head, UnitKind::ExpertChannel] {
        keep.0.insert(kind, lists(kind));
    }
    Cut::Mask(Mask { version: 1, model: model.fingerprint, keep })
}

#[test]
fn masks_cut_in_all_their_layers() {
    let model = nano("teacher");
    let some = sequences(&model);
    let cuts = [
        mask(&model, |kind, layer, index| kind != UnitKind::Expert || (layer + index) % 3 > 0),
        mask(&model, |kind, layer, index| layer == 0 || kind != UnitKind::Head || index != layer),
        mask(&model, |kind, layer, index| layer < 2 || kind != UnitKind::Expert || index % 4 > 0),
        mask(&model, |kind, layer, index| {
            layer != 3 || index > 1 || kind == UnitKind::ExpertChannel
        }),
        mask(&model, |kind, layer, index| {
            layer == 0 || kind != UnitKind::ExpertChannel || (index + layer) % 3 > 0
        }),
        Cut::Unit(Unit { kind: UnitKind::Head, layer: 2, index: 3 }),
        mask(&model, |_, _, _| true),
    ];
    for tokens in [4096, 150] {
        let found = ablate_sequences(&model, &some, &cuts, tokens, &NoProgress).unwrap();
        let what = format!("masks, {tokens} tokens");
        same(&what, &found, &by_brute_force(&model, &some, &cuts), F32);
        assert_eq!(found.last(), found.first(), "nothing is cut");
    }
}

/// Effects on each prompt of units under a request.
fn effects(request: &ProbeRequest<'_>) -> BTreeMap<Unit, Vec<f64>> {
    let deposit = measure(Estimator::EXACT, request, &NoProgress).unwrap();
    let of = |values: Vec<f32>| values.into_iter().map(f64::from).collect();
    deposit.columns.into_iter().map(|column| (column.unit, of(column.values))).collect()
}

/// Holds effects against whole passes under the taps of each unit.
fn prove<T: Taps>(
    what: &str,
    (model, sequences): (&LoadedModel, &[Sequence]),
    found: &BTreeMap<Unit, Vec<f64>>,
    taps: impl Fn(Unit) -> T,
) {
    let clean = whole(model, sequences, &mut NoTaps);
    let patched = |effects: &Vec<f64>| clean.iter().zip(effects).map(|(a, b)| a + b).collect();
    let rows = || std::iter::once(clean.clone());
    let found_rows: Vec<Vec<f64>> = rows().chain(found.values().map(patched)).collect();
    let wanted = found.keys().map(|unit| whole(model, sequences, &mut taps(*unit)));
    same(what, &found_rows, &rows().chain(wanted).collect::<Vec<_>>(), F32);
}

/// `z` with one head as in `other`.
fn replaced(z: &Tensor, other: &Tensor, head: u32) -> Result<Option<Tensor>> {
    let (_, heads, _) = z.dims3()?;
    let other = other.broadcast_as(z.shape())?;
    let of = |h: usize| if h as u32 == head { other.narrow(1, h, 1) } else { z.narrow(1, h, 1) };
    let parts: Vec<Tensor> = (0..heads).map(of).collect::<candle_core::Result<_>>()?;
    Ok(Some(Tensor::cat(&parts, 1)?))
}

/// The outputs of every layer's heads on a batch of these sequences.
fn heads_of(model: &LoadedModel, sequences: &[Sequence]) -> Vec<Tensor> {
    let mut found = Vec::new();
    whole(model, sequences, &mut |site: Site<'_>, value: &Tensor| -> Result<Option<Tensor>> {
        if let Site::Z { .. } = site {
            found.push(value.clone());
        }
        Ok(None)
    });
    found
}

#[test]
fn heads_take_their_mean_and_what_they_are_on_another_prompt() {
    let model = nano("teacher");
    let mut some = model.readable(&prompts("cli-heldout.jsonl", 18)).unwrap();
    let paired: Vec<bool> = sources(&some.sequences, 5).iter().map(Option::is_some).collect();
    let (mut first, mut second) = (paired.iter(), paired.iter());
    some.sequences.retain(|_| *first.next().unwrap());
    some.prompts.retain(|_| *second.next().unwrap());
    assert!((6..18).contains(&some.sequences.len()), "{}", some.sequences.len());

    let heads = heads_of(&model, &some.sequences);
    let every = ProbeRequest::all(Estimator::EXACT, &model, &some, 4096);
    let every = ProbeRequest { kinds: &[UnitKind::Head], ..every };
    let subject = (&model, some.sequences.as_slice());

    let request = ProbeRequest { baseline: Baseline::Mean, ..every.clone() };
    let means: Vec<Tensor> = heads.iter().map(|z| z.mean_keepdim(0).unwrap()).collect();
    prove("mean", subject, &effects(&request), |unit| {
        let means = &means;
        move |site: Site<'_>, z: &Tensor| match site {
            Site::Z { layer } if layer == unit.layer as usize => {
                replaced(z, &means[layer], unit.index)
            }
            _ => Ok(None),
        }
    });

    let givers = sources(&some.sequences, 5);
    let starts: Vec<usize> = some
        .sequences
        .iter()
        .scan(0, |start, s| Some(std::mem::replace(start, *start + s.ids.len())))
        .collect();
    let rows: Vec<u32> = givers
        .iter()
        .zip(&some.sequences)
        .flat_map(|(giver, s)| {
            let start = starts[giver.unwrap()];
            (start..start + s.ids.len()).map(|row| row as u32)
        })
        .collect();
    let rows = Tensor::new(rows, model.transformer.device()).unwrap();
    // In one batch, and in batches that their givers have to be brought into.
    for batch_tokens in [4096, 160] {
        let request =
            ProbeRequest { baseline: Baseline::Resample, seed: 5, batch_tokens, ..every.clone() };
        prove("resample", subject, &effects(&request), |unit| {
            let rows = &rows;
            move |site: Site<'_>, z: &Tensor| match site {
                Site::Z { layer } if layer == unit.layer as usize => {
                    replaced(z, &z.index_select(rows, 0)?, unit.index)
                }
                _ => Ok(None),
            }
        });
    }
}

#[test]
fn an_expert_that_gives_nothing_leaves_the_others_gates() {
    let model = nano("teacher");
    let some = model.readable(&prompts("cli-heldout.jsonl", 6)).unwrap();
    let every = ProbeRequest::all(Estimator::EXACT, &model, &some, 4096);
    let request = ProbeRequest {
        kinds: &[UnitKind::Expert],
        layers: 1..4,
        expert_mode: ExpertMode::Zero,
        ..every
    };
    let found = effects(&request);
    prove("zero", (&model, &some.sequences), &found, |unit| {
        move |site: Site<'_>, value: &Tensor| match site {
            Site::ExpertOut(at) if (at.layer, at.expert) == (unit.layer as usize, unit.index) => {
                Ok(Some(value.zeros_like()?))
            }
            _ => Ok(None),
        }
    });
    let banned = effects(&ProbeRequest { expert_mode: ExpertMode::Ban, ..request });
    assert!(found.iter().any(|(unit, effects)| banned[unit] != *effects));
}
