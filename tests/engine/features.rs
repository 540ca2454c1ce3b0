//! Features of sparse autoencoders, taken out of the model: against streams edited by hand, features
//! found by plain loops in f64, and derivatives of the loss.

use crate::exact::F32;
use crate::gradients::{loss_from, slope_on_path};
use crate::slopes::{Slope, slope};
use crate::support::{in_f64, nano, opened, prompts, whole};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeSet;
use uspx_domain::{Baseline, Cut, Deposit, Estimator, KeepLists, Mask, Statistic, Unit, UnitKind};
use uspx_model::batch::{Batch, Sequence};
use uspx_model::taps::{NoTaps, Site, Taps};
use uspx_model::{Holding, LoadedModel, NoProgress, Readable, Result};
use uspx_probe::ablate::ablate_sequences;
use uspx_probe::{ProbeRequest, measure};
use uspx_sae::select::Select;
use uspx_sae::{Normalisation, Parameters, Place, Sae, attach};

const WIDTH: usize = 128;
const FEATURES: usize = 128;
/// The layer whose stream is read, and another one.
const LAYER: usize = 1;
const LATER: usize = 2;

/// A number in -1 .. 1, the same for the same place.
fn number(place: u64) -> f32 {
    let mut x = place.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) as f64 / u64::MAX as f64 * 2.0 - 1.0) as f32
}

/// An SAE whose features are directions off every symmetry.
fn sae(seed: u64, select: Select<f32>, normalisation: Normalisation) -> Sae<f32> {
    let list = |part: u64, count: usize, scale: f32| -> Vec<f32> {
        (0..count as u64).map(|i| scale * number(seed << 40 | part << 32 | i)).collect()
    };
    let decoder = list(1, FEATURES * WIDTH, 0.15);
    let other = list(2, FEATURES * WIDTH, 0.05);
    let encoder = decoder.iter().zip(other).map(|(a, b)| a + b).collect();
    let parameters = Parameters {
        width: WIDTH,
        encoder,
        encoder_bias: list(3, FEATURES, 0.1),
        decoder,
        decoder_bias: list(4, WIDTH, 0.1),
    };
    Sae { parameters, select, normalisation }
}

fn topk() -> Sae<f32> {
    sae(1, Select::TopK(4), Normalisation::None)
}

fn with_features(mut model: LoadedModel, saes: &[(usize, Sae<f32>)]) -> LoadedModel {
    for (layer, sae) in saes {
        let place = Place { layer: *layer, site: uspx_sae::Site::ResidPost };
        attach(&mut model, sae.clone(), (place, 0)).unwrap();
    }
    model
}

/// What a row is normalised to, and what its features are then multiplied by.
fn normalised(row: &[f64], how: Normalisation) -> (Vec<f64>, f64) {
    let n = row.len() as f64;
    let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
    let mean = row.iter().sum::<f64>() / n;
    let deviation = (row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    match how {
        Normalisation::None => (row.to_vec(), 1.0),
        Normalisation::ConstantNorm => {
            (row.iter().map(|x| x / norm * n.sqrt()).collect(), norm / n.sqrt())
        }
        Normalisation::LayerNorm => {
            (row.iter().map(|x| (x - mean) / (deviation + 1e-5)).collect(), deviation)
        }
    }
}

/// What features are chosen by, and what that is multiplied by, of each row: by the definition.
fn chosen_by(sae: &Sae<f32>, rows: &[Vec<f64>]) -> Vec<(Vec<f64>, f64)> {
    let p = &sae.parameters;
    let of_row = |row: &Vec<f64>| {
        let (row, scale) = normalised(row, sae.normalisation);
        let pre = |f: usize| -> f64 {
            let weights = &p.encoder[f * WIDTH..(f + 1) * WIDTH];
            let each = row.iter().zip(&p.decoder_bias).zip(weights);
            let sum: f64 = each.map(|((x, b), w)| (x - f64::from(*b)) * f64::from(*w)).sum();
            sum + f64::from(p.encoder_bias[f])
        };
        ((0..FEATURES).map(pre).collect(), scale)
    };
    rows.iter().map(of_row).collect()
}

/// The strength of every feature of each row: `[rows][features]`.
fn strengths(sae: &Sae<f32>, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let of_row = |(pre, scale): (Vec<f64>, f64)| -> Vec<f64> {
        let mut sorted = pre.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let active = |f: usize| match &sae.select {
            Select::TopK(k) => pre[f] >= sorted[k - 1],
            Select::Above(bounds) => pre[f] > f64::from(bounds[f]),
            _ => true,
        };
        (0..FEATURES).map(|f| if active(f) { pre[f].max(0.0) * scale } else { 0.0 }).collect()
    };
    chosen_by(sae, rows).into_iter().map(of_row).collect()
}

fn rows(x: &Tensor) -> Vec<Vec<f64>> {
    x.to_dtype(DType::F64).unwrap().to_vec2().unwrap()
}

/// The stream moved along features by hand: to `base` for each feature that is there.
fn edited(sae: &Sae<f32>, x: &Tensor, base: impl Fn(usize) -> Option<f64>) -> Tensor {
    let mut all = rows(x);
    let found = strengths(sae, &all);
    for (row, strengths) in all.iter_mut().zip(found) {
        for (feature, strength) in strengths.into_iter().enumerate() {
            let Some(base) = base(feature) else { continue };
            for (x, d) in row.iter_mut().zip(&sae.parameters.decoder[feature * WIDTH..]) {
                *x += (base - strength) * f64::from(*d);
            }
        }
    }
    Tensor::from_vec(all.concat(), x.shape(), &Device::Cpu).unwrap().to_dtype(x.dtype()).unwrap()
}

/// Edits where the stream enters the layer behind the one that is read.
fn by_hand<'a>(
    sae: &'a Sae<f32>,
    layer: usize,
    base: impl Fn(usize) -> Option<f64> + 'a,
) -> impl Taps + 'a {
    move |site: Site<'_>, x: &Tensor| -> Result<Option<Tensor>> {
        match site {
            Site::ResidPre { layer: l } if l == layer + 1 => Ok(Some(edited(sae, x, &base))),
            _ => Ok(None),
        }
    }
}

/// The stream behind a layer of a batch of these sequences.
fn stream(model: &LoadedModel, sequences: &[Sequence], layer: usize) -> Tensor {
    let mut found = None;
    whole(model, sequences, &mut |site: Site<'_>, x: &Tensor| -> Result<Option<Tensor>> {
        if matches!(site, Site::ResidPre { layer: l } if l == layer + 1) {
            found = Some(x.clone());
        }
        Ok(None)
    });
    found.unwrap()
}

fn feature(layer: usize, index: u32) -> Unit {
    Unit { kind: UnitKind::Feature, layer: layer as u32, index }
}

/// The features that some row has.
fn active(sae: &Sae<f32>, x: &Tensor) -> BTreeSet<u32> {
    let of = |row: Vec<f64>| (0u32..).zip(row).filter(|(_, a)| *a > 0.0).map(|(f, _)| f);
    strengths(sae, &rows(x)).into_iter().flat_map(of).collect()
}

fn close(what: &str, found: &[f64], wanted: &[f64]) {
    assert_eq!(found.len(), wanted.len());
    for (found, wanted) in found.iter().zip(wanted) {
        let off = (found - wanted).abs() / wanted.max(1.0);
        assert!(off <= F32, "{what}: {found} against {wanted}");
    }
}

fn readable(model: &LoadedModel, count: usize) -> Readable {
    let mut some = prompts("cli-heldout.jsonl", count);
    some.extend(prompts("math-heldout.jsonl", 2));
    model.readable(&some).unwrap()
}

#[test]
fn a_feature_taken_out_is_the_stream_less_its_part_by_hand() {
    let thresholds = Select::Above((0..FEATURES).map(|f| 0.6 + 0.1 * number(f as u64)).collect());
    for sae in [
        topk(),
        sae(2, thresholds, Normalisation::LayerNorm),
        sae(3, Select::TopK(4), Normalisation::ConstantNorm),
    ] {
        let model = with_features(nano("teacher"), &[(LAYER, sae.clone())]);
        let some = readable(&model, 5).sequences;
        let features: Vec<u32> =
            active(&sae, &stream(&model, &some, LAYER)).into_iter().take(6).collect();
        assert!(features.len() == 6, "{features:?}");
        let cuts: Vec<Cut> = features.iter().map(|f| Cut::Unit(feature(LAYER, *f))).collect();
        let clean = whole(&model, &some, &mut NoTaps);
        let found = [4096, 150, 1]
            .map(|tokens| ablate_sequences(&model, &some, &cuts, tokens, &NoProgress).unwrap());
        let mut moved = 0;
        for (at, index) in features.iter().enumerate() {
            let base = |f: usize| (f as u32 == *index).then_some(0.0);
            let wanted = whole(&model, &some, &mut by_hand(&sae, LAYER, base));
            for found in &found {
                close("in branches", &found[at + 1], &wanted);
            }
            let taps = &mut model.cut(&cuts[at]).unwrap();
            close("as a cut", &whole(&model, &some, taps), &wanted);
            let moves = |(a, b): (&f64, &f64)| (a - b).abs() > 1e-4 * b;
            moved += usize::from(wanted.iter().zip(&clean).any(moves));
        }
        assert!(moved > 2, "{moved} features move the loss");
    }
}

/// Of prompts that do not have the feature the loss is the same, bit for bit; so it is of all where
/// nothing is cut.
#[test]
fn what_has_no_feature_does_not_change() {
    let sae = topk();
    let plain = nano("teacher");
    let some = readable(&plain, 5).sequences;
    let without = whole(&plain, &some, &mut NoTaps);
    let model = with_features(nano("teacher"), &[(LAYER, sae.clone())]);
    let keep = KeepLists(
        [(UnitKind::Feature, vec![vec![], (0..FEATURES as u32).collect(), vec![], vec![]])].into(),
    );
    let all = Mask { version: 1, model: model.fingerprint, keep };
    let with = whole(&model, &some, &mut model.cut_of_mask(&all).unwrap());
    assert_eq!(with, without, "bit for bit");

    let has: Vec<BTreeSet<u32>> = some
        .iter()
        .map(|s| active(&sae, &stream(&model, std::slice::from_ref(s), LAYER)))
        .collect();
    let rare = (0..FEATURES as u32)
        .filter(|f| (1..some.len()).contains(&has.iter().filter(|h| h.contains(f)).count()));
    let rare: Vec<u32> = rare.take(10).collect();
    assert!(rare.len() == 10);
    let cuts: Vec<Cut> = rare.iter().map(|f| Cut::Unit(feature(LAYER, *f))).collect();
    let found = ablate_sequences(&model, &some, &cuts, 4096, &NoProgress).unwrap();
    for (at, feature) in rare.iter().enumerate() {
        for (prompt, has) in has.iter().enumerate().filter(|(_, has)| !has.contains(feature)) {
            assert_eq!(found[at + 1][prompt], found[0][prompt], "{feature} {has:?}");
        }
    }
    // What a model has no features of cannot be cut, nor what a mask keeps of them be known.
    for model in [&plain, &model] {
        let mask = Mask { keep: keep_of(3), ..all.clone() };
        let error = model.cut_of_mask(&mask).unwrap_err().to_string();
        assert!(error.contains("--sae"), "{error}");
    }
}

/// A mask that keeps the first feature of one layer alone.
fn keep_of(layer: usize) -> KeepLists {
    let mut lists = vec![vec![]; 4];
    lists[layer] = vec![0];
    KeepLists([(UnitKind::Feature, lists)].into())
}

#[test]
fn masks_cut_features_of_several_layers_with_what_else_they_cut() {
    let later = sae(5, Select::TopK(6), Normalisation::None);
    let saes = [(LAYER, topk()), (LATER, later.clone())];
    let model = with_features(nano("teacher"), &saes);
    let some = readable(&model, 5).sequences;
    let kept = |layer: usize| {
        (0..FEATURES as u32).filter(move |f| !(*f as usize + layer).is_multiple_of(3))
    };
    let lists = vec![vec![], kept(LAYER).collect(), kept(LATER).collect(), vec![]];
    let mut keep = KeepLists([(UnitKind::Feature, lists)].into());
    let features = Mask { version: 1, model: model.fingerprint, keep: keep.clone() };
    let experts: Vec<Vec<u32>> =
        (0..4).map(|layer| (0..16).filter(|e| (e + layer) % 4 > 0).collect()).collect();
    keep.0.insert(UnitKind::Expert, experts);
    let both = Mask { keep, ..features.clone() };
    let cuts = [Cut::Mask(features), Cut::Mask(both)];
    let wanted = cuts.each_ref().map(|cut| whole(&model, &some, &mut model.cut(cut).unwrap()));
    for tokens in [4096, 200] {
        let found = ablate_sequences(&model, &some, &cuts, tokens, &NoProgress).unwrap();
        close("features", &found[1], &wanted[0]);
        close("features and experts", &found[2], &wanted[1]);
    }
    let gone = |layer: usize| move |f: usize| (f + layer).is_multiple_of(3).then_some(0.0);
    let (first, second) = (topk(), later);
    let mut first = by_hand(&first, LAYER, gone(LAYER));
    let mut second = by_hand(&second, LATER, gone(LATER));
    let hand = whole(&model, &some, &mut (&mut first, &mut second));
    close("by hand", &wanted[0], &hand);
    assert!(wanted[0] != wanted[1]);
}

/// A feature that is everywhere the same: what its removal does to the last layer's stream is known.
#[test]
fn a_planted_feature_has_the_effect_that_was_planted() {
    let mut planted = topk();
    let p = &mut planted.parameters;
    p.encoder.fill(0.0);
    p.encoder_bias.fill(-1.0);
    p.encoder_bias[7] = 2.5;
    let planted = Sae { select: Select::Positive, ..planted };
    let model = with_features(nano("teacher"), &[(3, planted.clone())]);
    let some = readable(&model, 4).sequences;
    let cuts = [Cut::Unit(feature(3, 7)), Cut::Unit(feature(3, 8))];
    let found = ablate_sequences(&model, &some, &cuts, 4096, &NoProgress).unwrap();
    let batch = Batch::new(&some.iter().collect::<Vec<_>>()).unwrap();
    let (transformer, device) = (&model.transformer, &Device::Cpu);
    let x = transformer.forward(&batch, &transformer.frame(&batch).unwrap(), &mut NoTaps).unwrap();
    let direction = planted.parameters.decoder[7 * WIDTH..8 * WIDTH].to_vec();
    let direction = Tensor::from_vec(direction, (1, WIDTH), device).unwrap();
    let moved = x.broadcast_sub(&(direction * 2.5).unwrap()).unwrap();
    let nats = transformer.response_nll(&moved, &batch).unwrap();
    close("planted", &found[1], &uspx_model::loss::per_sequence(&nats, &batch).unwrap());
    assert!(found[1].iter().zip(&found[0]).all(|(a, b)| (a - b).abs() > 1e-3));
    assert_eq!(found[2], found[0], "it is nowhere");
}

fn measured(estimator: Estimator, model: &LoadedModel, some: &Readable, to: Baseline) -> Deposit {
    let all = ProbeRequest::all(estimator, model, some, 4096);
    let request = ProbeRequest { kinds: &[UnitKind::Feature], baseline: to, ..all };
    measure(estimator, &request, &NoProgress).unwrap()
}

/// Σx of each feature of a layer.
fn sums(deposit: &Deposit, layer: usize, statistic: Statistic) -> Vec<f64> {
    let of = |m: &&uspx_domain::Moments| m.layer as usize == layer && m.statistic == statistic;
    let found = deposit.moments.iter().find(of).unwrap();
    found.x.iter().copied().map(f64::from).collect()
}

/// The mean strength of each feature.
fn means(sae: &Sae<f32>, x: &Tensor) -> Vec<f64> {
    let all = strengths(sae, &rows(x));
    (0..FEATURES).map(|f| all.iter().map(|row| row[f]).sum::<f64>() / all.len() as f64).collect()
}

#[test]
fn exact_effects_are_those_of_the_edited_streams_for_both_baselines() {
    let sae = topk();
    let model = with_features(nano("teacher"), &[(LAYER, sae.clone())]);
    let some = readable(&model, 4);
    let x = stream(&model, &some.sequences, LAYER);
    let means = means(&sae, &x);
    let clean: f64 = whole(&model, &some.sequences, &mut NoTaps).iter().sum();
    for (to, bases) in [(Baseline::Zero, vec![0.0; FEATURES]), (Baseline::Mean, means)] {
        let deposit = measured(Estimator::EXACT, &model, &some, to);
        assert!(deposit.columns.is_empty(), "moments alone");
        let found = sums(&deposit, LAYER, Statistic::EXACT);
        for index in active(&sae, &x).into_iter().step_by(40) {
            let base = |f: usize| (f as u32 == index).then(|| bases[f]);
            let wanted = whole(&model, &some.sequences, &mut by_hand(&sae, LAYER, base));
            let wanted = wanted.iter().sum::<f64>() - clean;
            let off = (found[index as usize] - wanted).abs() / clean;
            assert!(off <= F32, "{to:?} {index}: {} against {wanted}", found[index as usize]);
        }
    }
}

/// The largest effects of a deposit and some others against slopes.
fn prove(deposit: &Deposit, both: [Statistic; 2], slope_of: impl Fn(usize) -> Slope) {
    let [signed, positive] = both.map(|s| sums(deposit, LAYER, s));
    let mut order: Vec<usize> = (0..FEATURES).collect();
    order.sort_by(|a, b| positive[*b].total_cmp(&positive[*a]));
    let mut proved = 0;
    for at in order.iter().take(4).chain(&order[20..22]).copied() {
        let (got, scale, wanted) = (signed[at], positive[at], slope_of(at));
        assert!(scale >= got.abs() * 0.999 && scale > 0.0, "{at}");
        let off = (got - wanted.value).abs();
        let bound = 4e-4 * scale + wanted.error;
        assert!(off <= bound, "{at}: {got} against {}, of {scale}", wanted.value);
        proved += usize::from(wanted.value.abs() > 1e-1 * scale);
    }
    assert!(proved >= 3, "only {proved} derivatives were large enough");
}

/// What moves each row from a feature's strength towards `base`, `[N, hidden]` in f64.
fn ways(sae: &Sae<f32>, x: &Tensor, index: usize, base: f64) -> Tensor {
    let one = edited(sae, x, |f| (f == index).then_some(base));
    (one.to_dtype(DType::F64).unwrap() - x.to_dtype(DType::F64).unwrap()).unwrap()
}

#[test]
fn attribution_to_features_is_the_derivative_along_their_directions() {
    let (sae, exact) = (topk(), in_f64("teacher"));
    let model = with_features(opened("teacher", Holding::Floats), &[(LAYER, sae.clone())]);
    let some = readable(&model, 3);
    let batch = Batch::new(&some.sequences.iter().collect::<Vec<_>>()).unwrap();
    let start = exact.transformer.embed(&batch.ids).unwrap();
    let x = stream(&exact, &some.sequences, LAYER);
    let means = means(&sae, &x);
    for to in [Baseline::Zero, Baseline::Mean] {
        let deposit = measured(Estimator::ATP, &model, &some, to);
        prove(&deposit, [Statistic::ATP, Statistic::ATP_ABS], |index| {
            let base = if to == Baseline::Mean { means[index] } else { 0.0 };
            let way = ways(&sae, &x, index, base);
            slope(1e-4, |s| {
                let mut taps = moving(&way, s);
                loss_from(&exact, &batch, &start, &mut taps).to_scalar().unwrap()
            })
        });
    }
}

fn moving(way: &Tensor, s: f64) -> impl Taps {
    move |site: Site<'_>, x: &Tensor| -> Result<Option<Tensor>> {
        match site {
            Site::ResidPre { layer } if layer == LAYER + 1 => Ok(Some((x + (way * s)?)?)),
            _ => Ok(None),
        }
    }
}

#[test]
fn attribution_to_features_along_a_path_is_the_mean_derivative_on_it() {
    let (sae, exact) = (topk(), in_f64("teacher"));
    let model = with_features(opened("teacher", Holding::Floats), &[(LAYER, sae.clone())]);
    let some = readable(&model, 1);
    let batch = Batch::new(&some.sequences.iter().collect::<Vec<_>>()).unwrap();
    let x = stream(&exact, &some.sequences, LAYER);
    let deposit = measured(Estimator::EAP_IG, &model, &some, Baseline::Zero);
    prove(&deposit, [Statistic::EAP_IG, Statistic::EAP_IG_ABS], |index| {
        let way = ways(&sae, &x, index, 0.0);
        slope_on_path(&exact, &batch, |site, value, s| moving(&way, s).at(site, value))
    });
}

#[test]
fn what_cannot_be_attached_or_measured_is_said() {
    let place = |layer, site| (Place { layer, site }, 0);
    let mut model = nano("teacher");
    let refused =
        |model: &mut LoadedModel, place| attach(model, topk(), place).unwrap_err().to_string();
    for site in [uspx_sae::Site::MlpOut, uspx_sae::Site::AttnOut, uspx_sae::Site::ResidMid] {
        assert!(refused(&mut model, place(1, site)).contains("residual stream behind a layer"));
    }
    assert!(refused(&mut model, place(0, uspx_sae::Site::ResidPre)).contains("resid-pre"));
    assert!(refused(&mut model, place(4, uspx_sae::Site::ResidPost)).contains("4 layers"));
    let skipping = (Place { layer: 1, site: uspx_sae::Site::ResidPost }, 2);
    assert!(refused(&mut model, skipping).contains("first 2 tokens"));
    // What enters a layer is what leaves the one before it.
    attach(&mut model, topk(), place(2, uspx_sae::Site::ResidPre)).unwrap();
    assert_eq!(model.shape().widths(UnitKind::Feature), [0, FEATURES as u32, 0, 0]);
    assert!(refused(&mut model, place(1, uspx_sae::Site::ResidPost)).contains("layer 1 has two"));
}

/// Inside a mask of features, what is cut follows what comes before it: for every normalisation.
#[test]
fn gradients_within_a_mask_of_features_go_through_what_they_read() {
    let some = nano("teacher").readable(&prompts("cli-heldout.jsonl", 3)).unwrap();
    let batch = Batch::new(&some.sequences.iter().collect::<Vec<_>>()).unwrap();
    for how in [Normalisation::None, Normalisation::ConstantNorm, Normalisation::LayerNorm] {
        let sae = sae(4, Select::TopK(12), how);
        let model = with_features(opened("teacher", Holding::Floats), &[(LAYER, sae.clone())]);
        let exact = in_f64("teacher");
        let lists = vec![vec![], (0..FEATURES as u32).step_by(4).collect(), vec![], vec![]];
        let keep = KeepLists([(UnitKind::Feature, lists)].into());
        let mask = Mask { version: 1, model: model.fingerprint, keep };
        let cut = model.cut_of_mask(&mask).unwrap();
        let all = ProbeRequest::all(Estimator::ATP, &model, &some, 4096);
        let kinds = [UnitKind::Head, UnitKind::Feature];
        let request = ProbeRequest {
            kinds: &kinds,
            baseline: Baseline::Zero,
            within: Some(&cut),
            layers: 0..2,
            ..all
        };
        let deposit = measure(Estimator::ATP, &request, &NoProgress).unwrap();
        let silent = sums(&deposit, LAYER, Statistic::ATP_ABS);
        assert!(silent.iter().enumerate().all(|(f, x)| f % 4 == 0 || *x == 0.0), "of the cut");
        // What each row has is given: only how strongly it has it follows.
        let has = strengths(&sae, &rows(&stream(&exact, &some.sequences, LAYER)));
        let start = exact.transformer.embed(&batch.ids).unwrap();
        let of = |statistic| deposit.columns.iter().filter(move |c| c.statistic == statistic);
        let mut proved = 0;
        for (signed, positive) in of(Statistic::ATP).zip(of(Statistic::ATP_ABS)) {
            let sum = |c: &uspx_domain::Column| c.values.iter().map(|v| f64::from(*v)).sum::<f64>();
            let (layer, head) = (signed.unit.layer as usize, signed.unit.index);
            let wanted = slope(1e-4, |s| {
                let mut taps = |site: Site<'_>, x: &Tensor| match site {
                    Site::Z { layer: l } if l == layer => scaled_head(x, head, 1.0 - s).map(Some),
                    Site::ResidPre { layer: l } if l == LAYER + 1 => {
                        Ok(Some(less(&sae, x, &has, |f| f % 4 > 0)))
                    }
                    _ => Ok(None),
                };
                loss_from(&exact, &batch, &start, &mut taps).to_scalar().unwrap()
            });
            let (off, scale) = ((sum(signed) - wanted.value).abs(), sum(positive));
            assert!(
                off <= 5e-4 * scale + wanted.error,
                "{how:?} {}: {off} of {scale}",
                signed.unit
            );
            proved += usize::from(wanted.value.abs() > 1e-1 * scale);
        }
        assert!(proved >= 3, "{how:?}: {proved}");
    }
}

/// One head scaled.
fn scaled_head(z: &Tensor, head: u32, factor: f64) -> Result<Tensor> {
    let factors = (0..z.dim(1)? as u32).map(|h| if h == head { factor } else { 1.0 });
    let factors = Tensor::from_iter(factors, z.device())?.reshape((1, (), 1))?;
    Ok(z.broadcast_mul(&factors.to_dtype(z.dtype())?)?)
}

/// The stream less some features of those that each row is known to have, in f64 throughout.
fn less(sae: &Sae<f32>, x: &Tensor, has: &[Vec<f64>], cut: impl Fn(usize) -> bool) -> Tensor {
    let mut moved = rows(x);
    let found = chosen_by(sae, &moved);
    for ((row, (pre, scale)), has) in moved.iter_mut().zip(found).zip(has) {
        for f in (0..FEATURES).filter(|f| cut(*f) && has[*f] > 0.0) {
            for (x, d) in row.iter_mut().zip(&sae.parameters.decoder[f * WIDTH..]) {
                *x -= pre[f] * scale * f64::from(*d);
            }
        }
    }
    Tensor::from_vec(moved.concat(), x.shape(), &Device::Cpu).unwrap().to_dtype(x.dtype()).unwrap()
}
