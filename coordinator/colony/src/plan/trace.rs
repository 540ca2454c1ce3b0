//! Proposes one trace of every train prompt.

use super::{Offer, Piece, Proposer, View, batches};
use crate::Split;
use crate::state::Stage;
use uspx_domain::Estimator;

pub(super) struct Trace;

impl Proposer for Trace {
    fn stage(&self) -> Stage {
        Stage::Trace
    }

    fn offer(&self, view: &View<'_>) -> Offer {
        let prompts = view.unasked(Stage::Trace, view.campaign.split(Split::Train));
        let trace = |prompts| view.estimate(Estimator::TRACE, prompts);
        let batches = batches(&prompts, view.trace_batch(prompts.len()));
        batches.into_iter().map(trace).collect::<Vec<Piece>>().into()
    }
}
