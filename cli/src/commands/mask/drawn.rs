//! `uspx mask show` of a version of a colony's mask: what it keeps, every unit's effect with its interval, and how many
//! units stand on the wrong side of the cut.

use super::show::{self, Kept};
use super::versions::{find, replay};
use crate::args::MaskShowArgs;
use crate::error::Result;
use crate::mask_file::MaskFile;
use crate::output;
use serde::Serialize;
use uspx_colony::combine::Basis;
use uspx_colony::misplaced::Misplaced;
use uspx_colony::report::{UnitReport, units};

/// The JSON form.
#[derive(Serialize)]
struct Drawn {
    #[serde(flatten)]
    file: MaskFile,
    kept_per_layer: Kept,
    version: u32,
    basis: Basis,
    /// The score at the cut.
    cut: f64,
    /// None where nothing exact is known.
    misplaced: Option<Misplaced>,
    units: Vec<UnitReport>,
}

/// Shows that version, or the latest.
pub(super) fn run(args: &MaskShowArgs, number: Option<u32>) -> Result<()> {
    let wanted: Vec<u32> = number.into_iter().collect();
    let versions = replay(&wanted, &args.state)?;
    let (state, mask) = find(&versions, number)?;
    let drawn = Drawn {
        kept_per_layer: show::kept(&mask.mask),
        file: MaskFile { mask: mask.mask.clone(), saes: Vec::new() },
        version: mask.version,
        basis: mask.basis,
        cut: mask.told_cut(),
        misplaced: Misplaced::of(state),
        units: units(state),
    };
    if args.json { output::json(&drawn) } else { print(&drawn, args.units) }
}

fn print(drawn: &Drawn, most: usize) -> Result<()> {
    show::print(&format!("version {}", drawn.version), &drawn.file.mask)?;
    if let Some(Misplaced { cut, kept }) = &drawn.misplaced {
        output::paragraph(&format!(
            "Of {} units cut {:.1} are expected to belong above the cut, with 95 % certainty at most {}; of {} kept \
             {:.1} below, at most {}.",
            cut.units, cut.expected, cut.at_most, kept.units, kept.expected, kept.at_most
        ))?;
    }
    if drawn.units.is_empty() || most == 0 {
        return Ok(());
    }
    output::line(&nearest(drawn, most).to_string())
}

/// The units nearest to the cut, the least sure first.
fn nearest(drawn: &Drawn, most: usize) -> output::Table {
    let heading = format!("95 % interval (the cut: {:.5})", drawn.cut);
    let mut table = output::table(&["nearest to the cut", "is", "effect", &heading, "sure"]);
    let mut units: Vec<&UnitReport> = drawn.units.iter().collect();
    let away = |unit: &UnitReport| (unit.score.mean - drawn.cut).abs();
    units.sort_by(|a, b| a.confidence.total_cmp(&b.confidence).then(away(a).total_cmp(&away(b))));
    for unit in units.into_iter().take(most) {
        let (low, high) = unit.interval;
        table.add_row([
            unit.unit.to_string(),
            if unit.kept { "kept" } else { "cut" }.to_owned(),
            format!("{:.5}", unit.score.mean),
            format!("{low:.5} to {high:.5}"),
            format!("{:.0} %", unit.confidence * 100.0),
        ]);
    }
    table
}
