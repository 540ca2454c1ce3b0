//! `uspx demo`, interrupted: embedded, where its ledger is all that lives on, and over a
//! nats-server and worker processes of its own, which end with it; and refused by a nats-server
//! that is too old.

use crate::ground::{CAMPAIGN_WITHIN, Needs};
use crate::ledger::{acceptances, records};
use crate::process::{Process, uspx, wait_for};
use libtest_mimic::Trial;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use uspx_tests::trials;

pub fn trials(needs: &Needs) -> Vec<Trial> {
    let mut trials = trials![
        embedded_campaign_goes_on_after_ctrl_c,
        #[cfg(unix)]
        the_demo_refuses_a_nats_server_that_is_too_old,
    ];
    trials.extend(needs.nats.of_all(trials![
        #[cfg(target_os = "linux")]
        the_demo_over_its_own_nats_server_goes_on_after_kill_9_and_ctrl_c,
    ]));
    trials
}

const END_WITHIN: Duration = Duration::from_secs(20);

/// The demo, started and left alone until its epoch is beyond `beyond`.
fn started(out: &Path, flags: &[&str], beyond: u64) -> Process {
    let mut command = Command::new(uspx());
    command.args(["demo", "--threads", "1", "--out"]).arg(out).args(flags);
    let mut demo = Process::start(command, out.parent().unwrap(), "demo");
    let mut highest = 0;
    wait_for("the demo comes further", CAMPAIGN_WITHIN, || {
        assert!(!demo.has_ended(), "{:?}", demo.end(END_WITHIN));
        let epoch = epoch(out)?;
        assert!(epoch >= highest, "the epoch went back from {highest} to {epoch}");
        highest = epoch;
        (epoch > beyond).then_some(())
    });
    demo
}

/// Ctrl-C, and a clean end. Gives the epoch reached.
fn interrupted(mut demo: Process, out: &Path) -> u64 {
    demo.interrupt();
    let ended = demo.end(END_WITHIN);
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(ended.err.contains("goes on from the ledger") && ended.out.is_empty(), "{ended:?}");
    epoch(out).unwrap()
}

/// Tasks answered so far, none of them twice.
fn answered(out: &Path) -> u32 {
    let times = acceptances(&records(&out.join("colony/ledger")));
    assert!(times.values().all(|n| *n <= 1), "a task was accepted twice");
    times.values().sum()
}

fn epoch(out: &Path) -> Option<u64> {
    let status: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out.join("colony/status.json")).ok()?).ok()?;
    status["epoch"].as_u64()
}

fn embedded_campaign_goes_on_after_ctrl_c() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("demo");
    let first = interrupted(started(&out, &[], 1), &out);
    let before = answered(&out);
    let second = interrupted(started(&out, &[], first), &out);
    assert!(second > first && answered(&out) > before);
}

#[cfg(target_os = "linux")]
fn the_demo_over_its_own_nats_server_goes_on_after_kill_9_and_ctrl_c() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("demo");
    let flags = ["--nats", "auto"];
    let mut killed = started(&out, &flags, 1);
    let orphans = children(&killed);
    assert!(orphans.len() >= 3, "a nats-server and two workers: {orphans:?}");
    killed.kill();
    let before = answered(&out);
    let first = epoch(&out).unwrap();
    let again = started(&out, &flags, first);
    wait_for("the killed demo's processes have ended", END_WITHIN, || {
        orphans.iter().all(|p| !lives(*p)).then_some(())
    });
    let its = children(&again);
    assert!(interrupted(again, &out) > first && answered(&out) > before);
    let left: Vec<_> = its.into_iter().filter(|p| lives(*p)).collect();
    assert!(left.is_empty(), "processes outlive the demo: {left:?}");
}

/// The processes that a process has started.
#[cfg(target_os = "linux")]
fn children(process: &Process) -> Vec<u32> {
    let all = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok());
    all.filter(|pid| standing(*pid).is_some_and(|(_, parent)| parent == process.id())).collect()
}

/// Whether a process is there and does not only wait to be buried.
#[cfg(target_os = "linux")]
fn lives(pid: u32) -> bool {
    standing(pid).is_some_and(|(state, _)| state != 'Z')
}

/// A process' state and its parent (`man 5 proc_pid_stat`).
#[cfg(target_os = "linux")]
fn standing(pid: u32) -> Option<(char, u32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

#[cfg(unix)]
fn the_demo_refuses_a_nats_server_that_is_too_old() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("nats-server");
    std::fs::write(&old, "#!/bin/sh\necho 'nats-server: v2.9.10'\n").unwrap();
    std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(uspx());
    command
        .args(["demo", "--nats", "auto", "--out"])
        .arg(folder.path().join("demo"))
        .env("USPX_NATS_SERVER", &old);
    let ended = Process::start(command, folder.path(), "demo").end(END_WITHIN);
    assert_eq!(ended.code, Some(6), "{ended:?}");
    // The page may break lines anywhere between words.
    for word in ["2.9.10", "2.10.27", "get-nats-server.sh"] {
        assert!(ended.err.contains(word), "`{word}` is not in {}", ended.err);
    }
}
