//! What would help a student that the gate refused: rules of thumb over a campaign's figures, for
//! people. Nothing is decided by them.

use crate::answers::AnswersReport;
use crate::gate::{PairedDifference, TagReport};
use crate::report::{CampaignReport, StudentReport};
use crate::{Contender, GateReport};
use serde::{Deserialize, Serialize};
use std::fmt;
use uspx_domain::{Coverage, ExportFormat};

/// More than so many times the gate prompts are not asked for: the student is to become better.
const MOST_TIMES: f64 = 20.0;
/// A gain is worth saving from here on: so many times less than what 4 bits cost.
const GAIN_OF_COST: f64 = 10.0;

/// One thing that would help.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Advice {
    /// Too few gate prompts were judged for both: what kept the others out comes first.
    JudgeMore {
        /// Prompts that both were judged on.
        judged: u32,
    },
    /// The teacher is no better than the base, so that it has nothing to teach.
    WeakTeacher {
        /// The teacher's bits per byte.
        teacher: f64,
        /// The base's.
        base: f64,
    },
    /// Few of the answers have labels.
    Labels(Coverage),
    /// The student is better on these prompts, but not surely: more gate prompts would tell.
    MoreGatePrompts {
        /// Gate prompts that it was judged on.
        have: u32,
        /// About as many would do, if the difference stays.
        want: u64,
    },
    /// The student is hardly better, or not at all: more to learn from, or another recipe.
    LearnMore {
        /// The difference to its rival in bits per byte.
        difference: f64,
    },
    /// Training made nothing better.
    AnotherRecipe,
    /// The unquantised student is surely better than the base, and 4 bits cost that.
    Calibration {
        /// What 4 bits cost, in bits per byte.
        cost: f64,
    },
    /// A tag became worse.
    Tag {
        /// Which.
        tag: String,
        /// Gate prompts with it.
        prompts: u32,
        /// How much worse, as a share.
        worse: f64,
    },
    /// The student surely answers fewer prompts with their reference than its rival.
    Answers {
        /// How much its share of right answers is below the rival's.
        fewer: f64,
    },
}

/// What would help; empty where there is nothing to say, as for a student that passed.
pub fn advise(report: &CampaignReport, tag_worse: f64) -> Vec<Advice> {
    let Some(gate) = report.gate.as_ref().filter(|gate| !gate.passes()) else { return Vec::new() };
    let coverage = gate.misses_prompts().then_some(Advice::JudgeMore { judged: gate.prompts });
    let labels = report.labels.filter(|l| l.is_low()).map(Advice::Labels);
    let first = coverage.into_iter().chain(weak_teacher(report)).chain(labels);
    let difference = of_the_difference(report, gate).into_iter();
    first
        .chain(difference)
        .chain(of_the_tags(gate, tag_worse))
        .chain(of_the_answers(gate))
        .collect()
}

fn bits(report: &CampaignReport, who: Contender) -> Option<f64> {
    find(report, who).map(|s| s.bits_per_byte)
}

fn find(report: &CampaignReport, who: Contender) -> Option<&StudentReport> {
    report.students.iter().find(|s| s.contender == who)
}

fn weak_teacher(report: &CampaignReport) -> Option<Advice> {
    let (teacher, base) = (bits(report, Contender::Teacher)?, bits(report, Contender::Base)?);
    (teacher >= base).then_some(Advice::WeakTeacher { teacher, base })
}

/// What the difference to the rival asks for; nothing where it is surely an improvement.
fn of_the_difference(report: &CampaignReport, gate: &GateReport) -> Vec<Advice> {
    let d = gate.difference;
    if d.upper < 0.0 {
        return Vec::new();
    }
    let quantised = quantised(report);
    if d.mean < 0.0 {
        let more = more_prompts(gate.prompts, &d);
        return quantised.into_iter().chain([more]).collect();
    }
    let trained = report.trainings.values().any(|t| t.after < t.before);
    let recipe =
        if trained { Advice::LearnMore { difference: d.mean } } else { Advice::AnotherRecipe };
    quantised.into_iter().chain([recipe]).collect()
}

/// An interval narrows with the root of the number of prompts.
fn more_prompts(have: u32, d: &PairedDifference) -> Advice {
    let ratio = (d.upper - d.mean) / d.mean;
    let times = ratio * ratio;
    if times > MOST_TIMES {
        return Advice::LearnMore { difference: d.mean };
    }
    // One more than the bound asks for: at the bound itself the gate refuses.
    Advice::MoreGatePrompts { have, want: (f64::from(have) * times).ceil() as u64 + 1 }
}

fn quantised(report: &CampaignReport) -> Option<Advice> {
    let chosen = Contender::Distilled(report.chosen_recipe?);
    let gain = find(report, chosen)?.against_base.filter(|d| d.upper < 0.0)?;
    let left =
        find(report, ExportFormat::gated().into())?.against_base.filter(|d| d.upper >= 0.0)?;
    let cost = left.mean - gain.mean;
    // A gain that is nothing beside what 4 bits cost cannot be saved by better ones.
    (-gain.mean > cost / GAIN_OF_COST).then_some(Advice::Calibration { cost })
}

/// Every tag that is worse than the gate lets pass, the worst first.
fn of_the_tags(gate: &GateReport, bound: f64) -> Vec<Advice> {
    let worse = |t: &TagReport| t.new / t.old - 1.0;
    let mut bad: Vec<(&String, &TagReport)> =
        gate.tags.iter().filter(|(_, t)| t.old > 0.0 && worse(t) > bound).collect();
    bad.sort_by(|a, b| worse(b.1).total_cmp(&worse(a.1)));
    let advice = |(tag, t): (&String, &TagReport)| Advice::Tag {
        tag: tag.clone(),
        prompts: t.prompts,
        worse: worse(t),
    };
    bad.into_iter().map(advice).collect()
}

fn of_the_answers(gate: &GateReport) -> Option<Advice> {
    let worse = gate.answers.filter(AnswersReport::is_surely_worse)?;
    Some(Advice::Answers { fewer: -worse.difference.mean })
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JudgeMore { judged } => write!(
                f,
                "only {judged} gate prompts were judged for both: see which were left out and why, \
                 and shorten or replace them"
            ),
            Self::WeakTeacher { teacher, base } => write!(
                f,
                "the teacher ({teacher:.3} bits per byte) is no better than the base ({base:.3}) on \
                 these prompts: choose a stronger teacher, or prompts that it answers well"
            ),
            Self::Labels(coverage) => write!(f, "labels: {coverage}"),
            Self::MoreGatePrompts { have, want } => write!(
                f,
                "more gate prompts: the student is better on these {have}, but not surely; about \
                 {want} would tell, if the difference stays"
            ),
            Self::LearnMore { difference } => write!(
                f,
                "more training prompts, or another recipe (more epochs, a higher rank): the \
                 difference is {difference:+.4} bits per byte"
            ),
            Self::AnotherRecipe => f.write_str(
                "another recipe: training made nothing better, so try a lower learning rate, or \
                 more training prompts",
            ),
            Self::Calibration { cost } => write!(
                f,
                "more calibration prompts, or a larger base: before 4 bits the student is surely \
                 better, and they cost {cost:+.4} bits per byte"
            ),
            Self::Tag { tag, prompts, worse } => write!(
                f,
                "more training prompts with the tag `{tag}`: the student is {:.1} % worse on its \
                 {prompts} gate prompts",
                worse * 100.0
            ),
            Self::Answers { fewer } => write!(
                f,
                "references that are written alike: {:.1} % fewer prompts are answered with theirs, \
                 so look at those that the report names, and add training prompts like them",
                fewer * 100.0
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use uspx_domain::{SeamPrompts, TrainingSummary};

    fn difference(mean: f64, half: f64) -> PairedDifference {
        PairedDifference { mean, low: mean - half, high: mean + half, upper: mean + half }
    }

    fn student(contender: Contender, bits: f64, d: Option<PairedDifference>) -> StudentReport {
        StudentReport {
            contender,
            bits_per_byte: bits,
            interval: None,
            against_base: d,
            exact_match: None,
            exact_match_interval: None,
            exact_against_base: None,
            tokens_per_second: None,
            bytes: None,
        }
    }

    /// A refused campaign: the 4-bit student's difference to the base, and the unquantised one's.
    fn refused(gptq: PairedDifference, distilled: PairedDifference) -> CampaignReport {
        let refusal = (gptq.upper >= 0.0).then(|| "not surely better".to_owned());
        CampaignReport {
            campaign: "c".into(),
            mask: None,
            students: vec![
                student(Contender::Teacher, 1.0, None),
                student(Contender::Base, 2.0, None),
                student(Contender::Distilled(0), 2.0 + distilled.mean, Some(distilled)),
                student(ExportFormat::GPTQ.into(), 2.0 + gptq.mean, Some(gptq)),
            ],
            compared_prompts: 100,
            answered_prompts: 0,
            trainings: [(0, TrainingSummary { steps: 9, before: 3.0, after: 2.0, best_epoch: 1 })]
                .into(),
            chosen_recipe: Some(0),
            saes: vec![],
            dreams: 0,
            recipes: vec![],
            regressions: None,
            gate: Some(GateReport {
                rival: Contender::Base,
                prompts: 100,
                wanted: 100,
                new: 2.0 + gptq.mean,
                old: 2.0,
                difference: gptq,
                answers: None,
                tags: BTreeMap::new(),
                refusal,
            }),
            labels: None,
            skipped: vec![],
            seam_prompts: SeamPrompts::default(),
            given_up: vec![],
        }
    }

    #[test]
    fn a_wide_interval_asks_for_prompts_and_a_bad_estimate_for_learning() {
        let wide = difference(-0.1, 0.2);
        assert_eq!(
            advise(&refused(wide, wide), 0.02),
            [Advice::MoreGatePrompts { have: 100, want: 401 }]
        );
        let worse = difference(0.1, 0.05);
        assert_eq!(advise(&refused(worse, worse), 0.02), [Advice::LearnMore { difference: 0.1 }]);
        let hopeless = difference(-0.001, 0.2);
        assert_eq!(
            advise(&refused(hopeless, hopeless), 0.02),
            [Advice::LearnMore { difference: -0.001 }],
            "no 4,000,000 prompts"
        );
        let mut untrained = refused(worse, worse);
        untrained.trainings.values_mut().for_each(|t| t.after = t.before);
        assert_eq!(advise(&untrained, 0.02), [Advice::AnotherRecipe]);
    }

    #[test]
    fn what_four_bits_cost_is_told_apart_from_what_training_gained() {
        let found = advise(&refused(difference(-0.1, 0.2), difference(-0.3, 0.1)), 0.02);
        let Some(Advice::Calibration { cost }) = found.first() else { panic!("{found:?}") };
        assert!((cost - 0.2).abs() < 1e-9);
        assert!(found[0].to_string().contains("4 bits"));
    }

    #[test]
    fn a_weak_teacher_and_bad_tags_are_named() {
        let mut report = refused(difference(-0.2, 0.1), difference(-0.2, 0.1));
        let gate = report.gate.as_mut().unwrap();
        gate.refusal = Some("worse on tag `git`".into());
        let tag = |new| TagReport { prompts: 40, new, old: 1.0, answers: None };
        gate.tags =
            [("git".into(), tag(1.05)), ("tar".into(), tag(1.1)), ("ls".into(), tag(1.01))].into();
        let named: Vec<String> = advise(&report, 0.02).iter().map(ToString::to_string).collect();
        assert_eq!(named.len(), 2, "{named:?}");
        assert!(named[0].contains("`tar`: the student is 10.0 % worse"), "{named:?}");
        report.students[0].bits_per_byte = 2.5;
        assert!(matches!(advise(&report, 0.02)[0], Advice::WeakTeacher { .. }));
    }

    #[test]
    fn a_student_that_answers_fewer_prompts_right_hears_so() {
        let mut report = refused(difference(-0.2, 0.1), difference(-0.2, 0.1));
        let gate = report.gate.as_mut().unwrap();
        gate.refusal = Some("it surely answers fewer".into());
        let answers = |half| AnswersReport {
            prompts: 100,
            new: 0.5,
            old: 0.75,
            difference: difference(-0.25, half),
        };
        gate.answers = Some(answers(0.1));
        let found = advise(&report, 0.02);
        assert_eq!(found, [Advice::Answers { fewer: 0.25 }]);
        assert!(found[0].to_string().contains("25.0 % fewer prompts"), "{found:?}");
        report.gate.as_mut().unwrap().answers = Some(answers(0.3));
        assert_eq!(advise(&report, 0.02), [], "it is not sure");
    }

    #[test]
    fn what_kept_prompts_out_comes_first() {
        let wide = difference(-0.1, 0.2);
        let mut report = refused(wide, wide);
        let gate = report.gate.as_mut().unwrap();
        gate.wanted = 120;
        assert_eq!(advise(&report, 0.02)[0], Advice::JudgeMore { judged: 100 });
    }

    proptest! {
        /// A student that passed needs no help; one that was refused for its difference gets some.
        #[test]
        fn whoever_is_refused_hears_something(mean in -1f64..1.0, half in 0.001f64..1.0) {
            let d = difference(mean, half);
            let found = advise(&refused(d, d), 0.02);
            prop_assert_eq!(found.is_empty(), d.upper < 0.0, "{:?}", found);
            for advice in &found {
                if let Advice::MoreGatePrompts { have, want } = advice {
                    prop_assert!(u64::from(*have) < *want);
                    // With so many, the same spread would pass.
                    let half = half * (f64::from(*have) / *want as f64).sqrt();
                    prop_assert!(mean + half < 0.0);
                }
            }
        }
    }
}
