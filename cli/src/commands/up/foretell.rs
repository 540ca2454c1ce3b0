//! What a campaign will compute and how long that takes on this machine: told before it begins,
//! from doing a little of each kind of its work, on as many workers as there will be.

use super::Inputs;
use crate::error::{CliError, Exit, Result};
use crate::output::{self, time};
use crate::progress::bar;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use uspx_colony::plan::{Forecast, Sample, forecast};
use uspx_colony::{CampaignConfig, Stage};
use uspx_coordinator::PromptBook;
use uspx_distill::{Labels, PromptLabels};
use uspx_domain::{BlobRef, Digest, Distil, Export, Fingerprint, Prompt, Task, TaskId, Work};
use uspx_runtime::Shutdown;
use uspx_worker::open_models::OpenModels;
use uspx_worker::product::Inputs as Blobs;
use uspx_worker::rehearse;

/// How long all the measuring may take, but for steps that are longer themselves.
const WITHIN: Duration = Duration::from_secs(20);
/// Where a prompt has no answer, training is measured on one of so many characters.
const ANSWER: usize = 64;

/// What is told.
#[derive(Serialize)]
struct Told {
    train: usize,
    validation: usize,
    gate: usize,
    workers: u16,
    threads: usize,
    stages: Vec<StageTime>,
    /// All stages, one after another.
    seconds: f64,
}

/// A stage, and how long it takes.
#[derive(Serialize)]
struct StageTime {
    stage: &'static str,
    seconds: f64,
    /// Of several pieces at once, the longest.
    #[serde(skip)]
    longest: f64,
}

/// Tells it as the command's answer.
pub(super) fn plan(inputs: &Inputs, shutdown: &Shutdown) -> Result<()> {
    let told = foretold(inputs, shutdown)?;
    if inputs.json { output::json(&told) } else { output::line(&page(&told)) }
}

/// Tells it before the campaign begins, beside the answer.
pub(super) fn tell(inputs: &Inputs, shutdown: &Shutdown) -> Result<()> {
    let told = foretold(inputs, shutdown)?;
    match inputs.json {
        false => output::note(&page(&told)),
        true => output::note(&serde_json::to_string(&told).map_err(failed)?),
    }
    Ok(())
}

fn foretold(inputs: &Inputs, shutdown: &Shutdown) -> Result<Told> {
    let book = inputs.split()?;
    let campaign = campaign(inputs, &book)?;
    let bar = bar("measuring this machine");
    bar.enable_steady_tick(Duration::from_millis(500));
    let pieces = forecast(&campaign);
    let seconds = measure(inputs, &campaign, &book, &pieces)?;
    bar.finish_and_clear();
    if shutdown.is_cancelled() {
        return Err(CliError::new(Exit::Interrupted, "stopped"));
    }
    Ok(told(inputs, &book, &pieces, &seconds))
}

/// The campaign as the coordinator will found it.
fn campaign(inputs: &Inputs, book: &PromptBook) -> Result<CampaignConfig> {
    let nothing = || CliError::new(Exit::NotFound, "the teacher was not looked at");
    let teacher = inputs.models.teacher().ok_or_else(nothing)?;
    let teacher = (teacher.fingerprint, teacher.shape.clone());
    let campaign = inputs.plan.config(teacher, inputs.plan.student, book);
    campaign.check().map_err(|e| CliError::new(Exit::BadInput, e))?;
    Ok(campaign)
}

/// Seconds that one piece of each forecast takes one worker while the others work too.
fn measure(
    inputs: &Inputs,
    campaign: &CampaignConfig,
    book: &PromptBook,
    pieces: &[Forecast],
) -> Result<Vec<f64>> {
    let holdings = &inputs.models.holdings;
    let limit = WITHIN / pieces.len().max(1) as u32;
    let machine = &inputs.machine.each;
    let one = |number: u16| -> Result<Vec<f64>> {
        let scratch = inputs.layout.worker(number).join("rehearsal");
        let mut models = OpenModels::new(holdings.clone(), machine.clone(), scratch.clone());
        let each = |piece: &Forecast| {
            let mut blobs = Blobs::new_in(&scratch).map_err(failed)?;
            let task = task(piece, campaign, book, &mut blobs)?;
            rehearse(&task, &mut models, &blobs, limit).map_err(failed)
        };
        pieces.iter().map(each).collect()
    };
    let all: Vec<Result<Vec<f64>>> = std::thread::scope(|scope| {
        let workers: Vec<_> =
            (1..=inputs.machine.workers).map(|n| scope.spawn(move || one(n))).collect();
        workers.into_iter().map(|w| w.join().unwrap_or_else(|_| Err(panicked()))).collect()
    });
    let all = all.into_iter().collect::<Result<Vec<_>>>()?;
    let mean =
        |at: usize| all.iter().filter_map(|of| of.get(at)).sum::<f64>() / all.len().max(1) as f64;
    Ok((0..pieces.len()).map(mean).collect())
}

fn failed(error: impl std::error::Error + 'static) -> CliError {
    CliError::caused(Exit::Failed, &error).help("uspx up without --plan tells more as it goes")
}

fn panicked() -> CliError {
    CliError::new(Exit::Failed, "measuring this machine failed by a defect of uspx")
}

/// The piece as a worker gets it, its blobs laid out.
fn task(
    piece: &Forecast,
    campaign: &CampaignConfig,
    book: &PromptBook,
    blobs: &mut Blobs,
) -> Result<Task> {
    let text = |at: &u32| campaign.id(*at).and_then(|id| book.get(id));
    let texts = |places: &[u32]| -> Vec<Prompt> { places.iter().filter_map(text).collect() };
    let work = match &piece.sample {
        Sample::Work(work) => work.clone().on(texts(work.prompts())),
        Sample::Export { export, labels: places } => Work::Export(Export {
            labels: vec![labels(campaign.teacher, renamed(texts(places)), blobs)?],
            ..export.clone().on(texts(&export.calibration))
        }),
        Sample::Training { recipe, train, validation } => Work::Distil(Distil {
            train: vec![labels(campaign.teacher, texts(train), blobs)?],
            validation: vec![labels(campaign.teacher, texts(validation), blobs)?],
            recipe: *recipe,
        }),
    };
    Ok(Task { id: TaskId::derived(b"rehearsal"), epoch: 0, model: piece.model, work })
}

/// The same under names of their own, as new prompts have.
fn renamed(prompts: Vec<Prompt>) -> Vec<Prompt> {
    let name = |(at, prompt): (usize, Prompt)| Prompt { id: format!("new-{at}"), ..prompt };
    prompts.into_iter().enumerate().map(name).collect()
}

/// Labels of the prompts' own answers: a training reads as much of them as of a teacher's.
fn labels(teacher: Fingerprint, prompts: Vec<Prompt>, blobs: &mut Blobs) -> Result<BlobRef> {
    let label = |prompt: Prompt| {
        let own = || prompt.prompt.chars().cycle().take(ANSWER).collect();
        let answer = prompt.reference.clone().unwrap_or_else(own);
        PromptLabels { prompt, answer, ended: true, reasoning: None, tokens: vec![] }
    };
    let labels = Labels {
        teacher,
        vocabulary: Digest::of(b"none"),
        pieces: vec![],
        prompts: prompts.into_iter().map(label).collect(),
    };
    let bytes = labels.to_bytes().map_err(failed)?;
    let blob = BlobRef::to(&bytes);
    if let Some(path) = blobs.place(blob) {
        std::fs::write(&path, &bytes).map_err(|e| CliError::file(&path, &e))?;
    }
    Ok(blob)
}

/// The stages' times: their pieces shared out to the workers, but none in less than one takes.
fn told(inputs: &Inputs, book: &PromptBook, pieces: &[Forecast], seconds: &[f64]) -> Told {
    use uspx_colony::Split::{Gate, Train, Validation};
    let mut stages: BTreeMap<Stage, StageTime> = BTreeMap::new();
    for (piece, seconds) in pieces.iter().zip(seconds) {
        let name = super::bars::name(piece.stage);
        let stage = StageTime { stage: name, seconds: 0.0, longest: 0.0 };
        let time = stages.entry(piece.stage).or_insert(stage);
        time.seconds += piece.pieces * seconds / f64::from(inputs.machine.workers);
        time.longest = time.longest.max(seconds * piece.pieces.min(1.0));
    }
    let longer = |t: StageTime| StageTime { seconds: t.seconds.max(t.longest), ..t };
    let stages: Vec<StageTime> = stages.into_values().map(longer).collect();
    Told {
        train: book.count(Train),
        validation: book.count(Validation),
        gate: book.count(Gate),
        workers: inputs.machine.workers,
        threads: inputs.machine.threads,
        seconds: stages.iter().map(|s| s.seconds).sum(),
        stages,
    }
}

fn page(told: &Told) -> String {
    let mut table = output::table(&["what is computed", "time here"]);
    for stage in &told.stages {
        table.add_row([stage.stage.to_owned(), time(stage.seconds)]);
    }
    table.add_row(["all of it, at most about".to_owned(), time(told.seconds)]);
    format!(
        "{} prompts to learn from, {} to choose by, {} held out\n{} workers with {} threads each\n{table}",
        told.train, told.validation, told.gate, told.workers, told.threads
    )
}
