//! What the coordinator's mind takes where thousands of workers answer: every worker has tasks ahead, every answer is
//! checked, folded and followed by the next task, without bus, disk or model.

use crate::failed;
use serde_json::json;
use std::collections::VecDeque;
use std::time::Instant;
use uspx_bench_engine::error::Result;
use uspx_bench_engine::figure::{Bound, Figure, Report};
use uspx_colony::{CampaignConfig, Colony, Command, Event, PlannedTask, PromptEntry, Split, Stage};
use uspx_domain::{
    Answer, Column, Deposit, Digest, Fingerprint, LayerShape, MlpShape, ModelShape, Outcome,
    Prompt, PromptTokens, Speaks, Statistic, UnitKind, WorkerId,
};
use uspx_runtime::memory::peak_rss;

/// Workers of the smaller swarm and of the larger one.
const WORKERS: [usize; 2] = [1_000, 10_000];
/// Tasks of one prompt each, for every worker.
const TASKS: usize = 3;
/// Tasks that a day is to bring.
const DAY: f64 = 1e6;
/// Seconds of a day.
const SECONDS: f64 = 86_400.0;
/// Layers and experts of gpt-oss-20b.
const SHAPE: (u32, u32) = (24, 32);

/// Measures, and adds the figures.
///
/// # Errors
/// A colony that is stuck.
pub fn measure(report: &mut Report) -> Result<()> {
    let mut each = Vec::new();
    for workers in WORKERS {
        let mut seconds = answered(workers)?;
        seconds.sort_by(f64::total_cmp);
        let mean = seconds.iter().sum::<f64>() / seconds.len().max(1) as f64;
        let at =
            |share: usize| seconds.get(seconds.len() * share / 100).copied().unwrap_or(f64::NAN);
        let detail =
            json!({ "answers": seconds.len(), "milliseconds": mean * 1e3, "median": at(50) * 1e3 });
        let what = |name: &str| format!("{workers} workers: {name}");
        report.put(Figure::new(
            what("answers merged a second"),
            1.0 / mean,
            "",
            Bound::None,
            detail,
        ));
        report.put(Figure::new(
            what("p99 of a decision"),
            at(99) * 1e3,
            "ms",
            Bound::None,
            json!({}),
        ));
        let busy = mean * DAY / SECONDS;
        report.put(Figure::new(
            what("cores for a million tasks a day"),
            busy,
            "",
            Bound::Below(1.0),
            json!({}),
        ));
        each.push(mean);
    }
    if let [small, large] = each.as_slice() {
        let growth = Bound::Below(2.0);
        let what = "an answer's cost at ten times the workers and tasks";
        report.put(Figure::new(what, large / small, "times", growth, json!({})));
    }
    let peak = peak_rss().map_or(f64::NAN, |bytes| bytes as f64 / f64::from(1 << 30));
    report.put(Figure::new(
        "memory of the larger swarm",
        peak,
        "GiB",
        Bound::Below(1.0),
        json!({}),
    ));
    Ok(())
}

/// Seconds that each answer took, the planning and closing of its epoch included.
fn answered(workers: usize) -> Result<Vec<f64>> {
    let (mut colony, mut queue) = (Colony::default(), VecDeque::new());
    let config = config(workers * TASKS);
    let (teacher, shape) = (config.teacher, config.shape.clone());
    let (_, founded) = colony.want(config, [3; 16]).map_err(failed)?;
    take(&mut queue, founded.commands);
    for at in 0..workers {
        let worker: WorkerId = format!("worker-{at}").parse().map_err(failed)?;
        let seen = Event::WorkerSeen { worker, speaks: Speaks::here(), holds: vec![teacher] };
        take(&mut queue, colony.step(seen).commands);
    }
    let mut seconds = Vec::new();
    while colony.state().stage() == Some(Stage::Trace) {
        let (task, worker) = queue.pop_front().ok_or_else(|| failed("it waits for nothing"))?;
        let answer = Answer {
            task: task.id,
            worker: worker.clone(),
            outcome: Outcome::Scores(deposit(&task, &colony, &shape)),
            millis: 30_000,
            skipped: vec![],
            seams: 0,
        };
        let begun = Instant::now();
        let step = colony.step(Event::AnswerArrived { worker, answer: Box::new(answer) });
        seconds.push(begun.elapsed().as_secs_f64());
        take(&mut queue, step.commands);
    }
    Ok(seconds)
}

fn config(prompts: usize) -> CampaignConfig {
    let (layers, experts) = SHAPE;
    let mlp = MlpShape::Experts { experts, top_k: 4, channels: 2_880 };
    let shape = ModelShape::uniform(layers, LayerShape::new(64, mlp));
    let entry = |name: String, split| {
        PromptEntry::of(&Prompt { id: name.clone(), prompt: name, ..Prompt::default() }, split)
    };
    let mut all: Vec<PromptEntry> =
        (0..prompts).map(|at| entry(format!("p{at}"), Split::Train)).collect();
    all.push(entry("v".into(), Split::Validation));
    all.push(entry("g".into(), Split::Gate));
    let model = Fingerprint(Digest::of(b"swarm"));
    let mut config = CampaignConfig::new("swarm", (model, shape), None, all);
    config.probe.trace_batch = Some(1);
    config
}

/// What a trace of a prompt says of every expert.
fn deposit(task: &PlannedTask, colony: &Colony, shape: &ModelShape) -> Deposit {
    let id = |at: &u32| colony.state().campaign().and_then(|c| c.id(*at)).map(str::to_owned);
    let ids = task.work.prompts().iter().filter_map(id);
    let prompts: Vec<PromptTokens> = ids.map(|id| PromptTokens { id, tokens: 40 }).collect();
    let column =
        |unit| Column { unit, statistic: Statistic::EASY_EP, values: vec![0.5; prompts.len()] };
    let columns = shape.units(UnitKind::Expert).map(column).collect();
    Deposit { prompts, columns, moments: vec![] }
}

fn take(queue: &mut VecDeque<(PlannedTask, WorkerId)>, commands: Vec<Command>) {
    for command in commands {
        if let Command::Issue { task, worker, .. } = command {
            queue.push_back((*task, worker));
        }
    }
}
