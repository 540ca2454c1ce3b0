//! QLoRA on the shipped student: gradients of a student in NF4 against those of the same model with the
//! weights that NF4 stands for as floats, both ways of making them, and a training from end to end.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use candle_core::{DType, Device, Tensor, Var};
use std::path::{Path, PathBuf};
use uspx_distill::gradient::{Way, gradient};
use uspx_distill::{
    DistilRequest, Distilled, Labels, PromptLabels, distil, load_adapter, lora, recipe_references,
};
use uspx_domain::{Digest, DistilRecipe, Fingerprint, Prompt, parse_prompts};
use uspx_model::batch::Batch;
use uspx_model::cuts::CutTaps;
use uspx_model::taps::Projection;
use uspx_model::{Holding, LoadedModel, NoProgress, Placement, loss};

fn assets(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets").join(path)
}

fn open(holding: Holding) -> LoadedModel {
    let placement = Placement::new(holding, DType::F32, &Device::Cpu);
    LoadedModel::open(&assets("nano/student"), placement).unwrap()
}

fn prompts(count: usize) -> Vec<Prompt> {
    let text = std::fs::read_to_string(assets("prompts/cli-train.jsonl")).unwrap();
    let mut prompts = parse_prompts(&text, false).unwrap().prompts;
    prompts.truncate(count);
    prompts
}

/// Adapters with random values throughout: fresh ones have zeros, and no gradient for A.
fn attach(model: &mut LoadedModel) -> Vec<Var> {
    let pairs = lora::attach(model, 4, 8.0, 1).unwrap();
    for (at, pair) in pairs.iter().enumerate() {
        let (out, rank) = pair.b.dims2().unwrap();
        let value = |i: usize| ((i * 7919 + at * 104_729) % 211) as f32 / 2110.0 - 0.05;
        let values: Vec<f32> = (0..out * rank).map(value).collect();
        pair.b.set(&Tensor::from_vec(values, (out, rank), &Device::Cpu).unwrap()).unwrap();
    }
    pairs.into_iter().flat_map(|pair| [pair.a, pair.b]).collect()
}

/// The student with the weights that NF4 stands for, as floats.
fn expanded(nf4: &LoadedModel) -> LoadedModel {
    let mut model = open(Holding::Floats);
    for layer in 0..model.transformer.layers() {
        for projection in Projection::DENSE {
            let weight = nf4.transformer.linear(layer, projection).unwrap().weight().unwrap();
            model.transformer.linear_mut(layer, projection).unwrap().set_weight(weight);
        }
    }
    model
}

fn gradients(model: &mut LoadedModel, way: Way) -> (f32, Vec<Tensor>) {
    let vars = attach(model);
    let sequences = model.readable(&prompts(5)).unwrap().sequences;
    let batch = Batch::new(&sequences.iter().collect::<Vec<_>>()).unwrap();
    let nll = |logits: &Tensor| Ok(loss::token_nll(logits, &batch.targets)?.mean_all()?);
    let (value, all) =
        gradient(&model.transformer, (&batch, &vars, way), &CutTaps::default(), nll).unwrap();
    (value, vars.iter().map(|var| all.get(var).unwrap().clone()).collect())
}

/// The largest difference of any of them, in parts of its largest value.
fn apart(a: &[Tensor], b: &[Tensor]) -> f32 {
    let largest = |t: &Tensor| -> f32 {
        t.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
    };
    let each = a.iter().zip(b).map(|(a, b)| largest(&(a - b).unwrap()) / largest(b));
    each.fold(0.0, f32::max)
}

#[test]
fn gradients_are_those_of_the_dequantised_model_either_way() {
    let mut nf4 = open(Holding::Nf4);
    let mut floats = expanded(&nf4);
    let (float_loss, want) = gradients(&mut floats, Way::Whole);
    let (loss, whole) = gradients(&mut nf4, Way::Whole);
    let (layered_loss, layered) = gradients(&mut nf4, Way::Layers);
    let (_, float_layered) = gradients(&mut floats, Way::Layers);
    let [off, ways, float_ways] =
        [(&whole, &want), (&layered, &whole), (&float_layered, &want)].map(|(a, b)| apart(a, b));
    println!("NF4 against floats {off:e}, layer by layer {ways:e}, of floats {float_ways:e}");
    assert!((loss - float_loss).abs() < 1e-5 && (layered_loss - loss).abs() < 1e-6);
    assert!(off <= 1e-4, "{off}");
    assert!(ways <= 1e-5 && float_ways <= 1e-5, "{ways} {float_ways}");
}

#[test]
fn nf4_is_near_the_student_and_its_own_size() {
    let (nf4, floats) = (open(Holding::Nf4), open(Holding::Floats));
    let [held, stored] = [&nf4, &floats]
        .map(|model| model.transformer.linear(0, Projection::Up).unwrap().weight().unwrap());
    let norm = |t: &Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
    let off = norm(&(held - &stored).unwrap()) / norm(&stored);
    assert!((0.05..0.12).contains(&off), "{off}");
    // Embedding and head are as they were.
    assert_eq!(
        nf4.transformer.head().unwrap().to_vec2::<f32>().unwrap(),
        floats.transformer.head().unwrap().to_vec2::<f32>().unwrap()
    );
}

/// Prompts that are learned by heart.
const FEW: usize = 24;

/// What the references say, without a teacher.
fn labels() -> Labels {
    let label = |prompt: Prompt| PromptLabels {
        answer: prompt.reference.clone().unwrap(),
        prompt,
        ended: true,
        reasoning: None,
        tokens: Vec::new(),
    };
    Labels {
        teacher: Fingerprint(Digest::of(b"nobody")),
        vocabulary: Digest::of(b"none"),
        pieces: Vec::new(),
        prompts: prompts(FEW).into_iter().map(label).collect(),
    }
}

#[test]
fn a_student_in_nf4_learns_and_its_adapter_is_the_float_student_s() {
    let recipe =
        DistilRecipe { rank: 4, alpha: 8.0, epochs: 2, batch_tokens: 256, ..recipe_references() };
    let all = [labels()];
    let mut student = open(Holding::Nf4);
    let request = DistilRequest::new(&all, &all, &recipe);
    let Distilled { adapter, summary, .. } = distil(&mut student, &request, &NoProgress).unwrap();
    assert!(summary.after < summary.before - 0.05 && summary.best_epoch > 0, "{summary:?}");
    let mut floats = open(Holding::Floats);
    load_adapter(&mut floats, &adapter).unwrap();
    let nll = |model: &LoadedModel| {
        let sequences = model.readable(&prompts(FEW)).unwrap().sequences;
        let batch = Batch::new(&sequences.iter().collect::<Vec<_>>()).unwrap();
        let frame = model.transformer.frame(&batch).unwrap();
        let x = model.transformer.forward(&batch, &frame, &mut uspx_model::taps::NoTaps).unwrap();
        let nll = model.transformer.response_nll(&x, &batch).unwrap();
        nll.mean_all().unwrap().to_scalar::<f32>().unwrap()
    };
    let [before, after] = [nll(&open(Holding::Floats)), nll(&floats)];
    assert!(after < before - 0.05, "{before} {after}");
}
