//! The campaign goes on under another configuration: what it has measured stays, what rests on
//! changed settings is forgotten and made anew.

use super::{Stage, State, Taken};
use crate::campaign::Stands;
use crate::{CampaignConfig, Decision, Ending, Purpose};
use std::collections::BTreeSet;

impl State {
    /// Puts `campaign` in the old one's place. Where the mask has to be drawn anew from the
    /// evidence there is, that is decided as at the close of an epoch.
    pub(super) fn amend(
        &mut self,
        campaign: &CampaignConfig,
        taken: Taken<'_>,
    ) -> Option<Decision> {
        let old = self.campaign.as_ref()?;
        let stands = Stands::between(old, campaign);
        let but_prompts = CampaignConfig { prompts: campaign.prompts.clone(), ..old.clone() };
        if but_prompts.without_sizes() != campaign.without_sizes() {
            // Who changes what is made wants it made.
            self.learnt = None;
        }
        self.ask_again();
        self.campaign = Some(campaign.clone());
        if stands.ending {
            return None;
        }
        if stands.beside && self.has_ended_well() {
            // It is over but for what is made beside it, and ends again as it did.
            self.ended_before = self.ending.take();
            self.opened.remove(&Stage::Sae);
            self.forget_saes(stands);
            return None;
        }
        self.forget_what_fell(stands);
        (!stands.mask && self.mask.is_some()).then(|| self.redraw(self.epoch, taken)).flatten()
    }

    fn has_ended_well(&self) -> bool {
        matches!(self.ending, Some(Ending::Measured | Ending::Published(_) | Ending::Refused(_)))
    }

    /// One that was trained and is wanted still is not trained again: the stage asks for the others.
    fn forget_saes(&mut self, stands: Stands) {
        let wanted = self.campaign.as_ref().map(|c| c.sae.layers.clone()).unwrap_or_default();
        self.results.saes.retain(|layer, _| stands.saes && wanted.contains(layer));
    }

    /// Prompts of tasks that were given up in the last epoch count as not asked for; late answers
    /// to these tasks are evidence or nothing.
    fn ask_again(&mut self) {
        let last = self.epoch;
        let lost = self.tickets.values().filter(|t| t.task.epoch == last && !t.is_answered());
        let lost: BTreeSet<u32> = lost.flat_map(|t| t.task.work.prompts()).copied().collect();
        if let Some(asked) = self.stage.and_then(|stage| self.asked.get_mut(&stage)) {
            asked.retain(|at| !lost.contains(at));
        }
        let is_evidence = |purpose: &Purpose| matches!(purpose, Purpose::Evidence);
        self.tickets.retain(|_, t| is_evidence(&t.task.purpose));
    }

    fn forget_what_fell(&mut self, stands: Stands) {
        let published = matches!(self.ending, Some(Ending::Published(_)));
        if !stands.stability {
            self.stable_versions = 0;
        }
        self.forget_saes(stands);
        let results = &mut self.results;
        if !stands.judged_masks {
            results.trials.clear();
        }
        if !stands.labels {
            results.forget_labels();
            self.asked.remove(&Stage::Label);
        }
        if !stands.adapters {
            results.forget_adapters();
        }
        if !stands.exports {
            results.exports.clear();
        }
        // A student that was published meanwhile is to be judged beside the next.
        let judged = stands.judged_students && !published;
        if !judged {
            results.judged.clear();
        }
        let standing = [
            (stands.judged_masks, Stage::JudgeMasks),
            (stands.adapters, Stage::Distil),
            (stands.exports, Stage::Export),
            (judged, Stage::JudgeStudents),
        ];
        self.opened.retain(|stage| standing.contains(&(true, *stage)));
        (self.ending, self.ended_before, self.gate, self.order) = (None, None, None, None);
    }
}
