//! Rows picked from a matrix, summed back to where they came from, and measured; their gradients
//! are products of picking as well, for a GPU adds to scattered rows one after another.

use crate::custom_gradient::with_gradient;
use crate::{Result, cuda};
use candle_core::{D, DType, Tensor};

/// Rows `ids` of x, `[N, W]` to `[S, W]`, none of them twice; differentiable. `on_device` holds the
/// same ids.
pub(crate) fn pick(x: &Tensor, ids: &[u32], on_device: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() {
        return Ok(x.index_select(on_device, 0)?);
    }
    let plain = x.detach();
    let served = cuda::serves(x) && x.dim(1)?.is_multiple_of(2);
    let picked =
        if served { cuda::gather(&plain, on_device)? } else { plain.index_select(on_device, 0)? };
    let (ids, rows) = (ids.to_vec(), x.dim(0)?);
    Ok(with_gradient("pick-rows", x, picked, move |_, _, grad| spread(grad, &ids, rows))?)
}

/// `[S, W]` to `[rows, W]`: row i goes to `ids[i]`, what none goes to is zero.
fn spread(grad: &Tensor, ids: &[u32], rows: usize) -> candle_core::Result<Tensor> {
    let from = inverse(ids, rows, grad.dim(0)? as u32);
    pick_or_zero(grad, 0, &Tensor::from_vec(from, rows, grad.device())?)
}

/// For each of `count` places, which of `ids` names it; `none` where none does.
pub(crate) fn inverse(ids: &[u32], count: usize, none: u32) -> Vec<u32> {
    let mut from = vec![none; count];
    for (at, id) in (0..).zip(ids) {
        from.get_mut(*id as usize).into_iter().for_each(|place| *place = at);
    }
    from
}

/// The entries `from` of x's dimension `dim`; the one after its last is zero.
pub(crate) fn pick_or_zero(x: &Tensor, dim: usize, from: &Tensor) -> candle_core::Result<Tensor> {
    x.pad_with_zeros(dim, 0, 1)?.index_select(from, dim)
}

/// Each slot's row times its gate: row i of `values`, `[S, W]`, is of slot `order[i]` of gates `[N,
/// k]`.
pub(crate) fn weighted(values: &Tensor, gates: &Tensor, order: &[u32]) -> Result<Tensor> {
    let slots = Tensor::from_slice(order, order.len(), values.device())?;
    let gates = gates.flatten_all()?.index_select(&slots, 0)?.to_dtype(values.dtype())?;
    Ok(values.broadcast_mul(&gates.unsqueeze(1)?)?)
}

/// The sum of each token's slots, each times its gate: `[N · k, W]` and gates `[N, k]` to `[N, W]`.
/// Row i of `values` is of slot `order[i]`, and `order` is a permutation. Differentiable in both.
pub(crate) fn sum_slots(values: &Tensor, gates: &Tensor, order: &[u32]) -> Result<Tensor> {
    let ((tokens, k), device) = (gates.dims2()?, values.device());
    let places = Tensor::from_vec(inverse(order, order.len(), 0), order.len(), device)?;
    if cuda::serves(values) && !values.track_op() && !gates.track_op() {
        return Ok(cuda::sum_places(values, &places, gates, k)?);
    }
    let weighted = weighted(values, gates, order)?;
    let plain = weighted.detach();
    let sum = if cuda::serves(values) {
        cuda::sum_places(&plain, &places, &gates.ones_like()?, k)?
    } else {
        plain.index_select(&places, 0)?.reshape((tokens, k, values.dim(1)?))?.sum(1)?
    };
    let back: Vec<u32> = order.iter().map(|slot| slot / k as u32).collect();
    Ok(with_gradient("sum-slots", &weighted, sum, move |_, _, grad| {
        grad.index_select(&Tensor::from_slice(&back, back.len(), grad.device())?, 0)
    })?)
}

/// Euclidean norms over the last dimension, in f32.
///
/// # Errors
/// Those of the tensor library.
pub fn norms(x: &Tensor) -> Result<Tensor> {
    if cuda::serves(x) {
        return Ok(cuda::norms(&x.detach())?);
    }
    Ok(x.to_dtype(DType::F32)?.sqr()?.sum(D::Minus1)?.sqrt()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    fn matrix(rows: usize, width: usize) -> Tensor {
        Tensor::arange(0f32, (rows * width) as f32, &Device::Cpu)
            .unwrap()
            .reshape((rows, width))
            .unwrap()
    }

    #[test]
    fn slots_are_summed_and_the_gradient_goes_back_to_each() {
        // Two tokens of two slots, in the order of their experts.
        let order = [2, 0, 3, 1];
        let values = Var::from_tensor(&matrix(4, 3)).unwrap();
        let gates = Var::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap();
        let sum = sum_slots(values.as_tensor(), gates.as_tensor(), &order).unwrap();
        // Token 0 has rows 1 and 3, token 1 rows 0 and 2.
        assert_eq!(sum.to_vec2::<f32>().unwrap(), [[21.0, 24.0, 27.0], [24.0, 31.0, 38.0]]);
        let weights = Tensor::new(&[[1f32], [10.0]], &Device::Cpu).unwrap();
        let gradients = sum.broadcast_mul(&weights).unwrap().sum_all().unwrap().backward().unwrap();
        let got = gradients.get(&values).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(got, [[30.0; 3], [1.0; 3], [40.0; 3], [2.0; 3]]);
        // A gate's gradient is the sum of its slot's row, times the weight.
        assert_eq!(
            gradients.get(&gates).unwrap().to_vec2::<f32>().unwrap(),
            [[12.0, 30.0], [30.0, 210.0]]
        );
    }

    #[test]
    fn picked_rows_spread_back_to_where_they_were() {
        let back = spread(&matrix(2, 2), &[3, 1], 4).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(back, [[0.0, 0.0], [2.0, 3.0], [0.0, 0.0], [0.0, 1.0]]);
    }

    #[test]
    fn norms_are_of_the_last_dimension() {
        let x = Tensor::new(&[[[3f32, 4.0], [0.0, 2.0]]], &Device::Cpu).unwrap();
        assert_eq!(norms(&x).unwrap().to_vec2::<f32>().unwrap(), [[5.0, 2.0]]);
    }
}
