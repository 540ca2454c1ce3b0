//! A task of a newer uspx is answered at once, so that another worker gets it, and does not come
//! again.

use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use uspx_artifact::Store;
use uspx_bus::{Bus, EmbeddedBus, QueueSpec};
use uspx_domain::{Answer, Digest, FailureReason, Fingerprint, Label, Outcome, Task, TaskId, Work};
use uspx_runtime::Shutdown;
use uspx_wire::subjects::{RESULTS, task_message_id, task_queue};
use uspx_wire::{Content, decode, pack_task};
use uspx_worker::{Agent, WorkerSettings};

/// Far longer than the test may take: nothing here waits for a lease.
const LEASE: Duration = Duration::from_secs(600);

fn task() -> Bytes {
    let model = Fingerprint(Digest::of(b"model"));
    let work = Work::Label(Label::of(vec![]));
    pack_task(Task { id: TaskId::derived(b"t"), epoch: 1, model, work }).unwrap().message
}

/// As a release writes it that has a second version of tasks: the envelope begins `{"v": 1, ..`.
fn of_version_2() -> Bytes {
    let mut bytes = task().to_vec();
    assert_eq!(bytes[..4], [0x83, 0xa1, b'v', 1]);
    bytes[3] = 2;
    bytes.into()
}

/// As a release writes it that has another kind of job.
fn of_another_job() -> Bytes {
    let mut bytes = task().to_vec();
    let at = bytes.windows(6).position(|window| window == b"\xa5label").unwrap() + 1;
    bytes[at..at + 5].copy_from_slice(b"dream");
    bytes.into()
}

/// What a worker answers to these bytes, and how many tasks are left in its queue.
async fn answered(bytes: Bytes) -> (Answer, u64) {
    let bus: Arc<dyn Bus> = Arc::new(EmbeddedBus::new());
    let state = tempfile::tempdir().unwrap();
    let settings = WorkerSettings::on_cpu("w".parse().unwrap(), vec![], state.path().to_owned());
    let queue = task_queue(&settings.id);
    for name in [queue.as_str(), RESULTS] {
        bus.ensure(&QueueSpec { lease: LEASE, ..QueueSpec::new(name) }).await.unwrap();
    }
    bus.publish(&queue, &task_message_id(TaskId::derived(b"t"), 1), bytes).await.unwrap();
    let end = Shutdown::new();
    let agent = Agent::new(settings, bus.clone(), Store::memory()).unwrap();
    let (asked, results) = (end.clone(), bus.clone());
    let waiting = async move {
        let delivery =
            results.pull(RESULTS, Duration::from_secs(60)).await.unwrap().expect("no answer came");
        asked.cancel();
        decode::<Content<Answer>>(&delivery.payload).unwrap()
    };
    let (ran, answer) = tokio::join!(agent.run(&end), waiting);
    ran.unwrap();
    let Content::Inline(answer) = answer else { panic!("a small answer was stored") };
    (answer, bus.depth(&queue).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_of_a_newer_release_is_answered_at_once_and_acknowledged() {
    for bytes in [of_version_2(), of_another_job()] {
        let (answer, left) = answered(bytes).await;
        let failure = Outcome::Failed(FailureReason::NotSpoken.into());
        assert_eq!((answer.task, answer.outcome, left), (TaskId::derived(b"t"), failure, 0));
    }
}
