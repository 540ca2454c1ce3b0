//! What every single unit costs on every prompt, and what cheap scores say of it: recorded once from the real
//! model, then looked up.

use crate::answers::Answers;
use crate::failed;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use uspx_bench_engine::error::{BenchError, Result};
use uspx_domain::{
    Column, Cut, Estimate, Estimator, Outcome, Prompt, Statistic, Unit, UnitKind, Work,
};

/// Units of a task while it is recorded.
const AT_ONCE: usize = 32;

/// Recorded answers of a model on some prompts.
#[derive(Debug, Serialize, Deserialize)]
pub struct Matrix {
    /// Response tokens of each prompt.
    pub tokens: Vec<u32>,
    /// Bytes of each prompt's answer.
    pub bytes: Vec<u32>,
    /// Loss of the whole model on each, in nats.
    pub clean: Vec<f32>,
    /// The same without a unit.
    pub cut: BTreeMap<Unit, Vec<f32>>,
    /// Columns of the trace, then of attribution patching, in the order of their deposits.
    pub cheap: [Vec<(Statistic, Unit, Vec<f32>)>; 2],
}

impl Matrix {
    /// What is kept of it in `folder`, or else what the model says now.
    ///
    /// # Errors
    /// Those of the model and the disk.
    pub fn of(answers: &mut Answers, prompts: &[Prompt], folder: &Path) -> Result<Self> {
        let mut key = blake3::Hasher::new();
        key.update(answers.model.to_string().as_bytes());
        for prompt in prompts {
            key.update(prompt.digest().to_string().as_bytes());
        }
        let name = key.finalize().to_hex().chars().take(20).collect::<String>();
        let path = folder.join(format!("matrix-{name}.mpk"));
        if let Ok(bytes) = std::fs::read(&path)
            && let Ok(matrix) = rmp_serde::from_slice(&bytes)
        {
            return Ok(matrix);
        }
        let matrix = Self::recorded(answers, prompts)?;
        let bytes = rmp_serde::to_vec(&matrix).map_err(failed)?;
        std::fs::write(&path, bytes).map_err(BenchError::file(&path))?;
        Ok(matrix)
    }

    fn recorded(answers: &mut Answers, prompts: &[Prompt]) -> Result<Self> {
        let mut estimated = |estimator: Estimator| -> Result<Vec<_>> {
            let (kinds, prompts) = (vec![UnitKind::Expert], prompts.to_vec());
            let baseline = estimator.usual_baseline();
            let work = Work::Estimate(Estimate { prompts, estimator, kinds, baseline });
            match answers.to(work)? {
                Outcome::Scores(deposit) => Ok(deposit.columns),
                other => Err(BenchError::Unequal(format!("{other:?} is no scores"))),
            }
        };
        let cheap = [estimated(Estimator::TRACE)?, estimated(Estimator::ATP)?];
        let row = |c: Column| (c.statistic, c.unit, c.values);
        let cheap = cheap.map(|columns| columns.into_iter().map(row).collect());
        let units: Vec<Unit> = answers.shape.units(UnitKind::Expert).collect();
        let (mut cut, mut clean, mut tokens, mut bytes) = (BTreeMap::new(), vec![], vec![], vec![]);
        for some in units.chunks(AT_ONCE) {
            let mut rows = answers.under(prompts, some.iter().copied().map(Cut::Unit).collect())?;
            let whole = rows.remove(0);
            tokens = whole.prompts.iter().map(|p| p.tokens).collect();
            (clean, bytes) = (whole.nats, whole.bytes);
            cut.extend(some.iter().copied().zip(rows.into_iter().map(|row| row.nats)));
        }
        Ok(Self { tokens, bytes, clean, cut, cheap })
    }

    /// By how much a unit raises the loss of a prompt, in nats.
    pub fn rise(&self, unit: &Unit, prompt: usize) -> f64 {
        let of = |row: Option<&Vec<f32>>| row.and_then(|r| r.get(prompt)).copied().unwrap_or(0.0);
        f64::from(of(self.cut.get(unit))) - f64::from(of(Some(&self.clean)))
    }

    /// Response tokens of a prompt.
    pub fn tokens_of(&self, prompt: usize) -> f64 {
        f64::from(self.tokens.get(prompt).copied().unwrap_or(0))
    }

    /// A statistic of every unit on some prompts, per token.
    pub fn cheap(&self, statistic: Statistic, prompts: &[usize]) -> BTreeMap<Unit, f64> {
        let tokens: f64 = prompts.iter().map(|p| self.tokens_of(*p)).sum();
        let sum = |values: &Vec<f32>| {
            let values = prompts.iter().filter_map(|p| values.get(*p)).copied();
            values.map(f64::from).sum::<f64>()
        };
        let columns = self.cheap.iter().flatten().filter(|(s, ..)| *s == statistic);
        columns.map(|(_, unit, values)| (*unit, sum(values) / tokens.max(1.0))).collect()
    }
}
