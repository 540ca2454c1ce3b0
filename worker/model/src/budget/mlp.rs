//! What the MLP of a layer demands of memory.

use crate::config::{Mlp, ModelConfig, Quantisation};

/// What the MLP of a layer asks for, in values unless it says bytes.
pub(super) struct MlpDemands {
    /// Bytes of the weights that are in memory at once when they are streamed.
    pub at_once: u64,
    /// The same in a backward pass, which keeps what it will multiply gradients by.
    pub at_once_backward: u64,
    /// Activations of a token.
    pub values: u64,
    /// What is kept of a token until its gradient has come through.
    pub kept: u64,
    /// All weights.
    pub all: u64,
    /// The widest input of a linear.
    pub widest: u64,
    /// Inputs and outputs of the linear maps that an adapter is trained for.
    pub sides: u64,
}

impl MlpDemands {
    /// A token's experts are run one after another, and an even spread of a batch over them is not
    /// to be counted on.
    pub fn new(config: &ModelConfig, mlp: &Mlp) -> Self {
        let hidden = config.hidden as u64;
        match mlp {
            Mlp::Dense { inner } => {
                let inner = *inner as u64;
                let (all, values) = (3 * hidden * inner, 4 * inner + hidden);
                let kept = 3 * hidden + 7 * inner;
                let at_once = 2 * all;
                let (widest, sides) = (inner, 3 * (hidden + inner));
                Self { at_once, at_once_backward: at_once, values, kept, all, widest, sides }
            }
            Mlp::Experts(m) => {
                let (experts, inner) = (m.experts as u64, m.inner as u64);
                let each = 3 * hidden * inner;
                let packed = config.quantisation == Quantisation::Mxfp4;
                let bytes = if packed { each * 17 / 32 } else { each * 2 };
                let busiest = (4 * m.top_k as u64).min(experts);
                let values = (4 * inner + 2 * hidden) * busiest / experts + 2 * experts;
                let all = experts * (each + hidden);
                // Whatever the spread, each token has its own.
                let kept = m.top_k as u64 * (7 * hidden + 5 * inner) + 2 * experts;
                let (at_once, at_once_backward) = (2 * bytes, experts * bytes);
                Self { at_once, at_once_backward, values, kept, all, widest: inner, sides: 0 }
            }
        }
    }
}
