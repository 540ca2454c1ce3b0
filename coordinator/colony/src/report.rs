//! What a campaign found, as figures: for the last table, the release's report and the dashboard.
//! Nothing rests on it.

use crate::answers;
use crate::combine::Score;
use crate::gate::{PairedDifference, difference};
use crate::interval::{interval, of_rise};
use crate::masked_teacher::MaskedTeacher;
use crate::misplaced::{Misplaced, chances};
use crate::reasons::{self, LeftOut, Reason};
use crate::regressions::{Regressions, regressions};
use crate::state::Judged;
use crate::why::Interval;
use crate::{CampaignConfig, Contender, Dice, Ending, GateReport, Split, State, TrialRole};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::f64::consts::LN_2;
use uspx_domain::{
    Coverage, DistilRecipe, Mask, Pace, SaeSummary, SeamPrompts, TrainingSummary, Unit, UnitKind,
};

/// The figures of a campaign, as far as they are known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CampaignReport {
    /// The campaign's name.
    pub campaign: String,
    /// The mask and its cost.
    pub mask: Option<MaskReport>,
    /// Bits per byte on the gate prompts, in the order of the table.
    pub students: Vec<StudentReport>,
    /// Gate prompts that `students` are compared on: those that every one of them was judged on.
    #[serde(default)]
    pub compared_prompts: u32,
    /// Gate prompts that the right answers of `students` are counted over.
    #[serde(default)]
    pub answered_prompts: u32,
    /// How each recipe's training went.
    pub trainings: BTreeMap<u32, TrainingSummary>,
    /// What each recipe asks for.
    #[serde(default)]
    pub recipes: Vec<DistilRecipe>,
    /// The recipe that was chosen on the validation prompts.
    pub chosen_recipe: Option<u32>,
    /// The sparse autoencoders of the teacher's layers.
    #[serde(default)]
    pub saes: Vec<SaeReport>,
    /// The gate's decision.
    pub gate: Option<GateReport>,
    /// Gate prompts that the student answers worse than its rival.
    #[serde(default)]
    pub regressions: Option<Regressions>,
    /// How much of the answers the labels cover, where the workers say so.
    #[serde(default)]
    pub labels: Option<Coverage>,
    /// New prompts, made up and answered by the teacher, that are labelled beside the person's.
    #[serde(default)]
    pub dreams: u64,
    /// Prompts that were left out.
    #[serde(default)]
    pub skipped: Vec<LeftOut>,
    /// Prompts that a tokenizer reads otherwise as a whole text than in use.
    #[serde(default)]
    pub seam_prompts: SeamPrompts,
    /// Why tasks were given up.
    #[serde(default)]
    pub given_up: Vec<Reason>,
}

impl CampaignReport {
    /// What to bear in mind of the figures, a line each: answers without labels, prompts left out,
    /// prompts with a seam, tasks given up.
    pub fn caveats(&self) -> Vec<String> {
        let labels = self.labels.filter(|l| l.is_low()).map(|l| format!("labels: {l}"));
        let left_out = self.skipped.iter().map(|l| l.text.clone());
        let given_up = self.given_up.iter().map(ToString::to_string);
        labels
            .into_iter()
            .chain(left_out)
            .chain(self.seam_prompts.lines())
            .chain(given_up)
            .collect()
    }
}

/// What the mask cuts, and what that costs on the gate prompts in nats per response token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MaskReport {
    /// The kind of unit.
    pub kind: UnitKind,
    /// Its version.
    pub version: u32,
    /// Units kept.
    pub kept: u32,
    /// Units in all.
    pub units: u32,
    /// Units kept of each layer, and how many it has.
    #[serde(default)]
    pub layers: Vec<(u32, u32)>,
    /// Rise of the loss under it.
    pub rise: Option<f64>,
    /// The 95 % interval of that rise.
    #[serde(default)]
    pub rise_interval: Option<(f64, f64)>,
    /// Gate prompts that all rises are over: those that every judged mask was tried on.
    #[serde(default)]
    pub prompts: u32,
    /// Rises under the random masks of its size and rule.
    pub random: Vec<f64>,
    /// (share pruned, rise).
    pub curve: Vec<(f64, f64)>,
    /// Overlap with the version before: how steady this run is.
    pub jaccard: Option<f64>,
    /// Mean overlap with masks drawn from the scores' errors, as far as their model holds. What two
    /// runs would agree on is another figure: [`crate::resample`].
    pub bootstrap_jaccard: f64,
    /// How many units are expected to stand on the wrong side of the cut; none where nothing exact is known.
    #[serde(default)]
    pub misplaced: Option<Misplaced>,
    /// The mask that the labels were made with, if one was cheap enough.
    pub label_mask: Option<Mask>,
    /// What that saves and costs.
    #[serde(default)]
    pub masked_teacher: Option<MaskedTeacher>,
    /// Exact runs spent, in pairs of prompt and unit or candidate.
    pub exact_pairs: u64,
}

/// What a student learns by a recipe, in words.
pub fn recipe_words(recipe: &DistilRecipe) -> String {
    match recipe.teacher_weight {
        weight if weight <= 0.0 => "the answers' text alone".to_owned(),
        weight => format!("the teacher's word, {} (weight {weight})", recipe.loss),
    }
}

impl MaskReport {
    /// Mean rise under the random masks.
    pub fn random_mean(&self) -> Option<f64> {
        (!self.random.is_empty())
            .then(|| self.random.iter().sum::<f64>() / self.random.len() as f64)
    }

    /// Random masks that cost more than this one, and all of them.
    pub fn beaten(&self) -> Option<(usize, usize)> {
        let rise = self.rise.filter(|_| !self.random.is_empty())?;
        Some((self.random.iter().filter(|r| **r > rise).count(), self.random.len()))
    }

    /// The share of the units that is cut.
    pub fn pruned(&self) -> f64 {
        1.0 - f64::from(self.kept) / f64::from(self.units.max(1))
    }
}

/// A sparse autoencoder, on the prompts that it was not trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SaeReport {
    /// The layer that it reads.
    pub layer: u32,
    /// What it is worth.
    #[serde(flatten)]
    pub summary: SaeSummary,
    /// The share of what zeros in the activations' place cost that the SAE does not.
    pub recovered: f64,
}

/// One model on the gate prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudentReport {
    /// Which.
    pub contender: Contender,
    /// Pooled bits per byte, over the prompts that all were judged on.
    pub bits_per_byte: f64,
    /// Its 95 % interval.
    #[serde(default)]
    pub interval: Option<(f64, f64)>,
    /// Less the base student's, with its intervals, over the prompts that both were judged on.
    pub against_base: Option<PairedDifference>,
    /// The share of prompts that it answers with the reference, over those that all who answered
    /// have ([`CampaignReport::answered_prompts`]).
    #[serde(default)]
    pub exact_match: Option<f64>,
    /// Its 95 % interval.
    #[serde(default)]
    pub exact_match_interval: Option<(f64, f64)>,
    /// Less the base student's, with its intervals, over the prompts that both answered.
    #[serde(default)]
    pub exact_against_base: Option<PairedDifference>,
    /// Tokens that it writes a second, one answer at a time, on the machines that judged it.
    #[serde(default)]
    pub tokens_per_second: Option<f64>,
    /// Length of its files, where it is in some.
    #[serde(default)]
    pub bytes: Option<u64>,
}

/// One unit of the mask's kind, as `mask show` and the report show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitReport {
    /// Which.
    pub unit: Unit,
    /// Whether the mask keeps it.
    pub kept: bool,
    /// Its score and the score's standard error, per response token, as people read them.
    pub score: Score,
    /// The score's 95 % interval.
    pub interval: (f64, f64),
    /// The chance that its true effect is above what keeps a unit; none where nothing exact is known.
    pub belongs: Option<f64>,
    /// Share of bootstrap masks that agree.
    pub confidence: f64,
    /// How strongly the next round is drawn to it.
    pub pheromone: f64,
}

/// Every unit of the mask of the day; empty before the first mask.
pub fn units(state: &State) -> Vec<UnitReport> {
    let Some(version) = &state.mask else { return Vec::new() };
    let chances = chances(state).unwrap_or_default();
    let each = |(unit, score): (&Unit, &Score)| UnitReport {
        unit: *unit,
        kept: version.mask.keeps(*unit),
        score: version.basis.told_score(score),
        interval: Interval::of(score, version.basis).ends(),
        belongs: chances.get(unit).copied(),
        confidence: version.confidence.get(unit).copied().unwrap_or(0.0),
        pheromone: state.pheromone.get(unit).copied().unwrap_or(1.0),
    };
    version.scores.iter().map(each).collect()
}

/// The figures of the state's campaign; none before one was founded.
pub fn report(state: &State) -> Option<CampaignReport> {
    let campaign = state.campaign.as_ref()?;
    Some(CampaignReport {
        campaign: campaign.name.clone(),
        mask: mask_report(state),
        students: state.results.judged.keys().filter_map(|who| student(state, *who)).collect(),
        compared_prompts: state.results.shared_prompts().len() as u32,
        answered_prompts: answers::shared(state.results.judged.values()).len() as u32,
        trainings: state.results.adapters.iter().map(|(n, (_, summary))| (*n, *summary)).collect(),
        recipes: campaign.distil.trainings().map(|(_, recipe)| recipe).collect(),
        chosen_recipe: state.results.best_adapter().map(|(n, _, _)| n),
        saes: saes(state),
        gate: state.gate.clone(),
        regressions: regressions(state),
        labels: state.coverage(),
        dreams: state.results.dreams,
        skipped: reasons::left_out(state),
        seam_prompts: state.seam_prompts(),
        given_up: reasons::given_up(state),
    })
}

fn saes(state: &State) -> Vec<SaeReport> {
    let one = |(layer, (_, summary)): (&u32, &(_, SaeSummary))| SaeReport {
        layer: *layer,
        summary: *summary,
        recovered: summary.recovered(),
    };
    state.results.saes.iter().map(one).collect()
}

fn mask_report(state: &State) -> Option<MaskReport> {
    let (campaign, version) = (state.campaign.as_ref()?, state.mask.as_ref()?);
    let gate = |at: u32| campaign.prompts.get(at as usize).is_some_and(|p| p.split == Split::Gate);
    let rises = state.results.rises(gate);
    let layers = layers(campaign, &version.mask);
    let shared = state.results.tried_prompts(gate);
    let of = |wanted: fn(&TrialRole) -> bool| {
        rises.iter().filter(move |(role, _)| wanted(role)).map(|(_, rise)| *rise)
    };
    Some(MaskReport {
        kind: campaign.mask.kind,
        version: version.version,
        kept: layers.iter().map(|(kept, _)| kept).sum(),
        units: layers.iter().map(|(_, units)| units).sum(),
        layers,
        rise: rises.get(&TrialRole::Chosen).copied(),
        rise_interval: rise_interval(state, campaign, &shared),
        prompts: shared.len() as u32,
        random: of(|role| matches!(role, TrialRole::Random(_))).collect(),
        curve: curve(&rises),
        jaccard: version.jaccard,
        bootstrap_jaccard: version.bootstrap_jaccard,
        misplaced: Misplaced::of(state),
        label_mask: state.results.label_mask.clone(),
        masked_teacher: MaskedTeacher::of(state),
        exact_pairs: state.explored.pairs,
    })
}

/// Units kept of each layer, and how many it has.
fn layers(campaign: &CampaignConfig, mask: &Mask) -> Vec<(u32, u32)> {
    let kind = campaign.mask.kind;
    let widths = campaign.shape.widths(kind);
    let kept = |(layer, width): (u32, u32)| {
        let keeps = |index: &u32| mask.keeps(Unit { kind, layer, index: *index });
        ((0..width).filter(keeps).count() as u32, width)
    };
    (0..).zip(widths).map(kept).collect()
}

fn curve(rises: &BTreeMap<TrialRole, f64>) -> Vec<(f64, f64)> {
    let point = |(role, rise): (&TrialRole, &f64)| match role {
        TrialRole::Curve(pruned) => Some((crate::Share(*pruned).to_f64(), *rise)),
        _ => None,
    };
    rises.iter().filter_map(point).collect()
}

/// The chosen mask's, over the prompts that all masks are compared on.
fn rise_interval(
    state: &State,
    campaign: &CampaignConfig,
    shared: &BTreeSet<u32>,
) -> Option<(f64, f64)> {
    let pairs = &state.results.trials.get(&TrialRole::Chosen)?.pairs;
    of_rise(shared.iter().filter_map(|at| pairs.get(at)), campaign, "rise")
}

fn student(state: &State, contender: Contender) -> Option<StudentReport> {
    let campaign = state.campaign.as_ref()?;
    let mut dice = Dice::new(campaign.seed, "report", 0);
    let against_base = match (state.judged(contender), state.judged(Contender::Base)) {
        (Some(rows), Some(base)) if contender != Contender::Base => {
            difference(rows, base, &mut dice, campaign.distil.resamples)
        }
        _ => None,
    };
    let (exact, exact_against_base) = exact(state, contender);
    Some(StudentReport {
        contender,
        bits_per_byte: state.bits_per_byte(contender)?,
        interval: bits_interval(state, campaign, contender),
        against_base,
        exact_match: exact.map(|(share, _)| share),
        exact_match_interval: exact.map(|(_, interval)| interval),
        exact_against_base,
        tokens_per_second: state.results.paces.get(&contender).and_then(Pace::tokens_per_second),
        bytes: bytes(state, contender),
    })
}

/// The share of right answers with its interval, and what it is against the base's.
fn exact(
    state: &State,
    contender: Contender,
) -> (Option<answers::Share>, Option<PairedDifference>) {
    let Some(rows) = state.judged(contender) else { return (None, None) };
    let share = answers::share(rows, &answers::shared(state.results.judged.values()));
    let base = state.judged(Contender::Base).filter(|_| contender != Contender::Base);
    let against = base.and_then(|base| answers::compare(answers::both(rows, base).values()));
    (share, against.map(|against| against.difference))
}

/// Length of the files of an exported student, or of the one published before.
fn bytes(state: &State, contender: Contender) -> Option<u64> {
    let published = || Some(state.published.as_ref()?.judged()?.1);
    let files = match contender {
        Contender::Published => published(),
        _ => state.results.exports.get(&contender).cloned(),
    };
    files.map(|files| files.iter().map(|file| file.blob.bytes).sum())
}

fn bits_interval(
    state: &State,
    campaign: &CampaignConfig,
    contender: Contender,
) -> Option<(f64, f64)> {
    let judged = state.judged(contender)?;
    let row = |j: &Judged| (j.nats.to_f64() / LN_2, f64::from(j.bytes));
    let shared = state.results.shared_prompts();
    let rows: Vec<(f64, f64)> = shared.iter().filter_map(|at| judged.get(at)).map(row).collect();
    interval(&rows, &mut Dice::new(campaign.seed, "bits", 0), campaign.distil.resamples)
}

/// What a contender is called in tables; the recipe that was chosen is marked.
pub fn title(contender: Contender, chosen: Option<u32>) -> String {
    let mark = |n| if chosen == Some(n) { " (chosen)" } else { "" };
    match contender {
        Contender::Teacher => "teacher".to_owned(),
        Contender::Base => "base student".to_owned(),
        Contender::Distilled(n) => format!("distilled, recipe {}{}", n + 1, mark(n)),
        Contender::Exported(format) => format.row().title.to_owned(),
        Contender::Published => "published before".to_owned(),
    }
}

/// How a campaign ended, in words.
pub fn ending_words(ending: &Ending) -> String {
    match ending {
        Ending::Measured => "done: the mask is measured".to_owned(),
        Ending::Published(release) => format!("done: published release {release}"),
        Ending::Refused(reason) => format!("refused: {reason}"),
        Ending::Failed(reason) => format!("failed: {reason}"),
    }
}

/// The paired difference of any two contenders (first − second) in bits per byte, for the report's
/// side remarks.
pub fn between(state: &State, first: Contender, second: Contender) -> Option<PairedDifference> {
    let campaign = state.campaign.as_ref()?;
    let mut dice = Dice::new(campaign.seed, "report", 0);
    difference(state.judged(first)?, state.judged(second)?, &mut dice, campaign.distil.resamples)
}
