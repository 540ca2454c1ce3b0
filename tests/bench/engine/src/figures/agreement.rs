//! Agreement: the engine's tests of every architecture, on the committed checkpoints and on fresh
//! random ones.

use crate::bench::Bench;
use crate::error::{BenchError, Result};
use crate::figure::{Bound, Figure, Report};
use crate::program::Program;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Counts the tests that pass; a test that fails fails the group.
pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    report.put(Figure::new(
        "agreement_committed",
        tests(bench, None)?,
        "tests",
        Bound::AtLeast(1.0),
        json!({}),
    ));
    let seed =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() % 1_000_000);
    let folder = bench.work.join("architectures");
    let fresh = bench.parity("architectures", "parity/architectures.py");
    let fresh = match fresh {
        Err(BenchError::Absent(why)) => {
            report.skip("agreement_fresh", why);
            return Ok(());
        }
        fresh => fresh?,
    };
    fresh.args(["--fresh", "--seed", &seed.to_string(), "--out"]).arg(&folder).text()?;
    let passed = tests(bench, Some(&folder))?;
    report.put(Figure::new(
        "agreement_fresh",
        passed,
        "tests",
        Bound::AtLeast(1.0),
        json!({"seed": seed}),
    ));
    Ok(())
}

fn tests(bench: &Bench, folder: Option<&Path>) -> Result<f64> {
    let cargo = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
    let name = if folder.is_some() { "agreement-fresh" } else { "agreement-committed" };
    let test = ["test", "--workspace", "--test", "engine", "architectures"];
    let mut cargo = Program::new(name, &cargo, &bench.logs()).within(&bench.root).args(test);
    if let Some(folder) = folder {
        // Not the gradients: gpt-oss clamps its experts, and where a random value lies within 1e-5
        // of the clamp the gradient jumps by some percent, in plain floats as well.
        cargo = cargo.env("USPX_ARCHITECTURES", folder).args(["--", "--skip", "gradients"]);
    }
    Ok(passed(&cargo.text()?))
}

/// The sum of "N passed" in what cargo prints.
fn passed(text: &str) -> f64 {
    let lines = text.lines().filter(|line| line.starts_with("test result:"));
    let count =
        |line: &str| line.split(". ").nth(1)?.split_whitespace().next()?.parse::<u32>().ok();
    lines.filter_map(count).map(f64::from).sum()
}

#[cfg(test)]
mod tests {
    #[test]
    fn passed_tests_are_counted() {
        let text = "test a ... ok\ntest result: ok. 3 passed; 0 failed; 1 ignored\ntest result: ok. 2 passed; 0 failed";
        assert_eq!(super::passed(text), 5.0);
        assert_eq!(super::passed("running 0 tests"), 0.0);
    }
}
