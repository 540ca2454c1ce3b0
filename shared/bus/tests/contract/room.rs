//! A server without room: it says so, nothing is lost, and it goes on when there is room again.

use crate::limited::Limited;
use crate::run;
use crate::support::{ms, take};
use bytes::Bytes;
use libtest_mimic::Trial;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;
use uspx_bus::{Bus, BusError, NatsBus, NatsOptions, Published, QueueSpec, Swapped};

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("nats::a_server_at_its_limit_goes_on_with_room", || run(at_its_limit())),
        Trial::test("nats::a_queue_at_its_bytes_has_no_room", || run(at_its_bytes())),
    ]
}

pub fn on_a_small_disk() -> Vec<Trial> {
    vec![Trial::test("nats::a_full_disk_goes_on_with_room", || run(a_full_disk()))]
}

async fn connect(server: &Limited) -> Arc<dyn Bus> {
    Arc::new(NatsBus::connect(&NatsOptions::new(&server.url)).await.unwrap())
}

fn large() -> Bytes {
    Bytes::from(vec![1; 60_000])
}

#[track_caller]
fn no_room<T: std::fmt::Debug>(what: &str, outcome: Result<T, BusError>) {
    match outcome {
        Err(error @ BusError::NoRoom { .. }) => {
            assert!(error.is_retryable());
            assert!(error.to_string().contains("free disk space"), "{error}");
        }
        other => panic!("{what}: {other:?}"),
    }
}

/// Publishes until there is no room; the id of what did not fit.
async fn fill(bus: &Arc<dyn Bus>, queue: &str) -> String {
    for n in 0..200 {
        let id = format!("m{n}");
        match bus.publish(queue, &id, large()).await {
            Ok(stored) => assert_eq!(stored, Published::Stored),
            refused => {
                no_room("publish", refused);
                return id;
            }
        }
    }
    panic!("it holds more than it may")
}

async fn at_its_limit() {
    let server = Limited::start(2 << 20, None);
    let bus = connect(&server).await;
    bus.ensure(&QueueSpec::new("result")).await.unwrap();
    bus.ensure(&QueueSpec::new("task.w")).await.unwrap();
    let Swapped::Done(owner) = bus.swap("owner", None, "me".into()).await.unwrap() else {
        panic!("nobody else is here")
    };
    bus.put("status", "before".into()).await.unwrap();
    let left_out = fill(&bus, "result").await;
    no_room("publish elsewhere", bus.publish("task.w", "m", large()).await);
    no_room("put", bus.put("status", large()).await);
    no_room("swap", bus.swap("owner", Some(owner), large()).await);
    assert_eq!(bus.get("status").await.unwrap(), Some("before".into()));
    // To take and to acknowledge needs no room, and makes some.
    take(&bus, "result").await.ack().await.unwrap();
    take(&bus, "result").await.ack().await.unwrap();
    assert_eq!(bus.publish("result", &left_out, large()).await.unwrap(), Published::Stored);
    bus.remove("result").await.unwrap();
    bus.put("status", "after".into()).await.unwrap();
    assert!(matches!(bus.swap("owner", Some(owner), "me".into()).await, Ok(Swapped::Done(_))));
    assert_eq!(bus.publish("task.w", "m", large()).await.unwrap(), Published::Stored);
}

/// A limit that an operator set on one stream.
async fn at_its_bytes() {
    let server = Limited::start(64 << 20, None);
    let bus = connect(&server).await;
    bus.ensure(&QueueSpec::new("result")).await.unwrap();
    let jetstream = async_nats::jetstream::new(async_nats::connect(&server.url).await.unwrap());
    let stream = jetstream.get_stream("uspx_result").await.unwrap();
    let mut config = stream.cached_info().config.clone();
    config.max_bytes = 200_000;
    jetstream.update_stream(config).await.unwrap();
    let left_out = fill(&bus, "result").await;
    take(&bus, "result").await.ack().await.unwrap();
    assert_eq!(bus.publish("result", &left_out, large()).await.unwrap(), Published::Stored);
}

/// A file system of a few megabytes.
struct Disk(TempDir);

impl Disk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().ok()?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"]).arg(folder.path());
        let mounted = mount.output().is_ok_and(|o| o.status.success());
        mounted.then(|| Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes what is left, to the last byte.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.path().join("ballast")).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 512]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.path().join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.path()).status().ok();
    }
}

/// Whether this process may mount one.
pub fn has_small_disks() -> bool {
    Disk::mount().is_some()
}

async fn a_full_disk() {
    let disk = Disk::mount().expect("may mount a tmpfs");
    let server = Limited::start(1 << 30, Some(disk.path()));
    let bus = connect(&server).await;
    bus.ensure(&QueueSpec::new("result")).await.unwrap();
    let Swapped::Done(owner) = bus.swap("owner", None, "me".into()).await.unwrap() else {
        panic!("nobody else is here")
    };
    bus.publish("result", "first", large()).await.unwrap();
    disk.fill();
    let left_out = fill(&bus, "result").await;
    no_room("put", bus.put("status", large()).await);
    no_room("swap", bus.swap("owner", Some(owner), large()).await);
    no_room("ensure", bus.ensure(&QueueSpec::new("task.w")).await);
    let got = take(&bus, "result").await;
    assert_eq!((got.message_id.as_str(), &got.payload), ("first", &large()));
    got.ack().await.unwrap();
    disk.free();
    bus.ensure(&QueueSpec::new("task.w")).await.unwrap();
    assert_eq!(bus.publish("result", &left_out, large()).await.unwrap(), Published::Stored);
    bus.put("status", "after".into()).await.unwrap();
    assert_eq!(bus.get_revision("owner").await.unwrap(), Some(("me".into(), owner)));
    assert!(bus.pull("result", ms(500)).await.unwrap().is_some());
}
