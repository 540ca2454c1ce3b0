//! Trains a student held in NF4 on the references of a prompt file, and prints what another program
//! needs to train the same: batches, the adapters' first values, and the loss of every step.
//!
//! `cargo run -p uspx-distill --example qlora -- STUDENT PROMPTS.jsonl ADAPTERS.safetensors [COUNT]` writes the
//! first adapters and prints one JSON object; `tests/parity/qlora_peer.py` reads both.

use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use uspx_distill::losses::text_lesson;
use uspx_distill::{DistilRequest, Labels, PromptLabels, distil, lora, recipe_references};
use uspx_domain::{Digest, DistilRecipe, Fingerprint, Prompt, parse_prompts};
use uspx_model::{Holding, LoadedModel, NoProgress, Placement};

type Any<T> = Result<T, Box<dyn Error>>;

/// A step of the training, as it tells it.
#[derive(Debug, Clone, Default, serde::Serialize)]
struct Step {
    step: u64,
    loss: f64,
    members: Vec<usize>,
}

impl Visit for Step {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "step" {
            self.step = value;
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if field.name() == "loss" {
            self.loss = value;
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "members" {
            self.members = serde_json::from_str(&format!("{value:?}")).unwrap_or_default();
        }
    }
}

/// Collects the steps.
struct Steps(Arc<Mutex<Vec<Step>>>);

impl Subscriber for Steps {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "uspx_distill::learner"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut step = Step::default();
        event.record(&mut step);
        if step.step > 0 {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(step);
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// What the references say, without a teacher.
fn labels(prompts: Vec<Prompt>) -> Labels {
    let label = |prompt: Prompt| {
        let answer = prompt.reference.clone()?;
        Some(PromptLabels { prompt, answer, ended: true, reasoning: None, tokens: Vec::new() })
    };
    Labels {
        teacher: Fingerprint(Digest::of(b"nobody")),
        vocabulary: Digest::of(b"none"),
        pieces: Vec::new(),
        prompts: prompts.into_iter().filter_map(label).collect(),
    }
}

/// The first values of the adapters that a training with this recipe begins with.
fn first_adapters(student: &mut LoadedModel, recipe: &DistilRecipe, path: &Path) -> Any<()> {
    let pairs = lora::attach(student, recipe.rank as usize, f64::from(recipe.alpha), recipe.seed)?;
    let mut tensors: HashMap<String, Tensor> = HashMap::new();
    for pair in pairs {
        let at = pair.projection.path(pair.layer);
        tensors.insert(format!("{at}.lora_A"), pair.a.as_tensor().clone());
        tensors.insert(format!("{at}.lora_B"), pair.b.as_tensor().clone());
    }
    lora::detach(student)?;
    Ok(candle_core::safetensors::save(&tensors, path)?)
}

fn main() -> Any<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [student, prompts, adapters, rest @ ..] = arguments.as_slice() else {
        return Err("qlora STUDENT PROMPTS.jsonl ADAPTERS.safetensors [COUNT]".into());
    };
    let count: usize = rest.first().map(|c| c.parse()).transpose()?.unwrap_or(400);
    let mut all = parse_prompts(&std::fs::read_to_string(prompts)?, false)?.prompts;
    all.truncate(count);
    let placement = Placement::new(Holding::Nf4, DType::F32, &Device::Cpu);
    let mut model = LoadedModel::open(Path::new(student), placement)?;
    let recipe = DistilRecipe {
        rank: 16,
        alpha: 16.0,
        epochs: 2,
        learning_rate: 7e-4,
        ..recipe_references()
    };
    first_adapters(&mut model, &recipe, Path::new(adapters))?;
    let labels = [labels(all)];
    let steps = Arc::new(Mutex::new(Vec::new()));
    tracing::subscriber::set_global_default(Steps(steps.clone()))?;
    let request = DistilRequest::new(&labels, &labels, &recipe);
    let summary = distil(&mut model, &request, &NoProgress)?.summary;
    let [labels] = labels;
    let mut lessons = Vec::new();
    for prompt in &labels.prompts {
        let lesson = text_lesson::<()>(prompt, &model.chat)?.sequence;
        if lesson.response_len() > 0 {
            lessons.push(serde_json::json!({ "ids": lesson.ids, "start": lesson.response_start }));
        }
    }
    let steps = steps.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let told = serde_json::json!({
        "rank": recipe.rank,
        "alpha": recipe.alpha,
        "learning_rate": recipe.learning_rate,
        "before": summary.before,
        "after": summary.after,
        "lessons": lessons,
        "steps": steps,
    });
    println!("{told}");
    Ok(())
}
