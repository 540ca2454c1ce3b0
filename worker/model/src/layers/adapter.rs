//! Low-rank adapters (LoRA, Hu et al. 2021): x·Wᵀ + scale · (x·Aᵀ)·Bᵀ, with gradients for x, A and
//! B but none for W.
//!
//! Two ways lead there. *Merged*: one product of W + scale·B·A. *Apart*: W's own product, and two
//! narrow ones beside it. A weight that is not floats is multiplied as it is stored, so always
//! apart; of floats the way with fewer multiplications is taken.

use crate::custom_gradients::with_gradients;
use crate::layers::weight::Weight;
use crate::{ModelError, Result};
use candle_core::Tensor;

/// A low-rank adapter of a weight `[out, in]`.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// `[rank, in]`.
    pub a: Tensor,
    /// `[out, rank]`.
    pub b: Tensor,
    /// alpha / rank.
    pub scale: f64,
}

impl Adapter {
    /// The same, not learning.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self { a: self.a.detach(), b: self.b.detach(), scale: self.scale }
    }

    /// What the adapter adds to the weight, `[out, in]`.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn delta(&self) -> Result<Tensor> {
        Ok((self.b.matmul(&self.a)? * self.scale)?)
    }

    /// The rows of x, `[n, in]` to `[n, out]`.
    ///
    /// # Errors
    /// Those of the tensor library and of the kernels.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        weight: &Weight,
        bias: Option<&Tensor>,
    ) -> Result<Tensor> {
        let cost = self.cost(x)?;
        let learning = [x, &self.a, &self.b].iter().any(|t| t.track_op());
        match weight {
            Weight::Float(floats) if cost.merged(learning) < cost.apart(learning) => {
                self.merged(x, floats, bias, cost)
            }
            _ => self.apart(x, weight, bias),
        }
    }

    fn cost(&self, x: &Tensor) -> Result<Cost> {
        let ((rows, into), (out, rank)) = (x.dims2()?, self.b.dims2()?);
        Ok(Cost { rows, into, out, rank })
    }

    fn merged(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        cost: Cost,
    ) -> Result<Tensor> {
        let (a, b, scale) = (self.a.detach(), self.b.detach(), self.scale);
        let merged = (weight + (b.matmul(&a)? * scale)?.to_dtype(weight.dtype())?)?;
        let (fixed, wants_x) = (x.detach(), x.track_op());
        let y = fixed.matmul(&merged.t()?)?;
        let y = with_gradients("adapted-merged", [x, &self.a, &self.b], y, move |grad| {
            let grad = grad.contiguous()?;
            let dx = wants_x.then(|| grad.matmul(&merged)).transpose()?;
            let (x, grad) = (fixed.to_dtype(a.dtype())?, grad.to_dtype(a.dtype())?);
            let (da, db) = if cost.product() < 2 * cost.narrow() {
                let d = grad.t()?.matmul(&x)?;
                (b.t()?.matmul(&d)?, d.matmul(&a.t()?)?)
            } else {
                (grad.matmul(&b)?.t()?.matmul(&x)?, grad.t()?.matmul(&x.matmul(&a.t()?)?)?)
            };
            Ok([dx, Some((da * scale)?), Some((db * scale)?)])
        })?;
        match bias {
            Some(bias) => Ok(y.broadcast_add(bias)?),
            None => Ok(y),
        }
    }

    fn apart(&self, x: &Tensor, weight: &Weight, bias: Option<&Tensor>) -> Result<Tensor> {
        let (a, b, scale) = (self.a.detach(), self.b.detach(), self.scale);
        let (fixed, wants_x) = (x.detach(), x.track_op());
        let own = weight.forward(&fixed, bias)?;
        let fixed = fixed.to_dtype(a.dtype())?;
        let inner = (fixed.matmul(&a.t()?)? * scale)?;
        let y = (own + inner.matmul(&b.t()?)?.to_dtype(x.dtype())?)?;
        let weight = weight.clone();
        Ok(with_gradients("adapted-apart", [x, &self.a, &self.b], y, move |grad| {
            let grad = grad.contiguous()?;
            let narrow = grad.to_dtype(a.dtype())?;
            let back = (narrow.matmul(&b)? * scale)?;
            let dx = || {
                let own = weight.pull_back(&grad).map_err(ModelError::within_candle)?;
                own + back.matmul(&a)?.to_dtype(grad.dtype())?
            };
            Ok([
                wants_x.then(dx).transpose()?,
                Some(back.t()?.matmul(&fixed)?),
                Some(narrow.t()?.matmul(&inner)?),
            ])
        })?)
    }
}

/// Multiplications of an adapted product beyond those that both ways make, x·Wᵀ and G·W, where G is
/// the gradient of y.
#[derive(Debug, Clone, Copy)]
struct Cost {
    rows: usize,
    into: usize,
    out: usize,
    rank: usize,
}

impl Cost {
    /// x·Aᵀ and its product with Bᵀ; backwards G·B and its product with A, or the outer products
    /// that give dA and dB.
    fn narrow(self) -> usize {
        self.rows * self.rank * (self.into + self.out)
    }

    /// B·A.
    fn wide(self) -> usize {
        self.rank * self.into * self.out
    }

    /// D = Gᵀ·x, and dA = scale·Bᵀ·D and dB = scale·D·Aᵀ of it.
    fn product(self) -> usize {
        self.rows * self.into * self.out + 2 * self.wide()
    }

    /// Merged: B·A, and, where something is `learning`, dA and dB by D or by narrow products.
    fn merged(self, learning: bool) -> usize {
        self.wide() + if learning { self.product().min(2 * self.narrow()) } else { 0 }
    }

    /// Apart: the narrow products, and, where something is `learning`, those of dx, and of dA and
    /// dB.
    fn apart(self, learning: bool) -> usize {
        self.narrow() * if learning { 3 } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};
    use uspx_kernel::{Matrix, Nf4Matrix};

    const SIZES: Cost = Cost { rows: 5, into: 64, out: 32, rank: 3 };
    const SCALE: f64 = 0.5;

    /// Numbers between -1 and 1.
    fn values((rows, columns): (usize, usize), seed: u32) -> Tensor {
        let value = |i: usize| f64::from((i as u32 * 7919 + seed * 104_729) % 211) / 105.0 - 1.0;
        let values = (0..rows * columns).map(value).collect();
        Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
    }

    /// x, A, B, the gradient of y, and the bias.
    fn inputs() -> [Tensor; 5] {
        let Cost { rows, into, out, rank } = SIZES;
        let bias = values((1, out), 5).squeeze(0).unwrap();
        [
            values((rows, into), 1),
            values((rank, into), 2),
            values((out, rank), 3),
            values((rows, out), 4),
            bias,
        ]
    }

    /// y, dx, dA and dB in f64.
    type Found = [Tensor; 4];

    fn found(y: Tensor, towards: &Tensor, vars: &[Var; 3]) -> Found {
        let towards = towards.to_dtype(y.dtype()).unwrap();
        let gradients = (&y * towards).unwrap().sum_all().unwrap().backward().unwrap();
        let [dx, da, db] = vars.each_ref().map(|v| gradients.get(v).unwrap().clone());
        [y, dx, da, db].map(|t| t.detach().to_dtype(DType::F64).unwrap())
    }

    fn vars(inputs: &[Tensor; 5], dtype: DType) -> [Var; 3] {
        let [x, a, b, ..] = inputs;
        [x, a, b].map(|t| Var::from_tensor(&t.to_dtype(dtype).unwrap()).unwrap())
    }

    /// By the tensor library alone, in f64: x·(W + scale·B·A)ᵀ + bias, everything laid out.
    fn expanded(inputs: &[Tensor; 5], weight: &Tensor) -> Found {
        let vars = vars(inputs, DType::F64);
        let [x, a, b] = vars.each_ref().map(|v| v.as_tensor());
        let weight = (weight + (b.matmul(a).unwrap() * SCALE).unwrap()).unwrap();
        let y = x.matmul(&weight.t().unwrap()).unwrap().broadcast_add(&inputs[4]).unwrap();
        found(y, &inputs[3], &vars)
    }

    /// Each value within `unit` of the sum of the sizes of its terms, which no order of adding them
    /// can exceed.
    fn assert_close(got: &Found, weight: &Tensor, unit: f64, what: &str) {
        let inputs = inputs();
        let want = expanded(&inputs, weight);
        let sizes = expanded(&inputs.map(|t| t.abs().unwrap()), &weight.abs().unwrap());
        for (part, ((got, want), size)) in
            ["y", "dx", "dA", "dB"].iter().zip(got.iter().zip(&want).zip(&sizes))
        {
            let off = ((got - want).unwrap().abs().unwrap() / size).unwrap();
            let off = off.flatten_all().unwrap().max(0).unwrap().to_scalar::<f64>().unwrap();
            assert!(off <= unit, "{what}, {part}: off by {off:e} of its terms, {unit:e} allowed");
        }
    }

    type Way = fn(&Adapter, &Tensor, &Weight, Option<&Tensor>) -> Result<Tensor>;

    fn by(way: Way, weight: &Weight, dtype: DType) -> Found {
        let inputs = inputs();
        let vars = vars(&inputs, dtype);
        let [x, a, b] = vars.each_ref().map(|v| v.as_tensor().clone());
        let bias = inputs[4].to_dtype(dtype).unwrap();
        let y = way(&Adapter { a, b, scale: SCALE }, &x, weight, Some(&bias)).unwrap();
        found(y, &inputs[3], &vars)
    }

    fn merged(
        adapter: &Adapter,
        x: &Tensor,
        weight: &Weight,
        bias: Option<&Tensor>,
    ) -> Result<Tensor> {
        adapter.merged(x, &weight.float()?, bias, adapter.cost(x)?)
    }

    /// A chain of so many roundings at most: the terms of the longest sum, twice, and a few
    /// products.
    const STEPS: f64 = 2.0 * 64.0 + 8.0;

    #[test]
    fn both_ways_agree_with_the_expanded_product_for_floats() {
        let weight = values((SIZES.out, SIZES.into), 6);
        for (dtype, rounding) in [(DType::F64, f64::EPSILON), (DType::F32, f64::from(f32::EPSILON))]
        {
            // What f32 makes of the inputs is one rounding of each more.
            let held = Weight::Float(weight.to_dtype(dtype).unwrap());
            for (way, what) in [(merged as Way, "merged"), (Adapter::apart as Way, "apart")] {
                assert_close(
                    &by(way, &held, dtype),
                    &weight,
                    STEPS * rounding,
                    &format!("{what}, {dtype:?}"),
                );
            }
        }
    }

    fn bf16() -> Matrix {
        let Cost { into, out, .. } = SIZES;
        let weight: Vec<f32> = values((out, into), 6)
            .to_dtype(DType::F32)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap();
        // The upper half of an f32 is a bf16.
        let upper = |v: &f32| v.to_le_bytes().into_iter().skip(2);
        Matrix::bf16(out, into, weight.iter().flat_map(upper).collect()).unwrap()
    }

    fn mxfp4() -> Matrix {
        let Cost { into, out, .. } = SIZES;
        let codes = (0..out * into / 2).map(|i| (i * 37 + 11) as u8).collect();
        let scales = (0..out * into / 32).map(|i| 124 + (i % 4) as u8).collect();
        Matrix::mxfp4(out, into, codes, scales).unwrap()
    }

    /// The kernels read activations as 16 bits of mantissa or more, and add in f32.
    #[test]
    fn stored_weights_agree_with_the_expanded_product() {
        let unit = f64::from(2f32.powi(-16)) + STEPS * f64::from(f32::EPSILON);
        for (matrix, what) in [(bf16(), "bf16"), (mxfp4(), "MXFP4")] {
            let weight = Weight::Packed(matrix);
            let expanded = weight.float().unwrap().to_dtype(DType::F64).unwrap();
            assert_close(&by(Adapter::forward, &weight, DType::F32), &expanded, unit, what);
        }
    }

    /// NF4's products are of the values that it stands for, in f32 throughout.
    #[test]
    fn nf4_agrees_with_the_expanded_product() {
        let Cost { into, out, .. } = SIZES;
        let values = values((out, into), 6).to_dtype(DType::F32).unwrap().flatten_all().unwrap();
        let matrix = Nf4Matrix::quantise(out, into, &values.to_vec1().unwrap()).unwrap();
        let weight = Weight::Nf4(matrix);
        let expanded = weight.float().unwrap().to_dtype(DType::F64).unwrap();
        let unit = STEPS * f64::from(f32::EPSILON);
        assert_close(&by(Adapter::forward, &weight, DType::F32), &expanded, unit, "NF4");
    }

    #[test]
    fn stored_weights_are_never_merged() {
        let many = values((500, SIZES.into), 1).to_dtype(DType::F32).unwrap();
        let [_, a, b, ..] = inputs().map(|t| t.to_dtype(DType::F32).unwrap());
        let adapter = Adapter { a, b, scale: SCALE };
        let cost = adapter.cost(&many).unwrap();
        assert!(cost.merged(false) < cost.apart(false), "of floats this would be merged");
        let weight = Weight::Packed(mxfp4());
        let [got, apart, merged] = [Adapter::forward as Way, Adapter::apart, merged]
            .map(|way| way(&adapter, &many, &weight, None).unwrap().to_vec2::<f32>().unwrap());
        assert_eq!(got, apart);
        assert_ne!(got, merged);
    }

    #[test]
    fn few_rows_are_multiplied_apart_and_many_merged() {
        let square = |rows| Cost { rows, into: 4096, out: 4096, rank: 16 };
        let merges = |rows, learning| square(rows).merged(learning) < square(rows).apart(learning);
        assert_eq!([1, 2000, 2100].map(|rows| merges(rows, false)), [false, false, true]);
        assert_eq!([1, 2000, 2100].map(|rows| merges(rows, true)), [false, false, true]);
    }
}
