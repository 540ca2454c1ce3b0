//! A worker that answers from the made-up world, as a real one would: it keeps what it has finished
//! through its own death, posts it until the broker has it, and acknowledges only then.

use crate::colony::records;
use crate::fault::Pace;
use crate::world::service::adapter;
use crate::world::{World, failed, fingerprint, shape};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use uspx_artifact::{Store, silent};
use uspx_bus::{Bus, Delivery};
use uspx_colony::{Dice, PlannedTask, Record};
use uspx_domain::{
    Answer, BlobRef, FailureReason, LayerShape, MlpShape, ModelShape, Outcome, Speaks, TaskId,
    WorkerId,
};
use uspx_wire::subjects::{
    HEARTBEAT, RESULTS, answer_message_id, parse_task_message_id, task_queue,
};
use uspx_wire::{HeartbeatMessage, HeldModel, encode, pack_answer};

/// What outlives a worker's process.
#[derive(Clone)]
pub struct Machine {
    pub id: WorkerId,
    pub world: Arc<World>,
    pub ledger: PathBuf,
    pub store: Store,
    pub pace: Pace,
    /// Its disk is full.
    pub sick: Arc<Mutex<bool>>,
    finished: Arc<Mutex<HashMap<TaskId, Answer>>>,
}

impl Machine {
    pub fn new(name: &str, world: Arc<World>, ledger: PathBuf, store: Store, pace: Pace) -> Self {
        let (sick, finished) = (Arc::default(), Arc::default());
        Self { id: name.parse().unwrap(), world, ledger, store, pace, sick, finished }
    }

    /// A process on it; dropped or aborted it is killed.
    pub fn start(&self, bus: Arc<dyn Bus>) -> JoinHandle<()> {
        let machine = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = machine.say_that_it_lives(&bus) => {}
                () = machine.work(&bus) => {}
            }
        })
    }

    /// What it is at goes back, as at a polite end.
    pub async fn goodbye(&self, bus: &Arc<dyn Bus>) {
        if let Ok(Some(delivery)) = bus.pull(&task_queue(&self.id), Duration::from_millis(1)).await
            && let Some(planned) = self.planned(&delivery)
        {
            let answer = failed(&planned, &self.id, FailureReason::Stopped);
            self.post(bus, answer, &delivery).await;
        }
    }

    async fn say_that_it_lives(&self, bus: &Arc<dyn Bus>) {
        let dense = ModelShape::uniform(1, LayerShape::new(1, MlpShape::Dense { channels: 8 }));
        let held = |name: &str, shape: ModelShape| HeldModel {
            fingerprint: fingerprint(name),
            architecture: "Test".into(),
            name: None,
            shape,
        };
        let heartbeat = HeartbeatMessage {
            worker: self.id.clone(),
            uspx_version: "0.0.0".into(),
            speaks: Speaks::here(),
            reads: HeartbeatMessage::read_here(),
            models: vec![held("teacher", shape()), held("student", dense)],
            threads: 1,
            memory_bytes: 1,
            device: "cpu".into(),
            current: None,
            beats: None,
            speed: None,
        };
        loop {
            let _ = bus.broadcast(HEARTBEAT, encode(&heartbeat).unwrap()).await;
            tokio::time::sleep(self.pace.heartbeat).await;
        }
    }

    async fn work(&self, bus: &Arc<dyn Bus>) {
        loop {
            match bus.pull(&task_queue(&self.id), self.pace.heartbeat).await {
                Ok(Some(delivery)) => self.take(bus, &delivery).await,
                Ok(None) => {}
                Err(_) => tokio::time::sleep(self.pace.heartbeat).await,
            }
        }
    }

    async fn take(&self, bus: &Arc<dyn Bus>, delivery: &Delivery) {
        let Some(planned) = self.planned(delivery) else { return };
        let finished = self.finished.lock().unwrap().get(&planned.id).cloned();
        let answer = match finished {
            Some(answer) => answer,
            None if *self.sick.lock().unwrap() => {
                failed(&planned, &self.id, FailureReason::Scratch)
            }
            None => self.answer(&planned, delivery).await,
        };
        self.post(bus, answer, delivery).await;
    }

    /// Takes its time, and keeps the lease meanwhile.
    async fn answer(&self, planned: &PlannedTask, delivery: &Delivery) -> Answer {
        let mut dice = Dice::new(1, &format!("{} {}", planned.id, self.id), 0);
        let mut left = self.pace.work.mul_f64(dice.unit());
        while left > Duration::ZERO {
            let step = left.min(self.pace.lease / 4);
            tokio::time::sleep(step).await;
            let _ = delivery.progress().await;
            left -= step;
        }
        let mut answer = self.world.answer(planned, &self.id);
        self.with_blobs(&mut answer, planned).await;
        self.finished.lock().unwrap().insert(planned.id, answer.clone());
        answer
    }

    /// Stores what the answer names.
    async fn with_blobs(&self, answer: &mut Answer, planned: &PlannedTask) {
        let content = match &mut answer.outcome {
            Outcome::Labels { .. } => vec![format!("labels {}", planned.id).into_bytes()],
            Outcome::Adapter { blob, .. } => {
                *blob = BlobRef::to(&adapter());
                vec![adapter()]
            }
            Outcome::Told { .. } => vec![format!("told {}", planned.id).into_bytes()],
            Outcome::Exported { .. } => vec![format!("model {}", planned.id).into_bytes()],
            _ => vec![],
        };
        for content in content {
            self.store.put_blob(content.into(), &silent).await.unwrap();
        }
    }

    async fn post(&self, bus: &Arc<dyn Bus>, answer: Answer, delivery: &Delivery) {
        let id = answer_message_id(&delivery.message_id, &self.id);
        let packed = pack_answer(answer).unwrap();
        if let Some((_, content)) = packed.blob {
            self.store.put_blob(content, &silent).await.unwrap();
        }
        while bus.publish(RESULTS, &id, packed.message.clone()).await.is_err() {
            tokio::time::sleep(self.pace.heartbeat).await;
        }
        let _ = delivery.ack().await;
    }

    /// The task as the ledger knows it.
    fn planned(&self, delivery: &Delivery) -> Option<PlannedTask> {
        let (id, _) = parse_task_message_id(&delivery.message_id).unwrap();
        let opened = records(&self.ledger).into_iter().filter_map(|r| match r {
            Record::EpochOpened { tasks, .. } => Some(tasks),
            Record::Snapshot(snapshot) => {
                let tickets = snapshot.state.tickets().values();
                Some(tickets.map(|ticket| ticket.task.clone()).collect())
            }
            _ => None,
        });
        opened.flatten().find(|t| t.id == id)
    }
}
