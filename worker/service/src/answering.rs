//! Answers on their way: finished work goes to the spool first, then its blobs to the store, then
//! the answer to the broker, and only then is the task acknowledged (invariant 3). What cannot be
//! posted just now stays in the spool and is tried again.

use crate::WorkerError;
use crate::agent::Agent;
use crate::compute::JobProgress;
use crate::error::JobError;
use crate::product::Product;
use crate::spool::Finished;
use std::time::Duration;
use uspx_bus::{Delivery, Lease};
use uspx_domain::{Answer, FailureReason, Outcome, TaskId};
use uspx_wire::subjects::{RESULTS, answer_message_id, parse_task_message_id};
use uspx_wire::{Packed, WireError, pack_answer};

/// The pause after trouble that may pass.
pub(crate) const PAUSE: Duration = Duration::from_millis(500);
/// How often what waits in the spool is tried.
const AGAIN: Duration = Duration::from_secs(2);
/// How long a worker that was told to end takes to say so.
pub(crate) const GOODBYE: Duration = Duration::from_secs(2);

impl Agent {
    /// Keeps finished work, and posts it.
    pub(crate) async fn finish(
        &self,
        task: TaskId,
        product: Product,
        took: Duration,
        delivery: &Delivery,
        progress: &JobProgress,
    ) -> Result<(), WorkerError> {
        let Product { outcome, mut blobs, skipped, seams, scratch, ran: _ } = product;
        let answer = Answer { skipped, seams, ..self.answer(task, outcome, took) };
        let Packed { message, blob } = match pack_answer(answer) {
            Ok(packed) => packed,
            Err(WireError::TooLarge { .. }) => {
                return self.say(task, FailureReason::TooLarge, delivery).await;
            }
            Err(error) => return Err(error.into()),
        };
        blobs.extend(blob.map(|(_, content)| crate::product::Blob::Bytes(content)));
        let id = answer_message_id(&delivery.message_id, &self.settings.id);
        let small = blobs.is_empty();
        let kept = self.spool.keep(task, &id, &message, blobs);
        drop(scratch);
        let had_state = kept.is_ok() && self.checkpoints.done(task);
        match kept {
            Ok(()) => {
                if let Some(finished) = self.spool.get(task) {
                    self.answer_from_spool(task, finished, delivery, progress).await?;
                }
                if had_state && self.spool.get(task).is_none_or(|finished| finished.posted) {
                    self.unshare(task).await;
                }
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%task, %error, "finished work cannot be kept on this disk");
                match small {
                    true => self.publish_and_ack(&id, message, delivery).await,
                    false => self.say(task, FailureReason::Scratch, delivery).await,
                }
            }
        }
    }

    /// Posts what the spool has on the delivered task. Where it cannot be posted just now the
    /// delivery is left to its lease: it comes again, and is answered from the spool.
    pub(crate) async fn answer_from_spool(
        &self,
        task: TaskId,
        finished: Finished,
        delivery: &Delivery,
        progress: &JobProgress,
    ) -> Result<(), WorkerError> {
        // Issued anew, it is answered anew: what was posted before has not arrived.
        let id = answer_message_id(&delivery.message_id, &self.settings.id);
        let again = finished.posted && finished.message_id != id;
        if !finished.posted || again {
            let finished = Finished { message_id: id, ..finished };
            if let Err(error) = self.post_finished(task, &finished, progress).await {
                tracing::warn!(%task, %error, "an answer cannot be posted just now: it is kept");
                return Ok(());
            }
        }
        self.acknowledge(delivery).await;
        Ok(())
    }

    /// Tries what waits in the spool again, for as long as it is polled.
    pub(crate) async fn post_pending(&self) {
        loop {
            tokio::time::sleep(AGAIN).await;
            for task in self.spool.pending() {
                let Some(finished) = self.spool.get(task).filter(|f| !f.posted) else { continue };
                let posted = self.post_finished(task, &finished, &JobProgress::default()).await;
                if let Err(error) = posted {
                    tracing::debug!(%task, %error, "an answer still cannot be posted");
                    break;
                }
                tracing::info!(%task, "a kept answer is posted");
            }
        }
    }

    async fn post_finished(
        &self,
        task: TaskId,
        finished: &Finished,
        progress: &JobProgress,
    ) -> Result<(), JobError> {
        let _one_at_a_time = self.posting.lock().await;
        for path in &finished.blobs {
            self.store.put_file(path, &|_| progress.moved()).await?;
        }
        let published =
            self.bus.publish(RESULTS, &finished.message_id, finished.message.clone()).await;
        published.map_err(JobError::Bus)?;
        if let Err(error) = self.spool.posted(task) {
            tracing::debug!(%task, %error, "a posted answer will be posted again");
        }
        Ok(())
    }

    /// Says at once why a task is not done here, so that it goes to another worker. Which task it
    /// is stands in the message's id, whatever the message holds.
    pub(crate) async fn decline(
        &self,
        why: &JobError,
        delivery: &Delivery,
    ) -> Result<(), WorkerError> {
        tracing::warn!(message = delivery.message_id, %why, "a task is declined");
        match parse_task_message_id(&delivery.message_id) {
            Some((task, _)) => self.say(task, why.reason(), delivery).await,
            None => {
                if let Err(error) = delivery.term(&why.to_string()).await {
                    tracing::warn!(%error, "a message that nobody can read will come again");
                }
                Ok(())
            }
        }
    }

    /// Gives a task back: that costs it no attempt. Where the broker cannot be told in time, the
    /// lease runs out instead.
    pub(crate) async fn give_back(
        &self,
        task: TaskId,
        delivery: &Delivery,
    ) -> Result<(), WorkerError> {
        tracing::info!(%task, "a task goes back");
        let said = self.say(task, FailureReason::Stopped, delivery);
        match tokio::time::timeout(GOODBYE, said).await {
            Ok(said) => said,
            Err(_) => Ok(()),
        }
    }

    /// Answers that a task came to nothing here.
    pub(crate) async fn say(
        &self,
        task: TaskId,
        reason: FailureReason,
        delivery: &Delivery,
    ) -> Result<(), WorkerError> {
        let answer = self.answer(task, Outcome::Failed(reason.into()), Duration::ZERO);
        let packed = pack_answer(answer)?;
        let id = answer_message_id(&delivery.message_id, &self.settings.id);
        self.publish_and_ack(&id, packed.message, delivery).await
    }

    /// An answer of this worker about all of a task's prompts.
    fn answer(&self, task: TaskId, outcome: Outcome, took: Duration) -> Answer {
        let (worker, millis) = (self.settings.id.clone(), took.as_millis() as u64);
        Answer { task, worker, outcome, millis, skipped: Vec::new(), seams: 0 }
    }

    async fn publish_and_ack(
        &self,
        id: &str,
        message: bytes::Bytes,
        delivery: &Delivery,
    ) -> Result<(), WorkerError> {
        match self.bus.publish(RESULTS, id, message).await {
            Ok(_) => {
                self.acknowledge(delivery).await;
                Ok(())
            }
            Err(error) if error.is_retryable() => {
                tracing::warn!(%error, "an answer cannot be posted just now: its task goes back");
                match delivery.nak(PAUSE).await {
                    Ok(Lease::Held | Lease::Lost) => Ok(()),
                    Err(error) if error.is_retryable() => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn acknowledge(&self, delivery: &Delivery) {
        if let Err(error) = delivery.ack().await {
            let message = &delivery.message_id;
            tracing::warn!(message, %error, "a task will come again although it is answered");
        }
    }
}
