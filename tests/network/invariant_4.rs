//! Invariant 4: a lease is kept alive by progress, not by a timer. A worker whose heart beats for
//! ever and that does nothing keeps its task on the bus for one lease, and in the ledger for two;
//! then it goes to another worker.

use crate::ground::models;
use crate::ledger::{losses, records, ways};
use crate::replay::Here;
use libtest_mimic::Trial;
use std::sync::Arc;
use std::time::Duration;
use uspx_bus::Bus;
use uspx_colony::{Cause, Record};
use uspx_domain::{Speaks, WorkerId};
use uspx_tests::trials;
use uspx_wire::subjects::{HEARTBEAT, parse_task_message_id, task_queue};
use uspx_wire::{CurrentTask, HeartbeatMessage, encode};
use uspx_worker::holdings::Holdings;

pub fn trials() -> Vec<Trial> {
    trials![invariant_4_a_hung_worker_loses_its_lease]
}

const LEASE: Duration = Duration::from_millis(800);

/// A worker whose kernel hangs: it takes one task, says that it lives, and never gets any further.
async fn hang(bus: Arc<dyn Bus>, name: WorkerId) {
    let mut heartbeat = HeartbeatMessage {
        worker: name.clone(),
        uspx_version: "0.0.0".to_owned(),
        speaks: Speaks::here(),
        reads: HeartbeatMessage::read_here(),
        models: Holdings::scan(&models()).unwrap().report(),
        threads: 1,
        memory_bytes: 1 << 30,
        device: "cpu".to_owned(),
        current: None,
        beats: None,
        speed: None,
    };
    loop {
        bus.broadcast(HEARTBEAT, encode(&heartbeat).unwrap()).await.unwrap();
        if heartbeat.current.is_none()
            && let Ok(Some(delivery)) =
                bus.pull(&task_queue(&name), Duration::from_millis(50)).await
        {
            let (task, _) = parse_task_message_id(&delivery.message_id).unwrap();
            heartbeat.current = Some(CurrentTask { task, done: 1, total: 10 });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::main]
async fn invariant_4_a_hung_worker_loses_its_lease() {
    let mut here = Here::new(LEASE);
    let hung = tokio::spawn(hang(here.bus.clone(), "hung".parse().unwrap()));
    let sound = here.worker("sound");
    // The trace's tasks go to both; without the hung worker's share no epoch would ever close.
    here.run_until(|p| p.epoch >= 3).await;
    hung.abort();
    here.assert_ledger_is_the_truth();
    sound.await.unwrap();

    let Here { folder, coordinator, .. } = here;
    drop(coordinator);
    let records = records(&folder.path().join("ledger"));
    let lost = losses(&records, "hung");
    let (task, _) =
        lost.iter().find(|(_, cause)| *cause == Cause::LeaseLost).expect("no lease was lost");
    let way = ways(&records, *task);
    assert_eq!(way.iter().map(WorkerId::as_str).collect::<Vec<_>>(), ["hung", "sound"]);
    let answered = |r: &Record| matches!(r, Record::Accepted { answer } if answer.task == *task);
    let by: Vec<_> = records.iter().filter(|r| answered(r)).collect();
    assert!(
        matches!(by.as_slice(), [Record::Accepted { answer }] if answer.worker.as_str() == "sound"),
        "{by:?}"
    );
    // It gets nothing more while it hangs.
    let last_loss = records
        .iter()
        .rposition(|r| matches!(r, Record::Lost { worker, .. } if worker.as_str() == "hung"));
    let later = &records[last_loss.unwrap()..];
    assert!(
        !later
            .iter()
            .any(|r| matches!(r, Record::Issued { worker, .. } if worker.as_str() == "hung"))
    );
}
