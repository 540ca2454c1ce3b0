//! Gradients against finite differences: candle loses or falsifies some without an error.

use crate::support::{attribution, nano, opened, prompts};
use candle_core::{Tensor, Var};
use uspx_domain::{Baseline, Statistic, UnitKind};
use uspx_model::batch::Batch;
use uspx_model::taps::Site;
use uspx_model::{Holding, LoadedModel, Result};

/// The batch's loss with one unit's output scaled by `factor`.
fn loss_scaled(model: &LoadedModel, batch: &Batch, kind: UnitKind, layer: usize, index: u32, factor: f64) -> f64 {
    let frame = model.transformer.frame(batch).unwrap();
    let mut scale = |site: Site<'_>, value: &Tensor| -> Result<Option<Tensor>> {
        match (site, kind) {
            (Site::ExpertOut(at), UnitKind::Expert) if at.layer == layer && at.expert == index => {
                Ok(Some((value * factor)?))
            }
            (Site::Heads { layer: l }, UnitKind::Head) if l == layer => {
                let heads = value.dim(1)?;
                let factors: Vec<f32> =
                    (0..heads).map(|h| if h == index as usize { factor as f32 } else { 1.0 }).collect();
                Ok(Some(value.broadcast_mul(&Tensor::from_vec(factors, (1, heads, 1), value.device())?)?))
            }
            _ => Ok(None),
        }
    };
    let x = model.transformer.forward(batch, &frame, &mut scale).unwrap();
    let nll = model.transformer.response_nll(&x, batch).unwrap().to_vec1::<f32>().unwrap();
    nll.into_iter().map(f64::from).sum()
}

#[test]
fn attribution_is_the_derivative_of_the_loss() {
    for (which, kinds) in [("teacher", vec![UnitKind::Expert, UnitKind::Head]), ("student", vec![UnitKind::Head])] {
        // As floats: the steps of activations cut to 16 bits would show in differences as small as these.
        let (model, some) = (opened(which, Holding::Floats), prompts("cli-heldout.jsonl", 6));
        let some = model.readable(&some).unwrap();
        let deposit = attribution(&model, &some, &kinds, Baseline::Zero, 4096);
        let batch = Batch::new(&some.sequences.iter().collect::<Vec<_>>()).unwrap();
        let mut checked = 0;
        for column in deposit.columns.iter().filter(|c| c.statistic == Statistic::ATP && c.unit.index % 5 < 2) {
            // Small enough that no token changes its experts within it: there the loss has a step, not a slope.
            let (unit, step) = (column.unit, 1e-3);
            let at = |factor| loss_scaled(&model, &batch, unit.kind, unit.layer as usize, unit.index, factor);
            let derivative = (at(1.0 + step) - at(1.0 - step)) / (2.0 * step);
            // With the baseline zero the effect is −∂L/∂α.
            let found: f64 = -column.values.iter().copied().map(f64::from).sum::<f64>();
            let bound = 2e-2 + 2e-2 * derivative.abs();
            assert!((found - derivative).abs() < bound, "{which} {unit}: {found} against {derivative}");
            checked += usize::from(derivative.abs() > 0.1);
        }
        assert!(checked >= 4, "{which}: only {checked} derivatives were large enough to prove anything");
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

/// d loss / d residual at layer 0 by backward, against central differences in random directions.
#[test]
fn every_layer_passes_gradients_to_the_embedding() {
    for which in ["teacher", "student"] {
        let (model, some) = (nano(which), prompts("cli-heldout.jsonl", 3));
        let sequences = model.readable(&some).unwrap().sequences;
        let batch = Batch::new(&sequences.iter().collect::<Vec<_>>()).unwrap();
        let frame = model.transformer.frame(&batch).unwrap();
        let start = model.transformer.embed(&batch.ids).unwrap();
        let loss = |x: &Tensor| {
            let layers = 0..model.transformer.layers();
            let x = model.transformer.run(layers, x.clone(), &frame, None, &mut uspx_model::taps::NoTaps).unwrap();
            model.transformer.response_nll(&x, &batch).unwrap().sum_all().unwrap()
        };
        let var = Var::from_tensor(&start).unwrap();
        let gradient = loss(var.as_tensor()).backward().unwrap().get(&var).unwrap().clone();
        for trial in 0..4 {
            let direction = (start.sin().unwrap() * f64::from(trial + 1)).unwrap().cos().unwrap();
            let along = (&gradient * &direction).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            let step = 2e-4;
            let at = |s: f64| loss(&(&start + (&direction * s).unwrap()).unwrap()).to_scalar::<f32>().unwrap();
            let central = f64::from(at(step) - at(-step)) / (2.0 * step);
            let bound = 0.3 + 2e-2 * central.abs();
            assert!((f64::from(along) - central).abs() < bound, "{which}: {along} against {central}");
        }
    }
}
