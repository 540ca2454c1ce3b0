//! One owned thread per device does the work; a bounded channel feeds it. The network never waits
//! for mathematics.

use crate::WorkerError;
use crate::error::JobError;
use crate::jobs;
use crate::open_models::OpenModels;
use crate::product::{Inputs, Product};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot};
use uspx_domain::{Speed, Task};
use uspx_model::{ModelError, Progress, Watch};

/// How far a job is, seen from outside; and the wish that it end.
#[derive(Debug, Default)]
pub struct JobProgress {
    reports: AtomicU64,
    done: AtomicU64,
    total: AtomicU64,
    stop: AtomicBool,
    /// The model at work: a batch of a large one takes longer than a lease.
    watch: Mutex<Option<Watch>>,
}

impl JobProgress {
    /// A count that grows while the work moves: steps, bytes, layers of the model at work.
    pub fn reports(&self) -> u64 {
        let watch = self.watch();
        self.reports.load(Ordering::Relaxed) + watch.as_ref().map_or(0, Watch::beats)
    }

    fn watch(&self) -> MutexGuard<'_, Option<Watch>> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Steps done, and in all.
    pub fn steps(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    /// Bytes moved: the work goes on although no step is done.
    pub fn moved(&self) {
        self.reports.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks the job to end at its next report, or at the next layer.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.watch().iter().for_each(Watch::stop);
    }
}

impl Progress for JobProgress {
    fn report(&self, done: u64, total: u64) -> uspx_model::Result<()> {
        self.reports.fetch_add(1, Ordering::Relaxed);
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        if self.stop.load(Ordering::Relaxed) { Err(ModelError::Stopped) } else { Ok(()) }
    }

    fn follow(&self, watch: Watch) {
        let mut following = self.watch();
        // The end may have been asked for while no model was at work.
        if self.stop.load(Ordering::Relaxed) {
            watch.stop();
        }
        if let Some(before) = following.replace(watch) {
            self.reports.fetch_add(before.beats(), Ordering::Relaxed);
        }
    }
}

/// What a job brought, and how fast it was.
pub type Done = (Product, Option<Speed>);

/// A job on its way to the thread.
struct Order {
    task: Task,
    inputs: Inputs,
    progress: Arc<JobProgress>,
    done: oneshot::Sender<Result<Done, JobError>>,
}

/// The thread's other end. When it is dropped the thread ends after its job.
pub struct Compute {
    orders: mpsc::Sender<Order>,
}

impl Compute {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(mut models: OpenModels) -> Result<Self, WorkerError> {
        let (orders, mut inbox) = mpsc::channel::<Order>(1);
        let work = move || {
            while let Some(order) = inbox.blocking_recv() {
                let Order { task, inputs, progress, done } = order;
                let caught = catch_unwind(AssertUnwindSafe(|| {
                    jobs::run(&task, &mut models, &inputs, progress.as_ref())
                }));
                let result = caught.unwrap_or(Err(JobError::Panic));
                // Nobody waits for it any more: the agent has gone.
                let _ = done.send(result);
            }
        };
        std::thread::Builder::new()
            .name("compute".into())
            .spawn(work)
            .map_err(WorkerError::Thread)?;
        Ok(Self { orders })
    }

    /// Gives the thread a job; its result comes through the receiver.
    ///
    /// # Errors
    /// The thread has ended.
    pub async fn give(
        &self,
        task: Task,
        inputs: Inputs,
        progress: Arc<JobProgress>,
    ) -> Result<oneshot::Receiver<Result<Done, JobError>>, WorkerError> {
        let (done, result) = oneshot::channel();
        self.orders
            .send(Order { task, inputs, progress, done })
            .await
            .map_err(|_| WorkerError::ComputeGone)?;
        Ok(result)
    }
}
