//! The release gate: a student is published only if it is surely better on held-out prompts, worse
//! for no tag, and does not surely answer fewer of them with their reference.
//!
//! Paired bootstrap over gate prompts (Efron & Tibshirani 1993, ch. 13) of the difference in bits
//! per byte; of right answers see [`crate::answers`].

use crate::answers::{self, AnswersReport};
use crate::state::{Judged, PublishedStudent};
use crate::{Contender, Dice, Fixed, State};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::f64::consts::LN_2;
use uspx_domain::ExportFormat;

/// Share of the gate prompts that the student can run, on which both must be judged.
const COVERAGE: f64 = 0.9;

/// The gate's decision and its grounds; in bits per byte but for the answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateReport {
    /// Whom the student was to beat.
    pub rival: Contender,
    /// Prompts that both were judged on.
    pub prompts: u32,
    /// Prompts that both should have been judged on; nought in ledgers from before it was told.
    #[serde(default, skip_serializing_if = "is_nought")]
    pub wanted: u32,
    /// The student.
    pub new: f64,
    /// The rival.
    pub old: f64,
    /// The difference (negative: the student is better), with its intervals.
    pub difference: PairedDifference,
    /// How often both answer with the reference; none where they were not both asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<AnswersReport>,
    /// Tags with enough prompts.
    pub tags: BTreeMap<String, TagReport>,
    /// Why it is refused; none lets it pass.
    pub refusal: Option<String>,
}

/// A paired difference, in bits per byte or in shares of right answers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedDifference {
    /// On the prompts as they are.
    pub mean: f64,
    /// The two-sided 95 % interval's ends (2.5 and 97.5 %).
    pub low: f64,
    /// See `low`.
    pub high: f64,
    /// The one-sided 95 % upper bound.
    pub upper: f64,
}

/// One tag's share of the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TagReport {
    /// Its prompts.
    pub prompts: u32,
    /// The student's bits per byte on them.
    pub new: f64,
    /// The rival's.
    pub old: f64,
    /// How often both answer them with the reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<AnswersReport>,
}

/// What an older ledger does not say is not written back into it.
fn is_nought(wanted: &u32) -> bool {
    *wanted == 0
}

impl GateReport {
    /// Whether the student may be published.
    pub fn passes(&self) -> bool {
        self.refusal.is_none()
    }

    /// Whether too few prompts were judged for both.
    pub fn misses_prompts(&self) -> bool {
        f64::from(self.prompts) < COVERAGE * f64::from(self.wanted)
    }
}

/// Whom a new student must beat: the published one, or the base student where there is none.
pub fn rival(state: &State) -> Contender {
    let published = state.published.as_ref().and_then(PublishedStudent::judged);
    if published.is_some() { Contender::Published } else { Contender::Base }
}

/// Both losses on one prompt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Both {
    pub new: Fixed,
    pub old: Fixed,
    pub bytes: u32,
}

/// Prompts that both were judged on, by place.
pub(crate) fn paired(
    new: &BTreeMap<u32, Judged>,
    old: &BTreeMap<u32, Judged>,
) -> BTreeMap<u32, Both> {
    let both = |(at, n): (&u32, &Judged)| {
        old.get(at).map(|o| (*at, Both { new: n.nats, old: o.nats, bytes: n.bytes }))
    };
    new.iter().filter_map(both).collect()
}

/// The paired difference (new − old) with its intervals; none where the two share no bytes.
pub fn difference(
    new: &BTreeMap<u32, Judged>,
    old: &BTreeMap<u32, Judged>,
    dice: &mut Dice,
    resamples: u32,
) -> Option<PairedDifference> {
    let pairs: Vec<Both> = paired(new, old).into_values().collect();
    let mean = pooled(pairs.iter())?;
    let resample = |dice: &mut Dice| {
        let picks: Vec<&Both> = pairs
            .iter()
            .filter_map(|_| pairs.get(dice.below(pairs.len() as u32) as usize))
            .collect();
        pooled(picks.into_iter()).unwrap_or(mean)
    };
    let mut draws: Vec<f64> = (0..resamples).map(|_| resample(dice)).collect();
    draws.sort_by(f64::total_cmp);
    let at = |millionths| quantile(&draws, millionths).unwrap_or(mean);
    Some(PairedDifference { mean, low: at(25_000), high: at(975_000), upper: at(950_000) })
}

/// Σ(new − old) over Σ bytes, in bits. Sums are exact, so a resample's order cannot matter.
fn pooled<'a>(pairs: impl Iterator<Item = &'a Both>) -> Option<f64> {
    let (mut nats, mut bytes) = (Fixed::ZERO, 0u64);
    for both in pairs {
        nats += both.new - both.old;
        bytes += u64::from(both.bytes);
    }
    (bytes > 0).then(|| nats.to_f64() / LN_2 / bytes as f64)
}

/// The smallest draw that at least so many millionths of all draws do not exceed.
pub(crate) fn quantile(sorted: &[f64], millionths: u64) -> Option<f64> {
    let rank = (sorted.len() as u64 * millionths).div_ceil(1_000_000).max(1);
    sorted.get(rank as usize - 1).copied()
}

/// Decides; none where the two were never judged on the same prompts.
pub fn gate(state: &State) -> Option<GateReport> {
    let campaign = state.campaign.as_ref()?;
    let rival = rival(state);
    let (new, old) = (state.judged(ExportFormat::gated().into())?, state.judged(rival)?);
    let mut dice = Dice::new(campaign.seed, "gate", u64::from(state.epoch));
    let difference = difference(new, old, &mut dice, campaign.distil.resamples)?;
    let (pairs, answered) = (paired(new, old), answers::both(new, old));
    let (new, old) = sides(pairs.values());
    // A prompt that no student can run is nobody's gap.
    let runs = |at: &u32| campaign.student.is_none_or(|base| !state.is_skipped(base, *at));
    let wanted = campaign.split(crate::Split::Gate).into_iter().filter(runs).count() as u32;
    let mut report = GateReport {
        rival,
        prompts: pairs.len() as u32,
        wanted,
        new,
        old,
        difference,
        answers: answers::compare(answered.values()),
        tags: tags(state, (&pairs, &answered), campaign.distil.tag_prompts),
        refusal: None,
    };
    report.refusal = refusal(&report, campaign.distil.tag_worse);
    Some(report)
}

fn refusal(report: &GateReport, worse: f64) -> Option<String> {
    if report.misses_prompts() {
        let GateReport { prompts, wanted, .. } = report;
        return Some(format!("only {prompts} of {wanted} gate prompts were judged for both"));
    }
    if report.difference.upper >= 0.0 {
        let upper = report.difference.upper;
        return Some(format!(
            "not surely better: the 95 % upper bound of the difference is {upper:+.4} bits per byte"
        ));
    }
    let bad = report.tags.iter().find(|(_, t)| t.new > t.old * (1.0 + worse));
    if let Some((tag, TagReport { new, old, .. })) = bad {
        return Some(format!("worse on tag `{tag}`: {new:.4} against {old:.4} bits per byte"));
    }
    report.answers.filter(AnswersReport::is_surely_worse).map(|answers| fewer_right(&answers))
}

fn fewer_right(answers: &AnswersReport) -> String {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let AnswersReport { prompts, new, old, difference } = answers;
    format!(
        "it surely answers fewer prompts with their reference: {} of {prompts} against {}, and the \
         95 % interval of the difference ends at {:+.1} %",
        percent(*new),
        percent(*old),
        100.0 * difference.high
    )
}

fn tags(
    state: &State,
    (pairs, answered): (&BTreeMap<u32, Both>, &answers::Pairs),
    least: u32,
) -> BTreeMap<String, TagReport> {
    let mut members: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    for at in pairs.keys() {
        let own = state.tags(*at).iter().map(String::as_str);
        for tag in own {
            members.entry(tag).or_default().insert(*at);
        }
    }
    members.retain(|_, places| places.len() >= least as usize);
    let report = |places: &BTreeSet<u32>| {
        let (new, old) = sides(places.iter().filter_map(|at| pairs.get(at)));
        let answers = answers::compare(places.iter().filter_map(|at| answered.get(at)));
        TagReport { prompts: places.len() as u32, new, old, answers }
    };
    members.into_iter().map(|(tag, places)| (tag.to_owned(), report(&places))).collect()
}

/// Pooled bits per byte of both sides.
fn sides<'a>(pairs: impl Iterator<Item = &'a Both>) -> (f64, f64) {
    let (mut new, mut old, mut bytes) = (Fixed::ZERO, Fixed::ZERO, 0u64);
    for both in pairs {
        new += both.new;
        old += both.old;
        bytes += u64::from(both.bytes);
    }
    let bits = |nats: Fixed| nats.to_f64() / LN_2 / (bytes.max(1) as f64);
    (bits(new), bits(old))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(nats: &[f64]) -> BTreeMap<u32, Judged> {
        let row = |n: &f64| Judged { nats: Fixed::of(*n), tokens: 5, bytes: 10, right: None };
        (0..).zip(nats.iter().map(row)).collect()
    }

    /// All 3^3 resamples of three prompts, each equally likely.
    fn brute(differences: &[f64; 3]) -> Vec<f64> {
        let mut all = Vec::new();
        for a in differences {
            for b in differences {
                all.extend(differences.iter().map(|c| (a + b + c) / 30.0 / LN_2));
            }
        }
        all.sort_by(f64::total_cmp);
        all
    }

    #[test]
    fn the_bootstrap_agrees_with_all_resamples() {
        let (new, old) = (rows(&[1.0, 2.0, 4.0]), rows(&[2.0, 2.5, 3.0]));
        let got = difference(&new, &old, &mut Dice::new(5, "test", 0), 20_000).unwrap();
        let all = brute(&[-1.0, -0.5, 1.0]);
        assert!((got.mean - (-0.5 / 30.0 / LN_2)).abs() < 1e-9);
        // 27 equally likely values: the 2.5 % point is the lowest, 95 % lies in the 26th, 97.5 % is
        // the highest.
        for (got, want) in [(got.low, all[0]), (got.upper, all[25]), (got.high, all[26])] {
            assert!((got - want).abs() < 1e-8, "{got} {want}");
        }
    }

    #[test]
    fn quantiles_are_of_the_draws() {
        let draws: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&draws, 950_000), Some(95.0));
        assert_eq!(quantile(&draws, 25_000), Some(3.0));
        assert_eq!(quantile(&[], 1), None);
    }

    fn tagged((new, old): (f64, f64)) -> TagReport {
        TagReport { prompts: 40, new, old, answers: None }
    }

    fn report(difference: (f64, f64), tag: (f64, f64)) -> GateReport {
        let (mean, upper) = difference;
        GateReport {
            rival: Contender::Base,
            prompts: 100,
            wanted: 100,
            new: 1.0,
            old: 1.0 - mean,
            difference: PairedDifference { mean, low: mean, high: upper, upper },
            answers: None,
            tags: [("t".to_owned(), tagged(tag))].into(),
            refusal: None,
        }
    }

    /// Better in bits, and of a hundred answers so many are won and lost.
    fn answering(won: usize, lost: usize) -> Option<String> {
        let pairs = [vec![(true, false); won], vec![(false, true); lost]].concat();
        let alike = vec![(true, true); 100 - won - lost];
        let answers = answers::compare(pairs.iter().chain(&alike));
        refusal(&GateReport { answers, ..report((-0.2, -0.1), (1.0, 1.0)) }, 0.02)
    }

    #[test]
    fn surely_worse_answers_refuse_and_noisy_ones_do_not() {
        for (won, lost) in [(0, 0), (20, 5), (0, 4), (10, 15)] {
            assert_eq!(answering(won, lost), None, "{won} {lost}");
        }
        let why = answering(5, 25).unwrap();
        assert!(why.contains("75.0 % of 100 against 95.0 %"), "{why}");
    }

    #[test]
    fn each_ground_refuses_by_itself() {
        let short = GateReport { wanted: 120, ..report((-0.2, -0.1), (1.0, 1.0)) };
        assert_eq!(refusal(&report((-0.2, -0.1), (1.0, 1.0)), 0.02), None);
        assert!(refusal(&report((-0.2, 0.0), (1.0, 1.0)), 0.02).unwrap().contains("surely"));
        assert!(refusal(&report((-0.2, -0.1), (1.03, 1.0)), 0.02).unwrap().contains("tag `t`"));
        assert_eq!(refusal(&report((-0.2, -0.1), (1.019, 1.0)), 0.02), None);
        assert!(refusal(&short, 0.02).unwrap().contains("only 100 of 120"));
    }
}
