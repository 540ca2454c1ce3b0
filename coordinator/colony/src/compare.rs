//! Invariant 5, second half: two answers to the same task are compared, never merged.

use crate::State;
use crate::campaign::TrustPlan;
use std::collections::BTreeMap;
use uspx_domain::{Answer, Deposit, LossRow, Outcome, Statistic, Unit, WorkerId};

/// Whether two answers say the same within what two machines may differ by; none where they cannot
/// be compared.
pub fn compare(first: &Answer, later: &Answer, trust: &TrustPlan) -> Option<bool> {
    match (&first.outcome, &later.outcome) {
        (Outcome::Scores(a), Outcome::Scores(b)) => Some(same_deposits(a, b, trust)),
        (Outcome::Losses(a), Outcome::Losses(b)) => Some(same_losses(a, b, trust)),
        _ => None,
    }
}

fn same_deposits(a: &Deposit, b: &Deposit, trust: &TrustPlan) -> bool {
    let (x, y) = (numbers(a), numbers(b));
    let flat = |numbers: &BTreeMap<(Statistic, Unit), Vec<f32>>| -> Vec<f32> {
        numbers.values().flatten().copied().collect()
    };
    a.prompts == b.prompts && x.keys().eq(y.keys()) && close(&flat(&x), &flat(&y), trust)
}

/// What a deposit says, by statistic and unit; a layer's moments stand under its first unit.
fn numbers(deposit: &Deposit) -> BTreeMap<(Statistic, Unit), Vec<f32>> {
    let columns = deposit.columns.iter().map(|c| ((c.statistic, c.unit), c.values.clone()));
    let moments = deposit.moments.iter().map(|m| {
        let first = Unit { kind: m.kind, layer: m.layer, index: 0 };
        ((m.statistic, first), [m.x.as_slice(), &m.xx, &m.xt].concat())
    });
    columns.chain(moments).collect()
}

fn same_losses(a: &[LossRow], b: &[LossRow], trust: &TrustPlan) -> bool {
    let texts = |rows: &[LossRow]| {
        rows.iter().map(|r| (r.prompts.clone(), r.bytes.clone())).collect::<Vec<_>>()
    };
    let nats = |rows: &[LossRow]| rows.iter().flat_map(|r| r.nats.clone()).collect::<Vec<f32>>();
    texts(a) == texts(b) && close(&nats(a), &nats(b), trust)
}

/// All but a few outliers agree.
fn close(a: &[f32], b: &[f32], trust: &TrustPlan) -> bool {
    let apart = |(a, b): &(&f32, &f32)| {
        let (a, b) = (f64::from(**a), f64::from(**b));
        (a - b).abs() > trust.absolute + trust.relative * a.abs().max(b.abs())
    };
    a.len() == b.len() && a.iter().zip(b).filter(apart).count() <= trust.outliers.of(a.len())
}

/// Votes against a worker before it is suspected: one may be a router's tie.
const VOTES: u32 = 2;

/// Why a worker is to be quarantined, if it is: too many refused answers, or comparisons that
/// single it out.
///
/// Of two that disagree nobody can say who is wrong, so a third is asked. A worker is singled out when others agreed
/// against it twice, and not at least twice as often with it.
pub fn suspicion(state: &State, worker: &WorkerId, trust: &TrustPlan) -> Option<String> {
    let account = state.accounts.get(worker).filter(|a| a.quarantined.is_none())?;
    if account.refused >= trust.refusals {
        return Some(format!("{} of its answers failed a check", account.refused));
    }
    let is_out = account.outvoted >= VOTES && !account.is_proven();
    is_out.then(|| format!("others agree against it in {} comparisons", account.outvoted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_domain::{PromptTokens, TaskId};

    fn answer(nats: &[f32]) -> Answer {
        let prompts =
            (0..nats.len()).map(|i| PromptTokens { id: format!("p{i}"), tokens: 3 }).collect();
        let row = LossRow {
            prompts,
            nats: nats.to_vec(),
            bytes: vec![9; nats.len()],
            ..LossRow::default()
        };
        Answer {
            task: TaskId::derived(b"t"),
            worker: "w".parse().unwrap(),
            outcome: Outcome::Losses(vec![row]),
            millis: 1,
            skipped: vec![],
            seams: 0,
        }
    }

    #[test]
    fn hardware_noise_agrees_and_lies_do_not() {
        let trust = TrustPlan::default();
        let honest: Vec<f32> = (0..100).map(|i| 10.0 + i as f32).collect();
        let mut other = honest.clone();
        other.iter_mut().for_each(|x| *x *= 1.001);
        other[0] = 40.0;
        assert_eq!(compare(&answer(&honest), &answer(&other), &trust), Some(true));
        other.iter_mut().for_each(|x| *x *= 0.9);
        assert_eq!(compare(&answer(&honest), &answer(&other), &trust), Some(false));
        assert_eq!(compare(&answer(&honest), &answer(&honest[..99]), &trust), Some(false));
    }
}
