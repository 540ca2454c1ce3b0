//! A small world to run whole campaigns in: known effects of every unit, and workers that answer
//! from them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod service;

use std::collections::{BTreeMap, BTreeSet};
use uspx_colony::*;
use uspx_domain::*;

/// Four layers of 16 experts and 4 heads.
pub fn shape() -> ModelShape {
    let mlp = MlpShape::Experts { experts: 16, top_k: 2, channels: 8 };
    ModelShape::uniform(4, LayerShape::new(4, mlp))
}

pub fn fingerprint(name: &str) -> Fingerprint {
    Fingerprint(Digest::of(name.as_bytes()))
}

pub fn worker(name: &str) -> WorkerId {
    name.parse().unwrap()
}

/// The text of a prompt.
pub fn prompt(id: &str) -> Prompt {
    let (id, prompt) = (id.to_owned(), format!("secret of {id}"));
    Prompt { id, prompt, ..Prompt::default() }
}

const RECIPE: DistilRecipe = DistilRecipe {
    rank: 16,
    alpha: 32.0,
    epochs: 4,
    learning_rate: 2e-3,
    batch_tokens: 1024,
    teacher_weight: 0.0,
    seed: 0,
    loss: DistilLoss::HYBRID,
    nf4: false,
};

/// A campaign small enough for many runs.
pub fn campaign(name: &str) -> CampaignConfig {
    let split = |at| match at {
        0..300 => Split::Train,
        300..340 => Split::Validation,
        _ => Split::Gate,
    };
    let tags = |at: u32| {
        vec!["all".to_owned(), if at.is_multiple_of(2) { "even" } else { "odd" }.to_owned()]
    };
    let entry = |at: u32| {
        let tagged = Prompt { tags: tags(at), ..prompt(&format!("p{at}")) };
        PromptEntry::of(&tagged, split(at))
    };
    let prompts = (0..420).map(entry);
    let mut config = CampaignConfig::new(
        name,
        (fingerprint("teacher"), shape()),
        fingerprint("student"),
        prompts.collect(),
    );
    config.probe.trace_batch = Some(100);
    config.probe.patch_batch = Some(64);
    config.probe.units_per_task = Some(16);
    config.judge.batch = Some(125);
    config.distil.label_batch = Some(125);
    config.distil.judge_batch = Some(250);
    config.probe.patch_prompts = 60;
    config.probe.round_pairs = 1024;
    config.probe.exact_least = 2048;
    config.probe.exact_pairs = 5120;
    config.judge.random_masks = 5;
    config.distil.resamples = 200;
    // As campaigns were once: their tasks' names are pinned.
    (config.dream.rounds, config.mind.rounds) = (0, 0);
    (config.distil.calibration, config.finish.passes) = (128, 0);
    for recipe in &mut config.distil.recipes {
        let weight = recipe.teacher_weight;
        *recipe = DistilRecipe { teacher_weight: weight, ..RECIPE };
    }
    config
}

/// True effects in nats per token: a quarter of the units matter, some layers more than others.
pub fn effects(seed: u64) -> BTreeMap<Unit, f64> {
    let mut dice = Dice::new(seed, "effects", 0);
    let mut effect = |unit: Unit| {
        let size = 0.02 + dice.unit() * if unit.index % 4 == 1 { 1.0 } else { 0.02 };
        (unit, size / f64::from(1 + unit.layer))
    };
    shape().units(UnitKind::Expert).map(&mut effect).collect()
}

/// The units that a perfect judge would keep at a budget, as the builder does.
pub fn truth(config: &CampaignConfig, effects: &BTreeMap<Unit, f64>) -> BTreeSet<Unit> {
    let score = |e: &f64| combine::Score { mean: *e, error: 0.0, effective: 1.0 };
    mask::build(&mask::Budget::of(config), &effects.iter().map(|(u, e)| (*u, score(e))).collect())
}

pub struct World {
    pub config: CampaignConfig,
    pub effects: BTreeMap<Unit, f64>,
    /// Nats per token that the distilled student lies below the base.
    pub gain: f64,
    /// Prompts that a model cannot run, by place.
    pub unrunnable: BTreeMap<(Fingerprint, u32), SkipReason>,
    /// Prompts that a model's tokenizer reads otherwise as a whole text than in use, by place.
    pub seams: BTreeSet<(Fingerprint, u32)>,
    /// Of a hundred answer bytes, how many get labels.
    pub labelled: u64,
    /// Batches of a pass over what is labelled.
    pub batches: u32,
    /// Of a hundred prompts, how many the base and the 4-bit students answer with the reference, where
    /// the worker can answer at all.
    pub right: Option<(u32, u32)>,
    /// Of prompts from a place on, the effects in the place of the others'.
    pub later: Option<(u32, BTreeMap<Unit, f64>)>,
    /// By how much one prompt needs all units more than another.
    pub hardness: f64,
    /// Validation loss where each pass of a shared training begins; it stays at the last.
    pub losses: Vec<f32>,
}

/// Where a round of a shared training is in its plan: the pass, from 1, whether it begins it, and
/// batches left after the round. No round goes on from one pass to the next.
fn pace(part: &Part, of: u32, batches: u32) -> (u32, bool, u32) {
    let (mut pass, mut done) = (1, 0);
    let mut take = |machines: u32| {
        let began = (pass, done == 0);
        done = (done + machines * part.steps).min(batches);
        let left = (part.recipe.epochs + 1 - pass) * batches - done;
        if done == batches {
            (pass, done) = (pass + 1, 0);
        }
        (began.0, began.1, left)
    };
    for round in &part.rounds {
        take(round.machines);
    }
    take(of)
}

impl World {
    pub fn new(config: CampaignConfig) -> Self {
        let effects = effects(config.seed + 11);
        Self {
            config,
            effects,
            gain: 0.3,
            unrunnable: BTreeMap::new(),
            seams: BTreeSet::new(),
            labelled: 99,
            batches: 100,
            right: Some((30, 60)),
            later: None,
            hardness: 0.0,
            losses: vec![4.0, 3.5, 3.2, 3.1],
        }
    }

    pub fn tokens(&self, at: u32) -> u32 {
        8 + (at * 7) % 13
    }

    fn prompts(&self, places: &[u32]) -> Vec<PromptTokens> {
        let one = |at: &u32| PromptTokens {
            id: self.config.prompts[*at as usize].id.clone(),
            tokens: self.tokens(*at),
        };
        places.iter().map(one).collect()
    }

    /// Noise that belongs to a prompt and a thing, whoever looks.
    fn noise(&self, at: u32, what: &str) -> f64 {
        Dice::new(self.config.seed, what, u64::from(at)).normal()
    }

    fn row(&self, places: &[u32], loss: impl Fn(u32) -> f64) -> LossRow {
        LossRow {
            prompts: self.prompts(places),
            nats: places.iter().map(|at| loss(*at).max(0.0) as f32).collect(),
            bytes: places.iter().map(|at| 2 * self.tokens(*at)).collect(),
            ..LossRow::default()
        }
    }

    /// What a contender's own answers are worth, where it is asked for them.
    fn answers(&self, judge: &Judge<u32>, contender: Contender) -> (Vec<bool>, Option<Pace>) {
        let Some((base, student)) = self.right.filter(|_| !judge.answers.is_none()) else {
            return (vec![], None);
        };
        let share = if contender == Contender::Base { base } else { student };
        // A prompt is as hard for everybody: two models alike answer the same ones.
        let luck = |at: &u32| Dice::new(self.config.seed, "answers", u64::from(*at)).below(100);
        let right = judge.prompts.iter().map(|at| luck(at) < share).collect();
        let pace = Pace { tokens: 64, micros: 64_000_000 / u64::from(share) };
        (right, Some(pace).filter(|_| !judge.prompts.is_empty()))
    }

    fn clean(&self, at: u32) -> f64 {
        f64::from(self.tokens(at)) * (3.0 + 0.3 * self.noise(at, "clean"))
    }

    fn rise(&self, at: u32, unit: Unit) -> f64 {
        let later = self.later.as_ref().filter(|(from, _)| at >= *from);
        let effects = later.map_or(&self.effects, |(_, effects)| effects);
        let effect = effects.get(&unit).copied().unwrap_or(0.0);
        let hard = (1.0 + self.hardness * self.noise(at, "hard")).max(0.05);
        let own = 1.0 + 0.7 * self.noise(at, &unit.to_string());
        f64::from(self.tokens(at)) * effect * hard * own
    }

    /// A unit's effect on a prompt as a worker tells it: a difference of losses in single precision.
    pub fn truth(&self, at: u32, unit: Unit) -> f64 {
        let told = |loss: f64| f64::from(loss.max(0.0) as f32);
        told(self.under(at, &Cut::Unit(unit))) - told(self.clean(at))
    }

    fn under(&self, at: u32, cut: &Cut) -> f64 {
        match cut {
            Cut::Unit(unit) => self.clean(at) + self.rise(at, *unit),
            Cut::Mask(mask) => {
                self.clean(at)
                    + mask
                        .cut(&shape(), UnitKind::Expert)
                        .iter()
                        .map(|u| self.rise(at, *u))
                        .sum::<f64>()
            }
        }
    }

    /// A cheap score: the effect with much noise of its own.
    fn column(&self, statistic: Statistic, unit: Unit, places: &[u32]) -> Column {
        let bias = 1.0 + 0.5 * self.noise(unit.index * 31 + unit.layer, &format!("{statistic:?}"));
        let value = |at: &u32| (self.rise(*at, unit).abs() * bias.abs() * 5.0) as f32;
        Column { unit, statistic, values: places.iter().map(value).collect() }
    }

    fn scores(&self, places: &[u32], statistics: &[Statistic]) -> Outcome {
        let shape = shape();
        let columns = |s: &Statistic| {
            shape.units(UnitKind::Expert).map(|u| self.column(*s, u, places)).collect::<Vec<_>>()
        };
        Outcome::Scores(Deposit {
            prompts: self.prompts(places),
            columns: statistics.iter().flat_map(columns).collect(),
            moments: vec![],
        })
    }

    pub fn judged(&self, at: u32, contender: Contender) -> f64 {
        let below = match contender {
            Contender::Base => 0.0,
            Contender::Teacher => 2.0,
            Contender::Distilled(n) => self.gain + 0.01 * f64::from(n),
            _ => self.gain,
        };
        f64::from(self.tokens(at)) * (4.0 - below + 0.1 * self.noise(at, &format!("{contender:?}")))
    }

    fn told(&self, part: &Part, (at, of): (u32, u32), blob: BlobRef) -> Outcome {
        let (epoch, begins, left) = pace(part, of, self.batches);
        let worth = self.losses.get(epoch as usize - 1).or(self.losses.last());
        let loss = worth.copied().filter(|_| begins && at == 0);
        Outcome::Told { told: Told { blob, tokens: 100 + u64::from(at) }, loss, epoch, left }
    }

    /// The honest outcome of a task.
    pub fn outcome(&self, task: &PlannedTask) -> Outcome {
        let blob = |what: &str| BlobRef::to(format!("{what} {}", task.id).as_bytes());
        match (&task.work, &task.purpose) {
            (Work::Estimate(e), _) if e.estimator == Estimator::TRACE => {
                self.scores(&e.prompts, &[Statistic::EASY_EP, Statistic::COUNT])
            }
            (Work::Estimate(e), _) => self.scores(&e.prompts, &[Statistic::ATP_ABS]),
            (Work::Ablate(Ablate { prompts, cuts }), _) => {
                let clean = self.row(prompts, |at| self.clean(at));
                let cuts = cuts.iter().map(|cut| self.row(prompts, |at| self.under(at, cut)));
                Outcome::Losses(std::iter::once(clean).chain(cuts).collect())
            }
            (Work::Label(label), _) => {
                let prompts = label.prompts.len() as u32;
                let coverage = Coverage {
                    answer_bytes: 100 * u64::from(prompts),
                    labelled_bytes: self.labelled * u64::from(prompts),
                };
                Outcome::Labels { blob: blob("labels"), prompts, tokens: 9, dreams: 0, coverage }
            }
            (Work::Part(part), Purpose::Part { .. }) => match part.place {
                Place::Machine { at, of } => self.told(part, (at, of), blob("told")),
                Place::End => panic!("an end for {:?}", task.purpose),
            },
            (Work::Distil(_) | Work::Part(_), Purpose::Adapter(recipe)) => {
                let after = 3.0 - 0.1 * *recipe as f32;
                Outcome::Adapter {
                    blob: blob("adapter"),
                    summary: TrainingSummary { steps: 9, before: 4.0, after, best_epoch: 2 },
                }
            }
            (Work::Export(_), _) => {
                let files = vec![StoredFile { path: "model.bin".into(), blob: blob("model") }];
                Outcome::Exported { files }
            }
            (Work::Sae(_), Purpose::Sae(layer)) => Outcome::Sae {
                files: vec![StoredFile { path: "cfg.json".into(), blob: blob("sae") }],
                summary: SaeSummary {
                    steps: 9,
                    tokens: 90,
                    l0: 8.0,
                    explained_variance: 0.9,
                    dead: *layer,
                    clean: 1.0,
                    grafted: 1.5,
                    zero: 6.0,
                    mean: 5.0,
                },
            },
            (Work::Judge(judge), Purpose::Contender(who)) => {
                let (right, pace) = self.answers(judge, *who);
                let row = self.row(&judge.prompts, |at| self.judged(at, *who));
                Outcome::Losses(vec![LossRow { right, pace, ..row }])
            }
            (work, purpose) => panic!("{} for {purpose:?}", work.name()),
        }
    }

    pub fn answer(&self, task: &PlannedTask, worker: &WorkerId) -> Answer {
        let reason = |at: &u32| self.unrunnable.get(&(task.model, *at)).copied();
        let id = |at: &u32| self.config.prompts[*at as usize].id.clone();
        let skip = |at: &u32| reason(at).map(|reason| Skipped { id: id(at), reason });
        let skipped = task.work.prompts().iter().filter_map(skip).collect();
        let mut prompts = task.work.prompts().to_vec();
        prompts.retain(|at| reason(at).is_none());
        let has_seam = |at: &&u32| self.seams.contains(&(task.model, **at));
        let seams = prompts.iter().filter(has_seam).count() as u32;
        let runnable = PlannedTask { work: task.work.clone().on(prompts), ..task.clone() };
        let (worker, outcome) = (worker.clone(), self.outcome(&runnable));
        Answer { task: task.id, worker, outcome, millis: 5, skipped, seams }
    }
}

/// A worker says that it cannot do a task.
pub fn failed(task: &PlannedTask, worker: &WorkerId, reason: FailureReason) -> Answer {
    let (worker, outcome) = (worker.clone(), Outcome::Failed(reason.into()));
    Answer { task: task.id, worker, outcome, millis: 0, skipped: vec![], seams: 0 }
}

/// Applies a step as the service would: records to the ledger first, then the commands into the
/// workers' queues.
#[derive(Default)]
pub struct Service {
    pub colony: Colony,
    pub ledger: Vec<Record>,
    pub queues: Vec<(WorkerId, PlannedTask)>,
    pub ending: Option<Ending>,
    pub masks: Vec<u32>,
    /// Workers whose rest is not over, with their strikes.
    pub rests: Vec<(WorkerId, u32)>,
}

impl Service {
    pub fn take(&mut self, step: Step) -> Option<Verdict> {
        self.ledger.extend(step.records);
        for command in step.commands {
            match command {
                Command::Issue { task, worker, .. } => {
                    let item = (worker, *task);
                    if !self.queues.contains(&item) {
                        self.queues.push(item);
                    }
                }
                Command::Withdraw { task, worker } => {
                    self.queues.retain(|(w, t)| *w != worker || t.id != task)
                }
                Command::Rest { worker, strikes } => self.rests.push((worker, strikes)),
                Command::PublishMask(mask) => self.masks.push(mask.version),
                Command::PublishRelease(order) => {
                    let step = self.colony.step(Event::ReleasePublished { release: order.release });
                    self.take(step);
                }
                Command::Finish(ending) => self.ending = Some(ending),
            }
        }
        step.verdict
    }

    pub fn event(&mut self, event: Event) -> Option<Verdict> {
        let step = self.colony.step(event);
        self.take(step)
    }

    /// A campaign is founded, or goes on under another configuration.
    pub fn want(&mut self, config: &CampaignConfig) -> Amending {
        let (amending, step) = self.colony.want(config.clone(), [7; 16]).unwrap();
        self.ending = self.colony.state().ending().cloned();
        self.take(step);
        amending
    }

    pub fn found(&mut self, config: &CampaignConfig) {
        assert_eq!(self.want(config), Amending::Anew);
    }

    pub fn see(&mut self, name: &str) {
        self.hear(name, Speaks::here());
    }

    /// Hears of a worker that speaks no more than this.
    pub fn hear(&mut self, name: &str, speaks: Speaks) {
        let holds = vec![fingerprint("teacher"), fingerprint("student")];
        self.event(Event::WorkerSeen { worker: worker(name), speaks, holds });
    }

    /// Every rest is over.
    pub fn wake(&mut self) {
        for (worker, _) in std::mem::take(&mut self.rests) {
            self.event(Event::WorkerRested { worker });
        }
    }

    /// The next task comes to nothing at its worker.
    pub fn fail(&mut self, reason: FailureReason) -> (WorkerId, TaskId) {
        let (worker, task) = self.queues.remove(0);
        self.answer(failed(&task, &worker, reason));
        (worker, task.id)
    }

    pub fn answer(&mut self, answer: Answer) -> Option<Verdict> {
        self.event(Event::AnswerArrived { worker: answer.worker.clone(), answer: Box::new(answer) })
    }

    /// Lets the workers answer until nothing is asked any more.
    pub fn drain(&mut self, world: &World) {
        while !self.queues.is_empty() {
            let (worker, task) = self.queues.remove(0);
            self.answer(world.answer(&task, &worker));
        }
    }

    /// Batches that were opened for a stage.
    pub fn opened(&self, wanted: Stage) -> usize {
        let of = |r: &&Record| matches!(r, Record::EpochOpened { stage, .. } if *stage == wanted);
        self.ledger.iter().filter(of).count()
    }

    /// The ledger says all that the colony knows.
    pub fn replays(&self) {
        let mut replayed = State::default();
        self.ledger.iter().for_each(|record| replayed.fold(record));
        assert_eq!(replayed.digest().unwrap(), self.colony.state().digest().unwrap());
    }

    /// Lets the workers answer everything, first come first served.
    pub fn run(&mut self, world: &World) {
        while self.ending.is_none() {
            assert!(
                !self.queues.is_empty(),
                "stuck at {:?} {:?}",
                self.colony.state().stage(),
                self.colony.state().progress()
            );
            let (worker, task) = self.queues.remove(0);
            self.answer(world.answer(&task, &worker));
        }
    }
}

/// A whole honest campaign with two workers.
pub fn honest(config: CampaignConfig) -> (Service, World) {
    let world = World::new(config);
    (run(&world), world)
}

/// A whole campaign with two workers.
pub fn run(world: &World) -> Service {
    let mut service = Service::default();
    service.found(&world.config);
    service.see("a");
    service.see("b");
    service.run(world);
    service
}
