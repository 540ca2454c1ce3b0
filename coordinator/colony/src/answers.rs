//! How often models answer a prompt with its reference: shares of right answers, and paired
//! differences of two models' shares.
//!
//! Their intervals are closed forms that hold for few prompts and for models that answer nearly alike:
//! of a share Wilson's score interval (1927), of a paired difference that of Agresti and Min (2005,
//! "Simple improved confidence intervals for comparing matched proportions"). A bootstrap would call a
//! student surely worse that loses four answers of a hundred and wins none, which a fair coin does one
//! time in sixteen.

use crate::gate::PairedDifference;
use crate::state::Judged;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The normal distribution's 97.5 % point.
const TWO_SIDED: f64 = 1.959_963_984_540_054;
/// Its 95 % point.
const ONE_SIDED: f64 = 1.644_853_626_951_472_7;

/// Two models' answers to the same prompts; shares of them that are right.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AnswersReport {
    /// Prompts that both answered.
    pub prompts: u32,
    /// The student's share.
    pub new: f64,
    /// The rival's.
    pub old: f64,
    /// The difference of the shares (positive: the student is better), with its intervals.
    pub difference: PairedDifference,
}

impl AnswersReport {
    /// Whether the student surely gives fewer answers right: the two-sided 95 % interval lies below 0.
    pub fn is_surely_worse(&self) -> bool {
        self.difference.high < 0.0
    }
}

/// Of prompts by place, whether the first model's answer and whether the second's is right.
pub(crate) type Pairs = BTreeMap<u32, (bool, bool)>;

/// A share, and the ends of its 95 % interval.
pub(crate) type Share = (f64, (f64, f64));

/// Of each prompt that both answered, whether the first and whether the second is right.
pub(crate) fn both(new: &BTreeMap<u32, Judged>, old: &BTreeMap<u32, Judged>) -> Pairs {
    let pair = |(at, new): (&u32, &Judged)| Some((*at, (new.right?, old.get(at)?.right?)));
    new.iter().filter_map(pair).collect()
}

/// The comparison over these pairs; none where there are none.
pub(crate) fn compare<'a>(pairs: impl Iterator<Item = &'a (bool, bool)>) -> Option<AnswersReport> {
    let (mut prompts, mut right, mut won, mut lost) = (0u32, 0u32, 0u32, 0u32);
    for (new, old) in pairs {
        prompts += 1;
        right += u32::from(*new && *old);
        won += u32::from(*new && !*old);
        lost += u32::from(!*new && *old);
    }
    let of = |count: u32| f64::from(count) / f64::from(prompts);
    (prompts > 0).then(|| AnswersReport {
        prompts,
        new: of(right + won),
        old: of(right + lost),
        difference: difference(prompts, won, lost),
    })
}

/// Of shares over so many prompts, of which the first alone has `won` and the second alone `lost`:
/// half an answer more in each of the four cells, then the usual interval (Agresti & Min, section 3).
fn difference(prompts: u32, won: u32, lost: u32) -> PairedDifference {
    let (n, won, lost) = (f64::from(prompts) + 2.0, f64::from(won) + 0.5, f64::from(lost) + 0.5);
    let centre = (won - lost) / n;
    let error = (((won + lost) - (won - lost) * centre) / (n * n)).max(0.0).sqrt();
    PairedDifference {
        mean: (won - lost) / f64::from(prompts),
        low: (centre - TWO_SIDED * error).max(-1.0),
        high: (centre + TWO_SIDED * error).min(1.0),
        upper: (centre + ONE_SIDED * error).min(1.0),
    }
}

/// The prompts that every model which answered any has answered: shares over others could not be
/// compared.
pub(crate) fn shared<'a>(judged: impl Iterator<Item = &'a BTreeMap<u32, Judged>>) -> BTreeSet<u32> {
    let answered = |rows: &BTreeMap<u32, Judged>| -> BTreeSet<u32> {
        rows.iter().filter(|(_, row)| row.right.is_some()).map(|(at, _)| *at).collect()
    };
    let all = judged.map(answered).filter(|answered| !answered.is_empty());
    all.reduce(|a, b| a.intersection(&b).copied().collect()).unwrap_or_default()
}

/// The share of right answers over the prompts, and its 95 % interval (Wilson); none where no prompt
/// was answered.
pub(crate) fn share(rows: &BTreeMap<u32, Judged>, prompts: &BTreeSet<u32>) -> Option<Share> {
    let answers: Vec<bool> =
        prompts.iter().filter_map(|at| rows.get(at).and_then(|row| row.right)).collect();
    let (n, right) = (answers.len() as f64, answers.iter().filter(|right| **right).count() as f64);
    if answers.is_empty() {
        return None;
    }
    let (share, square) = (right / n, TWO_SIDED * TWO_SIDED);
    let centre = (share + square / (2.0 * n)) / (1.0 + square / n);
    let inner = (share * (1.0 - share) + square / (4.0 * n)) / n;
    let half = TWO_SIDED * inner.sqrt() / (1.0 + square / n);
    Some((share, ((centre - half).max(0.0), (centre + half).min(1.0))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fixed;

    fn rows(right: &[Option<bool>]) -> BTreeMap<u32, Judged> {
        let row = |right: &Option<bool>| Judged {
            nats: Fixed::of(1.0),
            tokens: 5,
            bytes: 10,
            right: *right,
        };
        (0..).zip(right.iter().map(row)).collect()
    }

    /// The chance of so many of each of three kinds among `n`.
    fn chance(n: u32, (won, lost): (u32, u32), (p, q): (f64, f64)) -> f64 {
        let choose =
            |n: u32, k: u32| (0..k).fold(1.0, |c, i| c * f64::from(n - i) / f64::from(i + 1));
        let ways = choose(n, won) * choose(n - won, lost);
        ways * p.powi(won as i32)
            * q.powi(lost as i32)
            * (1.0 - p - q).powi((n - won - lost) as i32)
    }

    /// Every outcome of n prompts, each with its chance: how often the interval holds the truth, and
    /// how often two equals are told apart in the direction that refuses a student.
    #[test]
    fn the_interval_of_a_paired_difference_holds_the_truth_as_often_as_it_says() {
        for n in [20, 60, 100] {
            for (p, q) in [(0.02, 0.02), (0.1, 0.1), (0.2, 0.2), (0.02, 0.1), (0.3, 0.1)] {
                let (mut holds, mut refused) = (0.0, 0.0);
                for won in 0..=n {
                    for lost in 0..=n - won {
                        let (weight, d) =
                            (chance(n, (won, lost), (p, q)), difference(n, won, lost));
                        holds += weight * f64::from(u8::from(d.low <= p - q && p - q <= d.high));
                        refused += weight * f64::from(u8::from(d.high < 0.0));
                    }
                }
                assert!(holds > 0.945, "{n} {p} {q}: {holds}");
                assert!(p < q || refused < 0.027, "{n} {p} {q}: {refused}");
            }
        }
    }

    #[test]
    fn a_few_lost_answers_are_noise_and_many_are_not() {
        let compared = |won: usize, lost: usize| {
            let pairs = [vec![(true, false); won], vec![(false, true); lost]].concat();
            let alike = vec![(true, true); 100 - won - lost];
            compare(pairs.iter().chain(&alike)).unwrap()
        };
        let none = compared(0, 0);
        assert_eq!((none.new, none.old, none.difference.mean), (1.0, 1.0, 0.0));
        assert!(none.difference.low < 0.0 && none.difference.high > 0.0);
        for (won, lost, worse) in [(0, 4, false), (0, 8, true), (10, 14, false), (5, 20, true)] {
            let found = compared(won, lost);
            assert_eq!(found.is_surely_worse(), worse, "{won} {lost}: {found:?}");
            assert!((found.difference.mean - (found.new - found.old)).abs() < 1e-12);
            assert!(found.difference.upper < found.difference.high);
        }
        assert_eq!(compare([].iter()), None);
    }

    #[test]
    fn only_prompts_that_both_answered_are_compared() {
        let (yes, no) = (Some(true), Some(false));
        let (new, old) = (rows(&[yes, no, None, yes]), rows(&[no, yes, yes]));
        assert_eq!(both(&new, &old), [(0, (true, false)), (1, (false, true))].into());
        let silent = rows(&[None, None]);
        assert_eq!(shared([&new, &old, &silent].into_iter()), [0, 1].into());
        assert_eq!(shared([&silent].into_iter()), BTreeSet::new());
        assert_eq!(share(&silent, &[0].into()), None);
    }

    /// Against Newcombe (1998, table I): of 81 in 263, .2553 to .3662.
    #[test]
    fn a_share_has_wilsons_interval() {
        let answers: Vec<Option<bool>> = (0..263).map(|at| Some(at < 81)).collect();
        let (of, (low, high)) = share(&rows(&answers), &(0..263).collect()).unwrap();
        assert!((of - 81.0 / 263.0).abs() < 1e-12);
        assert!((low - 0.2553).abs() < 5e-5 && (high - 0.3662).abs() < 5e-5, "{low} {high}");
        let (of, (low, high)) = share(&rows(&[Some(false); 20]), &(0..20).collect()).unwrap();
        assert!(of == 0.0 && low == 0.0 && high > 0.1, "{high}");
    }
}
