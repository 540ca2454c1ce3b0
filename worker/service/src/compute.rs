//! One owned thread per device does the work; a bounded channel feeds it. The network never waits
//! for mathematics.

use crate::WorkerError;
use crate::error::JobError;
use crate::holdings::OpenModels;
use crate::jobs;
use crate::product::{Inputs, Product};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::{mpsc, oneshot};
use uspx_domain::Task;
use uspx_model::{ModelError, Progress};

/// How far a job is, seen from outside; and the wish that it end.
#[derive(Debug, Default)]
pub struct JobProgress {
    reports: AtomicU64,
    done: AtomicU64,
    total: AtomicU64,
    stop: AtomicBool,
}

impl JobProgress {
    /// A count that grows while the work moves.
    pub fn reports(&self) -> u64 {
        self.reports.load(Ordering::Relaxed)
    }

    /// Steps done, and in all.
    pub fn steps(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    /// Bytes moved: the work goes on although no step is done.
    pub fn moved(&self) {
        self.reports.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks the job to end at its next report.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Progress for JobProgress {
    fn report(&self, done: u64, total: u64) -> uspx_model::Result<()> {
        self.reports.fetch_add(1, Ordering::Relaxed);
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        if self.stop.load(Ordering::Relaxed) { Err(ModelError::Stopped) } else { Ok(()) }
    }
}

/// A job on its way to the thread.
struct Order {
    task: Task,
    inputs: Inputs,
    progress: Arc<JobProgress>,
    done: oneshot::Sender<Result<Product, JobError>>,
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
    pub fn start(mut models: OpenModels, batch_tokens: usize) -> Result<Self, WorkerError> {
        let (orders, mut inbox) = mpsc::channel::<Order>(1);
        let work = move || {
            while let Some(order) = inbox.blocking_recv() {
                let Order { task, inputs, progress, done } = order;
                let caught = catch_unwind(AssertUnwindSafe(|| {
                    jobs::run(&task, &mut models, &inputs, batch_tokens, progress.as_ref())
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
    ) -> Result<oneshot::Receiver<Result<Product, JobError>>, WorkerError> {
        let (done, result) = oneshot::channel();
        self.orders
            .send(Order { task, inputs, progress, done })
            .await
            .map_err(|_| WorkerError::ComputeGone)?;
        Ok(result)
    }
}
