//! A colony that stays: what is over is told, and what a person adds is taken.

use super::Coordinator;
use crate::{ServiceError, errbench};
use uspx_colony::Ending;
use uspx_runtime::Shutdown;
use uspx_runtime::telemetry::TOLD;

impl Coordinator {
    /// The campaign is over: what it made is laid out, and its report written.
    pub(super) async fn conclude(&mut self, shutdown: &Shutdown) {
        self.lay_out_all(shutdown).await;
        self.report();
    }

    /// The same of a colony that stays.
    pub(super) async fn rest_on_it(&mut self, shutdown: &Shutdown) {
        self.conclude(shutdown).await;
        self.show().await;
        let state = self.settings.state.display();
        tracing::info!(
            target: TOLD,
            "the colony stays, for prompts to come: uspx errbench add FILE --state {state}"
        );
    }

    /// Takes prompts that were added: the campaign goes on with them.
    pub(super) async fn take_added(&mut self) -> Result<Option<Ending>, ServiceError> {
        let state = self.settings.state.clone();
        if !errbench::any_new(&state) {
            return Ok(None);
        }
        let added = match errbench::read(&state) {
            Ok(added) => added,
            Err(error) => {
                tracing::error!(%error, "prompts were added that cannot be read: they are put aside");
                errbench::put_aside(&state)?;
                return Ok(None);
            }
        };
        let before = self.book.entries().len();
        let campaign = self.colony.state().campaign();
        self.book = self.book.clone().with(added, self.settings.plan.seed, campaign)?;
        let new = self.book.entries().len() - before;
        tracing::info!(target: TOLD, "{new} prompts were added");
        let ended = if self.decided { self.bring_about().await? } else { None };
        // Not before the ledger has them: after a crash they are taken anew, which changes nothing.
        errbench::taken(&state)?;
        Ok(ended)
    }
}
