//! The Hessian of a linear's squared output error: 2·XᵀX over the calibration's input rows.
#![allow(clippy::indexing_slicing)] // Bounds: rows and columns run below the matrix's side, which `add` holds the inputs against.

use crate::matrix::{BLOCK, SquareMatrix};
use crate::product::{Strided, multiply};
use crate::{ExportError, Result, weights};
use candle_core::{D, Tensor};
use rayon::prelude::*;

/// Rows multiplied at a time in f32; the sum over chunks is f64 (`chunks_in_f32_lose_nothing` shows
/// that this suffices).
const CHUNK: usize = 512;

/// 2·XᵀX on its way: the upper triangle of it.
#[derive(Debug)]
pub struct HessianSum {
    sum: SquareMatrix,
    rows: usize,
}

impl HessianSum {
    /// For a linear of `inputs` columns.
    pub fn new(inputs: usize) -> Self {
        Self { sum: SquareMatrix::zeros(inputs), rows: 0 }
    }

    /// Adds input rows `x`, `[.., inputs]` of any float type.
    ///
    /// # Errors
    /// [`ExportError::Shape`] for another width, [`ExportError::NotFinite`] for an activation that
    /// is not finite.
    pub fn add(&mut self, x: &Tensor) -> Result<()> {
        let inputs = self.sum.side();
        if x.dim(D::Minus1)? != inputs {
            return Err(ExportError::Shape {
                name: "calibration input".into(),
                got: x.dims().to_vec(),
                want: format!("[.., {inputs}]"),
            });
        }
        let x = x.reshape(((), inputs))?;
        let rows = x.dim(0)?;
        for start in (0..rows).step_by(CHUNK) {
            let part = weights::plain(&x.narrow(0, start, CHUNK.min(rows - start))?)?;
            self.add_chunk(&part.flatten_all()?.to_vec1::<f32>()?)?;
        }
        self.rows += rows;
        Ok(())
    }

    fn add_chunk(&mut self, x: &[f32]) -> Result<()> {
        let side = self.sum.side();
        let count = x.len() / side;
        let all = self.sum.values_mut().par_chunks_mut(BLOCK * side).enumerate();
        all.try_for_each_init(Vec::new, |product: &mut Vec<f32>, (block, sums)| {
            let (first, rows) = (block * BLOCK, sums.len() / side);
            let width = side - first;
            product.clear();
            product.resize(rows * width, 0.0);
            let from = Strided::rows(&x[first..], side);
            let size = (rows, width, count);
            multiply((product, width), size, (from.transposed(), from), (0.0, 2.0))?;
            if !product.iter().all(|v| v.is_finite()) {
                return Err(ExportError::NotFinite("a linear's calibration input".into()));
            }
            for (sums, product) in sums.chunks_exact_mut(side).zip(product.chunks_exact(width)) {
                let sums = sums[first..].iter_mut();
                sums.zip(product).for_each(|(sum, value)| *sum += f64::from(*value));
            }
            Ok(())
        })
    }

    /// All of it.
    pub fn whole(mut self) -> Hessian {
        self.sum.mirror();
        Hessian { matrix: self.sum, rows: self.rows }
    }
}

/// 2·XᵀX.
#[derive(Debug, Clone)]
pub struct Hessian {
    matrix: SquareMatrix,
    rows: usize,
}

impl Hessian {
    /// From a ready matrix, which must be symmetric.
    pub fn from_matrix(matrix: SquareMatrix) -> Self {
        Self { matrix, rows: 0 }
    }

    /// Inputs of the linear.
    pub fn inputs(&self) -> usize {
        self.matrix.side()
    }

    /// Input rows seen.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The matrix `[inputs, inputs]`.
    pub fn matrix(&self) -> &SquareMatrix {
        &self.matrix
    }

    /// The same, for who takes it to pieces.
    pub(crate) fn into_matrix(self) -> SquareMatrix {
        self.matrix
    }

    /// Each input's energy: the diagonal.
    pub fn energy(&self) -> Vec<f64> {
        self.matrix.diagonal()
    }

    /// tr(D·H·Dᵀ) of a difference `d` between weights, f32 `[outputs, inputs]` row-major: twice the
    /// summed squared difference of the linear's outputs over the calibration.
    ///
    /// # Errors
    /// [`ExportError::Shape`] where `d` is not whole rows.
    pub fn output_energy(&self, d: &[f32]) -> Result<f64> {
        let inputs = self.inputs();
        if inputs == 0 || !d.len().is_multiple_of(inputs) {
            return Err(ExportError::Shape {
                name: "weight".into(),
                got: vec![d.len()],
                want: format!("rows of {inputs}"),
            });
        }
        let parts = d.par_chunks(BLOCK * inputs).map(|rows| {
            let rows: Vec<f64> = rows.iter().copied().map(f64::from).collect();
            let mut product = vec![0.0; rows.len()];
            let sides = (Strided::rows(&rows, inputs), Strided::rows(self.matrix.values(), inputs));
            let size = (rows.len() / inputs, inputs, inputs);
            multiply((&mut product, inputs), size, sides, (0.0, 1.0))?;
            Ok(rows.iter().zip(&product).map(|(a, b)| a * b).sum::<f64>())
        });
        // Not summed as they come: the sum must not depend on the threads.
        Ok(parts.collect::<Result<Vec<f64>>>()?.iter().sum())
    }
}

/// ‖X·(Ŵ − W)ᵀ‖ / ‖X·Wᵀ‖ (Frobenius), how far a linear's outputs move relatively, from the energies of
/// the difference and of the whole.
pub fn relative_output_error(difference: f64, whole: f64) -> f64 {
    if whole > 0.0 { (difference / whole).max(0.0).sqrt() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn chunks_in_f32_lose_nothing() {
        for inputs in [24, BLOCK + 9] {
            let x = Tensor::randn(0.3f32, 1.0, (1500, inputs), &Device::Cpu).unwrap();
            let mut h = HessianSum::new(inputs);
            // In uneven pieces, and with a batch dimension.
            let first = x.narrow(0, 0, 1100).unwrap();
            h.add(&first.reshape((2, 550, inputs)).unwrap()).unwrap();
            h.add(&x.narrow(0, 1100, 400).unwrap()).unwrap();
            let h = h.whole();
            assert_eq!(h.rows(), 1500);
            let exact = x.to_dtype(DType::F64).unwrap();
            let exact = (exact.t().unwrap().matmul(&exact).unwrap() * 2.0).unwrap();
            let exact = exact.to_vec2::<f64>().unwrap();
            let scale = exact[0][0];
            for (r, row) in exact.iter().enumerate() {
                for (c, v) in row.iter().enumerate() {
                    assert!((h.matrix().row(r)[c] - v).abs() < 1e-6 * scale);
                }
            }
        }
    }

    #[test]
    fn output_error_is_the_outputs_difference() {
        let x = Tensor::randn(0f32, 1.0, (50, 8), &Device::Cpu).unwrap();
        let w = Tensor::randn(0f32, 1.0, (3, 8), &Device::Cpu).unwrap();
        let v = (&w + Tensor::randn(0f32, 0.1, (3, 8), &Device::Cpu).unwrap()).unwrap();
        let norm =
            |t: &Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
        let y = x.matmul(&w.t().unwrap()).unwrap();
        let z = x.matmul(&v.t().unwrap()).unwrap();
        let want = norm(&(&y - &z).unwrap()) / norm(&y);
        let mut h = HessianSum::new(8);
        h.add(&x).unwrap();
        let h = h.whole();
        let energy = |t: &Tensor| {
            h.output_energy(&t.flatten_all().unwrap().to_vec1::<f32>().unwrap()).unwrap()
        };
        let got = relative_output_error(energy(&(&w - &v).unwrap()), energy(&w));
        assert!((got - f64::from(want)).abs() < 1e-5, "{got} {want}");
    }

    #[test]
    fn refuses_other_widths_and_infinities() {
        let mut h = HessianSum::new(4);
        assert!(matches!(
            h.add(&Tensor::zeros((2, 5), DType::F32, &Device::Cpu).unwrap()),
            Err(ExportError::Shape { .. })
        ));
        let bad = Tensor::new(&[[f32::INFINITY, 0.0, 0.0, 0.0]], &Device::Cpu).unwrap();
        assert!(matches!(h.add(&bad), Err(ExportError::NotFinite(_))));
    }
}
