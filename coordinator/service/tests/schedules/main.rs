//! Random schedules of kills, stops, outages, full disks and sick machines, on a whole campaign of
//! scripted workers. However it goes, the ledger is the truth, every task is answered once, the mask
//! is the undisturbed one, one release stands, and no prompt is in any file.
//!
//! On the embedded bus under a paused clock, `USPX_SCHEDULES` of them (8 where nothing is said); and
//! on a real nats-server that is killed and started again, a quarter as many.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../asked/mod.rs"]
mod asked;
mod colony;
mod fault;
#[path = "../owner/gate.rs"]
#[allow(dead_code, reason = "the tests of owners use more of it")]
mod gate;
mod scripted;
mod storm;
#[path = "../../../colony/tests/colony/world/mod.rs"]
mod world;

use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;
use uspx_bus::server::find_program;
use uspx_tests::Need;

/// How many schedules on the embedded bus.
fn schedules() -> u64 {
    std::env::var("USPX_SCHEDULES").ok().and_then(|n| n.parse().ok()).unwrap_or(8)
}

fn embedded() -> Result<(), Failed> {
    for seed in 0..schedules() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()?;
        runtime.block_on(storm::on_the_embedded_bus(seed));
    }
    Ok(())
}

fn shortened() -> Result<(), Failed> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    runtime.block_on(storm::shortened_and_killed());
    Ok(())
}

fn nats() -> Result<(), Failed> {
    for seed in 0..schedules().div_ceil(4).min(12) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(storm::on_nats(1000 + seed));
    }
    Ok(())
}

fn main() -> ExitCode {
    let need = Need::new("nats-server", "USPX_REQUIRE_NATS", find_program().is_ok());
    let mut trials = vec![
        Trial::test("embedded::random_schedules_lose_nothing", embedded),
        Trial::test("embedded::a_shortened_ledger_comes_to_the_same_mask", shortened),
    ];
    trials.extend(need.of_all(vec![Trial::test("nats::random_schedules_lose_nothing", nats)]));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
