//! Circuits against brute force: what is cut is replaced by hand, value by value, in whole passes on
//! every token of every prompt, by means that are taken apart.

use crate::support::{nano, prompts, whole};
use candle_core::Tensor;
use std::collections::BTreeMap;
use uspx_domain::{Baseline, Estimator, KeepLists, Mask, UnitKind};
use uspx_model::batch::Sequence;
use uspx_model::taps::Site;
use uspx_model::{LoadedModel, NoProgress, Readable, Result};
use uspx_probe::circuits::{circuits, emptied};
use uspx_probe::{ProbeRequest, mean_outputs, measure};

/// Of a loss, what roundings in f32 may come to.
const F32: f64 = 1e-5;

/// What a site is of: a kind of unit, its layer, and of an expert's channels the expert. Experts
/// stand for all of a layer's together.
type Place = (UnitKind, usize, u32);

fn place(site: Site<'_>) -> Option<Place> {
    match site {
        Site::Z { layer } => Some((UnitKind::Head, layer, 0)),
        Site::Channels { layer } => Some((UnitKind::Channel, layer, 0)),
        Site::ExpertChannels(at) => Some((UnitKind::ExpertChannel, at.layer, at.expert)),
        Site::MlpOut { layer } => Some((UnitKind::Expert, layer, 0)),
        _ => None,
    }
}

fn values(value: &Tensor) -> Vec<f32> {
    value.flatten_all().unwrap().to_vec1().unwrap()
}

/// The mean row at every place.
fn means(model: &LoadedModel, sequences: &[Sequence]) -> BTreeMap<Place, Vec<f64>> {
    let mut found: BTreeMap<Place, Vec<f64>> = BTreeMap::new();
    whole(model, sequences, &mut |site: Site<'_>, value: &Tensor| -> Result<Option<Tensor>> {
        if let Some(place) = place(site) {
            let (rows, all) = (value.dim(0).unwrap(), values(value));
            let width = all.len() / rows;
            let mut mean = vec![0.0; width];
            all.iter().enumerate().for_each(|(at, v)| mean[at % width] += f64::from(*v));
            found.insert(place, mean.into_iter().map(|sum| sum / rows as f64).collect());
        }
        Ok(None)
    });
    found
}

/// Losses where what `keeps` does not name is replaced by `means`.
fn by_hand(
    model: &LoadedModel,
    sequences: &[Sequence],
    means: &BTreeMap<Place, Vec<f64>>,
    keeps: &dyn Fn(UnitKind, u32, u32) -> bool,
) -> Vec<f64> {
    let shape = model.shape();
    whole(model, sequences, &mut |site: Site<'_>, value: &Tensor| -> Result<Option<Tensor>> {
        let Some(at) = place(site) else { return Ok(None) };
        let (kind, layer, expert) = at;
        // An expert that no token went to has a mean of nothing.
        let zeros = vec![0.0; values(value).len() / value.dim(0)?];
        let mean = means.get(&at).unwrap_or(&zeros);
        let units = match kind {
            UnitKind::Head => shape.width(kind, layer as u32) as usize,
            UnitKind::Expert => 1,
            _ => mean.len(),
        };
        let unit = |at: usize| (at % mean.len()) / (mean.len() / units);
        let new = |(at, old): (usize, f32)| match keeps(
            kind,
            layer as u32,
            expert * units as u32 + unit(at) as u32,
        ) {
            true => old,
            false => mean[at % mean.len()] as f32,
        };
        let all: Vec<f32> = values(value).into_iter().enumerate().map(new).collect();
        Ok(Some(Tensor::from_vec(all, value.shape(), value.device())?))
    })
}

fn mask(
    model: &LoadedModel,
    kinds: &[UnitKind],
    keeps: &dyn Fn(UnitKind, u32, u32) -> bool,
) -> Mask {
    let shape = model.shape();
    let mut keep = KeepLists::default();
    for kind in kinds.iter().copied() {
        let of = |layer| (0..shape.width(kind, layer)).filter(|i| keeps(kind, layer, *i)).collect();
        keep.0.insert(kind, (0..shape.depth()).map(of).collect());
    }
    Mask { version: 1, model: model.fingerprint, keep }
}

/// Prompts that means are taken over, and others.
fn two_sets(model: &LoadedModel) -> (Readable, Readable) {
    let all = prompts("cli-heldout.jsonl", 11);
    (model.readable(&all[..6]).unwrap(), model.readable(&all[6..]).unwrap())
}

fn near(what: &str, found: &[f32], wanted: &[f64]) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (found, wanted) in found.iter().zip(wanted) {
        let off = (f64::from(*found) - wanted).abs() / wanted.max(1.0);
        assert!(off < F32, "{what}: {found} against {wanted}");
    }
}

/// Which units a mask keeps.
type Keeps = fn(UnitKind, u32, u32) -> bool;

#[test]
fn what_a_mask_cuts_is_replaced_by_its_mean() {
    let cases: [(&str, &[UnitKind]); 2] = [
        ("student", &[UnitKind::Head, UnitKind::Channel]),
        ("teacher", &[UnitKind::Head, UnitKind::ExpertChannel]),
    ];
    let keeps: [Keeps; 4] = [
        |kind, layer, index| kind != UnitKind::Head || (index + layer) % 3 > 0,
        |kind, layer, index| kind == UnitKind::Head || (index + layer) % 4 > 0,
        |_, layer, index| layer == 0 || index % 2 > 0,
        |_, _, _| false,
    ];
    for (which, kinds) in cases {
        let model = nano(which);
        let (fit, judged) = two_sets(&model);
        let own = means(&model, &fit.sequences);
        let masks: Vec<Mask> = keeps.iter().map(|keeps| mask(&model, kinds, keeps)).collect();
        for tokens in [4096, 170] {
            let found = mean_outputs(&model, &fit, kinds, tokens, &NoProgress).unwrap();
            let rows = circuits(&model, &judged, (&masks, &found), tokens, &NoProgress).unwrap();
            assert_eq!(rows.len(), 1 + masks.len());
            let all: [Keeps; 1] = [|_, _, _| true];
            for (row, keeps) in rows.iter().zip(all.iter().chain(&keeps)) {
                // What is not among the kinds stays.
                let keeps =
                    |kind, layer, index| !kinds.contains(&kind) || keeps(kind, layer, index);
                let wanted = by_hand(&model, &judged.sequences, &own, &keeps);
                near(which, &row.nats, &wanted);
            }
            let empty = emptied(&model, &judged, (kinds, &found), tokens, &NoProgress).unwrap();
            let kept_nothing = rows.last().unwrap().nats.iter().copied().map(f64::from);
            near("nothing kept", &empty.nats, &kept_nothing.collect::<Vec<_>>());
        }
    }
}

#[test]
fn without_experts_their_layer_gives_its_mean() {
    let model = nano("teacher");
    let (fit, judged) = two_sets(&model);
    let own = means(&model, &fit.sequences);
    for kinds in [&[UnitKind::Expert][..], &[UnitKind::Expert, UnitKind::Head]] {
        let found = mean_outputs(&model, &fit, kinds, 300, &NoProgress).unwrap();
        let row = emptied(&model, &judged, (kinds, &found), 4096, &NoProgress).unwrap();
        let keeps = |kind, _, _| !kinds.contains(&kind);
        near("no experts", &row.nats, &by_hand(&model, &judged.sequences, &own, &keeps));
    }
}

/// Of channels a deposit holds sums over the prompts.
#[test]
fn exact_effects_of_channels_may_be_to_their_means() {
    let model = nano("student");
    let (_, judged) = two_sets(&model);
    let own = means(&model, &judged.sequences);
    let request = ProbeRequest {
        kinds: &[UnitKind::Channel],
        layers: 2..3,
        baseline: Baseline::Mean,
        ..ProbeRequest::all(Estimator::EXACT, &model, &judged, 4096)
    };
    let found = measure(Estimator::EXACT, &request, &NoProgress).unwrap();
    let clean: f64 = by_hand(&model, &judged.sequences, &own, &|_, _, _| true).iter().sum();
    for index in [0u32, 77, 200, 383] {
        let keeps = |kind, layer, unit| kind != UnitKind::Channel || layer != 2 || unit != index;
        let cut: f64 = by_hand(&model, &judged.sequences, &own, &keeps).iter().sum();
        let effect = f64::from(found.moments[0].x[index as usize]);
        assert!((effect - (cut - clean)).abs() < 2e-4, "{index}: {effect} {}", cut - clean);
    }
}
