//! What a report says of answers: how many are right, how fast they come, and how large the student
//! is that gives them.

use super::Report;
use super::content::percent_ends;
use super::table::{Table, none};
use uspx_colony::answers::AnswersReport;
use uspx_colony::gate::PairedDifference;
use uspx_colony::regressions::LostAnswers;
use uspx_colony::report::{StudentReport, title};

/// A share in per cent.
pub(super) fn share(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// A difference of shares.
fn signed(difference: &PairedDifference) -> String {
    format!("{:+.1} %", 100.0 * difference.mean)
}

fn signed_ends(d: &PairedDifference) -> String {
    format!("[{:+.1}, {:+.1}] %", 100.0 * d.low, 100.0 * d.high)
}

/// A length in megabytes.
fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// The models that answered, or whose files' length is known.
pub(super) fn models(report: &Report) -> Table {
    let chosen = report.figures.chosen_recipe;
    let row = |s: &StudentReport| {
        [
            title(s.contender, chosen),
            s.exact_match.map_or_else(none, share),
            s.exact_match_interval.map_or_else(none, percent_ends),
            s.exact_against_base.as_ref().map_or_else(none, signed),
            s.exact_against_base.as_ref().map_or_else(none, signed_ends),
            s.tokens_per_second.map_or_else(none, |speed| format!("{speed:.1}")),
            s.bytes.map_or_else(none, megabytes),
        ]
    };
    let tells = |s: &&StudentReport| {
        s.exact_match.is_some() || s.tokens_per_second.is_some() || s.bytes.is_some()
    };
    let headings =
        ["model", "right answers", "95 %", "against the base", "95 %", "tokens a second", "size"];
    Table::of(headings, report.figures.students.iter().filter(tells).map(row).collect())
}

/// What the gate knows of answers, a line each.
pub(super) fn gate(report: &Report) -> Vec<String> {
    let figures = &report.figures;
    let grounds = figures.gate.as_ref().and_then(|gate| gate.answers.as_ref()).map(grounds);
    let lost = figures.regressions.as_ref().and_then(|found| found.lost.as_ref()).map(lost);
    grounds.into_iter().chain(lost.flatten()).collect()
}

fn grounds(answers: &AnswersReport) -> String {
    let AnswersReport { prompts, new, old, difference } = answers;
    format!(
        "Of its own answers to {prompts} prompts {} are the reference, against {}: a difference of {} \
         {}, which must not lie below 0 as a whole.",
        share(*new),
        share(*old),
        signed(difference),
        signed_ends(difference)
    )
}

fn lost(lost: &LostAnswers) -> Option<String> {
    let LostAnswers { prompts, won, named } = lost;
    let more = if *prompts as usize > named.len() { ", …" } else { "" };
    (*prompts > 0).then(|| {
        format!(
            "Right before and not any more: {prompts} ({}{more}); newly right: {won}.",
            named.join(", ")
        )
    })
}

/// The student against its rival, by tag.
pub(super) fn tags(report: &Report) -> Table {
    let tags = report.figures.gate.iter().flat_map(|gate| &gate.tags);
    let row = |(tag, t): (&String, &uspx_colony::gate::TagReport)| {
        let answers = t.answers.as_ref();
        [
            tag.clone(),
            t.prompts.to_string(),
            format!("{:.3}", t.new),
            format!("{:.3}", t.old),
            if t.old > 0.0 { format!("{:+.1} %", 100.0 * (t.new / t.old - 1.0)) } else { none() },
            answers.map_or_else(none, |a| share(a.new)),
            answers.map_or_else(none, |a| share(a.old)),
            answers.map_or_else(none, |a| signed_ends(&a.difference)),
        ]
    };
    let headings = [
        "tag",
        "prompts",
        "student",
        "rival",
        "change",
        "student’s right answers",
        "rival’s",
        "difference, 95 %",
    ];
    Table::of(headings, tags.map(row).collect())
}
