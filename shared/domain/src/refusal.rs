//! Invariant 5, the form of answers: what was asked of a worker, and what is refused of what it
//! says.

use crate::{Deposit, LossRow, ModelShape, Moments, PromptTokens, Statistic, Unit, UnitKind};
use std::collections::BTreeSet;

/// No value of an honest answer lies beyond this; the sums' room is reckoned from it.
pub const LARGEST: f32 = 1_048_576.0;
/// No response is longer.
pub const MOST_TOKENS: u32 = 131_072;

/// Why an answer is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such task, or its answer is no longer waited for.
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
    /// A column is about a unit that the model does not have, or of a kind that was not asked for.
    #[error("unit {0} was not asked for")]
    Unit(Unit),
    /// A column's statistic is not one of this work.
    #[error("statistic {0} is not one of this work")]
    Statistic(Statistic),
    /// A unit's statistic stands twice.
    #[error("statistic {0} of unit {1} stands twice")]
    Twice(Statistic, Unit),
    /// Values where moments belong, or the other way round.
    #[error("{0}s are told in another form")]
    Form(UnitKind),
    /// A number is not finite, too large, or negative where it cannot be.
    #[error("{0} is not finite or out of range")]
    Value(&'static str),
    /// More prompts are said to have a seam than were measured.
    #[error("{0} prompts with a seam where {1} were measured")]
    Seams(u32, usize),
    /// A file's path leads out of its folder or stands twice.
    #[error("the files' paths are empty, repeated or lead out of their folder")]
    Path,
}

impl Refusal {
    /// Whether the worker is to blame: an answer to a forgotten task is merely late.
    pub fn is_fault(&self) -> bool {
        !matches!(self, Self::UnknownTask)
    }
}

/// What an answer's numbers must be about.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    /// Ids of the task's prompts without the skipped ones, in order.
    pub ids: Vec<&'a str>,
    /// The model's dimensions.
    pub shape: &'a ModelShape,
}

impl Asked<'_> {
    /// A list has the length that was asked for.
    ///
    /// # Errors
    /// [`Refusal::Count`].
    pub fn count(&self, what: &'static str, got: usize, want: usize) -> Result<(), Refusal> {
        if got == want { Ok(()) } else { Err(Refusal::Count { what, got, want }) }
    }

    fn prompts(&self, got: &[PromptTokens]) -> Result<(), Refusal> {
        if !self.ids.iter().copied().eq(got.iter().map(|p| p.id.as_str())) {
            return Err(Refusal::Prompts);
        }
        let fits = got.iter().all(|p| (1..=MOST_TOKENS).contains(&p.tokens));
        fits.then_some(()).ok_or(Refusal::Value("a prompt's number of tokens"))
    }

    /// A deposit about these prompts, of units that the model has and statistics that `belongs`
    /// lets pass.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn deposit(
        &self,
        deposit: &Deposit,
        belongs: impl Fn(Statistic, UnitKind) -> bool,
    ) -> Result<(), Refusal> {
        self.prompts(&deposit.prompts)?;
        let mut seen = BTreeSet::new();
        for column in &deposit.columns {
            let (statistic, unit) = (column.statistic, column.unit);
            admit(statistic, unit.kind, false, &belongs)?;
            if !self.shape.has(unit) {
                return Err(Refusal::Unit(unit));
            }
            if !seen.insert((statistic, unit)) {
                return Err(Refusal::Twice(statistic, unit));
            }
            self.count("values of a column", column.values.len(), deposit.prompts.len())?;
            values(&column.values, statistic.row().signed, 1.0)?;
        }
        for moments in &deposit.moments {
            admit(moments.statistic, moments.kind, true, &belongs)?;
            self.moments(moments, deposit.prompts.len(), &mut seen)?;
        }
        // Where every prompt was skipped there is nothing to tell of any unit.
        let told = deposit.columns.len() + deposit.moments.len();
        if told == 0 && !deposit.prompts.is_empty() { self.count("columns", 0, 1) } else { Ok(()) }
    }

    fn moments(
        &self,
        moments: &Moments,
        prompts: usize,
        seen: &mut BTreeSet<(Statistic, Unit)>,
    ) -> Result<(), Refusal> {
        let Moments { kind, layer, statistic, x, xx, xt } = moments;
        let first = Unit { kind: *kind, layer: *layer, index: 0 };
        if !self.shape.has(first) {
            return Err(Refusal::Unit(first));
        }
        if !seen.insert((*statistic, first)) {
            return Err(Refusal::Twice(*statistic, first));
        }
        let width = self.shape.width(*kind, *layer) as usize;
        for sums in [x, xx, xt] {
            self.count("units of a layer's moments", sums.len(), width)?;
        }
        let (prompts, signed) = (prompts as f32, statistic.row().signed);
        values(x, signed, prompts)?;
        values(xx, false, prompts * LARGEST)?;
        values(xt, signed, prompts * MOST_TOKENS as f32)
    }

    /// Rows of losses, each about these prompts, alike in all but the losses.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn losses(&self, rows: &[LossRow], want: usize) -> Result<(), Refusal> {
        self.count("rows of losses", rows.len(), want)?;
        let first = rows.first().map(|r| (&r.prompts, &r.bytes));
        for row in rows {
            self.prompts(&row.prompts)?;
            self.count("losses", row.nats.len(), row.prompts.len())?;
            self.count("byte counts", row.bytes.len(), row.prompts.len())?;
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

    /// Which answers are right, of a row of losses: of every prompt or, since a worker may be unable
    /// to answer or know nothing of it, of none. Of none where no answers were `wanted`.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn answers(&self, row: &LossRow, wanted: bool) -> Result<(), Refusal> {
        let answered = !row.right.is_empty();
        if answered {
            let want = if wanted { row.prompts.len() } else { 0 };
            self.count("answers", row.right.len(), want)?;
        }
        let fits = row.pace.is_none_or(|pace| pace.is_possible(row.right.len()));
        fits.then_some(()).ok_or(Refusal::Value("the pace of answers"))
    }
}

/// Whether a statistic of that kind of unit, told in that form, is one of the work.
fn admit(
    statistic: Statistic,
    kind: UnitKind,
    as_moments: bool,
    belongs: impl Fn(Statistic, UnitKind) -> bool,
) -> Result<(), Refusal> {
    match (belongs(statistic, kind), kind.is_large() == as_moments) {
        (false, _) => Err(Refusal::Statistic(statistic)),
        (true, false) => Err(Refusal::Form(kind)),
        (true, true) => Ok(()),
    }
}

/// Every value is finite and within `times` the largest one.
fn values(values: &[f32], signed: bool, times: f32) -> Result<(), Refusal> {
    let most = LARGEST * times;
    let least = if signed { -most } else { 0.0 };
    let fits = values.iter().all(|x| (least..=most).contains(x));
    fits.then_some(()).ok_or(Refusal::Value("a score"))
}
