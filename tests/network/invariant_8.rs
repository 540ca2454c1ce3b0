//! Invariant 8: what computes never sees the network, and what coordinates never links the
//! mathematics. The dependency trees say so.

use libtest_mimic::Trial;
use std::collections::BTreeSet;
use std::process::Command;
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![invariant_8_probe_distill_export_model_never_see_the_network_and_the_coordinator_never_links_candle]
}

/// Names of all packages that a package is built from, itself included.
fn tree(package: &str) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "tree",
        "--locked",
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--package",
        package,
    ]);
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let names: BTreeSet<String> =
        text.lines().filter_map(|l| l.split(' ').next()).map(str::to_owned).collect();
    assert!(names.contains(package) && names.len() > 5, "{package}: {names:?}");
    names
}

fn assert_without(package: &str, foreign: &[&str]) {
    let names = tree(package);
    let found: Vec<&str> = foreign.iter().copied().filter(|f| names.contains(*f)).collect();
    assert!(found.is_empty(), "{package} is built from {found:?}");
}

fn invariant_8_probe_distill_export_model_never_see_the_network_and_the_coordinator_never_links_candle()
 {
    let network = [
        "async-nats",
        "object_store",
        "tokio",
        "hyper",
        "reqwest",
        "rustls",
        "uspx-bus",
        "uspx-artifact",
    ];
    for package in ["uspx-model", "uspx-probe", "uspx-sae", "uspx-distill", "uspx-export"] {
        assert_without(package, &network);
    }
    let mathematics = ["candle-core", "candle-nn", "tokenizers", "uspx-model", "uspx-probe"];
    for package in ["uspx-coordinator", "uspx-colony"] {
        assert_without(package, &mathematics);
    }
    assert_without("uspx-colony", &network);
}
