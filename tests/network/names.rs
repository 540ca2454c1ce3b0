//! Names on a server, on real processes: colonies have their own, and of two workers of one name the
//! second refuses, while a killed one comes back at once.

use crate::ground::{Ground, Needs, models};
use crate::process::{Process, run, wait_for};
use libtest_mimic::Trial;
use std::time::{Duration, Instant};
use uspx_tests::trials;

pub fn trials(needs: &Needs) -> Vec<Trial> {
    needs.nats.of_all(trials![
        colonies_apart_on_one_server_do_not_see_each_other,
        a_second_worker_of_a_name_refuses_and_a_killed_one_comes_back_at_once
    ])
}

/// The exit code of "refused".
const REFUSED: Option<i32> = Some(6);

/// Whether the coordinator sees the worker.
fn is_here(ground: &Ground, worker: &str) -> bool {
    let status = ground.status_file();
    let workers = status.as_ref().and_then(|s| s["workers"].as_array());
    workers.is_some_and(|all| all.iter().any(|w| w["worker"] == worker))
}

fn a_second_worker_of_a_name_refuses_and_a_killed_one_comes_back_at_once() {
    let ground = Ground::new();
    let _coordinator = ground.coordinator("only");
    let mut first = ground.worker("one");
    wait_for("the worker is here", Duration::from_secs(60), || {
        is_here(&ground, "one").then_some(())
    });
    // Elsewhere, as it seems to the colony: the claim on the bus tells.
    let mut second = ground.command();
    second.args(["worker", "--name", "one", "--nats", &ground.server.url(), "--models"]);
    second.arg(models()[1].as_os_str()).arg("--store").arg(&ground.store);
    let mut elsewhere = std::process::Command::new(second.get_program());
    elsewhere.args(second.get_args()).arg("--state").arg(ground.path("elsewhere"));
    let ended =
        Process::start(elsewhere, ground.folder.path(), "elsewhere").end(Duration::from_secs(60));
    assert_eq!(ended.code, REFUSED, "{ended:?}");
    let first_one = format!("process {}", first.id());
    assert!(ended.err.contains(&first_one) && ended.err.contains("--name"), "{ended:?}");
    // The same command once more: the state folder tells.
    second.arg("--state").arg(ground.path("worker-one"));
    let ended = Process::start(second, ground.folder.path(), "twice").end(Duration::from_secs(60));
    assert_eq!(ended.code, REFUSED, "{ended:?}");
    assert!(ended.err.contains("worker-one") && !first.has_ended(), "{ended:?}");

    first.kill();
    let start = Instant::now();
    let mut again = ground.command();
    again.env("USPX_LOG", "info").args(["worker", "--name", "one", "--nats", &ground.server.url()]);
    again.arg("--models").arg(models()[1].as_os_str());
    again.arg("--store").arg(&ground.store).arg("--state").arg(ground.path("worker-one"));
    let mut again = Process::start(again, ground.folder.path(), "again");
    let log = ground.path("again.err");
    wait_for("it has its name again", Duration::from_secs(8), || {
        std::fs::read_to_string(&log).ok()?.contains("the name is this worker's").then_some(())
    });
    assert!(start.elapsed() < Duration::from_secs(8) && !again.has_ended());
}

fn colonies_apart_on_one_server_do_not_see_each_other() {
    let ground = Ground::new();
    let mut command = ground.command();
    command.args(["coordinator", "--namespace", "apart", "-c"]).arg(ground.path("uspx.toml"));
    let _coordinator = Process::start(command, ground.folder.path(), "apart");
    let url = ground.server.url();
    wait_for("the colony shows itself", Duration::from_secs(60), || {
        let said = run(&["status", "--nats", &url, "--namespace", "apart", "--json"], &[]);
        (said.code == Some(0)).then_some(())
    });
    let said = run(&["status", "--nats", &url], &[]);
    assert!(said.code == Some(4) && said.err.contains("no colony"), "{said:?}");
}
