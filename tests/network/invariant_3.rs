//! Invariant 3: no task is acknowledged before its result is durable, and no unanswered task is
//! forgotten.

use crate::ground::{CAMPAIGN_WITHIN, Ground, Needs, assert_published};
use crate::ledger::{acceptances, assert_exactly_once, records};
use crate::process::{Process, uspx};
use libtest_mimic::Trial;
use std::process::Command;
use std::time::Duration;
use uspx_bus::{Bus, NatsBus, NatsOptions};
use uspx_tests::trials;
use uspx_wire::subjects::RESULTS;

pub fn trials(needs: &Needs) -> Vec<Trial> {
    needs.nats.of_all(trials![invariant_3_no_task_is_acknowledged_before_its_result_is_durable])
}

/// The largest file that the coordinator may write, in KiB: its ledger reaches that among the exact
/// expert ablations.
const FULL_AT: u32 = 96;

/// The coordinator on a disk that is full when the ledger has grown to [`FULL_AT`]: writing more
/// fails with an error.
fn on_a_full_disk(ground: &Ground) -> Process {
    let script = format!("trap '' XFSZ; ulimit -f {FULL_AT}; exec \"$0\" coordinator -c \"$1\"");
    let mut command = Command::new("bash");
    command.args(["-c", &script]).arg(uspx()).arg(ground.path("uspx.toml"));
    Process::start(command, ground.folder.path(), "coordinator-full-disk")
}

#[tokio::main]
async fn invariant_3_no_task_is_acknowledged_before_its_result_is_durable() {
    let ground = Ground::new();
    std::fs::create_dir_all(&ground.store).unwrap();
    let mut coordinator = on_a_full_disk(&ground);
    let _workers = ground.workers();
    let ended = coordinator.end(CAMPAIGN_WITHIN);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("ledger"), "the error does not name the ledger: {}", ended.err);

    let before = acceptances(&records(&ground.ledger()));
    let written = before.values().sum::<u32>();
    assert!(written > 0 && before.values().any(|n| *n == 0), "it was to fail on the way");
    // The answer that could not be written down is still in the queue, and those that came after
    // it.
    let bus = NatsBus::connect(&NatsOptions::new(ground.server.url())).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(
        bus.depth(RESULTS).await.unwrap() >= 1,
        "an answer was acknowledged that is in no ledger"
    );

    let mut coordinator = ground.coordinator("with-room");
    assert_published(&coordinator.end(CAMPAIGN_WITHIN));
    let records = records(&ground.ledger());
    assert_exactly_once(&records);
    assert!(before.iter().filter(|(_, n)| **n == 1).all(|(id, _)| acceptances(&records)[id] == 1));
}
