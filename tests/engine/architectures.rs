//! Every architecture against transformers: random checkpoints of tests/data/architectures, each
//! with the losses, routing and logits that tests/parity/architectures.py computed. And the ways of
//! holding weights against each other.

use crate::support::root;
use candle_core::{DType, Device, Tensor, Var};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use uspx_model::batch::{Batch, Sequence};
use uspx_model::checkpoint::Checkpoint;
use uspx_model::config::ModelConfig;
use uspx_model::taps::{NoTaps, Site, WithPattern};
use uspx_model::transformer::Transformer;
use uspx_model::{Holding, Placement, Result, loss};

#[derive(Deserialize)]
pub struct Golden {
    sequences: Vec<Ids>,
    nats: Vec<f64>,
    /// Layer, sequence, token: the experts chosen, sorted; empty for a layer without experts.
    routing: Option<Vec<Vec<Vec<Vec<u32>>>>>,
    first_logits: Vec<f32>,
    /// By kind of unit, layer, unit and sequence: effects by relevance, in nats.
    pub relevance: BTreeMap<String, Vec<Vec<Vec<f64>>>>,
}

#[derive(Deserialize)]
struct Ids {
    ids: Vec<u32>,
    response_start: usize,
}

/// The folders of the committed checkpoints, or those of `USPX_ARCHITECTURES` (fresh ones, for
/// `make parity`).
pub fn cases() -> Vec<PathBuf> {
    let folder = std::env::var_os("USPX_ARCHITECTURES").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| root().join("tests/data/architectures"));
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    cases.retain(|case| case.join("golden.json").exists());
    cases.sort();
    assert!(cases.len() >= 8, "{}: only {} checkpoints", folder.display(), cases.len());
    cases
}

pub fn open(case: &Path, holding: Holding) -> Transformer {
    let config = std::fs::read_to_string(case.join("config.json")).unwrap();
    let config =
        ModelConfig::from_json(&config).unwrap_or_else(|e| panic!("{}: {e}", case.display()));
    let placement = Placement::new(holding, DType::F32, &Device::Cpu);
    let opened = Checkpoint::open(case).and_then(|c| Transformer::load(config, c, placement));
    opened.unwrap_or_else(|e| panic!("{}: {e}", case.display()))
}

pub fn golden(case: &Path) -> (Golden, Vec<Sequence>) {
    let golden: Golden =
        serde_json::from_slice(&std::fs::read(case.join("golden.json")).unwrap()).unwrap();
    let of = |s: &Ids| Sequence { ids: s.ids.clone(), response_start: s.response_start };
    let sequences = golden.sequences.iter().map(of).collect();
    (golden, sequences)
}

/// Of every layer with experts: its number, and the experts chosen for each row of the batch,
/// sorted.
type Choices = Vec<(usize, Vec<Vec<u32>>)>;

/// The residual stream after the last layer, and the experts chosen on the way.
fn run(model: &Transformer, batch: &Batch, padded: bool) -> (Tensor, Choices) {
    let frame = model.frame(batch).unwrap();
    let mut chosen = Choices::new();
    let mut look = |site: Site<'_>, _: &Tensor| -> Result<Option<Tensor>> {
        if let Site::ExpertOut(at) = site
            && chosen.last().is_none_or(|(layer, _)| *layer != at.layer)
        {
            let rows = at.routing.chosen.chunks(at.routing.top_k);
            chosen.push((at.layer, rows.map(sorted).collect()));
        }
        Ok(None)
    };
    let x = match padded {
        true => model.forward(batch, &frame, &mut WithPattern(&mut look)),
        false => model.forward(batch, &frame, &mut look),
    };
    (x.unwrap(), chosen)
}

fn sorted(row: &[u32]) -> Vec<u32> {
    let mut row = row.to_vec();
    row.sort_unstable();
    row
}

fn nats(model: &Transformer, x: &Tensor, batch: &Batch) -> Vec<f64> {
    loss::per_sequence(&model.response_nll(x, batch).unwrap(), batch).unwrap()
}

fn close(found: &[f64], wanted: &[f64], bound: f64, what: &str) {
    assert_eq!(found.len(), wanted.len());
    for (found, wanted) in found.iter().zip(wanted) {
        assert!((found - wanted).abs() <= bound * wanted.abs(), "{what}: {found} against {wanted}");
    }
}

#[test]
fn every_architecture_agrees_with_transformers() {
    for case in cases() {
        let (golden, sequences) = golden(&case);
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let batch = Batch::new(&sequences.iter().collect::<Vec<_>>()).unwrap();
        for holding in [Holding::Floats, Holding::Stored, Holding::Streamed] {
            for padded in [false, true] {
                let model = open(&case, holding);
                let (x, chosen) = run(&model, &batch, padded);
                let what = format!("{name} {holding:?}{}", if padded { " padded" } else { "" });
                close(&nats(&model, &x, &batch), &golden.nats, 1e-4, &what);
                let logits =
                    model.logits(&x, &batch.last_rows()[..1]).unwrap().flatten_all().unwrap();
                let largest = golden.first_logits.iter().fold(0f32, |m, v| m.max(v.abs()));
                for (found, wanted) in
                    logits.to_vec1::<f32>().unwrap().iter().zip(&golden.first_logits)
                {
                    assert!(
                        (found - wanted).abs() < 1e-4 * largest,
                        "{what}: logit {found} against {wanted}"
                    );
                }
                let Some(routing) = &golden.routing else { continue };
                let wanted: Vec<_> = routing
                    .iter()
                    .enumerate()
                    .filter(|(_, l)| l.iter().any(|s| !s.is_empty()))
                    .collect();
                assert_eq!(chosen.len(), wanted.len(), "{what}: layers with experts");
                for ((layer, found), (at, wanted)) in chosen.iter().zip(wanted) {
                    let flat: Vec<Vec<u32>> = wanted.concat();
                    assert_eq!((layer, found), (&at, &flat), "{what}: routing of layer {layer}");
                }
            }
        }
    }
}

#[test]
fn shared_beginnings_change_no_loss() {
    for case in cases() {
        let (golden, mut sequences) = golden(&case);
        // Twice the same prompts with another answer: all of their rows are shared.
        let again: Vec<Sequence> = sequences
            .iter()
            .cloned()
            .map(|mut s| {
                s.ids[s.response_start..].reverse();
                s
            })
            .collect();
        sequences.extend(again);
        let all: Vec<&Sequence> = sequences.iter().collect();
        let model = open(&case, Holding::Stored);
        let losses = [Batch::new(&all).unwrap(), Batch::sharing(&all).unwrap()].map(|batch| {
            let both =
                [false, true].map(|padded| nats(&model, &run(&model, &batch, padded).0, &batch));
            close(&both[0], &both[1], 1e-5, "each sequence by itself, and padded");
            (batch.tokens(), both[0].clone())
        });
        assert!(losses[1].0 < losses[0].0, "no row was shared");
        close(&losses[1].1, &losses[0].1, 1e-5, &case.display().to_string());
        close(&losses[0].1[..golden.nats.len()], &golden.nats, 1e-4, &case.display().to_string());
    }
}

/// d loss / d embedding of weights as stored and streamed, against those of plain floats.
#[test]
fn gradients_do_not_depend_on_how_weights_are_held() {
    for case in cases() {
        let (_, sequences) = golden(&case);
        let batch = Batch::new(&sequences.iter().collect::<Vec<_>>()).unwrap();
        let gradient = |holding| {
            let model = open(&case, holding);
            let start = Var::from_tensor(&model.embed(&batch.ids).unwrap()).unwrap();
            let frame = model.frame(&batch).unwrap();
            let x = model
                .run(0..model.layers(), start.as_tensor().clone(), &frame, None, &mut NoTaps)
                .unwrap();
            let loss = model.response_nll(&x, &batch).unwrap().sum_all().unwrap();
            let gradient = loss.backward().unwrap().get(&start).unwrap().flatten_all().unwrap();
            gradient.to_vec1::<f32>().unwrap()
        };
        let wanted = gradient(Holding::Floats);
        let size = wanted.iter().map(|g| g * g).sum::<f32>().sqrt();
        for holding in [Holding::Stored, Holding::Streamed] {
            let found = gradient(holding);
            let apart = found.iter().zip(&wanted).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
            assert!(apart < 1e-3 * size && size > 0.0, "{}: {apart} of {size}", case.display());
        }
    }
}
