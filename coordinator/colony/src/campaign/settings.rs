//! A campaign's budgets and bounds, with the defaults that suit a small teacher.

use crate::{Rule, Share};
use serde::{Deserialize, Serialize};
use uspx_domain::{Baseline, DistilLoss, DistilRecipe, SaeRecipe, UnitKind};

/// Sizes of tasks that no one has set, where workers have not said how fast they are.
pub mod usual {
    /// Prompts of a trace task.
    pub const TRACE_BATCH: u32 = 250;
    /// Prompts of a patch task.
    pub const PATCH_BATCH: u32 = 64;
    /// Units of an exact task.
    pub const UNITS_PER_TASK: u32 = 16;
    /// Prompts of a task that judges masks.
    pub const JUDGE_MASKS_BATCH: u32 = 125;
    /// Prompts of a label task.
    pub const LABEL_BATCH: u32 = 125;
    /// Prompts of a task that judges a student.
    pub const JUDGE_BATCH: u32 = 250;
    /// Prompts of one that has a model answer, too.
    pub const ANSWER_BATCH: u32 = 125;
}

/// What is measured, and how much.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbePlan {
    /// Prompts per trace task; none: as workers' speed asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_batch: Option<u32>,
    /// Prompts that attribution patching looks at; 0 leaves it out.
    pub patch_prompts: u32,
    /// Prompts per patch task; none: as workers' speed asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch_batch: Option<u32>,
    /// What replaces a unit in attribution patching.
    pub baseline: Baseline,
    /// Exact runs in all, counted in pairs of prompt and unit (or candidate mask).
    pub exact_pairs: u64,
    /// Exact runs before a stable mask may end the exploration.
    pub exact_least: u64,
    /// Pairs per round, where [`MindPlan::rounds`] is 0; a round is an epoch.
    pub round_pairs: u32,
    /// Share of such a round spent on all units alike; the rest follows the pheromone.
    pub uniform: Share,
    /// Prompts that such a round's pheromone-led part looks at.
    pub round_prompts: u32,
    /// Units per exact task; none: as workers' speed asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub units_per_task: Option<u32>,
    /// Candidate masks per such round.
    pub candidates: u32,
    /// Standard errors by which a candidate mask must beat the current one to replace it.
    pub candidate_errors: f64,
    /// λ: what one epoch leaves of earlier evidence.
    pub evaporation: Share,
}

impl Default for ProbePlan {
    fn default() -> Self {
        Self {
            trace_batch: None,
            patch_prompts: 256,
            patch_batch: None,
            baseline: Baseline::Mean,
            exact_pairs: 16_384,
            exact_least: 8_192,
            round_pairs: 2_048,
            uniform: Share::percent(60),
            round_prompts: 32,
            units_per_task: None,
            candidates: 4,
            candidate_errors: 2.0,
            evaporation: Share::percent(98),
        }
    }
}

/// What is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MaskPlan {
    /// The kind of unit that the mask cuts.
    pub kind: UnitKind,
    /// The share kept.
    pub keep: Share,
    /// How the budget is spread over layers.
    pub rule: Rule,
    /// Standard errors that an interval must clear the cut by before its unit swaps.
    pub hysteresis: f64,
    /// Jaccard overlap of consecutive versions that counts as stable.
    pub stable: f64,
    /// Consecutive stable versions that end the exploration.
    pub stable_versions: u32,
    /// Draws of the parametric bootstrap.
    pub bootstrap: u32,
}

impl Default for MaskPlan {
    fn default() -> Self {
        Self {
            kind: UnitKind::Expert,
            keep: Share::percent(50),
            rule: Rule::Global,
            hysteresis: 1.0,
            stable: 0.97,
            stable_versions: 2,
            bootstrap: 100,
        }
    }
}

/// What masks are compared with, and when one may label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JudgePlan {
    /// Prompts per judging task; none: as workers' speed asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<u32>,
    /// Masks per judging task.
    pub masks_per_task: u32,
    /// Random masks of the same size and rule.
    pub random_masks: u32,
    /// Shares pruned, for the curve.
    pub curve: Vec<Share>,
    /// Most that the labelling teacher's validation loss may rise, nats per response token.
    pub label_rise: f64,
}

impl Default for JudgePlan {
    fn default() -> Self {
        Self {
            batch: None,
            masks_per_task: 7,
            random_masks: 20,
            curve: [10, 25, 40, 50, 60, 75].map(Share::percent).to_vec(),
            label_rise: 0.05,
        }
    }
}

/// Which sparse autoencoders are trained. Nothing rests on them: they are there for whoever wants to
/// read the teacher's features.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SaePlan {
    /// The layers, from 0, each of which gets one.
    pub layers: Vec<u32>,
    /// How.
    pub recipe: SaeRecipe,
}

impl SaePlan {
    /// Whether it is the default: campaigns from before there were any are named by their bytes.
    pub(crate) fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// New prompts of the person's kind, which the teacher makes up and answers for the student to learn
/// beside the person's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DreamPlan {
    /// How often each train prompt may give rise to one.
    pub rounds: u32,
}

impl Default for DreamPlan {
    fn default() -> Self {
        Self { rounds: 8 }
    }
}

impl DreamPlan {
    /// None: what campaigns from before there were any have.
    pub(crate) fn none() -> Self {
        Self { rounds: 0 }
    }

    pub(crate) fn is_none(&self) -> bool {
        self.rounds == 0
    }
}

/// How the exact runs are shared out, and what scores rest on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MindPlan {
    /// Rounds that go where they tell most, after a first one on all units alike; their scores rest on cheap ones as
    /// control variates. 0: rounds by `probe.uniform` and the pheromone.
    pub rounds: u32,
    /// Share of the exact runs that the first round takes.
    pub first: Share,
    /// Newer train prompts after which an older one counts half; 0: age does not matter.
    #[serde(skip_serializing_if = "is_usual_memory")]
    pub memory: u32,
}

fn is_usual_memory(memory: &u32) -> bool {
    *memory == MindPlan::default().memory
}

impl Default for MindPlan {
    fn default() -> Self {
        Self { rounds: 4, first: Share::percent(40), memory: 4_000 }
    }
}

impl MindPlan {
    /// None: what campaigns from before there was any have.
    pub(crate) fn none() -> Self {
        Self { rounds: 0, ..Self::default() }
    }

    pub(crate) fn is_none(&self) -> bool {
        self.rounds == 0
    }

    /// Whether the rounds go where they tell most.
    pub fn leads(&self) -> bool {
        self.rounds > 0
    }
}

/// The quantisation-aware finish of 4-bit students, which learn from the prompts that calibrate them and from all that
/// was labelled to train.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FinishPlan {
    /// Passes over them; 0 leaves it out.
    pub passes: u32,
}

impl Default for FinishPlan {
    fn default() -> Self {
        Self { passes: 4 }
    }
}

impl FinishPlan {
    /// None: what campaigns from before there was any have.
    pub(crate) fn none() -> Self {
        Self { passes: 0 }
    }

    pub(crate) fn is_none(&self) -> bool {
        self.passes == 0
    }
}

fn is_usual_fresh(fresh: &Share) -> bool {
    *fresh == Share::percent(10)
}

fn is_no_limit(hours: &f64) -> bool {
    *hours == 0.0
}

/// Milliseconds of an hour.
pub(crate) const HOUR: f64 = 3_600_000.0;

/// How the student is made and judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StudentPlan {
    /// Prompts per label task; none: as workers' speed asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_batch: Option<u32>,
    /// Teacher probabilities kept per token.
    pub top_k: u32,
    /// Bound on a generated answer.
    pub max_new_tokens: u32,
    /// Bound on the reasoning before it; a teacher that is still reasoning then has no answer, and
    /// the prompt is left out.
    pub max_reasoning_tokens: u32,
    /// One training each; the best on validation goes on.
    pub recipes: Vec<DistilRecipe>,
    /// Whether all of them hold the student in NF4: for students whose floats fit on no machine.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub nf4: bool,
    /// Train prompts that must be new since the last student before another is made, as a share of those that it learned
    /// from; a campaign's first one needs none.
    #[serde(skip_serializing_if = "is_usual_fresh")]
    pub fresh: Share,
    /// Machine hours that students may take of a day, all workers together; 0: no limit.
    #[serde(skip_serializing_if = "is_no_limit")]
    pub hours_a_day: f64,
    /// Train prompts that calibrate the quantiser, and that the finish learns from.
    pub calibration: u32,
    /// Prompts per judging task; none: as workers' speed asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judge_batch: Option<u32>,
    /// Resamples of the gate's bootstrap.
    pub resamples: u32,
    /// Prompts that a tag needs before the gate looks at it.
    pub tag_prompts: u32,
    /// How much worse a tag may become, as a share.
    pub tag_worse: f64,
}

impl Default for StudentPlan {
    fn default() -> Self {
        let recipe = DistilRecipe {
            rank: 0,
            alpha: 0.0,
            epochs: 6,
            learning_rate: 0.0,
            batch_tokens: 1024,
            teacher_weight: 0.0,
            seed: 0,
            loss: DistilLoss::default(),
            nf4: false,
        };
        Self {
            label_batch: None,
            top_k: 32,
            max_new_tokens: 64,
            max_reasoning_tokens: 1024,
            recipes: vec![recipe, DistilRecipe { teacher_weight: 0.5, ..recipe }],
            nf4: false,
            fresh: Share::percent(10),
            hours_a_day: 0.0,
            calibration: 512,
            judge_batch: None,
            resamples: 2_000,
            tag_prompts: 30,
            tag_worse: 0.02,
        }
    }
}

impl StudentPlan {
    /// What is trained, with the number of each.
    pub fn trainings(&self) -> impl Iterator<Item = (u32, DistilRecipe)> {
        let held = |recipe: &DistilRecipe| DistilRecipe { nf4: recipe.nf4 || self.nf4, ..*recipe };
        (0..).zip(self.recipes.iter().map(held))
    }

    /// Milliseconds of machine time that students may take of a day; none where there is no limit.
    pub(crate) fn millis_a_day(&self) -> Option<f64> {
        (!is_no_limit(&self.hours_a_day)).then_some(self.hours_a_day * HOUR)
    }
}

/// How many machines share a training. Each trains alone for some steps; then what they learned is
/// put together, and the next round goes on from there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TogetherPlan {
    /// Machines that share it, at most; with one each training is a task of its own.
    pub machines: u32,
    /// Steps of each machine in a round.
    pub steps: u32,
}

impl Default for TogetherPlan {
    fn default() -> Self {
        Self::none()
    }
}

impl TogetherPlan {
    /// No more machines share a training.
    pub(crate) const MOST_MACHINES: u32 = 64;

    /// Nothing is shared: what campaigns from before anything was have.
    pub(crate) fn none() -> Self {
        Self { machines: 1, steps: 30 }
    }

    pub(crate) fn is_none(&self) -> bool {
        *self == Self::none()
    }

    /// Whether trainings are shared.
    pub fn is_shared(&self) -> bool {
        self.machines > 1
    }
}

/// How far workers are trusted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrustPlan {
    /// Tasks ahead of a worker.
    pub ahead: u32,
    /// Failed attempts after which a task is given up.
    pub attempts: u32,
    /// Refused answers after which a worker is quarantined.
    pub refusals: u32,
    /// Share of tasks issued twice to compare; at most 10 %.
    pub duplicates: Share,
    /// What two machines may differ by: a share of the larger value ...
    pub relative: f64,
    /// ... plus this much.
    pub absolute: f64,
    /// Share of values that may differ by more (a router's tie falls either way).
    pub outliers: Share,
}

impl Default for TrustPlan {
    fn default() -> Self {
        Self {
            ahead: 2,
            attempts: 3,
            refusals: 3,
            duplicates: Share::percent(5),
            relative: 0.01,
            absolute: 0.01,
            outliers: Share::percent(2),
        }
    }
}
