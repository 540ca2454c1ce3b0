//! Killed with kill -9 in the middle of a task: a worker, the coordinator, the nats-server. It
//! costs only time: every task is answered exactly once, and the evidence is, bit for bit, that of
//! a campaign that nobody disturbed.

use crate::ground::{CAMPAIGN, CAMPAIGN_WITHIN, Ground, Needs, assert_published};
use crate::ledger::{assert_exactly_once, assert_replays_elsewhere, losses, records, ways};
use libtest_mimic::Trial;
use std::time::Duration;
use uspx_colony::Cause;
use uspx_domain::Digest;
use uspx_tests::trials;

pub fn trials(needs: &Needs) -> Vec<Trial> {
    needs.nats.of_all(trials![
        a_worker_killed_in_the_middle_of_a_task_costs_only_time,
        a_coordinator_killed_and_restarted_costs_only_time,
        a_nats_server_killed_and_restarted_costs_only_time
    ])
}

/// What the evidence of this build's campaign comes to when nothing goes wrong. Kept beside the
/// binary for the next test.
fn undisturbed() -> String {
    let built = std::fs::metadata(crate::process::uspx()).and_then(|m| m.modified()).unwrap();
    let stamp = built.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let kept = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("undisturbed-{stamp}-{}", Digest::of(CAMPAIGN.as_bytes()).hex()));
    if let Ok(digest) = std::fs::read_to_string(&kept) {
        return digest;
    }
    let ground = Ground::new();
    let mut coordinator = ground.coordinator("undisturbed");
    let _workers = ground.workers();
    assert_published(&coordinator.end(CAMPAIGN_WITHIN));
    let digest = evidence(&ground);
    let part = kept.with_extension(std::process::id().to_string());
    std::fs::write(&part, &digest).and_then(|()| std::fs::rename(&part, &kept)).unwrap();
    digest
}

fn evidence(ground: &Ground) -> String {
    let state = assert_replays_elsewhere(&ground.ledger(), &ground.path("state/mask.json"));
    state.evidence_digest().unwrap().hex()
}

/// The campaign is over, and nothing shows of what happened on its way.
fn assert_only_time_was_lost(ground: &Ground) {
    assert_exactly_once(&records(&ground.ledger()));
    assert_eq!(
        evidence(ground),
        undisturbed(),
        "other evidence than a campaign that nobody disturbed"
    );
}

fn a_worker_killed_in_the_middle_of_a_task_costs_only_time() {
    // A task of a fast machine can end between the look and the kill: then nothing is lost, and it
    // is tried again.
    let lost = (0..4).any(|_| {
        let ground = Ground::new();
        let lost = kill_a_worker_at_work(&ground);
        assert_only_time_was_lost(&ground);
        lost
    });
    assert!(lost, "four kills, and none of them met a task");
}

/// Kills a worker at work, lets the campaign come to its end, and tells whether a task was lost by
/// it.
fn kill_a_worker_at_work(ground: &Ground) -> bool {
    let mut coordinator = ground.coordinator("only");
    let mut workers = crate::ground::WORKERS.map(|name| (name, ground.worker(name)));
    let busy = ground.at_work_in("distil");
    let (name, victim) = workers.iter_mut().find(|(name, _)| *name == busy).expect("one of ours");
    victim.kill();

    assert_published(&coordinator.end(CAMPAIGN_WITHIN));
    let records = records(&ground.ledger());
    let lost = losses(&records, name);
    for (task, cause) in &lost {
        // What waited behind its task may have gone to the other one before it died.
        assert!(matches!(cause, Cause::WorkerLost | Cause::Moved), "{cause}");
        let way = ways(&records, *task);
        assert!(way.len() > 1 && way[way.len() - 1].as_str() != *name, "{task} went {way:?}");
    }
    lost.iter().any(|(_, cause)| *cause == Cause::WorkerLost)
}

fn a_coordinator_killed_and_restarted_costs_only_time() {
    let ground = Ground::new();
    let mut coordinator = ground.coordinator("first");
    let _workers = ground.workers();
    for (stage, next) in [("explore", "second"), ("distil", "third"), ("judge students", "fourth")]
    {
        ground.in_stage(stage);
        coordinator.kill();
        coordinator = ground.coordinator(next);
    }
    assert_published(&coordinator.end(CAMPAIGN_WITHIN));
    assert_only_time_was_lost(&ground);
}

fn a_nats_server_killed_and_restarted_costs_only_time() {
    let mut ground = Ground::new();
    let mut coordinator = ground.coordinator("only");
    let mut workers = ground.workers();
    // Once for a moment, once for longer than a worker may be silent.
    for (stage, away) in
        [("explore", Duration::from_millis(300)), ("distil", Duration::from_secs(6))]
    {
        ground.in_stage(stage);
        ground.server.kill();
        std::thread::sleep(away);
        ground.server.restart().unwrap();
    }
    assert_published(&coordinator.end(CAMPAIGN_WITHIN));
    assert!(workers.iter_mut().all(|w| !w.has_ended()), "a worker did not live through it");
    assert_only_time_was_lost(&ground);
}
