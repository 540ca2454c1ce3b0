//! The Hessian of a linear's squared output error: 2·XᵀX over the calibration's input rows.

use crate::matrix::DenseMatrix;
use crate::{ExportError, Result};
use candle_core::{D, DType, Tensor};

/// Rows multiplied at a time in f32; the sum over chunks is f64 (`chunks_in_f32_lose_nothing` shows
/// that this suffices).
const CHUNK: usize = 512;

/// Accumulates 2·XᵀX.
#[derive(Debug, Clone)]
pub struct Hessian {
    sum: DenseMatrix,
    rows: usize,
}

impl Hessian {
    /// For a linear of `inputs` columns.
    pub fn new(inputs: usize) -> Self {
        Self { sum: DenseMatrix::zeros(inputs, inputs), rows: 0 }
    }

    /// Adds input rows `x`, `[.., inputs]` of any float type.
    ///
    /// # Errors
    /// [`ExportError::Shape`] for another width, [`ExportError::NotFinite`] for an activation that
    /// is not finite.
    pub fn add(&mut self, x: &Tensor) -> Result<()> {
        let inputs = self.sum.rows();
        if x.dim(D::Minus1)? != inputs {
            return Err(ExportError::Shape {
                name: "calibration input".into(),
                got: x.dims().to_vec(),
                want: format!("[.., {inputs}]"),
            });
        }
        let x = x.detach().to_dtype(DType::F32)?.reshape(((), inputs))?;
        let rows = x.dim(0)?;
        for start in (0..rows).step_by(CHUNK) {
            let part = x.narrow(0, start, CHUNK.min(rows - start))?.contiguous()?;
            let product = part.t()?.matmul(&part)?.flatten_all()?.to_vec1::<f32>()?;
            if !product.iter().all(|v| v.is_finite()) {
                return Err(ExportError::NotFinite("a linear's calibration input".into()));
            }
            self.sum
                .values_mut()
                .iter_mut()
                .zip(&product)
                .for_each(|(s, p)| *s += 2.0 * f64::from(*p));
        }
        self.rows += rows;
        Ok(())
    }

    /// From a ready matrix, which must be symmetric.
    ///
    /// # Errors
    /// [`ExportError::Shape`] where it is not square.
    pub fn from_matrix(sum: DenseMatrix) -> Result<Self> {
        if sum.rows() != sum.cols() {
            let got = vec![sum.rows(), sum.cols()];
            return Err(ExportError::Shape {
                name: "Hessian".into(),
                got,
                want: "a square".into(),
            });
        }
        Ok(Self { sum, rows: 0 })
    }

    /// Inputs of the linear.
    pub fn inputs(&self) -> usize {
        self.sum.rows()
    }

    /// Input rows seen.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The matrix `[inputs, inputs]`.
    pub fn matrix(&self) -> &DenseMatrix {
        &self.sum
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
        let d = DenseMatrix::from_rows(d, inputs);
        let dh = d.times(&self.sum)?;
        Ok((0..d.rows())
            .map(|r| d.row(r).iter().zip(dh.row(r)).map(|(a, b)| a * b).sum::<f64>())
            .sum())
    }

    /// ‖X·(Ŵ − W)ᵀ‖ / ‖X·Wᵀ‖ (Frobenius): how far the linear's outputs move, relatively.
    ///
    /// # Errors
    /// [`ExportError::Shape`] where the lengths differ or are not whole rows.
    pub fn relative_output_error(&self, weight: &[f32], quantised: &[f32]) -> Result<f64> {
        if weight.len() != quantised.len() {
            let (got, want) = (vec![quantised.len()], format!("[{}]", weight.len()));
            return Err(ExportError::Shape { name: "quantised weight".into(), got, want });
        }
        let difference: Vec<f32> = weight.iter().zip(quantised).map(|(w, q)| w - q).collect();
        let whole = self.output_energy(weight)?;
        if whole <= 0.0 {
            return Ok(0.0);
        }
        Ok((self.output_energy(&difference)? / whole).max(0.0).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn chunks_in_f32_lose_nothing() {
        let x = Tensor::randn(0.3f32, 1.0, (1500, 24), &Device::Cpu).unwrap();
        let mut h = Hessian::new(24);
        // In uneven pieces, and with a batch dimension.
        h.add(&x.narrow(0, 0, 1100).unwrap().reshape((2, 550, 24)).unwrap()).unwrap();
        h.add(&x.narrow(0, 1100, 400).unwrap()).unwrap();
        assert_eq!(h.rows(), 1500);
        let exact = x.to_dtype(DType::F64).unwrap();
        let exact =
            (exact.t().unwrap().matmul(&exact).unwrap() * 2.0).unwrap().to_vec2::<f64>().unwrap();
        let scale = exact[0][0];
        for (r, row) in exact.iter().enumerate() {
            for (c, v) in row.iter().enumerate() {
                assert!((h.matrix().row(r)[c] - v).abs() < 1e-6 * scale);
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
        let mut h = Hessian::new(8);
        h.add(&x).unwrap();
        let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let got = h.relative_output_error(&flat(&w), &flat(&v)).unwrap();
        assert!((got - f64::from(want)).abs() < 1e-5, "{got} {want}");
    }

    #[test]
    fn refuses_other_widths_and_infinities() {
        let mut h = Hessian::new(4);
        assert!(matches!(
            h.add(&Tensor::zeros((2, 5), DType::F32, &Device::Cpu).unwrap()),
            Err(ExportError::Shape { .. })
        ));
        let bad = Tensor::new(&[[f32::INFINITY, 0.0, 0.0, 0.0]], &Device::Cpu).unwrap();
        assert!(matches!(h.add(&bad), Err(ExportError::NotFinite(_))));
    }
}
