//! Whole layers taken out, against brute force: the stream that enters a layer is put in the place of the one
//! that leaves it, in whole passes, for every subset of the layers.

use crate::support::{nano, prompts, whole};
use candle_core::Tensor;
use std::collections::{BTreeMap, BTreeSet};
use uspx_model::batch::Sequence;
use uspx_model::taps::Site;
use uspx_model::{LoadedModel, NoProgress, Result};
use uspx_probe::layers::{drop_greedily, rises};

/// Of a loss, what roundings in f32 may come to.
const F32: f64 = 1e-5;

fn loss(model: &LoadedModel, sequences: &[Sequence], gone: &BTreeSet<u32>) -> f64 {
    let mut entering = None;
    let is_gone = |layer: usize| gone.contains(&(layer as u32));
    let mut taps = |site: Site<'_>, value: &Tensor| -> Result<Option<Tensor>> {
        match site {
            Site::ResidPre { layer } if is_gone(layer) => entering = Some(value.clone()),
            Site::ResidPost { layer } if is_gone(layer) => return Ok(entering.take()),
            _ => {}
        }
        Ok(None)
    };
    let nats: f64 = whole(model, sequences, &mut taps).iter().sum();
    nats / sequences.iter().map(|s| s.response_len()).sum::<usize>() as f64
}

#[test]
fn layers_are_dropped_as_brute_force_drops_them() {
    let model = nano("student");
    let readable = model.readable(&prompts("cli-heldout.jsonl", 6)).unwrap();
    let (sequences, layers) = (&readable.sequences, model.shape().depth());
    let subsets = (0..1u32 << layers).map(|bits| -> BTreeSet<u32> {
        (0..layers).filter(|layer| bits >> layer & 1 == 1).collect()
    });
    let losses: BTreeMap<BTreeSet<u32>, f64> =
        subsets.map(|gone| (gone.clone(), loss(&model, sequences, &gone))).collect();
    let clean = losses[&BTreeSet::new()];

    // The greedy definition: of all ways to drop one more, the cheapest.
    let mut meant: Vec<(u32, f64)> = Vec::new();
    for _ in 1..layers {
        let gone: BTreeSet<u32> = meant.iter().map(|(layer, _)| *layer).collect();
        let more = |layer: u32| {
            let with = gone.iter().copied().chain([layer]).collect::<BTreeSet<u32>>();
            (layer, losses[&with] - clean)
        };
        let left = (0..layers).filter(|layer| !gone.contains(layer));
        meant.push(left.map(more).min_by(|a, b| a.1.total_cmp(&b.1)).unwrap());
    }
    for keep in 1..=layers as usize {
        let found = drop_greedily(layers, keep, |gone| {
            let found = rises(&model, &readable, gone, 256, &NoProgress)?;
            for (layer, rise) in &found {
                let with = gone.iter().copied().chain([*layer]).collect::<BTreeSet<u32>>();
                let wanted = losses[&with] - clean;
                assert!((rise - wanted).abs() < F32, "{with:?}: {rise} of {wanted}");
            }
            Result::Ok(found)
        })
        .unwrap();
        assert_eq!(found.len(), layers as usize - keep);
        for (dropped, (layer, rise)) in found.iter().zip(&meant) {
            assert_eq!(dropped.layer, *layer);
            assert!((dropped.rise - rise).abs() < F32);
        }
        // Where one goes greedy is the best of all subsets; of more it is no better than that.
        let of_size = losses.iter().filter(|(gone, _)| gone.len() == found.len());
        let best = of_size.map(|(_, loss)| loss - clean).min_by(f64::total_cmp).unwrap();
        let last = found.last().map_or(0.0, |dropped| dropped.rise);
        assert!(last >= best - F32 && (found.len() > 1 || last <= best + F32), "{last} of {best}");
    }
}
