//! Measures rounds in which a student learns from its own answers, on the shipped models and prompts: bits
//! per byte and exact match on held-out prompts, after the training and after every round.
//!
//! `cargo run --release -p uspx-distill --example on_policy -- [key=value…]`, keys being `models prompts
//! seeds epochs rounds rate temperature`: a folder with teacher and student, prompts to learn from, how many
//! trainings, their passes, rounds after them, and these rounds' rate as a share of the training's.

use candle_core::{DType, Device};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::slice::from_ref;
use uspx_distill::on_policy::{OnPolicy, Stage};
use uspx_distill::teach::label_own;
use uspx_distill::{
    DistilRequest, Keeping, Labels, distil, load_adapter, make_labels, recipe, recipe_teacher,
};
use uspx_domain::{DistilRecipe, Prompt, parse_prompts};
use uspx_model::chat::Bounds;
use uspx_model::generate::{Choice, generate};
use uspx_model::taps::NoTaps;
use uspx_model::{LoadedModel, NoProgress, Placement, batches, loss};

type Any<T> = Result<T, Box<dyn Error>>;

/// Tokens of an answer.
const BOUND: usize = 48;
/// Prompts to stop by, the last of the training file, and prompts to judge by.
const VALIDATION: usize = 60;
const HELD_OUT: usize = 300;

fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets")
}

fn open(folder: &Path) -> Any<LoadedModel> {
    Ok(LoadedModel::open(folder, Placement::floats(DType::F32, &Device::Cpu))?)
}

fn prompts(file: &str) -> Any<Vec<Prompt>> {
    let text = std::fs::read_to_string(assets().join("prompts").join(file))?;
    Ok(parse_prompts(&text, false)?.prompts)
}

fn labels(teacher: &LoadedModel, prompts: &[Prompt]) -> Any<Labels> {
    let bounds = (Bounds::answer(BOUND), usize::MAX);
    Ok(make_labels(teacher, prompts, None, Keeping::Likeliest(32), bounds, &NoProgress)?.0)
}

fn bits_per_byte(model: &LoadedModel, prompts: &[Prompt]) -> Any<f64> {
    let mut nats = 0.0;
    for (_, batch) in batches(&model.readable(prompts)?.sequences, 4096)? {
        let frame = model.transformer.frame(&batch)?;
        let x = model.transformer.forward(&batch, &frame, &mut NoTaps)?;
        let logits = model.transformer.logits(&x, &batch.predicting)?;
        nats += f64::from(loss::token_nll(&logits, &batch.targets)?.sum_all()?.to_scalar::<f32>()?);
    }
    let bytes: usize = prompts.iter().filter_map(|p| p.reference.as_ref()).map(String::len).sum();
    Ok(nats / bytes as f64 / std::f64::consts::LN_2)
}

fn exact_match(model: &LoadedModel, prompts: &[Prompt]) -> Any<f64> {
    let mut right = 0usize;
    let asked = model.askable(prompts)?;
    for (prompts, asked) in asked.prompts.chunks(64).zip(asked.sequences.chunks(64)) {
        let (asked, bounds) = (asked.iter().collect::<Vec<_>>(), Bounds::answer(BOUND));
        let greedy = &mut Choice::Greedy;
        let answers = generate(model, &asked, bounds, greedy, &mut NoTaps, &mut |_, _, _| {})?;
        for (prompt, answer) in prompts.iter().zip(answers) {
            let text = model.chat.answer_text(&answer.ids);
            right += usize::from(prompt.reference.as_deref().map(str::trim) == Some(text.trim()));
        }
    }
    Ok(right as f64 / prompts.len() as f64)
}

/// What was said on the command line.
struct Asked(Vec<String>);

impl Asked {
    fn text(&self, key: &str) -> Option<&str> {
        self.0.iter().filter_map(|a| a.split_once('=')).find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    fn number(&self, key: &str, usual: f64) -> Any<f64> {
        Ok(self.text(key).map_or(Ok(usual), str::parse)?)
    }

    fn how(&self) -> Any<OnPolicy> {
        let usual = OnPolicy::default();
        Ok(OnPolicy {
            rounds: self.number("rounds", 4.0)? as u32,
            temperature: self.number("temperature", usual.temperature)?,
            rate: self.number("rate", usual.rate)?,
        })
    }

    fn recipe(&self, seed: u64) -> Any<DistilRecipe> {
        let epochs = self.number("epochs", 6.0)? as u32;
        let open = DistilRecipe { rank: 0, alpha: 0.0, learning_rate: 0.0, ..recipe_teacher() };
        Ok(DistilRecipe { epochs, seed, teacher_weight: 0.5, batch_tokens: 1024, ..open })
    }
}

/// Who teaches whom, and by what.
struct Pair {
    folder: PathBuf,
    teacher: LoadedModel,
    train: Vec<Prompt>,
    heldout: Vec<Prompt>,
    /// Of the prompts to learn, and of those to stop by.
    labels: (Labels, Labels),
}

impl Pair {
    fn of(asked: &Asked) -> Any<Self> {
        let folder = asked.text("models").map_or_else(|| assets().join("nano"), PathBuf::from);
        let (mut train, mut heldout) = (prompts("cli-train.jsonl")?, prompts("cli-heldout.jsonl")?);
        let validation = train.split_off(train.len().saturating_sub(VALIDATION));
        train.truncate(asked.number("prompts", 300.0)? as usize);
        heldout.truncate(HELD_OUT);
        let teacher = open(&folder.join("teacher"))?;
        let labels = (labels(&teacher, &train)?, labels(&teacher, &validation)?);
        Ok(Self { folder, teacher, train, heldout, labels })
    }

    fn student(&self) -> Any<LoadedModel> {
        open(&self.folder.join("student"))
    }

    /// An adapter's worth.
    fn judged(&self, adapter: &[u8]) -> Any<String> {
        let mut student = self.student()?;
        load_adapter(&mut student, adapter)?;
        let bits = bits_per_byte(&student, &self.heldout)?;
        let exact = exact_match(&student, &self.heldout)?;
        Ok(format!("{bits:.4} bits per byte, exact match {exact:.3}"))
    }

    /// A training, and rounds after it.
    fn measure(&self, recipe: &DistilRecipe, how: OnPolicy) -> Any<()> {
        let (seed, (train, validation)) = (recipe.seed, &self.labels);
        let mut student = self.student()?;
        let request = DistilRequest::new(from_ref(train), from_ref(validation), recipe);
        let made = distil(&mut student, &request, &NoProgress)?;
        println!("seed {seed}: {} tokens, {:?}", made.pace.tokens, made.summary);
        println!("seed {seed}: {}", self.judged(&made.adapter)?);
        let recipe = recipe::resolved(recipe, student.transformer.config().hidden);
        let mut stage = Stage::after(&made, (how, &recipe));
        while let Some(round) = stage.next() {
            let within = (Bounds::answer(BOUND), usize::MAX);
            let own = stage.answers(&mut student, &self.train, within, &NoProgress)?;
            let own = label_own(&self.teacher, &own, None, (32, usize::MAX), &NoProgress)?.0;
            stage.learn(&mut student, (&own, from_ref(validation)), &NoProgress)?;
            let nats: f32 = own.prompts.iter().flat_map(|p| &p.tokens).map(|t| -t.log_prob).sum();
            let (nats, worth) = (nats / own.tokens() as f32, self.judged(stage.adapter())?);
            println!("seed {seed}, round {round}: {nats:.3} nats to the teacher, then {worth}");
        }
        if let Some(rounds) = stage.rounds() {
            println!("seed {seed}, the best: {rounds:?}, {}", self.judged(stage.best())?);
        }
        Ok(())
    }
}

fn main() -> Any<()> {
    let asked = Asked(std::env::args().skip(1).collect());
    let pair = Pair::of(&asked)?;
    for seed in 1..=asked.number("seeds", 3.0)? as u64 {
        pair.measure(&asked.recipe(seed)?, asked.how()?)?;
    }
    Ok(())
}
