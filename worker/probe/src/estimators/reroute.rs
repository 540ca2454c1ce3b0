//! Re-routing attribution: what banning an expert does to the loss, to first order.
//!
//! A banned expert's output does not become zero: the router picks the next one, and the gates are
//! normalised anew. With f the experts' outputs, g the gates of the chosen ones S and g′ those of
//! S′ = S − e + next, the layer's output moves by Δy = Σ_S′ g′·f − Σ_S g·f, and the loss by
//! ∂L/∂y·Δy. Only the pulls ∂L/∂y·f of the chosen experts and of the next one enter, and ∂L/∂y is
//! the gradient with respect to the layer's output: nothing is kept for it.

use super::{Measure, ProbeRequest};
use crate::Result;
use crate::differentiate::differentiate;
use crate::effects::{Effects, effects};
use crate::path::{mean_step, path};
use candle_core::{D, DType, Tensor};
use uspx_domain::{Deposit, Estimator, Unit, UnitKind};
use uspx_model::batch::Batch;
use uspx_model::config::Mlp;
use uspx_model::taps::{Site, Taps};
use uspx_model::{ModelError, Progress};

/// First-order effects of bans, signed and made positive per token, in nats summed over all
/// positions of a prompt.
pub(super) enum Reroute {
    /// By the gradient at the prompt.
    Here,
    /// By the mean gradient along a path to it.
    Along,
}

impl Measure for Reroute {
    fn estimator(&self) -> Estimator {
        match self {
            Self::Here => Estimator::REROUTE,
            Self::Along => Estimator::REROUTE_IG,
        }
    }

    fn measure(&self, request: &ProbeRequest<'_>, progress: &dyn Progress) -> Result<Deposit> {
        let estimator = self.estimator();
        match self {
            Self::Here => {
                let how = (estimator, request.batch_tokens);
                effects(request, how, progress, &mut |_, batch, found| {
                    let start = request.model.transformer.embed(&batch.ids)?;
                    add_effects(request, (batch, batch, start), found)
                })
            }
            Self::Along => {
                let how = (estimator, request.batch_tokens / request.steps);
                effects(request, how, progress, &mut |members, batch, found| {
                    let (steps, start) = path(request, (members, batch))?;
                    add_effects(request, (batch, &steps, start), found)
                })
            }
        }
    }
}

/// Adds the effects of a batch to `found`. It runs as `steps` copies of it, the last of them itself,
/// from their embedded tokens on.
fn add_effects(
    request: &ProbeRequest<'_>,
    (batch, steps, start): (&Batch, &Batch, Tensor),
    found: &mut Effects,
) -> Result<()> {
    let mlps = &request.model.transformer.config().mlps;
    let rows = batch.tokens();
    let tapped = |gradient: &Tensor| {
        let first = gradient.dim(0)? - rows;
        let gradient = mean_step(gradient, rows)?;
        Ok(RerouteTaps { first, gradient, router: None, pulls: Vec::new() })
    };
    differentiate(request, steps, start, tapped, |taps, _| {
        let Some((layer, logits)) = &taps.router else { return Ok(()) };
        let Some(Mlp::Experts(mixture)) = mlps.get(*layer) else { return Ok(()) };
        let logits: Vec<f32> = logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let tokens = taps.by_token(rows)?;
        let rows = tokens.iter().zip(logits.chunks_exact(mixture.experts)).zip(&batch.place);
        for ((token, logits), (prompt, _)) in rows {
            for (index, effect) in token.effects(logits, mixture.renormalise) {
                let unit = Unit { kind: UnitKind::Expert, layer: *layer as u32, index };
                found.add(unit, *prompt, effect);
            }
        }
        Ok(())
    })
}

/// What a layer shows: its router's logits, and the pull of each expert on each of its tokens.
struct RerouteTaps {
    /// The first row of the prompts themselves.
    first: usize,
    /// With respect to the layer's output, the mean over the steps: `[N, hidden]`.
    gradient: Tensor,
    router: Option<(usize, Tensor)>,
    pulls: Vec<Pulls>,
}

/// ∂L/∂y·f of one expert.
struct Pulls {
    expert: u32,
    tokens: Vec<u32>,
    /// Whether the tokens chose it; else it is their next one.
    chosen: bool,
    /// One for each of `tokens`.
    values: Tensor,
}

impl RerouteTaps {
    /// Row i of `out` is of row `rows[i]`; of the prompts themselves the pulls are kept.
    fn pull(&mut self, expert: u32, rows: &[u32], chosen: bool, out: &Tensor) -> Result<()> {
        let own = (0u32..).zip(rows).filter(|(_, row)| **row as usize >= self.first);
        let (places, tokens): (Vec<u32>, Vec<u32>) =
            own.map(|(place, row)| (place, row - self.first as u32)).unzip();
        if tokens.is_empty() {
            return Ok(());
        }
        let ids = |ids: &[u32]| Tensor::from_slice(ids, ids.len(), out.device());
        let out = out.detach().index_select(&ids(&places)?, 0)?;
        let gradient = self.gradient.index_select(&ids(&tokens)?, 0)?;
        let values = (gradient * out)?.sum(D::Minus1)?.to_dtype(DType::F32)?;
        self.pulls.push(Pulls { expert, tokens, chosen, values });
        Ok(())
    }

    /// The pulls on each of `count` tokens. They are read together: on a GPU each reading waits for
    /// all work.
    fn by_token(&self, count: usize) -> Result<Vec<Token>> {
        let mut tokens: Vec<Token> = (0..count).map(|_| Token::default()).collect();
        if self.pulls.is_empty() {
            return Ok(tokens);
        }
        let all: Vec<&Tensor> = self.pulls.iter().map(|p| &p.values).collect();
        let all: Vec<f32> = Tensor::cat(&all, 0)?.to_vec1()?;
        let each = self.pulls.iter().flat_map(|p| p.tokens.iter().map(move |token| (p, *token)));
        let outside = || ModelError::Request("an expert ran for a token that is not there".into());
        for ((pulls, token), value) in each.zip(all) {
            let token = tokens.get_mut(token as usize).ok_or_else(outside)?;
            let pull = (pulls.expert, f64::from(value));
            if pulls.chosen { token.chosen.push(pull) } else { token.next = Some(pull) }
        }
        Ok(tokens)
    }
}

impl Taps for RerouteTaps {
    fn at(&mut self, site: Site<'_>, value: &Tensor) -> Result<Option<Tensor>> {
        match site {
            Site::Router { layer } => {
                let own = value.narrow(0, self.first, value.dim(0)? - self.first)?;
                self.router = Some((layer, own.detach()));
            }
            Site::ExpertOut(at) => {
                let rows = at.slots.iter().map(|slot| slot / at.routing.top_k as u32);
                self.pull(at.expert, &rows.collect::<Vec<_>>(), true, value)?;
            }
            Site::NextOut { expert, tokens, .. } => self.pull(expert, tokens, false, value)?,
            _ => {}
        }
        Ok(None)
    }

    fn wants_next(&self) -> bool {
        true
    }
}

/// The experts of a token, each with its pull.
#[derive(Debug, Default)]
struct Token {
    chosen: Vec<(u32, f64)>,
    /// The one that the router would pick next; none where all are chosen.
    next: Option<(u32, f64)>,
}

impl Token {
    /// What the ban of each chosen expert does to the loss, from the router's logits of the token.
    /// Gates are the softmax over the chosen ones' logits if `renormalise`, else their part of the
    /// softmax over all.
    fn effects(&self, logits: &[f32], renormalise: bool) -> Vec<(u32, f64)> {
        let Some(next) = self.next else { return Vec::new() };
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = |expert: usize| {
            logits.get(expert).map_or(0.0, |logit| f64::from(logit - largest).exp())
        };
        // The gated sum of pulls of `experts` where `banned` is gone.
        let pulled = |experts: &[(u32, f64)], banned: Option<u32>| -> f64 {
            let of = |(expert, _): &(u32, f64)| weight(*expert as usize);
            let whole: f64 = if renormalise {
                experts.iter().map(of).sum()
            } else {
                let others = (0..logits.len()).filter(|e| Some(*e as u32) != banned);
                others.map(weight).sum()
            };
            experts.iter().map(|e| of(e) * e.1).sum::<f64>() / whole
        };
        let clean = pulled(&self.chosen, None);
        let ban = |(expert, _): &(u32, f64)| {
            let others = self.chosen.iter().filter(|(e, _)| e != expert);
            let left: Vec<(u32, f64)> = others.copied().chain([next]).collect();
            (*expert, pulled(&left, Some(*expert)) - clean)
        };
        self.chosen.iter().map(ban).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token { chosen: vec![(2, 3.0), (0, -1.0)], next: Some((3, 2.0)) }
    }

    #[test]
    fn a_ban_takes_in_the_next_expert_and_normalises_anew() {
        // Weights 1, -, 2, 1/2 of experts 0 to 3 (1 is far below).
        let logits = [0.0, -9.0, 2f32.ln(), 0.5f32.ln()];
        let near = |got: &[(u32, f64)], want: [(u32, f64); 2]| {
            for (got, want) in got.iter().zip(want) {
                assert!(got.0 == want.0 && (got.1 - want.1).abs() < 1e-6, "{got:?} {want:?}");
            }
        };
        let clean = (2.0 * 3.0 - 1.0) / 3.0;
        let without_2 = (-1.0 + 0.5 * 2.0) / 1.5;
        let without_0 = (2.0 * 3.0 + 0.5 * 2.0) / 2.5;
        let want = [(2, without_2 - clean), (0, without_0 - clean)];
        near(&token().effects(&logits, true), want);

        let rest = (-9f64).exp();
        let (all, no_2, no_0) = (3.5 + rest, 1.5 + rest, 2.5 + rest);
        let clean = 5.0 / all;
        let want = [(2, 0.0 / no_2 - clean), (0, 7.0 / no_0 - clean)];
        near(&token().effects(&logits, false), want);
    }

    #[test]
    fn where_all_experts_are_chosen_none_can_be_banned() {
        let token = Token { next: None, ..token() };
        assert!(token.effects(&[0.0; 4], true).is_empty());
    }
}
