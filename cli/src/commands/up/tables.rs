//! What a campaign found, as tables: what was cut and what that costs, what the students are worth.

use crate::output;
use uspx_colony::report::MaskReport;
use uspx_colony::{CampaignReport, Contender};

/// What was cut from the teacher, against random masks, and the curve.
pub(super) fn mask(mask: &MaskReport) -> String {
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

/// Every model on the held-out prompts.
pub(super) fn students(figures: &CampaignReport) -> String {
    let mut table = output::table(&[
        "model, on held-out prompts",
        "bits per byte",
        "against the base, 95 % interval",
    ]);
    for s in &figures.students {
        let against = s.against_base.map_or_else(
            || "-".to_owned(),
            |d| format!("{:+.3}  [{:+.3}, {:+.3}]", d.mean, d.low, d.high),
        );
        table.add_row([
            name(s.contender, figures.chosen_recipe),
            format!("{:.3}", s.bits_per_byte),
            against,
        ]);
    }
    table.to_string()
}

fn name(who: Contender, chosen: Option<u32>) -> String {
    let mark = |n| if chosen == Some(n) { " (chosen)" } else { "" };
    match who {
        Contender::Teacher => "teacher".to_owned(),
        Contender::Base => "base student".to_owned(),
        Contender::Distilled(0) => format!("distilled on references only{}", mark(0)),
        Contender::Distilled(1) => format!("distilled on references + teacher{}", mark(1)),
        Contender::Distilled(n) => format!("distilled by recipe {}{}", n + 1, mark(n)),
        Contender::Exported(format) => {
            let released = if format.row().folder.is_some() { " (released)" } else { "" };
            format!("{}{released}", format.row().title)
        }
        Contender::Published => "published before".to_owned(),
    }
}
