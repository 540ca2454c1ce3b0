//! Gradients against finite differences: candle loses or falsifies some without an error.
//!
//! Gradients come from the models as probes hold them. The differences are taken on the same
//! weights in f64, at two steps, which tells how far they can be trusted; so what is left is the
//! gradient's own error, and it is bound in relation to the gradient.

use crate::slopes::{Slope, prove, prove_moments, scaling, slope};
use crate::support::{a_quarter_cut, attribution, in_f64, measured, nano, opened, prompts};
use candle_core::{DType, Device, Tensor, Var};
use std::collections::BTreeMap;
use uspx_domain::{Baseline, Estimator, Statistic, UnitKind};
use uspx_model::batch::Batch;
use uspx_model::taps::{NoTaps, Site, Taps};
use uspx_model::{Holding, LoadedModel, NoProgress, Result};
use uspx_probe::{ProbeRequest, measure};

/// A model's loss on a batch from its embedded tokens on, summed.
pub fn loss_from(model: &LoadedModel, batch: &Batch, x: &Tensor, taps: &mut dyn Taps) -> Tensor {
    let (transformer, frame) = (&model.transformer, model.transformer.frame(batch).unwrap());
    let x = transformer.run(0..transformer.layers(), x.clone(), &frame, None, taps).unwrap();
    transformer.response_nll(&x, batch).unwrap().sum_all().unwrap()
}

#[test]
fn attribution_is_the_derivative_of_the_loss() {
    for (which, kinds) in
        [("teacher", vec![UnitKind::Expert, UnitKind::Head]), ("student", vec![UnitKind::Head])]
    {
        let (model, exact) = (opened(which, Holding::Floats), in_f64(which));
        let some = model.readable(&prompts("cli-heldout.jsonl", 6)).unwrap();
        let deposit = attribution(&model, &some, &kinds, Baseline::Zero, 4096);
        let batch = Batch::new(&some.sequences.iter().collect::<Vec<_>>()).unwrap();
        let start = exact.transformer.embed(&batch.ids).unwrap();
        let both = [Statistic::ATP, Statistic::ATP_ABS];
        prove(
            (which, &deposit),
            both,
            |index| index % 5 < 2,
            |unit| {
                // Towards the baseline zero, and so little that no token changes its experts: there the
                // loss has a step, not a slope.
                slope(1e-4, |s| {
                    let mut scale = scaling(unit.kind, unit.layer as usize, unit.index, 1.0 - s);
                    loss_from(&exact, &batch, &start, &mut scale).to_scalar().unwrap()
                })
            },
        );
    }
}

/// Channels are told as moments: Σx is what the derivative is held against, and no prompt is lost on
/// the way, however they are batched.
#[test]
fn attribution_of_channels_is_the_derivative_of_the_loss() {
    for (which, kind) in [("student", UnitKind::Channel), ("teacher", UnitKind::ExpertChannel)] {
        let (model, exact) = (opened(which, Holding::Floats), in_f64(which));
        let some = model.readable(&prompts("cli-heldout.jsonl", 6)).unwrap();
        let deposit = attribution(&model, &some, &[kind], Baseline::Zero, 4096);
        let apart = attribution(&model, &some, &[kind], Baseline::Zero, 64);
        assert!(deposit.columns.is_empty());
        for (one, other) in deposit.moments.iter().zip(&apart.moments) {
            for (one, other) in [(&one.xx, &other.xx), (&one.xt, &other.xt)] {
                let largest = one.iter().copied().map(f32::abs).fold(0.0, f32::max);
                for (a, b) in one.iter().zip(other) {
                    assert!((a - b).abs() <= 1e-3 * largest, "{a} {b}, the largest {largest}");
                }
            }
        }
        let batch = Batch::new(&some.sequences.iter().collect::<Vec<_>>()).unwrap();
        let start = exact.transformer.embed(&batch.ids).unwrap();
        prove_moments((which, &deposit), [Statistic::ATP, Statistic::ATP_ABS], |unit| {
            slope(1e-4, |s| {
                let mut scale = scaling(kind, unit.layer as usize, unit.index, 1.0 - s);
                loss_from(&exact, &batch, &start, &mut scale).to_scalar().unwrap()
            })
        });
    }
}

#[test]
fn the_mean_baseline_moves_towards_the_mean() {
    let model = nano("teacher");
    let some = model.readable(&prompts("cli-heldout.jsonl", 4)).unwrap();
    let kinds = [UnitKind::Expert, UnitKind::Head];
    let zero = attribution(&model, &some, &kinds, Baseline::Zero, 512);
    let mean = attribution(&model, &some, &kinds, Baseline::Mean, 512);
    let size = |d: &uspx_domain::Deposit| -> f64 {
        let signed = d.columns.iter().filter(|c| c.statistic == Statistic::ATP_ABS);
        signed.flat_map(|c| &c.values).map(|v| f64::from(*v)).sum()
    };
    assert!(zero.columns.iter().zip(&mean.columns).any(|(a, b)| a.values != b.values));
    assert!(size(&mean) < size(&zero), "the mean is nearer to the clean value than zero is");
}

/// Directions that a gradient is looked at from.
const DIRECTIONS: u64 = 12;

/// Ones and minus ones, the same for the same seed (xorshift).
fn signs(seed: u64, count: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if state >> 63 == 0 { 1.0 } else { -1.0 }
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// d loss / d embedded tokens, by backward.
fn gradient(model: &LoadedModel, batch: &Batch, taps: &mut dyn Taps) -> Vec<f64> {
    let start = Var::from_tensor(&model.transformer.embed(&batch.ids).unwrap()).unwrap();
    let gradients = loss_from(model, batch, start.as_tensor(), taps).backward().unwrap();
    let found = gradients.get(&start).unwrap().to_dtype(DType::F64).unwrap();
    found.flatten_all().unwrap().to_vec1().unwrap()
}

/// How far the gradient at the embedding, taken through `taps`, is from the true one, relative to
/// its length. Its error's square is the mean over all sign vectors s of (error · s)²; some of them
/// estimate it.
fn relative_error(which: &str, holding: Holding, taps: &mut dyn Taps) -> f64 {
    let (model, exact) = (opened(which, holding), in_f64(which));
    let sequences = model.readable(&prompts("cli-heldout.jsonl", 3)).unwrap().sequences;
    let batch = Batch::new(&sequences.iter().collect::<Vec<_>>()).unwrap();
    let found = gradient(&model, &batch, taps);
    let length = dot(&found, &found).sqrt();
    let start = exact.transformer.embed(&batch.ids).unwrap();
    let size = start.sqr().unwrap().mean_all().unwrap().sqrt().unwrap().to_scalar::<f64>().unwrap();
    let square = |seed| {
        let signs = signs(seed, found.len());
        let direction = Tensor::from_slice(&signs, start.shape(), &Device::Cpu).unwrap();
        let wanted = slope(1e-5 * size, |s| {
            let moved = (&start + (&direction * s).unwrap()).unwrap();
            loss_from(&exact, &batch, &moved, &mut NoTaps).to_scalar().unwrap()
        });
        assert!(
            wanted.error <= 1e-4 * length,
            "{which}: the difference is off by {}",
            wanted.error / length
        );
        (dot(&found, &signs) - wanted.value).powi(2)
    };
    ((1..=DIRECTIONS).map(square).sum::<f64>() / DIRECTIONS as f64).sqrt() / length
}

#[test]
fn every_layer_passes_gradients_to_the_embedding() {
    // Stored weights are multiplied by activations of 16 bits where there is AMX, and the pass back
    // starts from there.
    for (holding, bound) in [(Holding::Floats, 2e-4), (Holding::Stored, 5e-3)] {
        for which in ["teacher", "student"] {
            let error = relative_error(which, holding, &mut NoTaps);
            println!("{which}, {holding:?}: the gradient is off by {error:.1e} of its length");
            assert!(error < bound, "{which}, {holding:?}: off by {error} of its length");
        }
    }
}

/// What the test before is worth: it sees that one of the paths through a layer has no gradient.
#[test]
fn a_gradient_that_lacks_one_path_is_told_apart() {
    for lost in ["attention", "mlp"] {
        let mut detach = |site: Site<'_>, value: &Tensor| -> Result<Option<Tensor>> {
            let here = match site {
                Site::AttentionOut { layer: 1 } => lost == "attention",
                Site::MlpOut { layer: 1 } => lost == "mlp",
                _ => false,
            };
            Ok(here.then(|| value.detach()))
        };
        let error = relative_error("teacher", Holding::Floats, &mut detach);
        println!("without {lost}: off by {error:.1e} of its length");
        assert!(error > 1e-1, "without {lost} the gradient is off by only {error} of its length");
    }
}

/// What the MLP of `layer` gives where `banned` is no expert of it.
fn mlp_out(model: &LoadedModel, batch: &Batch, layer: usize, banned: Option<u32>) -> Tensor {
    let mut out = None;
    let mut taps = |site: Site<'_>, value: &Tensor| -> Result<Option<Tensor>> {
        match (site, banned) {
            (Site::Router { layer: l }, Some(banned)) if l == layer => {
                let bias = (0..value.dim(1)? as u32).map(|e| if e == banned { -1e9 } else { 0.0 });
                let bias = Tensor::from_iter(bias, value.device())?.to_dtype(value.dtype())?;
                return Ok(Some(value.broadcast_add(&bias)?));
            }
            (Site::MlpOut { layer: l }, _) if l == layer => out = Some(value.clone()),
            _ => {}
        }
        Ok(None)
    };
    let x = model.transformer.embed(&batch.ids).unwrap();
    loss_from(model, batch, &x, &mut taps);
    out.unwrap()
}

/// The layer's output is moved towards what a real ban makes of it: the slope of the loss there is
/// the effect to first order.
#[test]
fn rerouting_attribution_is_the_derivative_towards_a_ban() {
    let (model, exact) = (opened("teacher", Holding::Floats), in_f64("teacher"));
    let some = model.readable(&prompts("cli-heldout.jsonl", 6)).unwrap();
    let deposit = measured(Estimator::REROUTE, &model, &some, 4096);
    let batch = Batch::new(&some.sequences.iter().collect::<Vec<_>>()).unwrap();
    let both = [Statistic::REROUTE, Statistic::REROUTE_ABS];
    prove(
        ("teacher", &deposit),
        both,
        |index| index % 5 < 2,
        |unit| {
            let layer = unit.layer as usize;
            let clean = mlp_out(&exact, &batch, layer, None);
            let way = (mlp_out(&exact, &batch, layer, Some(unit.index)) - &clean).unwrap();
            let start = exact.transformer.embed(&batch.ids).unwrap();
            slope(1e-4, |s| {
                let mut moved = |site: Site<'_>, value: &Tensor| -> Result<Option<Tensor>> {
                    match site {
                        Site::MlpOut { layer: l } if l == layer => Ok(Some((value + (&way * s)?)?)),
                        _ => Ok(None),
                    }
                };
                loss_from(&exact, &batch, &start, &mut moved).to_scalar().unwrap()
            })
        },
    );
}

/// Each gradient leaves a layer out: there what it adds to the stream stays as it was.
#[test]
fn graddrop_is_the_mean_derivative_with_one_layers_part_held() {
    let (model, exact) = (opened("teacher", Holding::Floats), in_f64("teacher"));
    let some = model.readable(&prompts("cli-heldout.jsonl", 3)).unwrap();
    let all = ProbeRequest::all(Estimator::ATP_STAR, &model, &some, 4096);
    let request = ProbeRequest { baseline: Baseline::Zero, ..all };
    let deposit = measure(Estimator::ATP_STAR, &request, &NoProgress).unwrap();
    let batch = Batch::new(&some.sequences.iter().collect::<Vec<_>>()).unwrap();
    let start = exact.transformer.embed(&batch.ids).unwrap();
    let mut added: BTreeMap<(bool, usize), Tensor> = BTreeMap::new();
    let mut keep = |site: Site<'_>, value: &Tensor| -> Result<Option<Tensor>> {
        match site {
            Site::AttentionOut { layer } => added.insert((true, layer), value.clone()),
            Site::MlpOut { layer } => added.insert((false, layer), value.clone()),
            _ => None,
        };
        Ok(None)
    };
    loss_from(&exact, &batch, &start, &mut keep);
    let layers = exact.transformer.layers();
    prove(
        ("teacher", &deposit),
        [Statistic::ATP_STAR, Statistic::ATP_STAR_ABS],
        |index| index % 7 == 0,
        |unit| {
            let own = unit.layer as usize;
            let slope_without = |dropped: usize| {
                slope(1e-4, |s| {
                    let mut held = |site: Site<'_>, _: &Tensor| -> Result<Option<Tensor>> {
                        Ok(match site {
                            Site::AttentionOut { layer } if layer == dropped => {
                                added.get(&(true, layer)).cloned()
                            }
                            Site::MlpOut { layer } if layer == dropped => {
                                added.get(&(false, layer)).cloned()
                            }
                            _ => None,
                        })
                    };
                    let mut scale = scaling(unit.kind, own, unit.index, 1.0 - s);
                    let mut both = (&mut scale, &mut held);
                    loss_from(&exact, &batch, &start, &mut both).to_scalar().unwrap()
                })
            };
            let others = (0..layers).filter(|layer| *layer != own);
            let slopes: Vec<Slope> = others.map(slope_without).collect();
            let mean =
                |of: fn(&Slope) -> f64| slopes.iter().map(of).sum::<f64>() / slopes.len() as f64;
            Slope { value: mean(|s| s.value), error: mean(|s| s.error) }
        },
    );
}

/// What `layer` does on a batch: outputs of its heads, and what `expert` adds to its output.
fn of_layer(model: &LoadedModel, batch: &Batch, layer: usize, expert: u32) -> [Tensor; 2] {
    let (mut z, mut added) = (None, None);
    let mut taps = |site: Site<'_>, value: &Tensor| -> Result<Option<Tensor>> {
        match site {
            Site::Z { layer: l } if l == layer => z = Some(value.clone()),
            Site::ExpertOut(at) if at.layer == layer && at.expert == expert => {
                let slots = Tensor::new(at.slots, value.device())?;
                let gates =
                    at.routing.gates.flatten_all()?.index_select(&slots, 0)?.unsqueeze(1)?;
                let tokens: Vec<u32> =
                    at.slots.iter().map(|s| s / at.routing.top_k as u32).collect();
                let none =
                    Tensor::zeros((batch.tokens(), value.dim(1)?), value.dtype(), value.device())?;
                let tokens = Tensor::new(tokens, value.device())?;
                added = Some(none.index_add(&tokens, &value.broadcast_mul(&gates)?, 0)?);
            }
            _ => {}
        }
        Ok(None)
    };
    let x = model.transformer.embed(&batch.ids).unwrap();
    loss_from(model, batch, &x, &mut taps);
    let z = z.unwrap();
    let none = Tensor::zeros(x.shape(), x.dtype(), x.device()).unwrap();
    [z, added.unwrap_or(none)]
}

/// Inputs along a path.
const STEPS: usize = 5;

/// The mean of the slopes at the inputs along the path, as `moved` moves the values at a site.
pub fn slope_on_path(
    exact: &LoadedModel,
    batch: &Batch,
    moved: impl Fn(Site<'_>, &Tensor, f64) -> Result<Option<Tensor>>,
) -> Slope {
    let end = exact.transformer.embed(&batch.ids).unwrap();
    // Each prompt's own mean embedding.
    let means = batch.spans.iter().map(|span| {
        let own = end.narrow(0, span.queries.start as usize, span.queries.len()).unwrap();
        own.mean_keepdim(0).unwrap().broadcast_as(own.shape()).unwrap().contiguous().unwrap()
    });
    let base = Tensor::cat(&means.collect::<Vec<_>>(), 0).unwrap();
    let slope_at = |step: usize| {
        let x = ((&end - &base).unwrap() * (step as f64 / STEPS as f64)).unwrap();
        let x = (&base + x).unwrap();
        slope(1e-4, |s| {
            let mut taps = |site: Site<'_>, value: &Tensor| moved(site, value, s);
            loss_from(exact, batch, &x, &mut taps).to_scalar().unwrap()
        })
    };
    let slopes: Vec<Slope> = (1..=STEPS).map(slope_at).collect();
    let mean = |of: fn(&Slope) -> f64| slopes.iter().map(of).sum::<f64>() / STEPS as f64;
    Slope { value: mean(|s| s.value), error: mean(|s| s.error) }
}

/// In the direction in which the unit goes on the prompts themselves.
#[test]
fn attribution_along_a_path_is_the_mean_derivative_on_it() {
    let (model, exact) = (opened("teacher", Holding::Floats), in_f64("teacher"));
    let some = model.readable(&prompts("cli-heldout.jsonl", 1)).unwrap();
    let batch = Batch::new(&some.sequences.iter().collect::<Vec<_>>()).unwrap();
    let all = ProbeRequest::all(Estimator::EAP_IG, &model, &some, 4096);
    let request = ProbeRequest { baseline: Baseline::Zero, ..all };
    let deposit = measure(Estimator::EAP_IG, &request, &NoProgress).unwrap();
    let both = [Statistic::EAP_IG, Statistic::EAP_IG_ABS];
    prove(
        ("teacher", &deposit),
        both,
        |index| index % 7 == 0,
        |unit| {
            let layer = unit.layer as usize;
            let [z, added] = of_layer(&exact, &batch, layer, unit.index);
            let heads = (0..z.dim(1).unwrap() as u32).map(|h| f64::from(u8::from(h == unit.index)));
            let heads = Tensor::from_iter(heads, z.device()).unwrap().reshape((1, (), 1)).unwrap();
            let z = z.broadcast_mul(&heads).unwrap();
            slope_on_path(&exact, &batch, |site, value, s| match (site, unit.kind) {
                (Site::MlpOut { layer: l }, UnitKind::Expert) if l == layer => {
                    Ok(Some((value - (&added * s)?)?))
                }
                (Site::Z { layer: l }, UnitKind::Head) if l == layer => {
                    Ok(Some((value - (&z * s)?)?))
                }
                _ => Ok(None),
            })
        },
    );
}

/// The same of channels, of which each moves by what it is on the prompts themselves.
#[test]
fn attribution_of_channels_along_a_path_is_the_mean_derivative_on_it() {
    let (model, exact) = (opened("student", Holding::Floats), in_f64("student"));
    let some = model.readable(&prompts("cli-heldout.jsonl", 1)).unwrap();
    let batch = Batch::new(&some.sequences.iter().collect::<Vec<_>>()).unwrap();
    let all = ProbeRequest::all(Estimator::EAP_IG, &model, &some, 4096);
    let kinds = &[UnitKind::Channel][..];
    let request = ProbeRequest { baseline: Baseline::Zero, kinds, ..all };
    let deposit = measure(Estimator::EAP_IG, &request, &NoProgress).unwrap();
    prove_moments(("student", &deposit), [Statistic::EAP_IG, Statistic::EAP_IG_ABS], |unit| {
        let layer = unit.layer as usize;
        let mut own = None;
        let mut see = |site: Site<'_>, value: &Tensor| -> Result<Option<Tensor>> {
            if matches!(site, Site::Channels { layer: l } if l == layer) {
                own = Some(value.clone());
            }
            Ok(None)
        };
        let start = exact.transformer.embed(&batch.ids).unwrap();
        loss_from(&exact, &batch, &start, &mut see);
        let own = own.unwrap();
        let one = (0..own.dim(1).unwrap() as u32).map(|c| f64::from(u8::from(c == unit.index)));
        let one = Tensor::from_iter(one, own.device()).unwrap().unsqueeze(0).unwrap();
        let own = own.broadcast_mul(&one).unwrap();
        slope_on_path(&exact, &batch, |site, value, s| match site {
            Site::Channels { layer: l } if l == layer => Ok(Some((value - (&own * s)?)?)),
            _ => Ok(None),
        })
    });
}

/// In the direction in which a real ban moves the layer's output on the prompts themselves.
#[test]
fn rerouting_along_a_path_is_the_mean_derivative_towards_a_ban() {
    let (model, exact) = (opened("teacher", Holding::Floats), in_f64("teacher"));
    let some = model.readable(&prompts("cli-heldout.jsonl", 2)).unwrap();
    let deposit = measured(Estimator::REROUTE_IG, &model, &some, 4096);
    let batch = Batch::new(&some.sequences.iter().collect::<Vec<_>>()).unwrap();
    prove(
        ("teacher", &deposit),
        [Statistic::REROUTE_IG, Statistic::REROUTE_IG_ABS],
        |index| index % 5 == 0,
        |unit| {
            let layer = unit.layer as usize;
            let clean = mlp_out(&exact, &batch, layer, None);
            let way = (mlp_out(&exact, &batch, layer, Some(unit.index)) - &clean).unwrap();
            slope_on_path(&exact, &batch, |site, value, s| match site {
                Site::MlpOut { layer: l } if l == layer => Ok(Some((value + (&way * s)?)?)),
                _ => Ok(None),
            })
        },
    );
}

/// Inside a masked model: what is cut is cut in the differences too.
#[test]
fn attribution_within_a_mask_is_the_derivative_of_the_masked_loss() {
    let (model, exact) = (opened("teacher", Holding::Floats), in_f64("teacher"));
    let shape = model.shape();
    let (cut, taps) = a_quarter_cut(&shape);
    let some = model.readable(&prompts("cli-heldout.jsonl", 4)).unwrap();
    let batch = Batch::new(&some.sequences.iter().collect::<Vec<_>>()).unwrap();
    let all = ProbeRequest::all(Estimator::ATP, &model, &some, 4096);
    let request = ProbeRequest { baseline: Baseline::Zero, within: Some(&taps), ..all };
    let deposit = measure(Estimator::ATP, &request, &NoProgress).unwrap();
    assert!(deposit.columns.iter().all(|c| !cut.contains(&c.unit)), "nothing is said of the cut");
    let start = exact.transformer.embed(&batch.ids).unwrap();
    prove(
        ("masked teacher", &deposit),
        [Statistic::ATP, Statistic::ATP_ABS],
        |index| index % 5 < 2,
        |unit| {
            slope(1e-4, |s| {
                let (layer, factor) = (unit.layer as usize, 1.0 - s);
                let mut scale = scaling(unit.kind, layer, unit.index, factor);
                let mut taps = taps.clone();
                let mut both = (&mut taps, &mut scale);
                loss_from(&exact, &batch, &start, &mut both).to_scalar().unwrap()
            })
        },
    );
}
