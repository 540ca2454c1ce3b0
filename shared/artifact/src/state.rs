//! States of jobs under way: a blob each, and under `states/<task>` which one it is and whose. A job that
//! its worker left goes on from there on another machine.

use crate::error::ArtifactError;
use crate::keys;
use crate::progress::OnProgress;
use crate::store::Store;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::SystemTime;
use uspx_domain::{BlobRef, TaskId, WorkerId};

/// The most bytes that say which state a task has.
const MOST: u64 = 1 << 12;
/// How often a state is asked for anew that was replaced while it was fetched.
const TRIES: usize = 3;

/// Which state a task has, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskState {
    /// The state.
    pub blob: BlobRef,
    /// Who left it.
    pub worker: WorkerId,
}

impl TaskState {
    fn to_bytes(&self) -> Result<Vec<u8>, ArtifactError> {
        serde_json::to_vec(self)
            .map_err(|e| ArtifactError::io("write", Path::new(keys::STATES))(e.into()))
    }
}

impl Store {
    /// Makes a file the state of a task. The one before is then deleted.
    ///
    /// # Errors
    /// As [`Store::put_file`].
    pub async fn put_state(
        &self,
        task: TaskId,
        (worker, path): (&WorkerId, &Path),
        tell: OnProgress<'_>,
    ) -> Result<(), ArtifactError> {
        let before = self.state(task).await?;
        let state = TaskState { blob: self.put_file(path, tell).await?, worker: worker.clone() };
        let key = keys::state(task);
        self.put(&key, state.to_bytes()?.into()).await?;
        match before.filter(|before| before.blob != state.blob) {
            Some(before) => self.delete_blob(&before.blob).await,
            None => Ok(()),
        }
    }

    /// The state of a task; none where nobody left any, or what lies there makes no sense: its job then
    /// begins anew.
    ///
    /// # Errors
    /// The store's.
    pub async fn state(&self, task: TaskId) -> Result<Option<TaskState>, ArtifactError> {
        let key = keys::state(task);
        let found = match self.get(&key).await {
            Ok(found) => found,
            Err(ArtifactError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        if found.meta.size > MOST {
            tracing::warn!(%key, bytes = found.meta.size, "this is no state");
            return Ok(None);
        }
        let bytes = found.bytes().await.map_err(|e| self.failed(&key, e))?;
        let read = serde_json::from_slice(&bytes);
        Ok(read.inspect_err(|error| tracing::warn!(%key, %error, "this is no state")).ok())
    }

    /// Fetches the state of a task into a file, unless it is `own`: then the file is as new. Whether it
    /// did.
    ///
    /// # Errors
    /// As [`Store::get_file`].
    pub async fn get_state(
        &self,
        task: TaskId,
        (path, own, most): (&Path, Option<&WorkerId>, u64),
        tell: OnProgress<'_>,
    ) -> Result<bool, ArtifactError> {
        for _ in 0..TRIES {
            let Some(state) = self.state(task).await? else { return Ok(false) };
            if own == Some(&state.worker) {
                return Ok(false);
            }
            match self.get_file(&state.blob, path, most, tell).await {
                Ok(()) => return Ok(true),
                // Replaced meanwhile, or damaged.
                Err(ArtifactError::NotFound { .. } | ArtifactError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Deletes the state of a task, where it has one.
    ///
    /// # Errors
    /// The store's.
    pub async fn drop_state(&self, task: TaskId) -> Result<(), ArtifactError> {
        let Some(state) = self.state(task).await? else { return Ok(()) };
        self.delete_blob(&state.blob).await?;
        self.delete(&keys::state(task)).await
    }

    /// Deletes states that nobody wrote since `bound`: their tasks are long done, or given up.
    ///
    /// # Errors
    /// The store's.
    pub async fn drop_states_before(&self, bound: SystemTime) -> Result<(), ArtifactError> {
        for meta in self.listed(keys::STATES).await? {
            if let Some(task) = keys::task_of_state(&meta.location)
                && SystemTime::from(meta.last_modified) < bound
            {
                self.drop_state(task).await?;
            }
        }
        Ok(())
    }
}
