//! RelP, relevance patching (Jafari et al. 2025, arXiv 2508.21258): attribution patching with the
//! coefficients of layer-wise relevance propagation where the gradient stood. A unit's effect is
//! (baseline − n)·c(n). Gradients are noisy where a layer bends or saturates; coefficients see it as
//! the linear map that it is at the prompt.
//!
//! What is propagated is the summed loss of the response, in nats: c is ∂L/∂logits at the head, and
//! from there goes back by the rules that stand in [`uspx_model::layers::relevance`] with their
//! sources. Of these the paper and its code (github.com/FarnoushRJ/RelP) have the LN-rule, the
//! identity rule, the half rule, the 0-rule and, by choice, the AH-rule. Three things are ours, for
//! the paper's models have neither experts nor clamps: a router's gates are given, as the AH-rule
//! has it for attention's probabilities; clamps of a gated unit are activations; and the factor
//! act(x)/x is written so that nothing is divided by 0, in place of the code's 1e-6.
//!
//! AttnLRP (Achtibat et al. 2024, arXiv 2402.05602) differs in attention: there the softmax and both
//! factors of its products carry relevance.

use super::atp::attribute;
use super::{Measure, ProbeRequest};
use crate::Result;
use uspx_domain::{Deposit, Estimator};
use uspx_model::Progress;
use uspx_model::taps::Backward;

/// Effects by relevance, signed and made positive per token, in nats summed over all positions of a
/// prompt.
pub(super) struct RelevancePatching;

impl Measure for RelevancePatching {
    fn estimator(&self) -> Estimator {
        Estimator::RELP
    }

    fn measure(&self, request: &ProbeRequest<'_>, progress: &dyn Progress) -> Result<Deposit> {
        attribute(request, (self.estimator(), Backward::Relevance), progress)
    }
}
