//! Fixed values of every message, and of every kind of work and outcome: what the byte fixtures
//! hold.
#![allow(dead_code, reason = "each test file uses a part of it")]

use uspx_domain::*;
use uspx_wire::*;

fn prompt() -> Prompt {
    Prompt {
        id: "p1".into(),
        prompt: "list the open ports".into(),
        reference: Some("ss -tlnp".into()),
        tags: vec!["net".into()],
        ..Prompt::default()
    }
}

fn model() -> Fingerprint {
    Fingerprint(Digest::of(b"teacher"))
}

fn unit() -> Unit {
    Unit { kind: UnitKind::Expert, layer: 1, index: 300 }
}

/// Every kind of unit: bitmaps, a list where that is shorter, and a layer that keeps nothing.
fn mask() -> Mask {
    let lists = |kind| match kind {
        UnitKind::Feature => vec![vec![90_000], vec![]],
        UnitKind::Channel => vec![(0..40).filter(|n| n % 3 > 0).collect(), vec![]],
        _ => vec![vec![0, 3], vec![1]],
    };
    let keep = UnitKind::ALL.iter().map(|kind| (*kind, lists(*kind)));
    Mask { version: 1, model: model(), keep: KeepLists(keep.collect()) }
}

fn files() -> Vec<StoredFile> {
    vec![StoredFile { path: "gguf/student.gguf".into(), blob: BlobRef::to(b"gguf") }]
}

fn tokens() -> Vec<PromptTokens> {
    vec![PromptTokens { id: "p1".into(), tokens: 7 }]
}

fn works() -> Vec<(&'static str, Work<Prompt>)> {
    let prompts = || vec![prompt()];
    let recipe = DistilRecipe {
        rank: 16,
        alpha: 32.0,
        epochs: 3,
        learning_rate: 2e-4,
        batch_tokens: 4096,
        teacher_weight: 0.5,
        seed: 42,
        loss: DistilLoss::HYBRID,
        nf4: false,
    };
    let distil = |recipe| {
        let (train, validation) = (vec![BlobRef::to(b"l1")], vec![BlobRef::to(b"l2")]);
        Work::Distil(Distil { train, validation, recipe })
    };
    let estimate = |estimator, kinds: &[UnitKind], baseline| {
        Work::Estimate(Estimate { prompts: prompts(), estimator, kinds: kinds.to_vec(), baseline })
    };
    let judged = |subject, answers| Work::Judge(Judge { prompts: prompts(), subject, answers });
    let judge = |subject| judged(subject, Answers::default());
    let adapter = BlobRef::to(b"adapter");
    let dreams = Dreams { rounds: 8, seed: 3 };
    let answering = Answering {
        target: Target::Both,
        samples: 4,
        temperature: 0.75,
        min_consistency: Some(0.5),
        max_reference_nats: Some(1.25),
    };
    let cuts = vec![Cut::Unit(unit()), Cut::Mask(mask())];
    vec![
        ("trace", estimate(Estimator::TRACE, &[UnitKind::Expert], Baseline::Zero)),
        ("atp", estimate(Estimator::ATP, UnitKind::ALL, Baseline::Mean)),
        ("conversation", conversation()),
        ("exact", estimate(Estimator::EXACT, &[UnitKind::Head], Baseline::Zero)),
        ("ablate", Work::Ablate(Ablate { prompts: prompts(), cuts })),
        ("label-dreams", Work::Label(Label { dreams, ..Label::of(prompts()) })),
        ("label-answering", Work::Label(Label { answering, seed: 9, ..Label::of(prompts()) })),
        ("label", Work::Label(Label { mask: Some(mask()), ..Label::of(prompts()) })),
        ("distil", distil(recipe)),
        ("distil-alm", distil(DistilRecipe { loss: DistilLoss::ALM, ..recipe })),
        ("distil-gold", distil(DistilRecipe { loss: DistilLoss::GOLD, ..recipe })),
        ("distil-nf4", distil(DistilRecipe { nf4: true, ..recipe })),
        ("export", Work::Export(export(adapter, 0))),
        ("export-finish", Work::Export(export(adapter, 4))),
        (
            "export-labels",
            Work::Export(Export { labels: vec![BlobRef::to(b"l1")], ..export(adapter, 4) }),
        ),
        ("judge-model", judge(Subject::Model)),
        ("judge-answers", judged(Subject::Model, Answers { tokens: 64, reasoning: 1024 })),
        ("judge-adapted", judge(Subject::Adapted(adapter))),
        ("judge-exported", judge(Subject::Exported { format: ExportFormat::GGUF, files: files() })),
        ("sae-epochs", sae(SaeRecipe::default())),
        (
            "sae-steps",
            sae(SaeRecipe {
                kind: SaeKind::BatchTopK,
                steps: Some(700),
                skip: 1,
                ..SaeRecipe::default()
            }),
        ),
        ("part-machine", part(recipe, Place::Machine { at: 1, of: 2 })),
        ("part-end", part(DistilRecipe { loss: DistilLoss::ALM, ..recipe }, Place::End)),
    ]
}

/// After a round of three machines, one of which told nothing.
fn part(recipe: DistilRecipe, place: Place) -> Work<Prompt> {
    let (train, validation) = (vec![BlobRef::to(b"l1")], vec![BlobRef::to(b"l2")]);
    let rounds = vec![Round { machines: 3, told: vec![told(b"one"), told(b"three")] }];
    Work::Part(Part { train, validation, recipe, rounds, steps: 30, place })
}

fn told(name: &[u8]) -> Told {
    Told { blob: BlobRef::to(name), tokens: 70_000 }
}

fn export(adapter: BlobRef, finish: u32) -> Export<Prompt> {
    let format = ExportFormat::GPTQ;
    let (calibration, labels) = (vec![prompt()], Vec::new());
    Export { adapter: Some(adapter), calibration, finish, labels, format }
}

fn sae(recipe: SaeRecipe) -> Work<Prompt> {
    Work::Sae(Sae { prompts: vec![prompt(), prompt()], judged: 1, layer: 2, recipe })
}

/// A prompt after what was said before.
pub fn conversation() -> Work<Prompt> {
    let said = Exchange { user: "list the ports".into(), assistant: "ss -l".into() };
    let prompts = vec![Prompt { earlier: vec![said], ..prompt() }];
    let (estimator, kinds) = (Estimator::TRACE, vec![UnitKind::Expert]);
    Work::Estimate(Estimate { prompts, estimator, kinds, baseline: Baseline::Zero })
}

/// Those of the first release of the message, and those that came later; a fixture names its own,
/// for new ones get another.
const STATISTICS: [&[Statistic]; 5] = [
    &[
        Statistic::COUNT,
        Statistic::GATE_MASS,
        Statistic::SALIENCY,
        Statistic::EASY_EP,
        Statistic::HEAD_NORM,
        Statistic::ATP,
        Statistic::ATP_ABS,
        Statistic::EXACT,
    ],
    &[Statistic::EAP_IG, Statistic::EAP_IG_ABS, Statistic::REROUTE, Statistic::REROUTE_ABS],
    &[
        Statistic::REROUTE_IG,
        Statistic::REROUTE_IG_ABS,
        Statistic::ATP_STAR,
        Statistic::ATP_STAR_ABS,
    ],
    &[
        Statistic::MARGIN,
        Statistic::HEAD_ENERGY,
        Statistic::CHANNEL_SIZE,
        Statistic::CHANNEL_ENERGY,
    ],
    &[Statistic::RELP, Statistic::RELP_ABS],
];

/// Every statistic is in a fixture.
pub fn frozen_statistics() -> Vec<Statistic> {
    STATISTICS.concat()
}

fn outcomes() -> Vec<(&'static str, Outcome)> {
    let column = |statistic| Column { unit: unit(), statistic, values: vec![0.5, -1.25] };
    let moments = Moments {
        kind: UnitKind::Channel,
        layer: 1,
        statistic: Statistic::ATP,
        x: vec![0.5, -3.0],
        xx: vec![0.25, 4.5],
        xt: vec![3.5, -21.0],
    };
    let [first, by_gradients, by_many_gradients, activations, relevance] =
        STATISTICS.map(|list| Deposit {
            prompts: tokens(),
            columns: list.iter().copied().map(column).collect(),
            moments: vec![moments.clone()],
        });
    let summary = TrainingSummary { steps: 120, before: 3.5, after: 2.25, best_epoch: 2 };
    vec![
        ("scores", Outcome::Scores(first)),
        ("scores-by-gradients", Outcome::Scores(by_gradients)),
        ("scores-by-many-gradients", Outcome::Scores(by_many_gradients)),
        ("scores-of-activations", Outcome::Scores(activations)),
        ("scores-by-relevance", Outcome::Scores(relevance)),
        (
            "losses",
            Outcome::Losses(vec![LossRow {
                prompts: tokens(),
                nats: vec![9.75],
                bytes: vec![8],
                ..LossRow::default()
            }]),
        ),
        ("losses-answers", answered()),
        ("labels", labels(0)),
        ("labels-dreams", labels(4)),
        ("adapter", Outcome::Adapter { blob: BlobRef::to(b"adapter"), summary }),
        ("exported", Outcome::Exported { files: files() }),
        ("sae", trained_sae()),
        ("told", Outcome::Told { told: told(b"two"), loss: None, epoch: 2, left: 0 }),
        ("told-loss", Outcome::Told { told: told(b"two"), loss: Some(2.25), epoch: 1, left: 90 }),
        ("failed-machine", failed(FailureKind::Machine)),
        ("failed-task", failed(FailureKind::Task)),
        ("failed-not-spoken", failed(FailureKind::NotSpoken)),
    ]
}

fn answered() -> Outcome {
    let pace = Some(Pace { tokens: 63, micros: 1_250_000 });
    let row =
        LossRow { prompts: tokens(), nats: vec![9.75], bytes: vec![8], right: vec![true], pace };
    Outcome::Losses(vec![row])
}

fn labels(dreams: u32) -> Outcome {
    let coverage = Coverage { answer_bytes: 300, labelled_bytes: 299 };
    Outcome::Labels { blob: BlobRef::to(b"labels"), prompts: 1, tokens: 7, dreams, coverage }
}

fn trained_sae() -> Outcome {
    let file = |path: &str| StoredFile { path: path.into(), blob: BlobRef::to(path.as_bytes()) };
    let summary = SaeSummary {
        steps: 700,
        tokens: 90_000,
        l0: 7.5,
        explained_variance: 0.875,
        dead: 3,
        clean: 1.5,
        grafted: 1.75,
        zero: 6.5,
        mean: 5.25,
    };
    Outcome::Sae { files: vec![file("sae_weights.safetensors"), file("cfg.json")], summary }
}

fn failed(kind: FailureKind) -> Outcome {
    Outcome::Failed(Failure { kind, reason: FailureReason::NoMemory })
}

fn skipped() -> Vec<Skipped> {
    let reasons = [
        SkipReason::TooLong { tokens: 600_012, context: 131_072 },
        SkipReason::Empty,
        SkipReason::NoReference,
        SkipReason::Template,
        SkipReason::Tokenizer,
        SkipReason::Unfinished { tokens: 512 },
    ];
    (2..).zip(reasons).map(|(n, reason)| Skipped { id: format!("p{n}"), reason }).collect()
}

/// Prompts that are not worth learning.
fn doubted() -> Vec<Skipped> {
    let reasons = [
        SkipReason::Inconsistent { agreeing: 1, samples: 8 },
        SkipReason::Unlikely { millinats: 2_125 },
        SkipReason::Refused,
    ];
    (2..).zip(reasons).map(|(n, reason)| Skipped { id: format!("p{n}"), reason }).collect()
}

pub fn task(work: Work<Prompt>) -> Task {
    Task { id: TaskId::derived(b"task"), epoch: 2, model: model(), work }
}

pub fn answer(outcome: Outcome) -> Answer {
    let (task, worker) = (TaskId::derived(b"task"), "spare-box".parse().unwrap());
    Answer { task, worker, outcome, millis: 31_000, skipped: vec![], seams: 0 }
}

pub fn tasks() -> Vec<(String, Content<Task>)> {
    let stored = ("task-stored".to_owned(), Content::Stored(BlobRef::to(b"task")));
    let inline = |(name, work)| (format!("task-{name}"), Content::Inline(task(work)));
    works().into_iter().map(inline).chain([stored]).collect()
}

pub fn answers() -> Vec<(String, Content<Answer>)> {
    let stored = ("answer-stored".to_owned(), Content::Stored(BlobRef::to(b"answer")));
    let inline = |(name, out)| (format!("answer-{name}"), Content::Inline(answer(out)));
    let (_, losses) = outcomes().into_iter().find(|(name, _)| *name == "losses").unwrap();
    let skipping = Answer { skipped: skipped(), ..answer(losses.clone()) };
    let skipping = ("answer-skipped".to_owned(), Content::Inline(skipping));
    let doubting = Answer { skipped: doubted(), ..answer(losses.clone()) };
    let doubting = ("answer-doubted".to_owned(), Content::Inline(doubting));
    let seams = Answer { seams: 1, ..answer(losses) };
    let seams = ("answer-seams".to_owned(), Content::Inline(seams));
    outcomes().into_iter().map(inline).chain([stored, skipping, doubting, seams]).collect()
}

fn current() -> Option<CurrentTask> {
    Some(CurrentTask { task: TaskId::derived(b"task"), done: 17, total: 40 })
}

pub fn heartbeat() -> HeartbeatMessage {
    let dense = LayerShape::new(8, MlpShape::Dense { channels: 5760 });
    let experts = MlpShape::Experts { experts: 32, top_k: 4, channels: 2880 };
    let read = LayerShape { features: 512, ..LayerShape::new(8, experts) };
    let shape = ModelShape { layers: vec![dense, read] };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    HeartbeatMessage {
        worker: "spare-box".parse().unwrap(),
        uspx_version: "0.1.0".into(),
        speaks: Speaks {
            jobs: names(&["estimate", "label"]),
            estimators: names(&["trace"]),
            losses: names(&[]),
            ways: names(&[]),
        },
        reads: [("task".to_owned(), 1)].into(),
        models: vec![HeldModel {
            fingerprint: model(),
            architecture: "GptOssForCausalLM".into(),
            name: None,
            shape,
        }],
        threads: 2,
        memory_bytes: 4 << 30,
        device: "cpu".into(),
        current: current(),
        beats: None,
        speed: None,
    }
}

/// A heartbeat with everything that later releases added.
pub fn heartbeat_with_speed() -> HeartbeatMessage {
    let speed = Speed {
        model: model(),
        work: "trace".into(),
        tokens_per_second: 23.5,
        prompt_tokens: 40.25,
        batch_tokens: 5400,
        streamed: true,
    };
    HeartbeatMessage { beats: Some(768), speed: Some(speed), ..heartbeat() }
}

/// A heartbeat of a worker that trains by other losses than the first.
pub fn heartbeat_with_losses() -> HeartbeatMessage {
    let mut heartbeat = heartbeat();
    heartbeat.speaks.losses = ["alm".to_owned(), "gold".to_owned()].into();
    heartbeat
}

/// A heartbeat of a worker that knows further ways of doing its jobs.
pub fn heartbeat_with_ways() -> HeartbeatMessage {
    let mut heartbeat = heartbeat_with_losses();
    heartbeat.speaks.ways = ["answering".to_owned(), "nf4".to_owned()].into();
    heartbeat
}

pub fn status() -> StatusMessage {
    StatusMessage {
        colony: "home".into(),
        stage: "probe".into(),
        epoch: 2,
        tasks_open: 3,
        tasks_answered: 40,
        tasks_failed: 1,
        workers: vec![WorkerStatus {
            worker: "spare-box".parse().unwrap(),
            state: "working".into(),
            device: "cpu".into(),
            current: current(),
            answered: 20,
            silent_millis: 900,
            work: None,
            tokens_per_second: None,
        }],
        mask: Some(mask_status()),
        release: Some(1),
        written_unix_millis: 1_800_000_000_000,
        given_up: vec![],
        failed_attempts: vec![],
        skipped: vec![],
        seam_prompts: None,
        labels: None,
        campaign: None,
        lacking: vec![],
        students: None,
    }
}

/// A status with everything that later releases added.
pub fn status_with_reasons() -> StatusMessage {
    let reason = |count| ReasonStatus {
        work: "trace".into(),
        reason: "scratch files: no space left".into(),
        count,
    };
    let group = SkipGroup::of(&skipped()[..1]).remove(0);
    StatusMessage {
        given_up: vec![reason(1)],
        failed_attempts: vec![reason(4)],
        skipped: vec![SkipStatus {
            model: "teacher".into(),
            reason: group.reason.name().into(),
            prompts: 1,
            ids: group.ids.clone(),
            text: group.to_string(),
        }],
        labels: Some(CoverageStatus { answer_bytes: 300, labelled_bytes: 299 }),
        ..status()
    }
}

/// A status of a campaign whose models have seams.
pub fn status_with_seams() -> StatusMessage {
    StatusMessage { seam_prompts: Some(SeamStatus { teacher: 300, student: 2 }), ..status() }
}

/// A status that says how far the campaign is.
pub fn status_with_campaign() -> StatusMessage {
    let mut status = status();
    for worker in &mut status.workers {
        (worker.work, worker.tokens_per_second) = (Some("ablate".into()), Some(1200));
    }
    let campaign = CampaignStatus {
        name: "first".into(),
        stage: 3,
        stages: 8,
        doing: "exact ablations".into(),
        ended: false,
        exact_pairs: 2048,
        exact_most: 16_384,
        left_millis: Some(90_000),
        mask_swapped: Some(3),
        mask_unix_millis: Some(1_800_000_000_000),
        two_runs: Some(0.61),
        wrongly_cut: None,
        wrongly_kept: None,
        drift: None,
    };
    let lacking = vec![LackStatus {
        worker: "spare-box".parse().unwrap(),
        model: "student".into(),
        fingerprint: Fingerprint(Digest::of(b"student")),
    }];
    StatusMessage { campaign: Some(campaign), lacking, ..status }
}

/// A status that says why no student is made.
pub fn status_with_students() -> StatusMessage {
    let students = StudentsStatus {
        kept_back: "held".into(),
        waits: true,
        text: "no student is made until `uspx coordinator resume`".into(),
    };
    StatusMessage { students: Some(students), ..status() }
}

/// A status that says how many units stand on the wrong side of the mask's cut.
pub fn status_with_wrong() -> StatusMessage {
    let mut status = status_with_campaign();
    if let Some(campaign) = &mut status.campaign {
        let wrong = |expected, at_most| WrongStatus { units: 32, expected, at_most };
        campaign.wrongly_cut = Some(wrong(0.75, 2));
        campaign.wrongly_kept = Some(wrong(1.5, 4));
    }
    status
}

/// A status that says that the newest prompts are of another kind.
pub fn status_with_drift() -> StatusMessage {
    let mut status = status_with_wrong();
    if let Some(campaign) = &mut status.campaign {
        campaign.drift = Some(DriftStatus {
            drifted: true,
            newest: 24,
            older: 276,
            share: 0.08,
            change: 0.5,
            low: 0.25,
            high: 0.75,
            text: "the newest 24 prompts are of another kind".into(),
        });
    }
    status
}

fn mask_status() -> MaskStatus {
    MaskStatus { revision: 5, kept_fraction: 0.5, stability: 0.98 }
}

pub fn mask_message() -> MaskMessage {
    MaskMessage { status: mask_status(), mask: mask() }
}
