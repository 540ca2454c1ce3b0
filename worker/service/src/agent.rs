//! The agent: says that it lives, pulls the worker's own tasks, keeps their leases by progress, and
//! posts answers.

use crate::compute::{Compute, JobProgress};
use crate::error::JobError;
use crate::holdings::{Holdings, OpenModels};
use crate::product::{Inputs, Product};
use crate::{WorkerError, WorkerSettings};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use uspx_artifact::{Store, silent};
use uspx_bus::{Bus, BusError, Delivery, Lease};
use uspx_domain::{Answer, SkipGroup, Speaks, Task, TaskId, limits};
use uspx_runtime::{Shutdown, memory};
use uspx_wire::subjects::{
    HEARTBEAT, RESULTS, answer_message_id, parse_task_message_id, task_queue,
};
use uspx_wire::{
    Content, CurrentTask, HeartbeatMessage, MAX_BLOB, decode, encode, pack_answer, unpack_task,
};

/// How long one pull waits: a shutdown is noticed between two.
const WAIT: Duration = Duration::from_millis(500);
/// The pause after trouble that may pass.
const PAUSE: Duration = Duration::from_millis(500);

/// A worker, ready to run.
pub struct Agent {
    settings: WorkerSettings,
    bus: Arc<dyn Bus>,
    store: Store,
    compute: Compute,
    heartbeat: HeartbeatMessage,
    current: Current,
}

/// What is at work now.
type Current = Arc<Mutex<Option<(TaskId, Arc<JobProgress>)>>>;

impl Agent {
    /// Looks at the models and starts the compute thread.
    ///
    /// # Errors
    /// A model folder that cannot be used.
    pub fn new(
        settings: WorkerSettings,
        bus: Arc<dyn Bus>,
        store: Store,
    ) -> Result<Self, WorkerError> {
        let holdings = Holdings::scan(&settings.models)?;
        let heartbeat = HeartbeatMessage {
            worker: settings.id.clone(),
            uspx_version: env!("CARGO_PKG_VERSION").to_owned(),
            speaks: Speaks::here(),
            reads: HeartbeatMessage::read_here(),
            models: holdings.report(),
            threads: settings.threads,
            memory_bytes: memory::of_machine().1,
            device: settings.device_name.clone(),
            current: None,
        };
        let compute = Compute::start(
            OpenModels::new(holdings, settings.device.clone()),
            settings.batch_tokens,
        )?;
        Ok(Self { settings, bus, store, compute, heartbeat, current: Current::default() })
    }

    /// Works until the end is asked for. A task that is under way then goes back into the queue.
    ///
    /// # Errors
    /// What cannot be waited out.
    pub async fn run(&self, shutdown: &Shutdown) -> Result<(), WorkerError> {
        let heartbeats = shutdown.child();
        let heart = tokio::spawn(send_heartbeats(
            self.bus.clone(),
            self.heartbeat.clone(),
            self.current.clone(),
            self.settings.heartbeat_every,
            heartbeats.clone(),
        ));
        let outcome = self.pull_tasks(shutdown).await;
        heartbeats.cancel();
        if let Err(error) = heart.await {
            tracing::warn!(%error, "the heartbeats ended badly");
        }
        outcome
    }

    async fn pull_tasks(&self, shutdown: &Shutdown) -> Result<(), WorkerError> {
        let queue = task_queue(&self.settings.id);
        while !shutdown.is_cancelled() {
            match self.bus.pull(&queue, WAIT).await {
                Ok(None) => {}
                Ok(Some(delivery)) => self.work(&delivery, shutdown).await?,
                // The coordinator makes the queue when it first hears of this worker.
                Err(error) if error.is_retryable() => {
                    tracing::debug!(%error, "no tasks just now");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn work(&self, delivery: &Delivery, shutdown: &Shutdown) -> Result<(), WorkerError> {
        let task = match self.read(delivery).await {
            Ok(task) => task,
            Err(error @ JobError::NotSpoken(_)) => return self.decline(&error, delivery).await,
            Err(error) if error.is_retryable() => return self.give_back(delivery, &error).await,
            Err(error) => return Ok(delivery.term(&error.to_string()).await?),
        };
        let start = Instant::now();
        let id = task.id;
        tracing::info!(task = %id, work = task.work.name(), "at work");
        let result = self.compute(task, delivery, shutdown).await?;
        let product = match result {
            Err(JobError::Stopped) => return self.give_back(delivery, &JobError::Stopped).await,
            Err(error) => {
                tracing::warn!(task = %id, %error, "a task failed");
                Product::from(&error)
            }
            Ok(product) => product,
        };
        for group in SkipGroup::of(&product.skipped) {
            tracing::warn!(task = %id, "{group}");
        }
        self.post(id, product, start.elapsed(), delivery).await
    }

    /// The task in a delivery.
    async fn read(&self, delivery: &Delivery) -> Result<Task, JobError> {
        match decode(&delivery.payload)? {
            Content::Inline(task) => Ok(task),
            Content::Stored(blob) => {
                let bytes = self.store.get_blob(&blob, MAX_BLOB as u64, &silent).await?;
                Ok(unpack_task(&blob, &bytes)?)
            }
        }
    }

    /// Says at once that a task is of a newer uspx, so that it goes to another worker. Which task
    /// it is stands in the message's id, whatever the message holds.
    async fn decline(&self, why: &JobError, delivery: &Delivery) -> Result<(), WorkerError> {
        tracing::warn!(message = delivery.message_id, %why, "a task is declined");
        match parse_task_message_id(&delivery.message_id) {
            Some((task, _)) => self.post(task, Product::from(why), Duration::ZERO, delivery).await,
            None => Ok(delivery.term(&why.to_string()).await?),
        }
    }

    async fn give_back(&self, delivery: &Delivery, why: &JobError) -> Result<(), WorkerError> {
        tracing::info!(message = delivery.message_id, %why, "a task goes back");
        match delivery.nak(PAUSE).await {
            Ok(Lease::Held | Lease::Lost) => Ok(()),
            Err(error) if error.is_retryable() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Has the thread do it, and tells the bus of progress meanwhile.
    async fn compute(
        &self,
        task: Task,
        delivery: &Delivery,
        shutdown: &Shutdown,
    ) -> Result<Result<Product, JobError>, WorkerError> {
        let inputs = match self.fetch(&task).await {
            Ok(inputs) => inputs,
            Err(error) => return Ok(Err(error)),
        };
        let progress = Arc::new(JobProgress::default());
        self.set_current(Some((task.id, progress.clone())));
        let result = self.compute.give(task, inputs, progress.clone()).await?;
        let outcome = keep_lease(result, delivery, &progress, shutdown).await;
        self.set_current(None);
        outcome
    }

    async fn fetch(&self, task: &Task) -> Result<Inputs, JobError> {
        let mut inputs = Inputs::default();
        let most = limits::of_work(&task.work);
        for blob in task.work.blobs() {
            if let std::collections::hash_map::Entry::Vacant(place) = inputs.0.entry(blob) {
                place.insert(self.store.get_blob(&blob, most, &silent).await?);
            }
        }
        Ok(inputs)
    }

    /// Blobs first, then the answer; the task is acknowledged when both are durable (invariant 3).
    async fn post(
        &self,
        task: TaskId,
        product: Product,
        took: Duration,
        delivery: &Delivery,
    ) -> Result<(), WorkerError> {
        let worker = self.settings.id.clone();
        let Product { outcome, blobs, skipped, seams } = product;
        let millis = took.as_millis() as u64;
        let answer = Answer { task, worker: worker.clone(), outcome, millis, skipped, seams };
        let packed = pack_answer(answer)?;
        for content in blobs.into_iter().chain(packed.blob.map(|(_, content)| content)) {
            if let Err(error) = self.store.put_blob(content, &silent).await {
                tracing::warn!(%task, %error, "an answer's blob cannot be stored");
                return self.give_back(delivery, &error.into()).await;
            }
        }
        let id = answer_message_id(&delivery.message_id, &worker);
        match self.bus.publish(RESULTS, &id, packed.message).await {
            Ok(_) => {}
            Err(error) if error.is_retryable() || matches!(error, BusError::Full { .. }) => {
                tracing::warn!(%task, %error, "an answer cannot be posted just now");
                return self.give_back(delivery, &JobError::Task(error.to_string())).await;
            }
            Err(error) => return Err(error.into()),
        }
        if let Err(error) = delivery.ack().await {
            tracing::warn!(%task, %error, "a task will come again although it is answered");
        }
        Ok(())
    }

    fn set_current(&self, current: Option<(TaskId, Arc<JobProgress>)>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = current;
    }
}

/// Waits for the result. The lease is prolonged only when the work has moved since the last time
/// (invariant 4).
async fn keep_lease(
    mut result: oneshot::Receiver<Result<Product, JobError>>,
    delivery: &Delivery,
    progress: &JobProgress,
    shutdown: &Shutdown,
) -> Result<Result<Product, JobError>, WorkerError> {
    let mut clock = tokio::time::interval(delivery.lease() / 4);
    let mut told = progress.reports();
    let mut cancelled = false;
    loop {
        tokio::select! {
            done = &mut result => return done.map_err(|_| WorkerError::ComputeGone),
            () = shutdown.cancelled(), if !cancelled => {
                cancelled = true;
                progress.stop();
            }
            _ = clock.tick() => {
                let reports = progress.reports();
                if reports > told {
                    told = reports;
                    match delivery.progress().await {
                        Ok(Lease::Held) => {}
                        Ok(Lease::Lost) => tracing::warn!(message = delivery.message_id, "the lease ran out; going on"),
                        Err(error) => tracing::debug!(%error, "progress was not told"),
                    }
                }
            }
        }
    }
}

async fn send_heartbeats(
    bus: Arc<dyn Bus>,
    heartbeat: HeartbeatMessage,
    current: Current,
    every: Duration,
    stop: Shutdown,
) {
    let mut clock = tokio::time::interval(every);
    loop {
        tokio::select! { _ = clock.tick() => {}, () = stop.cancelled() => return }
        let at_work = current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let current = at_work.map(|(task, progress)| {
            let (done, total) = progress.steps();
            CurrentTask { task, done, total }
        });
        match encode(&HeartbeatMessage { current, ..heartbeat.clone() }) {
            Ok(message) => {
                if let Err(error) = bus.broadcast(HEARTBEAT, message).await {
                    tracing::debug!(%error, "a heartbeat was not sent");
                }
            }
            Err(error) => tracing::error!(%error, "a heartbeat cannot be encoded"),
        }
    }
}
