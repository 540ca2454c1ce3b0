//! What is for people: the mask and the status, in the state folder and on the bus.

use super::Coordinator;
use crate::ServiceError;
use crate::status::{self, CampaignProgress, stages, write_file, write_passing};
use crate::warnings;
use bytes::Bytes;
use std::time::Duration;
use uspx_colony::MaskVersion;
use uspx_runtime::telemetry::TOLD;
use uspx_wire::subjects::{MASK, STATUS};
use uspx_wire::{MaskMessage, encode};

/// How long sharing status or mask may take.
const TELL_WITHIN: Duration = Duration::from_secs(2);

impl Coordinator {
    /// Says what is waited for.
    pub(super) fn greet(&self) {
        let (colony, state) = (&self.settings.colony, self.colony.state());
        match (state.campaign(), state.stage()) {
            (None, _) => tracing::info!(
                target: TOLD,
                "colony {colony} waits for workers: its campaign begins when they hold teacher and student"
            ),
            (Some(campaign), Some(stage)) if state.ending().is_none() => tracing::info!(
                target: TOLD,
                "colony {colony} goes on with campaign {} at {}; it waits for workers",
                campaign.name,
                stages::told(stage, campaign)
            ),
            _ => {}
        }
        warnings::waits(state);
    }

    /// Writes the mask beside the ledger and shares it.
    pub(super) async fn share_mask(&mut self, mask: &MaskVersion) {
        self.pace.drawn(mask);
        if let Err(error) = self.try_share_mask(mask).await {
            tracing::warn!(%error, "the mask could not be shown; it stands in the ledger");
        }
    }

    async fn try_share_mask(&self, mask: &MaskVersion) -> Result<(), ServiceError> {
        let Some(figures) = status::mask_status(self.colony.state()) else { return Ok(()) };
        tracing::info!(version = mask.version, stability = figures.stability, "a new mask");
        let path = self.settings.state.join("mask.json");
        let text = serde_json::to_vec_pretty(&mask.mask)
            .map_err(|e| ServiceError::file(&path)(e.into()))?;
        write_file(&path, &text)?;
        let message = encode(&MaskMessage { status: figures, mask: mask.mask.clone() })?;
        self.tell(MASK, message).await;
        Ok(())
    }

    /// Writes the status where `uspx status` looks for it. What is only shown ends nothing.
    pub(super) async fn show(&mut self) {
        let progress = status::progress(self.colony.state(), &self.registry);
        if let Some(drift) = self.pace.weigh(self.colony.state()) {
            tracing::info!(target: TOLD, "{drift}");
        }
        self.pace.look(self.colony.state(), &progress);
        let shown = self.try_show(progress).await;
        if let (Err(error), true) = (&shown, self.shown) {
            tracing::warn!(%error, "the status cannot be written just now");
        }
        self.shown = shown.is_ok();
    }

    async fn try_show(&self, progress: CampaignProgress) -> Result<(), ServiceError> {
        let message =
            status::message(&self.settings.colony, &self.colony, &self.registry, &self.pace);
        let path = self.settings.state.join("status.json");
        write_passing(
            &path,
            &serde_json::to_vec_pretty(&message)
                .map_err(|e| ServiceError::file(&path)(e.into()))?,
        )?;
        self.tell(STATUS, encode(&message)?).await;
        self.progress.send_replace(progress);
        Ok(())
    }

    /// Shares what is for people only: trouble with the bus must hold nothing up.
    async fn tell(&self, key: &str, value: Bytes) {
        if !self.bus.is_connected() {
            return;
        }
        match tokio::time::timeout(TELL_WITHIN, self.bus.put(key, value)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, key, "not shared; the next one will be"),
            Err(_) => tracing::warn!(key, "not shared in time; the next one will be"),
        }
    }
}
