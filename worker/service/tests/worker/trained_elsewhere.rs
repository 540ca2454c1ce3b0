//! A training that its worker left goes on where another gets the task, and ends as it would have.

use super::{assets, prompts};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use uspx_artifact::{Store, silent};
use uspx_bus::{Bus, EmbeddedBus, QueueSpec};
use uspx_distill::{Keeping, make_labels, recipe_references};
use uspx_domain::{
    Answer, Distil, DistilRecipe, FailureReason, Outcome, Task, TaskId, TrainingSummary, Work,
    WorkerId,
};
use uspx_model::budget::Workload;
use uspx_model::chat::Bounds;
use uspx_model::{NoProgress, fingerprint};
use uspx_runtime::Shutdown;
use uspx_wire::subjects::{HEARTBEAT, RESULTS, task_message_id, task_queue};
use uspx_wire::{Content, HeartbeatMessage, decode, pack_task};
use uspx_worker::planning::Machine;
use uspx_worker::{Agent, WorkerSettings};

const LONG: Duration = Duration::from_secs(3600);

fn id() -> TaskId {
    TaskId::derived(b"t")
}

fn worker(name: &str) -> WorkerId {
    name.parse().unwrap()
}

struct Colony {
    bus: Arc<dyn Bus>,
    store: Store,
    task: Task,
}

impl Colony {
    /// With the labels of some prompts in the store, and a task to train on them.
    async fn new() -> Self {
        let (bus, store) = (Arc::new(EmbeddedBus::new()), Store::memory());
        let scratch = tempfile::tempdir().unwrap();
        let mut models = super::models(Machine::cpu(), scratch.path());
        let model = fingerprint(&assets().join("nano/teacher")).unwrap();
        let teacher = models.get(model, Workload::Forward).unwrap().model;
        let bounds = (Bounds::answer(16), usize::MAX);
        let labels =
            make_labels(&teacher, &prompts(48), None, Keeping::Likeliest(4), bounds, &NoProgress)
                .unwrap()
                .0;
        let blob = store.put_blob(labels.to_bytes().unwrap().into(), &silent).await.unwrap();
        let recipe = DistilRecipe { rank: 4, batch_tokens: 128, epochs: 4, ..recipe_references() };
        let work = Work::Distil(Distil { train: vec![blob], validation: vec![blob], recipe });
        let model = fingerprint(&assets().join("nano/student")).unwrap();
        Self { bus, store, task: Task { id: id(), epoch: 1, model, work } }
    }

    /// A worker that has the task; its state is kept so often.
    async fn worker(&self, name: &str, state: &Path, keep_every: Duration) -> Agent {
        let student = assets().join("nano/student");
        let mut settings = WorkerSettings::on_cpu(worker(name), vec![student], state.to_owned());
        settings.heartbeat_every = Duration::from_millis(10);
        settings.keep_every = keep_every;
        let queue = task_queue(&settings.id);
        for name in [queue.as_str(), RESULTS] {
            self.bus.ensure(&QueueSpec { lease: LONG, ..QueueSpec::new(name) }).await.unwrap();
        }
        let message = pack_task(self.task.clone()).unwrap().message;
        self.bus.publish(&queue, &task_message_id(id(), 1), message).await.unwrap();
        Agent::new(settings, self.bus.clone(), self.store.clone()).unwrap()
    }

    async fn answer(&self) -> Answer {
        let delivery = self.bus.pull(RESULTS, Duration::from_secs(120)).await.unwrap().unwrap();
        delivery.ack().await.unwrap();
        match decode::<Content<Answer>>(&delivery.payload).unwrap() {
            Content::Inline(answer) => answer,
            Content::Stored(_) => panic!("a small answer was stored"),
        }
    }

    /// A worker's adapter and how it came to it. Whether it found a state when it began.
    async fn trained(&self, name: &str) -> (Vec<u8>, TrainingSummary, bool) {
        let state = tempfile::tempdir().unwrap();
        let agent = self.worker(name, state.path(), LONG).await;
        let (end, checkpoint) =
            (Shutdown::new(), state.path().join("checkpoints").join(id().to_string()));
        let waiting = async {
            let mut answer = std::pin::pin!(self.answer());
            let mut found = false;
            let answer = loop {
                tokio::select! {
                    answer = &mut answer => break answer,
                    // It keeps none itself within an hour.
                    () = sleep(Duration::from_millis(1)) => found |= checkpoint.exists(),
                }
            };
            // Its state goes when its answer is posted.
            while self.store.state(id()).await.unwrap().is_some() {
                sleep(Duration::from_millis(5)).await;
            }
            end.cancel();
            (answer, found)
        };
        let (ran, (answer, found)) = tokio::join!(agent.run(&end), waiting);
        ran.unwrap();
        let Outcome::Adapter { blob, summary } = answer.outcome else { panic!("{answer:?}") };
        let adapter = self.store.get_blob(&blob, 1 << 30, &silent).await.unwrap();
        (adapter.to_vec(), summary, found)
    }

    async fn assert_another_goes_on(&self) {
        let undisturbed = Colony::new().await.trained("cyd").await;
        assert!(!undisturbed.2);
        let (adapter, summary, found) = self.trained("bob").await;
        assert!(found, "bob began anew");
        assert!(adapter == undisturbed.0, "bob ends elsewhere");
        assert_eq!(summary, undisturbed.1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_gone_leaves_its_state_in_the_store() {
    let (colony, state) = (Colony::new().await, tempfile::tempdir().unwrap());
    let ada = colony.worker("ada", state.path(), Duration::from_millis(20)).await;
    let gone = async {
        while colony.store.state(id()).await.unwrap().is_none() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    // As when it is killed: nothing that it would still do or say is done or said.
    let never = Shutdown::new();
    tokio::select! {
        ran = ada.run(&never) => panic!("{ran:?}"),
        gone = timeout(Duration::from_secs(120), gone) => gone.unwrap(),
    }
    drop(ada);
    assert_eq!(colony.store.state(id()).await.unwrap().unwrap().worker, worker("ada"));
    colony.assert_another_goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_told_to_end_leaves_its_state_in_the_store() {
    let (colony, state) = (Colony::new().await, tempfile::tempdir().unwrap());
    let mut heard = colony.bus.listen(HEARTBEAT).await.unwrap();
    let ada = colony.worker("ada", state.path(), LONG).await;
    let end = Shutdown::new();
    let told = async {
        loop {
            let beat = timeout(Duration::from_secs(60), heard.next()).await.unwrap().unwrap();
            let beat: HeartbeatMessage = decode(&beat).unwrap();
            if beat.current.is_some_and(|at| at.done >= 2 && at.total > at.done) {
                break end.cancel();
            }
        }
    };
    let (ran, ()) = tokio::join!(ada.run(&end), told);
    ran.unwrap();
    let stopped = colony.answer().await.outcome;
    assert_eq!(stopped, Outcome::Failed(FailureReason::Stopped.into()));
    colony.assert_another_goes_on().await;
}
