//! What a campaign found, for a person: what was cut and what that costs, what the students are
//! worth, the gate's grounds, and what to bear in mind.

use crate::error::Result;
use crate::output;
use uspx_colony::answers::AnswersReport;
use uspx_colony::gate::PairedDifference;
use uspx_colony::report::{MaskReport, StudentReport, title};
use uspx_colony::{CampaignReport, GateReport};

/// Prints all of it, as far as it is known.
pub fn show(figures: &CampaignReport) -> Result<()> {
    if let Some(found) = &figures.mask {
        output::line(&mask(found))?;
    }
    if !figures.students.is_empty() {
        output::line(&students(figures).to_string())?;
    }
    figures.gate.iter().try_for_each(gate)?;
    figures.caveats().iter().try_for_each(|caveat| output::paragraph(caveat))
}

/// What was cut from the teacher, against random masks, and the curve.
fn mask(mask: &MaskReport) -> String {
    let rise = |r: f64| format!("{r:+.3}");
    let pruned = 1.0 - f64::from(mask.kept) / f64::from(mask.units.max(1));
    let mut table =
        output::table(&["what was cut from the teacher", "held-out loss, nats per token"]);
    let kind = format!(
        "{:.0} % of the {}s ({} of {} kept)",
        pruned * 100.0,
        mask.kind,
        mask.kept,
        mask.units
    );
    table.add_row([
        format!("{kind}, by this colony's mask"),
        mask.rise.map_or_else(|| "-".into(), rise),
    ]);
    let random = mask.random_mean().map_or_else(|| "-".into(), rise);
    table.add_row([format!("as many at random (mean of {} masks)", mask.random.len()), random]);
    for (share, r) in &mask.curve {
        table.add_row([format!("{:.0} %", share * 100.0), rise(*r)]);
    }
    table.to_string()
}

/// Every model on the gate prompts.
fn students(figures: &CampaignReport) -> output::Table {
    let heading = format!("on {} held-out prompts", figures.compared_prompts);
    let answered = figures.students.iter().any(|s| s.exact_match.is_some());
    let mut headings = vec![heading.as_str(), "bits per byte", "against the base, 95 %"];
    if answered {
        headings.extend(["right answers", "tokens a second"]);
    }
    let mut table = output::table(&headings);
    for s in &figures.students {
        let against = s
            .against_base
            .map_or_else(none, |d| format!("{:+.3} [{:+.3}, {:+.3}]", d.mean, d.low, d.high));
        let bits = format!("{:.3}", s.bits_per_byte);
        let mut row = vec![title(s.contender, figures.chosen_recipe), bits, against];
        if answered {
            row.extend([right(s), s.tokens_per_second.map_or_else(none, |t| format!("{t:.0}"))]);
        }
        table.add_row(row);
    }
    table
}

fn none() -> String {
    "-".to_owned()
}

/// The share of its own answers that are the reference, and how far that is from the base's.
fn right(s: &StudentReport) -> String {
    let share = |share: f64| format!("{:.1} %", 100.0 * share);
    let against = |d: PairedDifference| format!(" [{:+.1}, {:+.1}]", 100.0 * d.low, 100.0 * d.high);
    let difference = s.exact_against_base.map(against).unwrap_or_default();
    s.exact_match.map_or_else(none, |right| share(right) + &difference)
}

/// What the gate decided on.
fn gate(gate: &GateReport) -> Result<()> {
    let d = gate.difference;
    output::paragraph(&format!(
        "4 bits against {} on {} gate prompts: {:+.4} bits per byte, 95 % [{:+.4}, {:+.4}]",
        title(gate.rival, None),
        gate.prompts,
        d.mean,
        d.low,
        d.high
    ))?;
    let Some(AnswersReport { prompts, new, old, difference: d }) = gate.answers else {
        return Ok(());
    };
    output::paragraph(&format!(
        "right answers to {prompts} of them: {:.1} % against {:.1} %, 95 % [{:+.1}, {:+.1}]",
        100.0 * new,
        100.0 * old,
        100.0 * d.low,
        100.0 * d.high
    ))
}
