//! A coordinator without models: prompts of one word, and a worker that is only messages.

use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use uspx_artifact::Store;
use uspx_bus::Bus;
use uspx_coordinator::{Coordinator, CoordinatorSettings, Finished, PromptBook, ServiceError};
use uspx_domain::{
    Answer, Digest, Failure, FailureReason, Fingerprint, LayerShape, MlpShape, ModelShape, Outcome,
    Prompt, Speaks, TaskId, WorkerId,
};
use uspx_runtime::Shutdown;
use uspx_wire::subjects::{HEARTBEAT, OWNER, RESULTS, parse_task_message_id, task_queue};
use uspx_wire::{HeartbeatMessage, HeldModel, encode, pack_answer};

pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub fn worker() -> WorkerId {
    "w".parse().unwrap()
}

fn prompts(split: &str) -> Vec<Prompt> {
    let prompt = |n: u32| Prompt {
        id: format!("{split}-{n}"),
        prompt: "word".into(),
        reference: Some("word".into()),
        ..Prompt::default()
    };
    (0..4).map(prompt).collect()
}

pub fn coordinator(state: &Path, bus: Arc<dyn Bus>, takeover: Duration) -> Coordinator {
    let mut settings = CoordinatorSettings::new("test", state);
    (settings.takeover, settings.lease) = (takeover, Duration::from_secs(5));
    settings.silence = Duration::from_secs(3600);
    let book = PromptBook::new(prompts("train"), prompts("validation"), prompts("gate"));
    Coordinator::open(settings, bus, Store::memory(), book).unwrap()
}

/// A coordinator at work.
pub struct Running {
    pub run: JoinHandle<Result<Finished, ServiceError>>,
    pub end: Shutdown,
}

impl Running {
    pub fn start(state: &Path, bus: Arc<dyn Bus>, takeover: Duration) -> Self {
        let mut coordinator = coordinator(state, bus, takeover);
        let end = Shutdown::new();
        let asked = end.clone();
        Self { run: tokio::spawn(async move { coordinator.run(&asked).await }), end }
    }

    /// An orderly end.
    pub async fn stop(self) {
        self.end.cancel();
        assert_eq!(self.run.await.unwrap().unwrap(), Finished::Stopped);
    }
}

/// The epoch of the claim on the bus.
pub async fn epoch(bus: &Arc<dyn Bus>) -> u64 {
    let Some(value) = bus.get(OWNER).await.unwrap() else { return 0 };
    serde_json::from_slice::<serde_json::Value>(&value).unwrap()["epoch"].as_u64().unwrap()
}

/// Waits for an owner of this epoch.
pub async fn owned(bus: &Arc<dyn Bus>, wanted: u64) {
    while epoch(bus).await != wanted {
        tokio::time::sleep(ms(50)).await;
    }
}

/// Says that the worker is there until it is asked for something.
pub async fn first_task(bus: &Arc<dyn Bus>) -> TaskId {
    let experts = MlpShape::Experts { experts: 4, top_k: 1, channels: 8 };
    let dense = MlpShape::Dense { channels: 8 };
    let held = |name: &str, mlp: MlpShape| HeldModel {
        fingerprint: Fingerprint(Digest::of(name.as_bytes())),
        architecture: "Test".into(),
        name: None,
        shape: ModelShape::uniform(1, LayerShape::new(1, mlp)),
    };
    let heartbeat = HeartbeatMessage {
        worker: worker(),
        uspx_version: "0.0.0".into(),
        speaks: Speaks::here(),
        reads: HeartbeatMessage::read_here(),
        models: vec![held("teacher", experts), held("student", dense)],
        threads: 1,
        memory_bytes: 1,
        device: "cpu".into(),
        current: None,
        beats: None,
        speed: None,
    };
    loop {
        bus.broadcast(HEARTBEAT, encode(&heartbeat).unwrap()).await.unwrap();
        match bus.pull(&task_queue(&worker()), ms(200)).await {
            Ok(Some(delivery)) => return parse_task_message_id(&delivery.message_id).unwrap().0,
            _ => tokio::time::sleep(ms(50)).await,
        }
    }
}

/// The worker's machine could not do a task.
pub fn answer(task: TaskId) -> Bytes {
    let failure = Failure::from(FailureReason::Stopped);
    let outcome = Outcome::Failed(failure);
    let answer = Answer { task, worker: worker(), outcome, millis: 1, skipped: vec![], seams: 0 };
    pack_answer(answer).unwrap().message
}

pub async fn post(bus: &Arc<dyn Bus>, task: TaskId) {
    bus.publish(RESULTS, "an-answer", answer(task)).await.unwrap();
}

/// Whether the answer still is in the queue.
pub async fn is_kept(bus: &Arc<dyn Bus>) -> bool {
    bus.depth(RESULTS).await.unwrap() == 1
}

#[track_caller]
pub fn refused(outcome: Result<Finished, ServiceError>) {
    match outcome {
        Err(error @ ServiceError::Owned { .. }) => {
            let (text, pid) = (error.to_string(), std::process::id().to_string());
            assert!(text.contains(&pid) && text.contains("stop that one"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}
