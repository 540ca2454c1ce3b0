//! One adapter trained by two and by four machines on as many tokens as one: what their student is worth
//! beside the one machine's, and how little they tell each other.

use crate::Prompts;
use crate::arms::Pair;
use crate::judged::judged;
use crate::taught;
use serde_json::{Value, json};
use uspx_bench_engine::cells::{Cells, Killed};
use uspx_bench_engine::error::Result;
use uspx_bench_engine::figure::{Bound, Figure, Report};
use uspx_bench_engine::program::number;

/// Trains, judges, and adds the figures.
///
/// # Errors
/// Those of the runs.
pub fn measure(cells: &Cells, pair: &Pair, prompts: &Prompts, report: &mut Report) -> Result<()> {
    let (model, who) = (pair.name(), (pair.teacher.as_path(), pair.student.as_path()));
    let worth = |machines: Option<&str>| -> Result<(f64, Value)> {
        let flags = machines.map(|count| ["--machines", count]);
        let args = flags.as_ref().map_or(&[][..], |flags| &flags[..]);
        let (adapter, told) = taught::trained(cells, who, (args, Killed::Anew), prompts)?;
        let folder =
            taught::exported(cells, (&pair.student, &adapter), &["--format", "hf"], prompts)?;
        Ok((judged(cells, &folder, prompts)?.bits_per_byte(), told))
    };
    let alone = worth(None)?.0;
    for count in ["2", "4"] {
        let (shared, told) = worth(Some(count))?;
        let exchange = told.get("exchange").cloned().unwrap_or_default();
        let [bytes, whole] = ["bytes", "per_step_bytes"].map(|key| number("uspx", &exchange, key));
        let detail = json!({ "one": alone, "shared": shared, "exchange": exchange });
        let worse = (shared / alone - 1.0) * 100.0;
        let name = format!("{model}: {count} machines, worse by");
        report.put(Figure::new(name, worse, "percent", Bound::Below(2.0), detail));
        let name = format!("{model}: {count} machines, sent");
        let sent = 100.0 * bytes? / whole?;
        report.put(Figure::new(name, sent, "percent", Bound::Below(0.1), json!({})));
    }
    Ok(())
}
