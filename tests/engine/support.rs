//! The shipped models, prompts and reference values.

use candle_core::{DType, Device};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use uspx_domain::{
    Baseline, Deposit, Estimator, ModelShape, Prompt, Unit, UnitKind, parse_prompts,
};
use uspx_model::batch::{Batch, Sequence};
use uspx_model::cuts::CutTaps;
use uspx_model::taps::Taps;
use uspx_model::{Holding, LoadedModel, NoProgress, Placement, Readable, loss};
use uspx_probe::{ProbeRequest, measure};

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A shipped model with its weights as stored, as probes hold it.
pub fn nano(which: &str) -> LoadedModel {
    opened(which, Holding::Stored)
}

pub fn opened(which: &str, holding: Holding) -> LoadedModel {
    placed(which, Placement::new(holding, DType::F32, &Device::Cpu))
}

/// The same weights, computed with in f64: what f32 is to come near.
pub fn in_f64(which: &str) -> LoadedModel {
    placed(which, Placement::floats(DType::F64, &Device::Cpu))
}

fn placed(which: &str, placement: Placement) -> LoadedModel {
    LoadedModel::open(&root().join("cli/assets/nano").join(which), placement).unwrap()
}

pub fn prompts(file: &str, count: usize) -> Vec<Prompt> {
    let text = std::fs::read_to_string(root().join("cli/assets/prompts").join(file)).unwrap();
    let mut prompts = parse_prompts(&text, false).unwrap().prompts;
    prompts.truncate(count);
    prompts
}

#[derive(Deserialize)]
pub struct Reference {
    pub teacher: ModelReference,
    pub student: ModelReference,
    pub teacher_probe: ProbeReference,
}

#[derive(Deserialize)]
pub struct ModelReference {
    pub loss_per_token: f64,
    pub bits_per_byte: f64,
    pub per_prompt: Vec<PromptReference>,
}

#[derive(Deserialize)]
pub struct PromptReference {
    pub id: String,
    pub prompt_tokens: usize,
    pub response_tokens: usize,
    pub loss_sum: f64,
    pub first_ids: Vec<u32>,
    pub last_logits_top5: Vec<(u32, f64)>,
}

#[derive(Deserialize)]
pub struct ProbeReference {
    pub prompts: Vec<String>,
    pub clean_loss_per_token: f64,
    pub expert_count: Vec<Vec<f64>>,
    pub expert_gate_mass: Vec<Vec<f64>>,
    pub expert_ban_reroute_effect_nats_per_token: Vec<Vec<f64>>,
    pub head_zero_effect_nats_per_token: Vec<Vec<f64>>,
}

pub fn reference() -> Reference {
    let text = std::fs::read_to_string(root().join("tests/data/nano.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// What an estimator finds of all units of the kinds with few, with its usual baseline.
pub fn measured(
    estimator: Estimator,
    model: &LoadedModel,
    prompts: &Readable,
    batch_tokens: usize,
) -> Deposit {
    let kinds = estimator.usual_kinds_of(&model.shape());
    let all = ProbeRequest::all(estimator, model, prompts, batch_tokens);
    measure(estimator, &ProbeRequest { kinds: &kinds, ..all }, &NoProgress).unwrap()
}

/// Attribution patching of units of some kinds.
pub fn attribution(
    model: &LoadedModel,
    prompts: &Readable,
    kinds: &[UnitKind],
    baseline: Baseline,
    batch_tokens: usize,
) -> Deposit {
    let all = ProbeRequest::all(Estimator::ATP, model, prompts, batch_tokens);
    measure(Estimator::ATP, &ProbeRequest { kinds, baseline, ..all }, &NoProgress).unwrap()
}

/// Summed nats of each sequence's response under `taps`, nothing shared and nothing kept.
pub fn whole(model: &LoadedModel, sequences: &[Sequence], taps: &mut dyn Taps) -> Vec<f64> {
    let batch = Batch::new(&sequences.iter().collect::<Vec<_>>()).unwrap();
    let frame = model.transformer.frame(&batch).unwrap();
    let x = model.transformer.forward(&batch, &frame, taps).unwrap();
    loss::per_sequence(&model.transformer.response_nll(&x, &batch).unwrap(), &batch).unwrap()
}

/// A quarter of a model's experts and heads, and the taps that cut them.
pub fn a_quarter_cut(shape: &ModelShape) -> (Vec<Unit>, CutTaps) {
    let cut: Vec<Unit> = [UnitKind::Expert, UnitKind::Head]
        .into_iter()
        .flat_map(|kind| shape.units(kind))
        .filter(|u| (u.index + u.layer) % 4 == 1)
        .collect();
    let taps = CutTaps::of_units(&cut, shape, &Device::Cpu).unwrap();
    (cut, taps)
}
