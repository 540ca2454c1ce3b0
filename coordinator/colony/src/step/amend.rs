//! Another configuration is wanted: the campaign goes on under it as soon as its open batch is
//! closed, or gives way to another campaign at once.

use super::{Colony, Command, Step, Turn};
use crate::campaign::{Change, change};
use crate::{Amendment, CampaignConfig, ConfigError, Founding, RULES, Record};
use std::collections::BTreeSet;
use uspx_domain::TaskId;

/// Why a task was given up that cannot be sent any more.
const RETIRED: &str = "one of its prompts was taken out or edited";

/// A configuration that is wanted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    campaign: CampaignConfig,
    /// Names the campaign, where it is another one.
    nonce: [u8; 16],
}

/// What becomes of a configuration that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amending {
    /// The campaign runs, or has ended, under it already.
    Same,
    /// The campaign goes on under it, now or when its open batch is closed.
    GoesOn,
    /// Another campaign begins with it.
    Anew,
}

impl Colony {
    /// Sees to it that the campaign is run under `campaign`: founds it, amends the one there is, or
    /// leaves all as it is. The nonce is drawn by the caller, once.
    ///
    /// # Errors
    /// The configuration cannot work.
    pub fn want(
        &mut self,
        campaign: CampaignConfig,
        nonce: [u8; 16],
    ) -> Result<(Amending, Step), ConfigError> {
        campaign.check()?;
        let changed = self.state.campaign.as_ref().map(|old| change(old, &campaign));
        let amending = match changed {
            Some(Change::Nothing) => return Ok((Amending::Same, Step::default())),
            Some(Change::Amend(_)) => Amending::GoesOn,
            Some(Change::Anew) | None => Amending::Anew,
        };
        self.wanted = Some(Wanted { campaign, nonce });
        let mut turn = Turn::new(self);
        turn.give_up_retired();
        turn.advance();
        Ok((amending, turn.step))
    }
}

impl Turn<'_> {
    /// Goes on under the wanted configuration, where nothing speaks against it now.
    pub(super) fn amend_if_due(&mut self) {
        let Some(wanted) = self.colony.wanted.take() else { return };
        let changed = self.state().campaign.as_ref().map(|old| change(old, &wanted.campaign));
        match changed {
            Some(Change::Nothing) => {}
            Some(Change::Amend(_)) if self.is_busy() => self.colony.wanted = Some(wanted),
            Some(Change::Amend(campaign)) => {
                let decision = self.colony.state.decide_under(&campaign).map(Box::new);
                self.colony.look_anew();
                if decision.is_some() {
                    self.show_mask();
                }
                let amendment = Amendment { campaign: *campaign, decision };
                self.step.records.push(Record::Amended(Box::new(amendment)));
            }
            // What is out of the campaign before is answered for nothing.
            Some(Change::Anew) | None => {
                let Wanted { campaign, nonce } = wanted;
                let founding = Founding { nonce, rules: RULES, campaign };
                self.record(Record::Founded(Box::new(founding)));
            }
        }
    }

    /// Whether a batch is open, or a release on its way.
    fn is_busy(&self) -> bool {
        let state = self.state();
        state.open || state.publishing().is_some()
    }

    fn show_mask(&mut self) {
        let mask = self.state().mask.clone().map(|mask| Command::PublishMask(Box::new(mask)));
        self.step.commands.extend(mask);
    }

    /// The text of these tasks' prompts cannot be had any more.
    fn give_up_retired(&mut self) {
        let Some(wanted) = &self.colony.wanted else { return };
        let live: BTreeSet<_> = wanted.campaign.live().map(|(_, p)| (&p.id, p.digest)).collect();
        let Some(campaign) = &self.state().campaign else { return };
        let gone = |at: &u32| {
            let entry = campaign.prompts.get(*at as usize);
            entry.is_some_and(|p| !live.contains(&(&p.id, p.digest)))
        };
        let waits = self.state().tickets.values().filter(|t| !t.is_settled());
        let lost = waits.filter(|t| t.task.work.prompts().iter().any(gone)).map(|t| t.task.id);
        for task in lost.collect::<Vec<TaskId>>() {
            self.withdraw(task);
            self.record(Record::GivenUp { task, reason: RETIRED.to_owned() });
        }
    }

    fn withdraw(&mut self, task: TaskId) {
        let ticket = self.state().tickets.get(&task);
        let out = ticket.into_iter().flat_map(|t| t.out()).map(|a| a.worker.clone());
        let commands = out.map(|worker| Command::Withdraw { task, worker }).collect::<Vec<_>>();
        self.step.commands.extend(commands);
    }
}
