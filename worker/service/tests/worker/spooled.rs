//! Finished work is not done again: it is posted when the broker is there, answers the same task
//! whenever it is asked again, and survives the worker.

use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use uspx_artifact::{Store, silent};
use uspx_bus::{Bus, EmbeddedBus, QueueSpec};
use uspx_domain::{
    Answer, BlobRef, Coverage, Digest, Fingerprint, Label, Outcome, Task, TaskId, Work,
};
use uspx_runtime::Shutdown;
use uspx_wire::subjects::{RESULTS, answer_message_id, task_message_id, task_queue};
use uspx_wire::{Content, decode, pack_answer, pack_task};
use uspx_worker::product::Blob;
use uspx_worker::spool::Spool;
use uspx_worker::{Agent, WorkerSettings};

const LABELS: &[u8] = b"labels of an hour's work";

fn id() -> TaskId {
    TaskId::derived(b"t")
}

fn worker() -> uspx_domain::WorkerId {
    "w".parse().unwrap()
}

fn answer() -> Answer {
    let coverage = Coverage { answer_bytes: 9, labelled_bytes: 9 };
    let blob = BlobRef::to(LABELS);
    let outcome = Outcome::Labels { blob, prompts: 1, tokens: 1, dreams: 0, coverage };
    Answer { task: id(), worker: worker(), outcome, millis: 1, skipped: vec![], seams: 0 }
}

/// As a worker leaves it that could not post it.
fn keep(state: &Path) {
    let spool = Spool::open(state.join("spool")).unwrap();
    let message = pack_answer(answer()).unwrap().message;
    let id_of_message = answer_message_id(&task_message_id(id(), 1), &worker());
    spool.keep(id(), &id_of_message, &message, vec![Blob::Bytes(LABELS.into())]).unwrap();
}

fn task() -> Bytes {
    let model = Fingerprint(Digest::of(b"a model that this worker does not hold"));
    let work = Work::Label(Label::of(vec![]));
    pack_task(Task { id: id(), epoch: 1, model, work }).unwrap().message
}

struct Colony {
    bus: Arc<dyn Bus>,
    store: Store,
}

impl Colony {
    fn new() -> Self {
        Self { bus: Arc::new(EmbeddedBus::new()), store: Store::memory() }
    }

    async fn queue(&self, name: &str) {
        let spec = QueueSpec { lease: Duration::from_secs(600), ..QueueSpec::new(name) };
        self.bus.ensure(&spec).await.unwrap();
    }

    /// Runs a worker on `state` until an answer comes.
    async fn answered(&self, state: &Path) -> Answer {
        let settings = WorkerSettings::on_cpu(worker(), vec![], state.to_owned());
        let agent = Agent::new(settings, self.bus.clone(), self.store.clone()).unwrap();
        let end = Shutdown::new();
        let waiting = async {
            let delivery = loop {
                match self.bus.pull(RESULTS, Duration::from_secs(60)).await {
                    Ok(Some(delivery)) => break delivery,
                    _ => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            };
            delivery.ack().await.unwrap();
            end.cancel();
            match decode::<Content<Answer>>(&delivery.payload).unwrap() {
                Content::Inline(answer) => answer,
                Content::Stored(_) => panic!("a small answer was stored"),
            }
        };
        let (ran, answer) = tokio::join!(agent.run(&end), waiting);
        ran.unwrap();
        answer
    }

    async fn assert_stored(&self) {
        let stored = self.store.get_blob(&BlobRef::to(LABELS), 1 << 20, &silent).await.unwrap();
        assert_eq!(stored, LABELS);
    }
}

/// It does not hold the model, so it could not have done the task now.
#[tokio::test(start_paused = true)]
async fn a_task_that_is_finished_is_answered_from_the_spool() {
    let (colony, state) = (Colony::new(), tempfile::tempdir().unwrap());
    keep(state.path());
    colony.queue(RESULTS).await;
    let queue = task_queue(&worker());
    colony.queue(&queue).await;
    for attempt in 1..=2 {
        // The second time it was posted before, and the coordinator asks anew.
        let message = task_message_id(id(), attempt);
        colony.bus.publish(&queue, &message, task()).await.unwrap();
        assert_eq!(colony.answered(state.path()).await, answer(), "attempt {attempt}");
        colony.assert_stored().await;
        assert_eq!(colony.bus.depth(&queue).await.unwrap(), 0);
    }
}

/// The queue of answers is not there yet: as with a broker that is away.
#[tokio::test(start_paused = true)]
async fn what_could_not_be_posted_is_posted_later_without_being_asked() {
    let (colony, state) = (Colony::new(), tempfile::tempdir().unwrap());
    keep(state.path());
    let late = async {
        tokio::time::sleep(Duration::from_millis(2500)).await;
        colony.queue(RESULTS).await;
    };
    let (answered, ()) = tokio::join!(colony.answered(state.path()), late);
    assert_eq!(answered, answer());
    colony.assert_stored().await;
    assert!(Spool::open(state.path().join("spool")).unwrap().pending().is_empty());
}
