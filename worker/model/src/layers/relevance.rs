//! Layer-wise relevance propagation through a layer (LRP): what stands where a derivative does
//! otherwise, where taps ask for [`Backward::Relevance`]. Values are the same to the bit.
//!
//! | part | rule | what is carried back |
//! |---|---|---|
//! | norms | LN-rule (Ali et al. 2022): the denominator is given | g · gain / rms(x) |
//! | act(x), clamps | identity rule (Jafari et al. 2024): the factor act(x)/x is given | g · act(x)/x |
//! | act(gate) · up | half rule (Arras et al. 2019): either factor has half | ½ g · the other factor |
//! | attention | AH-rule (Ali et al. 2022): probabilities are given | values only; q and k nothing |
//! | router | the same for gates: choice and weights are given | experts only; the router nothing |
//! | linear maps, sums | 0-rule (Montavon et al. 2019) | the derivative: biases keep their share |
//!
//! So coefficients are the exact gradient of a model whose denominators, factors, probabilities and
//! gates stand still, and in whose gated units each factor moves half of the product.

use crate::Result;
use crate::custom_gradient::with_gradient;
use crate::custom_gradients::with_gradients;
use crate::layers::gated::halves;
use crate::taps::Backward;
use candle_core::Tensor;
use candle_nn::ops::sigmoid;

/// What probabilities and gates are made from: under relevance nothing goes back through it.
pub(super) fn given(x: &Tensor, back: Backward) -> Tensor {
    match back {
        Backward::Gradient => x.clone(),
        Backward::Relevance => x.detach(),
    }
}

/// Relevance through `y` = silu(gate) · up, whose factor of the gate is σ(gate).
pub(super) fn through_swiglu(gate: &Tensor, up: &Tensor, y: Tensor) -> Result<Tensor> {
    let (g, u) = (gate.detach(), up.detach());
    Ok(with_gradients("swiglu", [gate, up, up], y, move |grad| {
        let scaled = (grad * sigmoid(&g)?)?.affine(0.5, 0.0)?;
        Ok([Some((&scaled * &u)?), Some((&scaled * &g)?), None])
    })?)
}

/// Relevance through `y`, gpt-oss's unit of `pairs`: see [`super::gated::clamped_unit`]. Its clamps
/// belong to the activations, and the 1 beside `up` is a bias.
pub(super) fn through_clamped_unit(
    pairs: &Tensor,
    y: Tensor,
    (alpha, limit): (f64, f64),
) -> Result<Tensor> {
    Ok(with_gradient("clamped-unit", pairs, y, move |pairs, _, grad| {
        let [gate, up] = halves(pairs)?;
        // What a clamp leaves of a value, min(x, limit) / x, without dividing by what may be 0.
        let left = |size: &Tensor| size.maximum(limit)?.recip()?.affine(limit, 0.0);
        let (of_gate, of_up) = (left(&gate)?, left(&up.abs()?)?);
        let (gate, up) = (gate.minimum(limit)?, up.clamp(-limit, limit)?);
        let scaled = (grad * sigmoid(&(&gate * alpha)?)?)?.affine(0.5, 0.0)?;
        let by_gate = ((&scaled * (up + 1.0)?)? * of_gate)?;
        let by_up = ((scaled * gate)? * of_up)?;
        Tensor::stack(&[by_gate, by_up], 2)?.reshape(pairs.shape())
    })?)
}

#[cfg(test)]
mod tests;
