//! A bus with a gate in front: it can be away, without room, or hold up whoever calls, as a process
//! is held up that was stopped.

use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use uspx_bus::{
    Bus, BusError, DeadLetter, Delivery, Listener, Published, QueueSpec, Revision, Swapped,
};

/// What becomes of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Open,
    /// The connection is down.
    Away,
    /// Nothing can be stored.
    NoRoom,
    /// Whoever publishes waits.
    HoldPublish,
    /// Whoever calls waits.
    Stopped,
}

/// What a call does to the bus.
#[derive(PartialEq, Eq)]
enum Does {
    Reads,
    Writes,
    Publishes,
}

/// A gate before a bus.
pub struct Gate {
    behind: Arc<dyn Bus>,
    mode: watch::Sender<Mode>,
    held: watch::Sender<bool>,
}

impl Gate {
    pub fn before(behind: &Arc<dyn Bus>) -> Arc<Self> {
        let (mode, held) = (watch::Sender::new(Mode::Open), watch::Sender::new(false));
        Arc::new(Self { behind: behind.clone(), mode, held })
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Returns once somebody is held up while publishing.
    pub async fn holds(&self) {
        self.held.subscribe().wait_for(|held| *held).await.unwrap();
    }

    async fn pass(&self, does: Does) -> Result<(), BusError> {
        let holds = |mode: &Mode| {
            *mode == Mode::Stopped || (*mode == Mode::HoldPublish && does == Does::Publishes)
        };
        if holds(&self.mode.borrow()) && does == Does::Publishes {
            self.held.send_replace(true);
        }
        let mode = *self.mode.subscribe().wait_for(|mode| !holds(mode)).await.unwrap();
        match mode {
            Mode::Away => Err(BusError::Disconnected { url: "gate".into() }),
            Mode::NoRoom if does != Does::Reads => {
                Err(BusError::NoRoom { action: "test", reason: "no space left".into() })
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Bus for Gate {
    async fn ensure(&self, queue: &QueueSpec) -> Result<(), BusError> {
        self.pass(Does::Writes).await?;
        self.behind.ensure(queue).await
    }

    async fn publish(&self, queue: &str, id: &str, payload: Bytes) -> Result<Published, BusError> {
        self.pass(Does::Publishes).await?;
        self.behind.publish(queue, id, payload).await
    }

    async fn pull(&self, queue: &str, wait: Duration) -> Result<Option<Delivery>, BusError> {
        self.pass(Does::Reads).await?;
        self.behind.pull(queue, wait).await
    }

    async fn dead_letters(&self, wait: Duration) -> Result<Option<DeadLetter>, BusError> {
        self.pass(Does::Reads).await?;
        self.behind.dead_letters(wait).await
    }

    async fn withdraw(&self, queue: &str, id: &str) -> Result<bool, BusError> {
        self.pass(Does::Reads).await?;
        self.behind.withdraw(queue, id).await
    }

    async fn depth(&self, queue: &str) -> Result<u64, BusError> {
        self.pass(Does::Reads).await?;
        self.behind.depth(queue).await
    }

    async fn queues(&self) -> Result<Vec<String>, BusError> {
        self.pass(Does::Reads).await?;
        self.behind.queues().await
    }

    async fn remove(&self, queue: &str) -> Result<bool, BusError> {
        self.pass(Does::Reads).await?;
        self.behind.remove(queue).await
    }

    async fn broadcast(&self, topic: &str, payload: Bytes) -> Result<(), BusError> {
        self.pass(Does::Reads).await?;
        self.behind.broadcast(topic, payload).await
    }

    async fn listen(&self, topic: &str) -> Result<Listener, BusError> {
        self.pass(Does::Reads).await?;
        self.behind.listen(topic).await
    }

    async fn put(&self, key: &str, value: Bytes) -> Result<(), BusError> {
        self.pass(Does::Writes).await?;
        self.behind.put(key, value).await
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, BusError> {
        self.pass(Does::Reads).await?;
        self.behind.get(key).await
    }

    async fn get_revision(&self, key: &str) -> Result<Option<(Bytes, Revision)>, BusError> {
        self.pass(Does::Reads).await?;
        self.behind.get_revision(key).await
    }

    async fn swap(
        &self,
        key: &str,
        expected: Option<Revision>,
        value: Bytes,
    ) -> Result<Swapped, BusError> {
        self.pass(Does::Writes).await?;
        self.behind.swap(key, expected, value).await
    }

    async fn watch(&self, key: &str) -> Result<Listener, BusError> {
        self.pass(Does::Reads).await?;
        self.behind.watch(key).await
    }

    fn is_connected(&self) -> bool {
        *self.mode.borrow() != Mode::Away && self.behind.is_connected()
    }

    async fn ping(&self) -> Result<(), BusError> {
        self.pass(Does::Reads).await?;
        self.behind.ping().await
    }
}
