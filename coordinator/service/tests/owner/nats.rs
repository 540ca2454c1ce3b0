//! On real servers, with processes that die and stop.

use crate::ground::{Running, coordinator, epoch, first_task, is_kept, ms, owned, post, refused};
use crate::limited::Limited;
use crate::real;
use bytes::Bytes;
use libtest_mimic::Trial;
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use uspx_bus::{Bus, BusError, NatsBus, NatsOptions, QueueSpec, Swapped};
use uspx_coordinator::ServiceError;
use uspx_runtime::Shutdown;
use uspx_wire::subjects::OWNER;

pub fn trials() -> Vec<Trial> {
    vec![
        real("a_second_coordinator_refuses", second_refuses()),
        real("a_dead_coordinators_colony_is_taken_over", dead()),
        real("a_zombie_acknowledges_nothing", zombie()),
        real("a_server_without_room_ends_nobody", no_room()),
    ]
}

/// Short, for these tests have no clock of their own.
const TAKEOVER: Duration = Duration::from_secs(3);
const PLENTY: u64 = 1 << 30;

async fn connect(server: &Limited) -> Arc<dyn Bus> {
    Arc::new(NatsBus::connect(&NatsOptions::new(&server.url)).await.unwrap())
}

async fn second_refuses() {
    let server = Limited::start(PLENTY, None);
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = Running::start(one.path(), connect(&server).await, TAKEOVER);
    let bus = connect(&server).await;
    owned(&bus, 1).await;
    let (mut second, never) = (coordinator(two.path(), bus.clone(), TAKEOVER), Shutdown::new());
    refused(timeout(TAKEOVER * 2, second.run(&never)).await.expect("said soon"));
    drop(second);
    assert!(!first.run.is_finished());
    first.stop().await;
    let second = Running::start(two.path(), connect(&server).await, TAKEOVER);
    owned(&bus, 2).await;
    second.stop().await;
}

/// Where this process, started again by a test, shall run a coordinator.
const CHILD: &str = "USPX_TEST_CHILD_COORDINATOR";
const REPLACED: u8 = 7;

pub fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

pub fn child() -> ExitCode {
    let place = std::env::var(CHILD).unwrap();
    let (url, state) = place.split_once(' ').unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let ended = runtime.block_on(async {
        let bus = Arc::new(NatsBus::connect(&NatsOptions::new(url)).await.unwrap());
        coordinator(Path::new(state), bus, TAKEOVER).run(&Shutdown::new()).await
    });
    match ended {
        Err(ServiceError::Replaced { .. }) => REPLACED.into(),
        _ => ExitCode::FAILURE,
    }
}

/// A coordinator in a process of its own.
struct Process(Child);

impl Process {
    fn start(server: &Limited, state: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(CHILD, format!("{} {}", server.url, state.display()));
        Self(command.spawn().unwrap())
    }

    fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    async fn end(&mut self) -> Option<i32> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            tokio::time::sleep(ms(50)).await;
        }
        panic!("it does not end")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

async fn dead() {
    let server = Limited::start(PLENTY, None);
    let bus = connect(&server).await;
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut first = Process::start(&server, one.path());
    owned(&bus, 1).await;
    first.0.kill().unwrap();
    first.0.wait().unwrap();
    let asked = Instant::now();
    let second = Running::start(two.path(), connect(&server).await, TAKEOVER);
    owned(&bus, 2).await;
    assert!(asked.elapsed() >= TAKEOVER, "{:?}", asked.elapsed());
    second.stop().await;
    // The same state folder has no need to wait, even for one that was killed.
    let mut again = Process::start(&server, two.path());
    owned(&bus, 3).await;
    again.0.kill().unwrap();
    again.0.wait().unwrap();
    let asked = Instant::now();
    let last = Running::start(two.path(), connect(&server).await, TAKEOVER);
    owned(&bus, 4).await;
    assert!(asked.elapsed() < TAKEOVER, "{:?}", asked.elapsed());
    last.stop().await;
}

/// Stopped, replaced, and let go on, with an answer to its own task waiting for it.
async fn zombie() {
    let server = Limited::start(PLENTY, None);
    let bus = connect(&server).await;
    let one = tempfile::tempdir().unwrap();
    let mut first = Process::start(&server, one.path());
    let task = first_task(&bus).await;
    first.signal("-STOP");
    tokio::time::sleep(TAKEOVER).await;
    let (_, revision) = bus.get_revision(OWNER).await.unwrap().unwrap();
    let other = Bytes::from_static(b"another coordinator's claim");
    assert!(matches!(bus.swap(OWNER, Some(revision), other).await, Ok(Swapped::Done(_))));
    post(&bus, task).await;
    first.signal("-CONT");
    assert_eq!(first.end().await, Some(REPLACED.into()));
    assert!(is_kept(&bus).await);
}

async fn no_room() {
    let server = Limited::start(2 << 20, None);
    let bus = connect(&server).await;
    let one = tempfile::tempdir().unwrap();
    let only = Running::start(one.path(), connect(&server).await, TAKEOVER);
    owned(&bus, 1).await;
    bus.ensure(&QueueSpec::new("ballast")).await.unwrap();
    let mut size = 60_000;
    for n in 0.. {
        let sent = bus.publish("ballast", &format!("m{n}"), Bytes::from(vec![1; size])).await;
        match sent {
            Ok(_) => {}
            Err(BusError::NoRoom { .. }) if size > 1 => size /= 2,
            Err(BusError::NoRoom { .. }) => break,
            Err(other) => panic!("{other}"),
        }
    }
    let founding = first_task(&bus);
    tokio::pin!(founding);
    assert!(tokio::time::timeout(TAKEOVER * 2, &mut founding).await.is_err(), "it was full");
    assert!(!only.run.is_finished(), "{:?}", only.run.await);
    bus.remove("ballast").await.unwrap();
    founding.await;
    assert_eq!(epoch(&bus).await, 1, "one owner all the time");
    only.stop().await;
}
