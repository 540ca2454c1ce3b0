//! A training that several machines share over the bus: one of them is killed in the middle of it and another
//! comes; no batch is lost, and the campaign ends with a student.

use crate::ground::{CAMPAIGN_WITHIN, Ground, Needs, assert_published};
use crate::ledger::{assert_exactly_once, assert_replays_elsewhere, records};
use crate::process::wait_for;
use libtest_mimic::Trial;
use std::collections::BTreeSet;
use uspx_colony::Record;
use uspx_domain::{Outcome, Place, Work};
use uspx_tests::trials;

pub fn trials(needs: &Needs) -> Vec<Trial> {
    needs.nats.of_all(trials![one_machine_is_killed_and_another_comes])
}

fn one_machine_is_killed_and_another_comes() {
    let ground = Ground::new();
    ground.configure("[campaign]\n", "[campaign.together]\nmachines = 2\nsteps = 4\n[campaign]\n");
    let mut coordinator = ground.coordinator("only");
    let _one = ground.worker("one");
    let mut two = ground.worker("two");
    wait_for("the training", CAMPAIGN_WITHIN, || {
        (ground.status_file()?["stage"] == "distil").then_some(())
    });
    two.kill();
    let _three = ground.worker("three");
    assert_published(&coordinator.end(CAMPAIGN_WITHIN));

    let records = records(&ground.ledger());
    assert_exactly_once(&records);
    assert_replays_elsewhere(&ground.ledger(), &ground.path("state/mask.json"));
    let mut rounds = BTreeSet::new();
    for record in &records {
        let Record::EpochOpened { tasks, .. } = record else { continue };
        for task in tasks {
            if let Work::Part(part) = &task.work
                && let Place::Machine { of, .. } = part.place
            {
                rounds.insert((part.rounds.len(), of));
            }
        }
    }
    assert!(rounds.len() > 2 && rounds.iter().any(|(_, of)| *of == 2), "{rounds:?}");
    let told = |record: &Record| match record {
        Record::Accepted { answer } => match &answer.outcome {
            Outcome::Told { told, .. } => Some((answer.worker.to_string(), told.blob.bytes)),
            _ => None,
        },
        _ => None,
    };
    let told: Vec<(String, u64)> = records.iter().filter_map(told).collect();
    let who: BTreeSet<&str> = told.iter().map(|(who, _)| who.as_str()).collect();
    assert!(who.len() > 1, "one machine alone took part: {told:?}");
    // B of rank 8 of every linear map of the student, as floats.
    let gradient = 4 * 8 * 4 * (128 + 64 + 64 + 128 + 384 + 384 + 128);
    assert!(told.iter().all(|(_, bytes)| *bytes < gradient / 20), "{told:?}");
}
