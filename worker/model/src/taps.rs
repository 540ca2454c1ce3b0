//! Where a probe reads, replaces or differentiates a value inside the forward pass.
//!
//! Sites bear TransformerLens's names where it has one (resid_pre, resid_mid, resid_post, q, k, v, pattern,
//! z).
//! A tap is called at every [`Site`] with the value there; what it returns takes the value's place.
//! Masks are taps ([`crate::cuts`]), statistics are taps, gradients come from taps that multiply by
//! a variable.

use crate::Result;
use candle_core::Tensor;

/// A linear map of a layer, by its checkpoint name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Projection {
    /// Query.
    Q,
    /// Key.
    K,
    /// Value.
    V,
    /// Attention output.
    O,
    /// MLP gate.
    Gate,
    /// MLP up.
    Up,
    /// MLP down.
    Down,
}

impl Projection {
    /// All of a dense layer, in forward order.
    pub const DENSE: [Projection; 7] =
        [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// The checkpoint's name of its weight in `layer`, without `.weight`.
    pub fn path(self, layer: usize) -> String {
        let within = match self {
            Self::Q => "self_attn.q_proj",
            Self::K => "self_attn.k_proj",
            Self::V => "self_attn.v_proj",
            Self::O => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        };
        format!("model.layers.{layer}.{within}")
    }
}

/// Which expert each token went to, and with what weight. A *slot* is one choice of one token:
/// token · top_k + choice.
#[derive(Debug, Clone)]
pub struct Routing {
    /// Expert ids, most wanted first, flat: token-major `[N × top_k]`, one per slot.
    pub chosen: Vec<u32>,
    /// Weights of the chosen experts, `[N, top_k]`.
    pub gates: Tensor,
    /// Experts per token.
    pub top_k: usize,
}

/// Where one expert works on its tokens.
#[derive(Debug, Clone, Copy)]
pub struct AtExpert<'a> {
    /// Layer, from 0.
    pub layer: usize,
    /// The expert.
    pub expert: u32,
    /// The slots that went to it: row i of the value is of token `slots[i] / top_k`.
    pub slots: &'a [u32],
    /// The whole choice of the layer.
    pub routing: &'a Routing,
}

/// A place in the forward pass. N counts the batch's tokens, S the tokens of one expert.
#[derive(Debug, Clone, Copy)]
pub enum Site<'a> {
    /// The residual stream entering a layer, `[N, hidden]`.
    ResidPre {
        /// Layer, from 0.
        layer: usize,
    },
    /// The residual stream between attention and MLP, `[N, hidden]`.
    ResidMid {
        /// Layer, from 0.
        layer: usize,
    },
    /// Output of the norm before attention, `[N, hidden]`.
    AttentionNorm {
        /// Layer, from 0.
        layer: usize,
    },
    /// Output of the norm before the MLP, `[N, hidden]`: what the router and every expert see.
    MlpNorm {
        /// Layer, from 0.
        layer: usize,
    },
    /// Queries as they enter the scores (normalised and rotated), `[N, heads, head_dim]`.
    Queries {
        /// Layer, from 0.
        layer: usize,
    },
    /// Keys as they enter the scores, `[N, kv_heads, head_dim]`.
    Keys {
        /// Layer, from 0.
        layer: usize,
    },
    /// Values, `[N, kv_heads, head_dim]`.
    Values {
        /// Layer, from 0.
        layer: usize,
    },
    /// Attention probabilities, `[heads, B, T, keys]`, the sink's share dropped. Only for taps that
    /// ask for it ([`Taps::wants_pattern`]).
    Pattern {
        /// Layer, from 0.
        layer: usize,
    },
    /// Outputs of the query heads before the output projection, `[N, heads, head_dim]`.
    Z {
        /// Layer, from 0.
        layer: usize,
    },
    /// What attention adds to the residual stream, `[N, hidden]`.
    AttentionOut {
        /// Layer, from 0.
        layer: usize,
    },
    /// Router logits, `[N, experts]`, before the choice.
    Router {
        /// Layer, from 0.
        layer: usize,
    },
    /// Input of one expert, `[S, hidden]`.
    ExpertIn(AtExpert<'a>),
    /// Hidden channels of one expert, `[S, inner]`.
    ExpertChannels(AtExpert<'a>),
    /// Output of one expert, not yet weighted, `[S, hidden]`.
    ExpertOut(AtExpert<'a>),
    /// Output of one expert for tokens that would come to it next, were one of theirs gone:
    /// `[R, hidden]`, not differentiated and part of nothing. Only for taps that ask for it
    /// ([`Taps::wants_next`]).
    NextOut {
        /// Layer, from 0.
        layer: usize,
        /// The expert.
        expert: u32,
        /// Row i of the value is of token `tokens[i]`.
        tokens: &'a [u32],
    },
    /// Hidden channels of a dense MLP, `[N, inner]`.
    Channels {
        /// Layer, from 0.
        layer: usize,
    },
    /// What the MLP adds to the residual stream, `[N, hidden]`.
    MlpOut {
        /// Layer, from 0.
        layer: usize,
    },
    /// The residual stream leaving a layer, `[N, hidden]`: what a dictionary of features reads.
    ResidPost {
        /// Layer, from 0.
        layer: usize,
    },
    /// Input rows of a linear map, `[N, in]`.
    LinearInput {
        /// Layer, from 0.
        layer: usize,
        /// Which map.
        projection: Projection,
    },
}

/// What layers carry back from their outputs to their inputs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backward {
    /// The derivative.
    #[default]
    Gradient,
    /// Coefficients of relevance, by the rules of [`crate::layers::relevance`].
    Relevance,
}

/// A tap on the forward pass.
pub trait Taps {
    /// Sees `value` at `site`; `Some` takes its place.
    ///
    /// # Errors
    /// Any; it ends the forward pass.
    fn at(&mut self, site: Site<'_>, value: &Tensor) -> Result<Option<Tensor>>;

    /// Whether [`Site::Pattern`] is of interest. Where it is not, attention probabilities are never
    /// laid out.
    fn wants_pattern(&self) -> bool {
        false
    }

    /// Whether [`Site::NextOut`] is of interest. Where it is not, no expert runs for tokens that did
    /// not choose it.
    fn wants_next(&self) -> bool {
        false
    }

    /// What layers carry back, where something is differentiated.
    fn backward(&self) -> Backward {
        Backward::Gradient
    }
}

/// No tap.
pub struct NoTaps;

impl Taps for NoTaps {
    fn at(&mut self, _: Site<'_>, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }
}

/// Two taps, the first one first.
impl<A: Taps + ?Sized, B: Taps + ?Sized> Taps for (&mut A, &mut B) {
    fn at(&mut self, site: Site<'_>, value: &Tensor) -> Result<Option<Tensor>> {
        match self.0.at(site, value)? {
            Some(first) => Ok(Some(self.1.at(site, &first)?.unwrap_or(first))),
            None => self.1.at(site, value),
        }
    }

    fn wants_pattern(&self) -> bool {
        self.0.wants_pattern() || self.1.wants_pattern()
    }

    fn wants_next(&self) -> bool {
        self.0.wants_next() || self.1.wants_next()
    }

    fn backward(&self) -> Backward {
        self.0.backward().max(self.1.backward())
    }
}

/// A tap that asks for attention probabilities too.
pub struct WithPattern<T>(pub T);

impl<T: Taps> Taps for WithPattern<T> {
    fn at(&mut self, site: Site<'_>, value: &Tensor) -> Result<Option<Tensor>> {
        self.0.at(site, value)
    }

    fn wants_pattern(&self) -> bool {
        true
    }

    fn wants_next(&self) -> bool {
        self.0.wants_next()
    }

    fn backward(&self) -> Backward {
        self.0.backward()
    }
}

/// A closure is a tap, of every site but attention probabilities: see [`WithPattern`].
impl<F> Taps for F
where
    F: FnMut(Site<'_>, &Tensor) -> Result<Option<Tensor>>,
{
    fn at(&mut self, site: Site<'_>, value: &Tensor) -> Result<Option<Tensor>> {
        self(site, value)
    }
}

/// The value after the tap.
pub(crate) fn tap(taps: &mut dyn Taps, site: Site<'_>, value: Tensor) -> Result<Tensor> {
    Ok(taps.at(site, &value)?.unwrap_or(value))
}
