//! The bus inside one process: memory and tokio's clock, the same rules as a broker.
//!
//! Nothing here outlives the process. What must, is in the coordinator's ledger, which issues every
//! unanswered task again on start.

mod queue;
mod topics;

use crate::api::{MAX_PAYLOAD, check_size};
use crate::delivery::{Holder, Verdict};
use crate::{
    Bus, BusError, DeadLetter, Delivery, Listener, Published, QueueSpec, Revision, Swapped,
};
use async_trait::async_trait;
use bytes::Bytes;
pub(crate) use queue::DEAD_LETTER_LEASE;
use queue::{Leased, Queue};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use topics::{Keys, Topics};
use uspx_wire::subjects::{check_path, check_token};

/// A bus in this process' memory. Cheap to clone; all clones are the same bus.
#[derive(Clone, Default)]
pub struct EmbeddedBus {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queues: Mutex<HashMap<String, Queue>>,
    changed: Notify,
    topics: Topics,
    keys: Keys,
}

impl Shared {
    fn queues(&self) -> MutexGuard<'_, HashMap<String, Queue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, name: &str, act: impl FnOnce(&mut Queue) -> T) -> Result<T, BusError> {
        let done = match self.queues().get_mut(name) {
            Some(queue) => act(queue),
            None => return Err(BusError::NoQueue { queue: name.to_owned() }),
        };
        self.changed.notify_waiters();
        Ok(done)
    }

    /// Tries until something is found or `wait` is over, whenever a queue changes or one of its
    /// timers runs out.
    async fn wait_for<T>(
        &self,
        wait: Duration,
        mut find: impl FnMut(&mut HashMap<String, Queue>) -> Result<Found<T>, BusError>,
    ) -> Result<Option<T>, BusError> {
        let deadline = Instant::now() + wait;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let until = match find(&mut self.queues())? {
                Found::It(it) => {
                    // What was taken has a timer now, which others who wait do not know of.
                    self.changed.notify_waiters();
                    return Ok(Some(it));
                }
                Found::NotBefore(timer) => timer.map_or(deadline, |t| t.min(deadline)),
            };
            if Instant::now() >= deadline {
                return Ok(None);
            }
            tokio::select! { () = changed => {}, () = tokio::time::sleep_until(until) => {} }
        }
    }
}

enum Found<T> {
    It(T),
    NotBefore(Option<Instant>),
}

impl EmbeddedBus {
    /// An empty bus.
    pub fn new() -> Self {
        Self::default()
    }

    fn hold(&self, queue: &str, leased: Leased) -> Delivery {
        let holder = Held { shared: self.shared.clone(), queue: queue.to_owned(), at: leased.at };
        Delivery::new(
            leased.payload,
            leased.message_id,
            leased.at.delivery,
            leased.lease,
            Box::new(holder),
        )
    }
}

#[async_trait]
impl Bus for EmbeddedBus {
    async fn ensure(&self, spec: &QueueSpec) -> Result<(), BusError> {
        spec.check()?;
        let mut queues = self.shared.queues();
        queues.entry(spec.name.clone()).or_insert_with(|| Queue::new(spec.clone())).spec =
            spec.clone();
        Ok(())
    }

    async fn publish(
        &self,
        queue: &str,
        message_id: &str,
        payload: Bytes,
    ) -> Result<Published, BusError> {
        check_token(message_id)?;
        check_size(&payload, MAX_PAYLOAD)?;
        self.shared.with(queue, |q| q.publish(Instant::now(), message_id, payload))?
    }

    async fn pull(&self, queue: &str, wait: Duration) -> Result<Option<Delivery>, BusError> {
        let find = |queues: &mut HashMap<String, Queue>| {
            let found = queues
                .get_mut(queue)
                .ok_or_else(|| BusError::NoQueue { queue: queue.to_owned() })?;
            let taken = found.take(Instant::now());
            Ok(taken.map_or_else(|| Found::NotBefore(found.next_timer()), Found::It))
        };
        Ok(self.shared.wait_for(wait, find).await?.map(|leased| self.hold(queue, leased)))
    }

    async fn dead_letters(&self, wait: Duration) -> Result<Option<DeadLetter>, BusError> {
        let find = |queues: &mut HashMap<String, Queue>| {
            for (name, queue) in queues.iter_mut() {
                if let Some(dead) = queue.take_dead(Instant::now()) {
                    return Ok(Found::It((name.clone(), dead)));
                }
            }
            Ok(Found::NotBefore(queues.values().filter_map(Queue::next_timer).min()))
        };
        let found = self.shared.wait_for(wait, find).await?;
        Ok(found.map(|(queue, dead)| DeadLetter {
            holder: Box::new(Held {
                shared: self.shared.clone(),
                queue: queue.clone(),
                at: dead.at,
            }),
            queue,
            message_id: dead.message_id,
            payload: dead.payload,
            deliveries: dead.at.delivery,
        }))
    }

    async fn withdraw(&self, queue: &str, message_id: &str) -> Result<bool, BusError> {
        self.shared.with(queue, |q| q.withdraw(message_id))
    }

    async fn depth(&self, queue: &str) -> Result<u64, BusError> {
        self.shared.with(queue, |q| q.len())
    }

    async fn queues(&self) -> Result<Vec<String>, BusError> {
        let mut names: Vec<String> = self.shared.queues().keys().cloned().collect();
        names.sort_unstable();
        Ok(names)
    }

    async fn remove(&self, queue: &str) -> Result<bool, BusError> {
        let removed = self.shared.queues().remove(queue).is_some();
        self.shared.changed.notify_waiters();
        Ok(removed)
    }

    async fn broadcast(&self, topic: &str, payload: Bytes) -> Result<(), BusError> {
        check_path(topic)?;
        check_size(&payload, MAX_PAYLOAD)?;
        self.shared.topics.tell(topic, payload);
        Ok(())
    }

    async fn listen(&self, topic: &str) -> Result<Listener, BusError> {
        check_path(topic)?;
        Ok(self.shared.topics.listen(topic))
    }

    async fn put(&self, key: &str, value: Bytes) -> Result<(), BusError> {
        check_path(key)?;
        check_size(&value, MAX_PAYLOAD)?;
        self.shared.keys.put(key, value);
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, BusError> {
        check_path(key)?;
        Ok(self.shared.keys.get(key).map(|(value, _)| value))
    }

    async fn get_revision(&self, key: &str) -> Result<Option<(Bytes, Revision)>, BusError> {
        check_path(key)?;
        Ok(self.shared.keys.get(key))
    }

    async fn swap(
        &self,
        key: &str,
        expected: Option<Revision>,
        value: Bytes,
    ) -> Result<Swapped, BusError> {
        check_path(key)?;
        check_size(&value, MAX_PAYLOAD)?;
        Ok(self.shared.keys.swap(key, expected, value))
    }

    async fn watch(&self, key: &str) -> Result<Listener, BusError> {
        check_path(key)?;
        Ok(self.shared.keys.watch(key))
    }

    fn is_connected(&self) -> bool {
        true
    }

    async fn ping(&self) -> Result<(), BusError> {
        Ok(())
    }
}

/// One delivery's end in this bus. A queue that was removed meanwhile has nothing left to settle.
struct Held {
    shared: Arc<Shared>,
    queue: String,
    at: queue::Place,
}

#[async_trait]
impl Holder for Held {
    async fn say(&self, verdict: Verdict) -> Result<(), BusError> {
        match self.shared.with(&self.queue, |q| q.settle(Instant::now(), self.at, verdict)) {
            Ok(()) | Err(BusError::NoQueue { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
