//! States of long jobs, where another machine finds them: put into the store every so often while the
//! job is at work, fetched before it begins, and deleted when its answer is posted.

use crate::WorkerError;
use crate::agent::Agent;
use crate::compute::{Done, JobProgress};
use crate::error::JobError;
use crate::jobs::keeps_state;
use crate::product::Kept;
use std::time::SystemTime;
use tokio::sync::oneshot::Receiver;
use tokio::time::{sleep, timeout};
use uspx_domain::{FailureKind, Task, TaskId, limits};

/// A job at work, and the newest of its states that is in the store.
pub(crate) struct Sharing<'a> {
    agent: &'a Agent,
    task: TaskId,
    shared: Option<SystemTime>,
    progress: &'a JobProgress,
}

impl Agent {
    /// Where a task's state is kept, and the newest that anyone left there; none for work that keeps
    /// none.
    ///
    /// # Errors
    /// A store that cannot be asked just now: hours of work may lie there.
    pub(crate) async fn state(
        &self,
        task: &Task,
        progress: &JobProgress,
    ) -> Result<Option<Kept>, JobError> {
        if !keeps_state(&task.work) {
            return Ok(None);
        }
        let file = self.checkpoints.place(task.id);
        // What this worker left in the store is as old as its own, or older.
        let own = file.exists().then_some(&self.settings.id);
        let how = (&*file, own, limits::STATE);
        match self.store.get_state(task.id, how, &|_| progress.moved()).await {
            Ok(_) => {}
            Err(error) if error.is_retryable() => return Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, "what another machine may have left of a task is not used");
            }
        }
        Ok(Some(Kept { file, every: self.settings.keep_every }))
    }

    /// Waits for a job that keeps a state, which is shared meanwhile.
    pub(crate) async fn sharing(
        &self,
        task: TaskId,
        mut result: Receiver<Result<Done, JobError>>,
        progress: &JobProgress,
    ) -> Result<Result<Done, JobError>, WorkerError> {
        let mut sharing = Sharing { agent: self, task, shared: None, progress };
        let done = loop {
            tokio::select! {
                done = &mut result => break done.map_err(|_| WorkerError::ComputeGone)?,
                () = sleep(self.settings.keep_every) => sharing.share().await,
            }
        };
        match &done {
            Err(JobError::Stopped) => {
                // Where that takes too long, the one before will do.
                let _ = timeout(crate::answering::GOODBYE, sharing.share()).await;
            }
            // Perhaps it is the state's fault: the next one begins anew.
            Err(error) if error.kind() == FailureKind::Task => {
                self.checkpoints.done(task);
                self.unshare(task).await;
            }
            _ => {}
        }
        Ok(done)
    }

    /// Deletes what the store has of a task's state.
    pub(crate) async fn unshare(&self, task: TaskId) {
        if let Err(error) = self.store.drop_state(task).await {
            tracing::debug!(%task, %error, "a state stays in the store until it is collected");
        }
    }
}

impl Sharing<'_> {
    /// Puts the newest state into the store, unless it is there.
    async fn share(&mut self) {
        let file = self.agent.checkpoints.place(self.task);
        let Ok(written) = file.metadata().and_then(|about| about.modified()) else { return };
        if self.shared == Some(written) {
            return;
        }
        let (own, progress) = ((&self.agent.settings.id, &*file), self.progress);
        match self.agent.store.put_state(self.task, own, &|_| progress.moved()).await {
            Ok(()) => self.shared = Some(written),
            Err(error) => {
                tracing::warn!(task = %self.task, %error, "a state stays on this machine for now");
            }
        }
    }
}
