//! What the clean run of a batch leaves of a layer for the branches that begin or go on in it.

use crate::Result;
use candle_core::Tensor;
use uspx_model::ModelError;
use uspx_model::config::Mlp;
use uspx_model::layers::kept::KeptExperts;
use uspx_model::taps::{Site, Taps};
use uspx_model::transformer::Transformer;

/// A layer as the clean run has it.
#[derive(Default)]
pub(super) struct Seen {
    /// What enters it, `[N, hidden]`.
    before: Option<Tensor>,
    /// Keys and values, `[N, kv_heads, head_dim]`.
    keys: Option<Tensor>,
    values: Option<Tensor>,
    /// Outputs of its heads, `[N, heads, head_dim]`.
    heads: Option<Tensor>,
    /// The residual stream behind its attention, `[N, hidden]`.
    middle: Option<Tensor>,
    experts: Option<KeptExperts>,
}

fn there<T>(value: Option<&T>) -> Result<&T> {
    value.ok_or_else(|| ModelError::Request("a layer was not seen as it ran".into()))
}

impl Seen {
    /// A tap for `layer`, which keeps its experts' outputs if they are asked for.
    pub fn of_layer(layer: usize, transformer: &Transformer, experts: bool) -> Self {
        let mixture = match transformer.config().mlps.get(layer) {
            Some(Mlp::Experts(mixture)) => Some(*mixture),
            _ => None,
        };
        let kept = mixture.filter(|_| experts).map(|m| KeptExperts::of_layer(layer, m));
        Self { experts: kept, ..Self::default() }
    }

    /// The layer has run.
    pub fn finish(&mut self) -> Result<()> {
        self.experts.as_mut().map_or(Ok(()), KeptExperts::finish)
    }

    pub fn before(&self) -> Result<&Tensor> {
        there(self.before.as_ref())
    }

    pub fn keys_and_values(&self) -> Result<[&Tensor; 2]> {
        Ok([there(self.keys.as_ref())?, there(self.values.as_ref())?])
    }

    pub fn heads(&self) -> Result<&Tensor> {
        there(self.heads.as_ref())
    }

    pub fn middle(&self) -> Result<&Tensor> {
        there(self.middle.as_ref())
    }

    pub fn experts(&self) -> Result<&KeptExperts> {
        there(self.experts.as_ref())
    }
}

impl Taps for Seen {
    fn at(&mut self, site: Site<'_>, value: &Tensor) -> Result<Option<Tensor>> {
        let place = match site {
            Site::ResidPre { .. } => &mut self.before,
            Site::Keys { .. } => &mut self.keys,
            Site::Values { .. } => &mut self.values,
            Site::Z { .. } => &mut self.heads,
            Site::ResidMid { .. } => &mut self.middle,
            _ => {
                let experts = self.experts.as_mut();
                return experts.map_or(Ok(None), |experts| experts.at(site, value));
            }
        };
        *place = Some(value.clone());
        Ok(None)
    }

    fn wants_next(&self) -> bool {
        self.experts.is_some()
    }
}
