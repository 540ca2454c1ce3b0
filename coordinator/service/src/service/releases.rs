//! Releases: published beside the service, which hears of their end.

use super::Coordinator;
use crate::ServiceError;
use crate::release::{Outcome, Publisher};
use crate::report::{self, Paths, Report};
use tokio::task::JoinError;
use uspx_colony::{Ending, Event, ReleaseOrder};
use uspx_domain::ReleaseNumber;

/// What became of publishing.
pub(super) struct Released {
    order: ReleaseOrder,
    outcome: Result<Outcome, ServiceError>,
}

impl Coordinator {
    /// Finishes what a publisher that died left in the store. Publishing does so itself, so this is
    /// for ledgers that have nothing to publish.
    pub(super) fn settle(&self) {
        if self.colony.state().order().is_some() {
            return;
        }
        let store = self.store.clone();
        tokio::spawn(async move {
            if let Err(error) = store.settle().await {
                tracing::warn!(%error, "the store's releases could not be looked at");
            }
        });
    }

    /// Publishing can take hours: it runs beside the service, which hears of its end. Dropped with
    /// the service, it goes on at the next start from what is in the store.
    pub(super) fn publish(&mut self, order: ReleaseOrder) {
        if !self.releases.is_empty() {
            return;
        }
        let Some(report) = self.found_so_far() else { return };
        let publisher = Publisher {
            store: self.store.clone(),
            colony: self.settings.colony.clone(),
            scratch: self.settings.state.join("scratch"),
            order,
            report,
        };
        self.releases.spawn(async move {
            let outcome = publisher.run().await;
            Released { order: publisher.order, outcome }
        });
    }

    fn found_so_far(&self) -> Option<Report> {
        let names = self.registry.names();
        Report::of((&self.settings.colony, &names), self.colony.state())
    }

    /// Writes the report of a campaign that is over, at each start anew, and once more under its
    /// last epoch's number, where the next campaign's does not take its place. That it cannot be
    /// written ends nothing.
    pub(super) fn report(&mut self) {
        let Some(report) = self.found_so_far() else { return };
        let state = &self.settings.state;
        let kept = state.join("reports").join(self.colony.state().epoch().to_string());
        let written = report::write(state, &report)
            .and_then(|paths| report::write(&kept, &report).map(|_| paths));
        match written {
            Ok(paths) => self.reported = Some(paths),
            Err(error) => tracing::warn!(%error, "the report cannot be written"),
        }
    }

    /// Where the report of the campaign that has ended lies, if it could be written.
    pub fn report_paths(&self) -> Option<&Paths> {
        self.reported.as_ref()
    }

    pub(super) async fn released(
        &mut self,
        released: Result<Released, JoinError>,
    ) -> Result<Option<Ending>, ServiceError> {
        // What a panic says is in the log already.
        let Released { order, outcome } = released.map_err(|_| ServiceError::Publishing)?;
        let release = order.release;
        match outcome {
            Ok(Outcome::Published) => {
                tracing::info!(release, "published");
                self.event(Event::ReleasePublished { release }).await
            }
            Ok(Outcome::Held { newest }) => {
                tracing::error!(release, newest, "{}", held(order.previous, newest));
                Ok(None)
            }
            Err(error) => {
                self.event(Event::ReleaseFailed { release, reason: error.to_string() }).await
            }
        }
    }
}

/// Why a student is held, and what to do.
fn held(judged_against: Option<ReleaseNumber>, newest: ReleaseNumber) -> String {
    let rival =
        judged_against.map_or_else(|| "the base alone".to_owned(), |n| format!("release {n}"));
    format!(
        "the student is held, not published: it was judged against {rival}, and release {newest} \
         stands in the store. Judge it against release {newest}: run the campaign in the state \
         folder whose ledger published that release"
    )
}
