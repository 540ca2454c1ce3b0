//! Whether a mask is its person's own: masks made from two persons' prompts, each judged on both
//! persons' held-out prompts.

use crate::Prompts;
use crate::losses::{losses, mask};
use crate::masks::name;
use serde_json::json;
use std::path::PathBuf;
use uspx_bench_engine::cells::Cells;
use uspx_bench_engine::error::Result;
use uspx_bench_engine::figure::{Bound, Figure, Report};
use uspx_bench_engine::paired::difference;

/// Half of the experts are cut.
const FLAGS: [&str; 2] = ["--keep", "0.5"];

/// Measures, prints the tables, and adds the figures.
///
/// # Errors
/// Those of the runs.
pub fn measure(
    cells: &Cells,
    models: &[PathBuf],
    persons: [&Prompts; 2],
    (fit, heldout): (usize, usize),
    report: &mut Report,
) -> Result<()> {
    for model in models {
        println!(
            "\n{}, half of the experts cut: nats per token above the whole model",
            name(model)
        );
        let [first, second] = persons;
        for (which, own, other) in [("first", first, second), ("other", second, first)] {
            let judged = |mask: Option<&PathBuf>| {
                let prompts = (own.heldout.as_path(), heldout);
                losses(cells, model, prompts, mask.map(PathBuf::as_path))
            };
            let by = |prompts: &Prompts| mask(cells, model, (&prompts.fit, fit), &FLAGS);
            let whole = judged(None)?;
            let (own, other) = (judged(Some(&by(own)?))?, judged(Some(&by(other)?))?);
            for (whose, losses) in [("their own", &own), ("the other's", &other)] {
                let rise = difference(&[(losses, &whole)]);
                println!(
                    "  the {which} person under {whose:<12} mask {:>7.3} [{:>6.3}, {:>6.3}]",
                    rise.mean, rise.low, rise.high
                );
            }
            let less = difference(&[(&own, &other)]);
            report.put(Figure::new(
                format!("{}, {which}: own less other mask", name(model)),
                less.high,
                "nats",
                Bound::Below(0.0),
                json!({ "difference": less }),
            ));
        }
    }
    Ok(())
}
