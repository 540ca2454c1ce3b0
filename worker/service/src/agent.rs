//! The agent: says that it lives, pulls the worker's own tasks, keeps their leases by progress, and
//! posts answers.

use crate::answering::PAUSE;
use crate::checkpoints::Checkpoints;
use crate::claim::{Name, Seat};
use crate::compute::{Compute, Done, JobProgress};
use crate::error::JobError;
use crate::heartbeat;
use crate::holdings::Holdings;
use crate::jobs::remembers;
use crate::lease::keep_lease;
use crate::open_models::OpenModels;
use crate::product::Inputs;
use crate::spool::Spool;
use crate::{WorkerError, WorkerSettings};
use candle_core::DType;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use uspx_artifact::Store;
use uspx_bus::{Bus, Delivery};
use uspx_domain::{SkipGroup, Speaks, Speed, Task, TaskId, limits};
use uspx_model::budget::Workload;
use uspx_runtime::Shutdown;
use uspx_runtime::folders::make_private;
use uspx_runtime::telemetry::TOLD;
use uspx_wire::subjects::task_queue;
use uspx_wire::{Content, HeartbeatMessage, MAX_BLOB, decode, unpack_task};

/// How long one pull waits: a shutdown is noticed between two.
const WAIT: Duration = Duration::from_millis(500);

/// A worker, ready to run.
pub struct Agent {
    pub(crate) settings: WorkerSettings,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) store: Store,
    pub(crate) spool: Spool,
    pub(crate) checkpoints: Checkpoints,
    /// Held while an answer is posted: what is tried again in the background waits for it.
    pub(crate) posting: tokio::sync::Mutex<()>,
    scratch: PathBuf,
    seat: Seat,
    compute: Compute,
    heartbeat: HeartbeatMessage,
    at_work: Arc<AtWork>,
}

/// What the heartbeat says of the work.
#[derive(Debug, Default)]
pub(crate) struct AtWork {
    current: Mutex<Option<(TaskId, Arc<JobProgress>)>>,
    speed: Mutex<Option<Speed>>,
    /// The kind of work that the person was told of.
    told: Mutex<Option<&'static str>>,
}

impl AtWork {
    /// The task at work now.
    pub fn current(&self) -> Option<(TaskId, Arc<JobProgress>)> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How fast the last one was done.
    pub fn speed(&self) -> Option<Speed> {
        self.speed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_current(&self, current: Option<(TaskId, Arc<JobProgress>)>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = current;
    }

    fn set_speed(&self, speed: Speed) {
        *self.speed.lock().unwrap_or_else(PoisonError::into_inner) = Some(speed);
    }
}

impl Agent {
    /// Looks at the models and starts the compute thread.
    ///
    /// # Errors
    /// A model folder or a state folder that cannot be used.
    pub fn new(
        settings: WorkerSettings,
        bus: Arc<dyn Bus>,
        store: Store,
    ) -> Result<Self, WorkerError> {
        let holdings = Holdings::scan(&settings.models)?;
        Self::holding(holdings, settings, bus, store)
    }

    /// The same where the models were looked at already: large ones take a while to hash.
    ///
    /// # Errors
    /// A state folder, or a machine, that cannot be used.
    pub fn holding(
        holdings: Holdings,
        mut settings: WorkerSettings,
        bus: Arc<dyn Bus>,
        store: Store,
    ) -> Result<Self, WorkerError> {
        settings.machine.dtype.get_or_insert(DType::F32);
        settings.machine.dtype(Workload::Forward)?;
        let budget = settings.machine.budget();
        settings.machine.memory = Some(budget);
        let heartbeat = HeartbeatMessage {
            worker: settings.id.clone(),
            uspx_version: env!("CARGO_PKG_VERSION").to_owned(),
            speaks: Speaks::here(),
            reads: HeartbeatMessage::read_here(),
            models: holdings.report(),
            threads: settings.threads,
            memory_bytes: budget,
            device: settings.device_name.clone(),
            current: None,
            beats: None,
            speed: None,
        };
        let Folders { seat, spool, checkpoints, scratch } = folders(&settings.state)?;
        let models = OpenModels::new(holdings, settings.machine.clone(), scratch.clone());
        Ok(Self {
            compute: Compute::start(models)?,
            settings,
            bus,
            store,
            spool,
            checkpoints,
            scratch,
            seat,
            heartbeat,
            posting: tokio::sync::Mutex::default(),
            at_work: Arc::default(),
        })
    }

    /// Tells a person of another kind of work than the last; tasks of one kind are many.
    fn tell(&self, work: &'static str) {
        let told = self.at_work.told.lock().unwrap_or_else(PoisonError::into_inner).replace(work);
        if told != Some(work) {
            tracing::info!(target: TOLD, "at work: {work}");
        }
    }

    /// What of its machine it uses, for people.
    pub fn means(&self) -> String {
        let HeartbeatMessage { device, threads, memory_bytes, models, .. } = &self.heartbeat;
        let gib = *memory_bytes as f64 / (1u64 << 30) as f64;
        format!("{} models, {device}, {threads} threads, {gib:.2} GiB of memory", models.len())
    }

    /// Works until the end is asked for. A task that is under way then goes back to the
    /// coordinator.
    ///
    /// # Errors
    /// [`WorkerError::Taken`] where another worker has the name; what cannot be waited out.
    pub async fn run(&self, shutdown: &Shutdown) -> Result<(), WorkerError> {
        let name = Name::new(self.bus.clone(), &self.settings, &self.seat);
        if !name.take(shutdown).await? {
            return Ok(());
        }
        let end = shutdown.child();
        let outcome = tokio::select! {
            outcome = self.serve(&end) => outcome,
            replaced = name.keep() => Err(replaced),
        };
        end.cancel();
        name.release().await;
        outcome
    }

    /// Says that it lives, and works.
    async fn serve(&self, shutdown: &Shutdown) -> Result<(), WorkerError> {
        let stop = shutdown.child();
        let heart = tokio::spawn(heartbeat::send(
            self.bus.clone(),
            self.heartbeat.clone(),
            self.at_work.clone(),
            self.settings.heartbeat_every,
            stop.clone(),
        ));
        let outcome = tokio::select! {
            outcome = self.pull_tasks(shutdown) => outcome,
            () = self.post_pending() => Ok(()),
        };
        stop.cancel();
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
        let progress = Arc::new(JobProgress::default());
        let read = self.read(delivery, &progress);
        let task = match keep_lease(read, delivery, &progress, shutdown).await {
            Ok(task) => task,
            Err(error) => return self.decline(&error, delivery).await,
        };
        let (id, start) = (task.id, Instant::now());
        if let Some(finished) = self.spool.get(id) {
            tracing::info!(task = %id, "this work is done already: its answer is posted again");
            let answered = self.answer_from_spool(id, finished, delivery, &progress);
            return keep_lease(answered, delivery, &progress, shutdown).await;
        }
        self.tell(task.work.name());
        tracing::info!(task = %id, work = task.work.name(), "at work");
        self.at_work.set_current(Some((id, progress.clone())));
        let done = self.compute(task, &progress);
        let done = keep_lease(done, delivery, &progress, shutdown).await;
        self.at_work.set_current(None);
        let (product, speed) = match done? {
            Err(JobError::Stopped) => return self.give_back(id, delivery).await,
            Err(error) => {
                tracing::warn!(task = %id, %error, "a task failed");
                return self.say(id, error.reason(), delivery).await;
            }
            Ok(done) => done,
        };
        if let Some(speed) = speed {
            self.at_work.set_speed(speed);
        }
        for group in SkipGroup::of(&product.skipped) {
            tracing::warn!(task = %id, "{group}");
        }
        let finished = self.finish(id, product, start.elapsed(), delivery, &progress);
        keep_lease(finished, delivery, &progress, shutdown).await
    }

    /// The task in a delivery.
    async fn read(&self, delivery: &Delivery, progress: &JobProgress) -> Result<Task, JobError> {
        match decode(&delivery.payload)? {
            Content::Inline(task) => Ok(task),
            Content::Stored(blob) => {
                let bytes =
                    self.store.get_blob(&blob, MAX_BLOB as u64, &|_| progress.moved()).await?;
                Ok(unpack_task(&blob, &bytes)?)
            }
        }
    }

    /// Fetches what the task names, and has the thread do it.
    async fn compute(
        &self,
        task: Task,
        progress: &Arc<JobProgress>,
    ) -> Result<Result<Done, JobError>, WorkerError> {
        let inputs = match self.fetch(&task, progress).await {
            Ok(inputs) => inputs,
            Err(error) => return Ok(Err(error)),
        };
        let (id, keeps_state) = (task.id, inputs.kept().is_some());
        let result = self.compute.give(task, inputs, progress.clone()).await?;
        match keeps_state {
            true => self.sharing(id, result, progress).await,
            false => result.await.map_err(|_| WorkerError::ComputeGone),
        }
    }

    async fn fetch(&self, task: &Task, progress: &JobProgress) -> Result<Inputs, JobError> {
        let memory = remembers(task).map(|name| self.checkpoints.place(name));
        let mut inputs = Inputs::new_in(&self.scratch)?.remembering(memory);
        if let Some(kept) = self.state(task, progress).await? {
            inputs = inputs.keeping(kept);
        }
        let most = limits::of_work(&task.work);
        for blob in task.work.blobs() {
            if let Some(path) = inputs.place(blob) {
                self.store.get_file(&blob, &path, most, &|_| progress.moved()).await?;
            }
        }
        Ok(inputs)
    }
}

/// What lies in the state folder, which is held.
struct Folders {
    seat: Seat,
    spool: Spool,
    checkpoints: Checkpoints,
    scratch: PathBuf,
}

/// Opens what lies in the state folder. Scratch of a run before is cleared.
fn folders(state: &Path) -> Result<Folders, WorkerError> {
    let unusable = |source| WorkerError::State { folder: state.to_owned(), source };
    make_private(state).map_err(unusable)?;
    let seat = Seat::take(state)?;
    let scratch = state.join("scratch");
    if scratch.exists() {
        std::fs::remove_dir_all(&scratch).map_err(unusable)?;
    }
    make_private(&scratch).map_err(unusable)?;
    let spool = Spool::open(state.join("spool")).map_err(unusable)?;
    let checkpoints = Checkpoints::open(state.join("checkpoints")).map_err(unusable)?;
    Ok(Folders { seat, spool, checkpoints, scratch })
}
