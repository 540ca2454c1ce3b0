//! What only a server can do: be killed, be restarted, be left behind, lack JetStream.

use crate::limited::url_in;
use crate::run;
use crate::support::{Ground, ms, short, store, take};
use bytes::Bytes;
use libtest_mimic::Trial;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};
use uspx_bus::server::{NatsServer, ServerError, find_program};
use uspx_bus::{Bus, BusError, NatsBus, NatsOptions, Published, QueueSpec};
use uspx_wire::subjects::Names;

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("nats::kill_and_restart_loses_nothing_acknowledged", || {
            run(killed_and_restarted())
        }),
        Trial::test("nats::publish_and_ack_outlast_an_outage", || run(outlasts_an_outage())),
        Trial::test("nats::a_queue_that_lost_count_is_delivered_anew", || run(lost_count())),
        Trial::test("nats::dead_letters_are_kept_while_nobody_listens", || {
            run(dead_letters_are_kept())
        }),
        Trial::test("nats::colonies_share_a_server", || run(colonies_share_a_server())),
        Trial::test("nats::more_queues_than_a_page_are_listed", || run(more_than_a_page())),
        Trial::test("nats::a_server_without_jetstream_is_refused", || run(without_jetstream())),
        Trial::test("nats::a_server_left_behind_is_stopped", || run(left_behind())),
        Trial::test("nats::stops_when_dropped", || run(stops_when_dropped())),
    ]
}

async fn killed_and_restarted() {
    let mut ground = Ground::new();
    let bus: Arc<dyn Bus> = Arc::new(ground.connect().await);
    bus.ensure(&QueueSpec { lease: ms(1500), ..QueueSpec::new("task.w") }).await.unwrap();
    bus.put("status", "kept".into()).await.unwrap();
    for i in 0..50 {
        store(&bus, "task.w", &format!("m{i}")).await;
    }
    for _ in 0..10 {
        take(&bus, "task.w").await.ack().await.unwrap();
    }
    let held = take(&bus, "task.w").await;
    ground.server.kill();
    ground.server.restart().unwrap();
    assert_eq!(
        bus.publish("task.w", "m11", Bytes::new()).await.unwrap(),
        Published::Duplicate,
        "ids are kept too"
    );
    assert_eq!(bus.get("status").await.unwrap(), Some("kept".into()));
    assert_eq!(bus.depth("task.w").await.unwrap(), 40);
    let mut left = BTreeSet::new();
    while left.len() < 40 {
        let got = take(&bus, "task.w").await;
        got.ack().await.unwrap();
        left.insert(got.message_id.clone());
    }
    assert!(left.contains(&held.message_id));
    assert_eq!(left, (10..50).map(|i| format!("m{i}")).collect());
}

async fn outlasts_an_outage() {
    let mut ground = Ground::new();
    let bus: Arc<dyn Bus> = Arc::new(ground.connect().await);
    bus.ensure(&QueueSpec::new("result")).await.unwrap();
    let mut listener = bus.listen("hello").await.unwrap();
    let mut watch = bus.watch("status").await.unwrap();
    store(&bus, "result", "before").await;
    let held = take(&bus, "result").await;
    ground.server.kill();
    while bus.is_connected() {
        sleep(ms(20)).await;
    }
    let down = bus.pull("result", ms(100)).await.unwrap_err();
    assert!(matches!(down, BusError::Disconnected { .. }) && down.is_retryable(), "{down}");
    let publishing = tokio::spawn({
        let bus = bus.clone();
        async move { bus.publish("result", "during", Bytes::new()).await }
    });
    let acking = tokio::spawn(async move { held.ack().await });
    sleep(ms(500)).await;
    ground.server.restart().unwrap();
    publishing.await.unwrap().unwrap();
    acking.await.unwrap().unwrap();
    let got = take(&bus, "result").await;
    assert_eq!((got.message_id.as_str(), bus.depth("result").await.unwrap()), ("during", 1));
    bus.broadcast("hello", "again".into()).await.unwrap();
    assert_eq!(timeout(ms(4000), listener.next()).await.unwrap(), Some("again".into()));
    bus.put("status", "back".into()).await.unwrap();
    assert_eq!(timeout(ms(4000), watch.next()).await.unwrap(), Some("back".into()));
}

/// What a kill -9 now and then does to an empty stream (seen with nats-server 2.10.27): it counts
/// from 1 again, while the consumer waits for what comes after the last message that it saw.
async fn lost_count() {
    let mut ground = Ground::new();
    let bus: Arc<dyn Bus> = Arc::new(ground.connect().await);
    bus.ensure(&QueueSpec::new("result")).await.unwrap();
    for i in 0..20 {
        store(&bus, "result", &format!("m{i}")).await;
        take(&bus, "result").await.ack().await.unwrap();
    }
    // The server writes down where a consumer stands a moment later.
    sleep(ms(1000)).await;
    ground.server.kill();
    let messages = ground.store.path().join("jetstream/jetstream/$G/streams/uspx_result/msgs");
    std::fs::remove_dir_all(&messages).unwrap();
    std::fs::create_dir(&messages).unwrap();
    ground.server.restart().unwrap();
    for id in ["after", "later"] {
        bus.publish("result", id, Bytes::new()).await.unwrap();
    }
    for id in ["after", "later"] {
        let got = take(&bus, "result").await;
        assert_eq!(got.message_id, id);
        got.ack().await.unwrap();
    }
    assert_eq!(bus.depth("result").await.unwrap(), 0);
}

async fn dead_letters_are_kept() {
    let ground = Ground::new();
    let worker: Arc<dyn Bus> = Arc::new(ground.connect().await);
    worker.ensure(&QueueSpec { max_deliveries: 1, ..short("task.w") }).await.unwrap();
    store(&worker, "task.w", "m1").await;
    drop(take(&worker, "task.w").await);
    sleep(ms(1500)).await;
    drop(worker);
    let coordinator = ground.connect().await;
    let letter = coordinator.dead_letters(ms(3000)).await.unwrap().expect("the advisory was kept");
    assert_eq!(letter.message_id, "m1");
}

async fn colonies_share_a_server() {
    let ground = Ground::new();
    let mut buses: Vec<Arc<dyn Bus>> = Vec::new();
    for name in ["one", "two"] {
        let options = NatsOptions {
            names: Names::new(name).unwrap(),
            ..NatsOptions::new(ground.server.url())
        };
        buses.push(Arc::new(NatsBus::connect(&options).await.unwrap()));
    }
    for bus in &buses {
        bus.ensure(&QueueSpec { max_deliveries: 1, ..short("task.w") }).await.unwrap();
        assert_eq!(bus.get("status").await.unwrap(), None);
        bus.put("status", "mine".into()).await.unwrap();
        store(bus, "task.w", "m1").await;
        assert_eq!(bus.queues().await.unwrap(), ["task.w"], "its own alone");
    }
    drop(take(&buses[0], "task.w").await);
    assert!(buses[0].dead_letters(ms(4000)).await.unwrap().is_some());
    assert!(buses[1].dead_letters(ms(300)).await.unwrap().is_none());
    assert_eq!(buses[1].depth("task.w").await.unwrap(), 1);
}

/// The server lists 1,024 streams at a time.
async fn more_than_a_page() {
    let ground = Ground::new();
    let bus = ground.connect().await;
    let client = async_nats::connect(ground.server.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    for n in 0..1100 {
        let config = async_nats::jetstream::stream::Config {
            name: Names::default().stream(&format!("task.w{n}")),
            storage: async_nats::jetstream::stream::StorageType::Memory,
            ..Default::default()
        };
        jetstream.create_stream(config).await.unwrap();
    }
    let queues: BTreeSet<String> = bus.queues().await.unwrap().into_iter().collect();
    assert_eq!(queues, (0..1100).map(|n| format!("task.w{n}")).collect());
}

async fn without_jetstream() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("plain.conf");
    let settings =
        serde_json::json!({ "host": "127.0.0.1", "port": -1, "ports_file_dir": folder.path() });
    std::fs::write(&config, settings.to_string()).unwrap();
    let mut child = Command::new(find_program().unwrap())
        .arg("-c")
        .arg(&config)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let url = url_in(&folder.path().join(format!("nats-server_{}.ports", child.id())));
    let refused = NatsBus::connect(&NatsOptions::new(&url)).await.err();
    child.kill().unwrap();
    child.wait().unwrap();
    let refused = refused.expect("refused");
    assert!(matches!(refused, BusError::NoJetStream { .. }), "{refused}");
    assert!(refused.to_string().contains(&url) && refused.to_string().contains("-js"));
}

/// The folder that this process, started again by a test, shall run a server in until it is killed.
const CHILD_STORE: &str = "USPX_TEST_CHILD_STORE";

pub fn is_child() -> bool {
    std::env::var_os(CHILD_STORE).is_some()
}

pub fn child() -> ExitCode {
    let store = std::env::var_os(CHILD_STORE).unwrap();
    let server = NatsServer::start(Path::new(&store), None).unwrap();
    std::fs::write(Path::new(&store).join("url"), server.url()).unwrap();
    std::thread::sleep(Duration::from_secs(60));
    drop(server);
    ExitCode::SUCCESS
}

fn start_child(store: &Path) -> (Child, String) {
    let child =
        Command::new(std::env::current_exe().unwrap()).env(CHILD_STORE, store).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match std::fs::read_to_string(store.join("url")) {
            Ok(url) if !url.is_empty() => return (child, url),
            _ => assert!(Instant::now() < deadline, "the child's server did not come up"),
        }
        std::thread::sleep(ms(20));
    }
}

async fn left_behind() {
    let store = tempfile::tempdir().unwrap();
    let (mut child, old_url) = start_child(store.path());
    let busy = NatsServer::start(store.path(), None);
    assert!(matches!(busy, Err(ServerError::Busy { .. })), "its owner lives: {busy:?}");
    let bus = NatsBus::connect(&NatsOptions::new(&old_url)).await.unwrap();
    bus.ensure(&QueueSpec::new("result")).await.unwrap();
    bus.publish("result", "m1", Bytes::new()).await.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    bus.ping().await.expect("the server outlives its owner");
    let server = NatsServer::start(store.path(), None).unwrap();
    assert!(
        std::net::TcpStream::connect(old_url.trim_start_matches("nats://")).is_err()
            || old_url == server.url()
    );
    let bus = NatsBus::connect(&NatsOptions::new(server.url())).await.unwrap();
    assert_eq!(bus.depth("result").await.unwrap(), 1);
}

async fn stops_when_dropped() {
    let ground = Ground::new();
    let address = ground.server.url().trim_start_matches("nats://").to_owned();
    assert!(std::net::TcpStream::connect(&address).is_ok());
    let Ground { server, store } = ground;
    drop(server);
    assert!(std::net::TcpStream::connect(&address).is_err());
    NatsServer::start(store.path(), None).expect("the store is free again");
}
