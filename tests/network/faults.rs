//! Faults of machines, on real processes: none of them ends a campaign, and no work is mixed.

use crate::ground::{CAMPAIGN_WITHIN, Ground, Needs, assert_measured, assert_published};
use crate::ledger::{assert_exactly_once, assert_replays_elsewhere, losses, records};
use crate::process::{Process, wait_for};
use libtest_mimic::Trial;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use uspx_colony::{Cause, Record};
use uspx_domain::{FailureReason, TaskId};
use uspx_tests::{Need, trials};

pub fn trials(needs: &Needs) -> Vec<Trial> {
    let mut all = needs.nats.of_all(trials![
        a_worker_with_a_wrong_store_rests_and_the_others_finish,
        a_worker_stopped_politely_nine_times_costs_nothing,
        a_deleted_state_folder_starts_anew_beside_a_worker_left_running,
        a_store_that_appears_later_is_waited_for
    ]);
    let disk = Need::new("mounting a tmpfs", "USPX_REQUIRE_TMPFS", can_mount());
    let full = trials![a_worker_with_a_full_disk_rests_and_the_others_finish];
    all.extend(disk.of_all(needs.nats.of_all(full)));
    all
}

/// Why a worker's attempts came to nothing.
fn reasons(ground: &Ground, worker: &str) -> BTreeSet<FailureReason> {
    let failed = |(_, cause): (TaskId, Cause)| match cause {
        Cause::Failed(failure) => Some(failure.reason),
        _ => None,
    };
    losses(&records(&ground.ledger()), worker).into_iter().filter_map(failed).collect()
}

fn assert_whole(ground: &Ground) {
    assert_exactly_once(&records(&ground.ledger()));
    assert_replays_elsewhere(&ground.ledger(), &ground.path("state/mask.json"));
}

/// Its blobs go where nobody looks: that is its machine's fault, not the tasks'.
fn a_worker_with_a_wrong_store_rests_and_the_others_finish() {
    let ground = Ground::new();
    let elsewhere = ground.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let mut coordinator = ground.coordinator("only");
    let lost = ground.worker_at("lost", |command| {
        command.arg("--store").arg(&elsewhere);
    });
    let _well = ground.worker("one");
    assert_published(&coordinator.end(CAMPAIGN_WITHIN));
    drop(lost);
    let reasons = reasons(&ground, "lost");
    assert!(reasons.iter().all(|r| *r == FailureReason::StoreLacks), "{reasons:?}");
    assert!(!reasons.is_empty(), "it stored no blob elsewhere");
    assert_whole(&ground);
}

/// A tmpfs of two megabytes: room for answers, none for a student.
struct Tiny<'a>(&'a Path);

impl<'a> Tiny<'a> {
    fn mount(place: &'a Path) -> Option<Self> {
        std::fs::create_dir_all(place).ok()?;
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
            .arg(place)
            .output();
        mount.is_ok_and(|m| m.status.success()).then_some(Self(place))
    }
}

impl Drop for Tiny<'_> {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.0).status().ok();
    }
}

fn can_mount() -> bool {
    let place = tempfile::tempdir().unwrap();
    Tiny::mount(&place.path().join("tiny")).is_some()
}

fn a_worker_with_a_full_disk_rests_and_the_others_finish() {
    let ground = Ground::new();
    let place = ground.path("worker-full");
    let tiny = Tiny::mount(&place).expect("a tmpfs");
    let mut coordinator = ground.coordinator("only");
    let full = ground.worker("full");
    let _well = ground.worker("one");
    assert_published(&coordinator.end(CAMPAIGN_WITHIN));
    drop((full, tiny));
    let reasons = reasons(&ground, "full");
    assert!(reasons.iter().all(|r| *r == FailureReason::Scratch), "{reasons:?}");
    assert_whole(&ground);
}

fn a_worker_stopped_politely_nine_times_costs_nothing() {
    let ground = Ground::new();
    // Work enough for nine: on a fast machine a mask alone is measured before the last of them is there.
    ground.configure("passes = 0", "passes = 1");
    ground.configure("epochs = 8", "epochs = 16");
    let mut coordinator = ground.coordinator("only");
    for _ in 0..9 {
        let mut worker = ground.worker("one");
        ground.at_work_in("trace");
        worker.interrupt();
        worker.end(Duration::from_secs(20));
    }
    let _last = ground.worker("one");
    assert_published(&coordinator.end(CAMPAIGN_WITHIN));
    let records = records(&ground.ledger());
    for (task, cause) in losses(&records, "one") {
        assert!(!cause.counts(), "{task}: {cause:?} counts against it");
    }
    assert_whole(&ground);
}

/// Its answers and queue are of a colony that is gone: the new one takes none of them for its own.
fn a_deleted_state_folder_starts_anew_beside_a_worker_left_running() {
    let ground = Ground::new();
    ground.stop_at_mask();
    let mut coordinator = ground.coordinator("first");
    let _worker = ground.worker("one");
    ground.in_stage("explore");
    coordinator.kill();
    let first: BTreeSet<TaskId> = planned(&records(&ground.ledger()));
    std::fs::remove_dir_all(ground.path("state")).unwrap();
    let mut coordinator = ground.coordinator("second");
    assert_measured(&coordinator.end(CAMPAIGN_WITHIN));
    let second = planned(&records(&ground.ledger()));
    assert!(first.is_disjoint(&second), "a task of a colony that is gone bears the same name");
    assert_whole(&ground);
}

fn planned(records: &[Record]) -> BTreeSet<TaskId> {
    let tasks = records.iter().filter_map(|r| match r {
        Record::EpochOpened { tasks, .. } => Some(tasks),
        _ => None,
    });
    tasks.flatten().map(|t| t.id).collect()
}

fn a_store_that_appears_later_is_waited_for() {
    let ground = Ground::new();
    let worker: Process = ground.worker("early");
    let said = || std::fs::read_to_string(ground.path("worker-early.err")).ok();
    wait_for("it waits for the store", Duration::from_secs(20), || {
        said().filter(|s| s.contains("waiting for it"))
    });
    let coordinator = ground.coordinator("only");
    ground.at_work_in("trace");
    drop((coordinator, worker));
}
