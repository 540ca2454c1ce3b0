//! Invariant 5, first half: an answer is believed only if it fits its task.

use crate::{CampaignConfig, PlannedWork, Ticket};
use uspx_domain::{
    Answer, Deposit, LossRow, Outcome, PatchMethod, PromptTokens, Skipped, Statistic, StoredFile, UnitKind,
};

/// No value of an honest answer lies beyond this; the sums' room is reckoned from it.
pub const LARGEST: f32 = 1_048_576.0;
/// No response is longer.
pub const MOST_TOKENS: u32 = 131_072;

/// Why an answer is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such task, or its comparison is over.
    #[error("the task is not known, or its answer is no longer waited for")]
    UnknownTask,
    /// The worker was not asked.
    #[error("the worker was never asked for this task")]
    NotAsked,
    /// It answers another kind of work.
    #[error("the answer is not of the kind that {0} work gives")]
    Kind(&'static str),
    /// The prompts and the skipped ones are not the task's, in its order.
    #[error("the answer's prompts and those that it skips are not the task's, in order")]
    Prompts,
    /// A list has the wrong length.
    #[error("{what}: {got} where {want} were asked for")]
    Count {
        /// Of what.
        what: &'static str,
        /// In the answer.
        got: usize,
        /// In the task.
        want: usize,
    },
    /// A column is about a unit that the model has not, or of a kind that was not asked for.
    #[error("unit {0} was not asked for")]
    Unit(uspx_domain::Unit),
    /// A column's statistic is not one of this work.
    #[error("statistic {0:?} is not one of this work")]
    Statistic(Statistic),
    /// A column stands twice.
    #[error("statistic {0:?} of unit {1} stands twice")]
    Twice(Statistic, uspx_domain::Unit),
    /// A number is not finite, too large, or negative where it cannot be.
    #[error("{0} is not finite or out of range")]
    Value(&'static str),
    /// More prompts are said to have a seam than were measured.
    #[error("{0} prompts with a seam where {1} were measured")]
    Seams(u32, usize),
    /// A file's path leads out of its folder or stands twice.
    #[error("the exported files' paths are empty, repeated or lead out of their folder")]
    Path,
}

impl Refusal {
    /// Whether the worker is to blame: an answer to a forgotten task is merely late.
    pub fn is_fault(&self) -> bool {
        !matches!(self, Self::UnknownTask)
    }
}

/// Checks an answer against the ticket of its task.
///
/// # Errors
/// The first thing that does not fit.
pub fn check(campaign: &CampaignConfig, ticket: Option<&Ticket>, answer: &Answer) -> Result<(), Refusal> {
    let ticket = ticket.ok_or(Refusal::UnknownTask)?;
    if !ticket.was_asked(&answer.worker) {
        return Err(Refusal::NotAsked);
    }
    if let Outcome::Failed { .. } = &answer.outcome {
        return Ok(());
    }
    let work = &ticket.task.work;
    skipped(campaign, work, &answer.skipped)?;
    let asked = Asked { campaign, places: work.measured(campaign, &answer.skipped) };
    if answer.seams as usize > asked.places.len() {
        return Err(Refusal::Seams(answer.seams, asked.places.len()));
    }
    match (work, &answer.outcome) {
        (PlannedWork::Trace { .. }, Outcome::Scores(d)) => deposit(&asked, d, |s, k| traced(s) == Some(k)),
        (PlannedWork::Patch { kinds, method, .. }, Outcome::Scores(d)) => {
            deposit(&asked, d, |s, k| patched(s, *method) && kinds.contains(&k))
        }
        (PlannedWork::Ablate { cuts, .. }, Outcome::Losses(rows)) => losses(&asked, rows, cuts.len() + 1),
        (PlannedWork::Judge { .. }, Outcome::Losses(rows)) => losses(&asked, rows, 1),
        (PlannedWork::Label { .. }, Outcome::Labels { prompts, answer_bytes, labelled_bytes, .. }) => {
            labels(&asked, *prompts as usize, *answer_bytes, *labelled_bytes)
        }
        (PlannedWork::Distil { .. }, Outcome::Adapter { summary, .. }) => {
            let fits = [summary.before, summary.after].iter().all(|x| (0.0..=LARGEST).contains(x));
            fits.then_some(()).ok_or(Refusal::Value("a validation loss"))
        }
        (PlannedWork::Export { .. }, Outcome::Exported { files }) => paths(files),
        _ => Err(Refusal::Kind(work.name())),
    }
}

/// The kind of unit that a trace's statistic is about.
fn traced(statistic: Statistic) -> Option<UnitKind> {
    match statistic {
        Statistic::Count | Statistic::GateMass | Statistic::Saliency | Statistic::EasyEp => Some(UnitKind::Expert),
        Statistic::HeadNorm => Some(UnitKind::Head),
        Statistic::Atp | Statistic::AtpAbs | Statistic::Exact => None,
    }
}

fn patched(statistic: Statistic, method: PatchMethod) -> bool {
    match method {
        PatchMethod::Exact => statistic == Statistic::Exact,
        PatchMethod::Atp => matches!(statistic, Statistic::Atp | Statistic::AtpAbs),
    }
}

fn count(what: &'static str, got: usize, want: usize) -> Result<(), Refusal> {
    if got == want { Ok(()) } else { Err(Refusal::Count { what, got, want }) }
}

/// The skipped prompts are some of the task's, in its order, none of them twice.
fn skipped(campaign: &CampaignConfig, work: &PlannedWork, skipped: &[Skipped]) -> Result<(), Refusal> {
    let mut asked = work.prompts().iter().map(|at| campaign.id(*at));
    let mut follows = |s: &Skipped| asked.any(|id| id == Some(s.id.as_str()));
    if skipped.iter().all(&mut follows) { Ok(()) } else { Err(Refusal::Prompts) }
}

/// The prompts that an answer's numbers must be about.
struct Asked<'a> {
    campaign: &'a CampaignConfig,
    places: Vec<u32>,
}

fn same_prompts(asked: &Asked<'_>, got: &[PromptTokens]) -> Result<(), Refusal> {
    let wanted = asked.places.iter().map(|at| asked.campaign.id(*at));
    if !wanted.eq(got.iter().map(|p| Some(p.id.as_str()))) {
        return Err(Refusal::Prompts);
    }
    let fits = got.iter().all(|p| (1..=MOST_TOKENS).contains(&p.tokens));
    fits.then_some(()).ok_or(Refusal::Value("a prompt's number of tokens"))
}

fn deposit(asked: &Asked<'_>, deposit: &Deposit, belongs: impl Fn(Statistic, UnitKind) -> bool) -> Result<(), Refusal> {
    same_prompts(asked, &deposit.prompts)?;
    let mut seen = std::collections::BTreeSet::new();
    for column in &deposit.columns {
        if !belongs(column.statistic, column.unit.kind) {
            return Err(Refusal::Statistic(column.statistic));
        }
        if !asked.campaign.shape.has(column.unit) {
            return Err(Refusal::Unit(column.unit));
        }
        if !seen.insert((column.statistic, column.unit)) {
            return Err(Refusal::Twice(column.statistic, column.unit));
        }
        count("values of a column", column.values.len(), deposit.prompts.len())?;
        values(column.statistic, &column.values)?;
    }
    // Where every prompt was skipped there is nothing to tell of any unit.
    let empty = deposit.columns.is_empty() && !deposit.prompts.is_empty();
    if empty { count("columns", 0, 1) } else { Ok(()) }
}

fn values(statistic: Statistic, values: &[f32]) -> Result<(), Refusal> {
    let signed = matches!(statistic, Statistic::Atp | Statistic::Exact);
    let least = if signed { -LARGEST } else { 0.0 };
    let fits = values.iter().all(|x| (least..=LARGEST).contains(x));
    fits.then_some(()).ok_or(Refusal::Value("a score"))
}

fn losses(asked: &Asked<'_>, rows: &[LossRow], want: usize) -> Result<(), Refusal> {
    count("rows of losses", rows.len(), want)?;
    let first = rows.first().map(|r| (&r.prompts, &r.bytes));
    for row in rows {
        same_prompts(asked, &row.prompts)?;
        count("losses", row.nats.len(), row.prompts.len())?;
        count("byte counts", row.bytes.len(), row.prompts.len())?;
        if !row.nats.iter().all(|x| (0.0..=LARGEST).contains(x)) {
            return Err(Refusal::Value("a loss"));
        }
        // Cuts change losses, never the text: tokens and bytes are the same in every row.
        if first != Some((&row.prompts, &row.bytes)) || row.bytes.contains(&0) {
            return Err(Refusal::Value("a prompt's number of bytes or tokens"));
        }
    }
    Ok(())
}

/// A prompt that is neither labelled nor skipped had an answer without text, which older workers leave out silently.
fn labels(asked: &Asked<'_>, prompts: usize, answer: u64, labelled: u64) -> Result<(), Refusal> {
    let wanted = asked.places.len();
    if prompts > wanted || (prompts == 0 && wanted > 0) {
        return Err(Refusal::Value("the number of labelled prompts"));
    }
    (labelled <= answer).then_some(()).ok_or(Refusal::Value("the number of labelled bytes"))
}

fn paths(files: &[StoredFile]) -> Result<(), Refusal> {
    let mut seen = std::collections::BTreeSet::new();
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', ':', '\0']);
    let fits = files.iter().all(|f| f.path.split('/').all(plain) && seen.insert(f.path.as_str()));
    (fits && !files.is_empty()).then_some(()).ok_or(Refusal::Path)
}
