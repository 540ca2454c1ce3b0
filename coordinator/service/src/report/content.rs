//! What a report says, in words and rows, apart from how it is set.

use super::table::{Table, none};
use super::{Report, answers};
use uspx_colony::drift::Drift;
use uspx_colony::masked_teacher::MaskedTeacher;
use uspx_colony::misplaced::Misplaced;
use uspx_colony::report::{MaskReport, recipe_words, title};

/// All of it.
pub(super) struct Content {
    /// How the campaign ended.
    pub ending: String,
    /// What would help.
    pub advice: Vec<String>,
    /// What it was about and measured on.
    pub facts: Vec<Fact>,
    /// On the mask.
    pub mask: Vec<String>,
    /// How steady the mask is.
    pub stability: Vec<String>,
    /// Whether the newest prompts are of another kind.
    pub newest: Vec<String>,
    /// The models on the gate prompts.
    pub students: Vec<StudentRow>,
    /// Gate prompts that these are compared on.
    pub compared: u32,
    /// The gate's decision and its grounds.
    pub gate: Vec<String>,
    /// The models' own answers.
    pub answers: Table,
    /// Gate prompts that these are counted over.
    pub answered: u32,
    /// The student against its rival, by tag.
    pub tags: Table,
    /// On how many prompts the student is worse than its rival; none before the gate.
    pub worse: Option<String>,
    /// Those where it lost most.
    pub regressions: Vec<RegressionRow>,
    /// How each recipe's training went.
    pub trainings: Vec<TrainingRow>,
    /// The sparse autoencoders.
    pub saes: Vec<SaeRow>,
    /// What to bear in mind: prompts left out, tasks given up.
    pub caveats: Vec<String>,
}

/// A name and its value.
pub(super) struct Fact {
    pub name: &'static str,
    pub value: String,
}

/// One model. Texts are figures, or `-`.
pub(super) struct StudentRow {
    pub name: String,
    pub bits: String,
    pub interval: String,
    pub against: String,
    pub against_interval: String,
}

/// One prompt that the student answers worse.
pub(super) struct RegressionRow {
    pub prompt: String,
    pub new: String,
    pub old: String,
    pub change: String,
}

/// One training.
pub(super) struct TrainingRow {
    pub recipe: String,
    pub before: String,
    pub after: String,
    pub steps: u32,
    pub best_epoch: u32,
}

/// One sparse autoencoder.
pub(super) struct SaeRow {
    pub layer: u32,
    pub recovered: String,
    pub explained: String,
    pub l0: String,
    pub dead: u32,
    pub steps: u64,
}

/// Two ends of an interval.
pub(super) fn ends((low, high): (f64, f64)) -> String {
    format!("[{low:.3}, {high:.3}]")
}

/// The same of a difference.
pub(super) fn signed_ends((low, high): (f64, f64)) -> String {
    format!("[{low:+.3}, {high:+.3}]")
}

/// Ends of an interval of a share.
pub(super) fn percent_ends((low, high): (f64, f64)) -> String {
    format!("[{:.1}, {:.1}] %", 100.0 * low, 100.0 * high)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

impl Content {
    pub(super) fn of(report: &Report) -> Self {
        let figures = &report.figures;
        Self {
            ending: report.ending.clone().unwrap_or_else(|| "under way".to_owned()),
            advice: report.advice.iter().map(ToString::to_string).collect(),
            facts: facts(report),
            mask: figures.mask.as_ref().map(|m| mask(m, report)).unwrap_or_default(),
            stability: stability(report),
            newest: report.drift.iter().map(sentence).collect(),
            students: students(report),
            compared: figures.compared_prompts,
            gate: gate(report),
            answers: answers::models(report),
            answered: figures.answered_prompts,
            tags: answers::tags(report),
            trainings: trainings(report),
            worse: worse(report),
            regressions: regressions(report),
            saes: saes(report),
            caveats: figures.caveats(),
        }
    }
}

fn facts(report: &Report) -> Vec<Fact> {
    let prompts = report.prompts;
    let measured = format!(
        "{} prompts to train on, {} for choices, {} for the gate",
        prompts.train, prompts.validation, prompts.gate
    );
    let mut facts = vec![
        Fact { name: "colony", value: report.colony.clone() },
        Fact { name: "campaign", value: report.figures.campaign.clone() },
        Fact { name: "measured on", value: measured },
        Fact { name: "teacher", value: report.teacher.to_string() },
    ];
    let dreams = report.figures.dreams;
    if dreams > 0 {
        let value = format!("{dreams}, made up and answered by the teacher");
        facts.push(Fact { name: "learned beside your prompts", value });
    }
    let release = report.release.map(|n| Fact { name: "release", value: n.to_string() });
    let before = report.previous.map(|n| Fact { name: "release before", value: n.to_string() });
    let base = report.base.map(|base| Fact { name: "base student", value: base.to_string() });
    facts.extend(base.into_iter().chain(release).chain(before));
    facts
}

fn mask(mask: &MaskReport, report: &Report) -> Vec<String> {
    let kept = format!(
        "Version {} keeps {} of {} {}s ({} cut); {} exact runs went into it.",
        mask.version,
        mask.kept,
        mask.units,
        mask.kind,
        percent(mask.pruned()),
        mask.exact_pairs
    );
    let labels = match (&mask.label_mask, report.figures.labels) {
        (Some(_), _) => mask.masked_teacher.as_ref().map(masked_teacher),
        (None, Some(_)) => Some("The labels were made by the whole teacher.".to_owned()),
        (None, None) => None,
    };
    let lines = [Some(kept), cost(mask), misplaced(mask), against_random(mask), steep(report)];
    lines.into_iter().flatten().chain(labels).collect()
}

fn cost(mask: &MaskReport) -> Option<String> {
    let rise = mask.rise?;
    let interval = mask.rise_interval.map_or_else(String::new, |i| format!(" {}", signed_ends(i)));
    Some(format!(
        "It costs {rise:+.3}{interval} nats per response token on {} held-out gate prompts.",
        mask.prompts
    ))
}

/// What it saves and what it costs that a masked teacher made the labels.
fn masked_teacher(teacher: &MaskedTeacher) -> String {
    let MaskedTeacher { cut, units, prompts, dreams, bound, held_out, .. } = teacher;
    let dreams = if *dreams > 0 { format!(" and {dreams} made up") } else { String::new() };
    let saves = match teacher.unread > 0.0 {
        true => format!(
            "{} of all experts’ weights were neither read nor multiplied, a token took as many experts as ever",
            percent(teacher.unread)
        ),
        false => "what is cut was computed all the same, so that this saved nothing".to_owned(),
    };
    let chosen = teacher.validation.map_or_else(String::new, |rise| {
        format!(" It is the most that could be cut for {bound} nats a token on the validation prompts: {rise:+.3}.")
    });
    let ends =
        teacher.rise_interval.map_or_else(String::new, |ends| format!(" {}", signed_ends(ends)));
    let costs = teacher.rise.map_or_else(String::new, |rise| {
        format!(" On {held_out} gate prompts its loss is {rise:+.3}{ends} nats a token higher.")
    });
    format!(
        "The labels of {prompts} prompts{dreams} were made by the teacher with {cut} of {units} units cut: {saves}.{chosen}{costs}"
    )
}

fn misplaced(mask: &MaskReport) -> Option<String> {
    let Misplaced { cut, kept } = mask.misplaced?;
    Some(format!(
        "Of the {} {}s that it cuts {:.1} are expected to belong above the cut, with 95 % certainty at most {}; \
         of the {} that it keeps {:.1} are expected to belong below, at most {}.",
        cut.units, mask.kind, cut.expected, cut.at_most, kept.units, kept.expected, kept.at_most
    ))
}

fn against_random(mask: &MaskReport) -> Option<String> {
    let ((beaten, all), mean) = (mask.beaten()?, mask.random_mean()?);
    let least = mask.random.iter().copied().fold(f64::INFINITY, f64::min);
    let most = mask.random.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Some(format!(
        "{beaten} of {all} random masks of the same size cost more: {mean:+.3} on average, from \
         {least:+.3} to {most:+.3}."
    ))
}

fn steep(report: &Report) -> Option<String> {
    let mask = report.figures.mask.as_ref().filter(|m| !m.curve.is_empty())?;
    let Some(cliff) = report.cliff else {
        return Some(
            "The curve has no cliff: no step is three times as steep as the way to it.".to_owned(),
        );
    };
    let side = if mask.pruned() <= cliff.before { "before" } else { "beyond" };
    Some(format!(
        "The curve turns steep beyond {} pruned ({:+.3}); at {} it is {:+.3}. This mask lies {side} \
         the cliff.",
        percent(cliff.before),
        cliff.rise_before,
        percent(cliff.behind),
        cliff.rise_behind
    ))
}

/// Two figures that are easily taken for one another, each with what it means.
fn stability(report: &Report) -> Vec<String> {
    let Some(stability) = report.stability else { return Vec::new() };
    let steady = stability
        .version_before
        .map(|j| format!("Overlap with the version before: {j:.2} (how steady this run is)."));
    let two = match stability.two_runs {
        Some(j) => format!(
            "Expected overlap of two runs on other prompts of the same kind: {j:.2} (the evidence \
             drawn anew by prompt; 1 is the same mask)."
        ),
        None => {
            "What two runs would agree on is not known: the evidence is not held prompt by prompt."
                .to_owned()
        }
    };
    steady.into_iter().chain([two]).collect()
}

/// With a capital and a full stop.
fn sentence(drift: &Drift) -> String {
    let text = drift.to_string();
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

fn students(report: &Report) -> Vec<StudentRow> {
    let chosen = report.figures.chosen_recipe;
    let row = |s: &uspx_colony::report::StudentReport| StudentRow {
        name: title(s.contender, chosen),
        bits: format!("{:.3}", s.bits_per_byte),
        interval: s.interval.map_or_else(none, ends),
        against: s.against_base.map_or_else(none, |d| format!("{:+.3}", d.mean)),
        against_interval: s.against_base.map_or_else(none, |d| signed_ends((d.low, d.high))),
    };
    report.figures.students.iter().map(row).collect()
}

fn gate(report: &Report) -> Vec<String> {
    let Some(gate) = &report.figures.gate else { return Vec::new() };
    let d = gate.difference;
    let decision = match &gate.refusal {
        None => "The release gate let the 4-bit student pass.".to_owned(),
        Some(reason) => format!("The release gate refused the 4-bit student: {reason}."),
    };
    let grounds = format!(
        "Against {} on {} gate prompts: {:.4} to {:.4} bits per byte, a difference of {:+.4} [{:+.4}, \
         {:+.4}]; its one-sided 95 % upper bound, which must lie below 0, is {:+.4}.",
        title(gate.rival, None),
        gate.prompts,
        gate.new,
        gate.old,
        d.mean,
        d.low,
        d.high,
        d.upper
    );
    [decision, grounds].into_iter().chain(answers::gate(report)).collect()
}

fn worse(report: &Report) -> Option<String> {
    let found = report.figures.regressions.as_ref().filter(|found| found.worse > 0)?;
    let (worse, prompts, named) = (found.worse, found.prompts, found.named.len());
    Some(format!(
        "Worse on {worse} of {prompts} prompts; bits of the {named} answers that lost most"
    ))
}

fn regressions(report: &Report) -> Vec<RegressionRow> {
    let named = report.figures.regressions.iter().flat_map(|found| &found.named);
    let row = |r: &uspx_colony::regressions::Regression| RegressionRow {
        prompt: r.prompt.clone(),
        new: format!("{:.1}", r.new),
        old: format!("{:.1}", r.old),
        change: format!("{:+.1}", r.new - r.old),
    };
    named.map(row).collect()
}

fn trainings(report: &Report) -> Vec<TrainingRow> {
    let mark = |n| if report.figures.chosen_recipe == Some(n) { " (chosen)" } else { "" };
    let recipe = |n: u32| report.figures.recipes.get(n as usize);
    let words = |n| recipe(n).map_or_else(String::new, |r| format!(": {}", recipe_words(r)));
    let row = |(n, t): (&u32, &uspx_domain::TrainingSummary)| TrainingRow {
        recipe: format!("{}{}{}", n + 1, mark(*n), words(*n)),
        before: format!("{:.3}", t.before),
        after: format!("{:.3}", t.after),
        steps: t.steps,
        best_epoch: t.best_epoch,
    };
    report.figures.trainings.iter().map(row).collect()
}

fn saes(report: &Report) -> Vec<SaeRow> {
    let row = |s: &uspx_colony::report::SaeReport| SaeRow {
        layer: s.layer,
        recovered: format!("{:.3}", s.recovered),
        explained: format!("{:.3}", s.summary.explained_variance),
        l0: format!("{:.1}", s.summary.l0),
        dead: s.summary.dead,
        steps: s.summary.steps,
    };
    report.figures.saes.iter().map(row).collect()
}
