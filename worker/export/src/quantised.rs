//! A linear in 4 bits, unpacked: one code per weight, one scale per output row and group of inputs.

use crate::coded::{Affine, Coded, Moved};
use crate::grid;
use crate::{ExportError, Result};
use candle_core::{Device, Tensor};
use half::f16;

/// Codes and scales of one linear.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantLinear {
    outputs: usize,
    inputs: usize,
    group: usize,
    codes: Vec<u8>,
    scales: Vec<f16>,
}

impl QuantLinear {
    /// From codes `[outputs, inputs]` (0..=15) and scales `[outputs, inputs / group]`, both
    /// row-major.
    ///
    /// # Errors
    /// [`ExportError::Shape`] where the lengths do not fit, the group does not divide the inputs or
    /// a code is above 15.
    pub fn new(
        outputs: usize,
        inputs: usize,
        group: usize,
        codes: Vec<u8>,
        scales: Vec<f16>,
    ) -> Result<Self> {
        let fits = group > 0
            && inputs.is_multiple_of(group)
            && Some(codes.len()) == outputs.checked_mul(inputs)
            && Some(scales.len()) == outputs.checked_mul(inputs / group)
            && codes.iter().all(|c| *c <= grid::MAX_CODE);
        if !fits {
            return Err(ExportError::Shape {
                name: "4-bit linear".into(),
                got: vec![codes.len(), scales.len()],
                want: format!(
                    "[{outputs}, {inputs}] codes up to 15 with a scale for every {group} inputs"
                ),
            });
        }
        Ok(Self { outputs, inputs, group, codes, scales })
    }

    /// Rows of the weight.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Columns of the weight.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Inputs that share a scale.
    pub fn group(&self) -> usize {
        self.group
    }

    /// Codes `[outputs, inputs]`.
    pub fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// Scales `[outputs, inputs / group]`.
    pub fn scales(&self) -> &[f16] {
        &self.scales
    }

    /// The same with other codes, its scales multiplied by factors, `[outputs, inputs / group]`, and rounded as
    /// they are stored.
    ///
    /// # Errors
    /// [`ExportError::Shape`] for lengths that do not fit, [`ExportError::NotFinite`] for scales beyond f16.
    pub fn moved(&self, moved: &Moved) -> Result<Self> {
        let scale = |(scale, factor): (&f16, &f32)| grid::storable(scale.to_f32() * factor);
        let scales: Vec<f16> = self.scales.iter().zip(&moved.steps).map(scale).collect();
        if !scales.iter().all(|s| s.is_finite()) {
            return Err(ExportError::NotFinite("a linear's scale".into()));
        }
        Self::new(self.outputs, self.inputs, self.group, moved.codes.clone(), scales)
    }

    /// The weights that the codes stand for, f32 `[outputs, inputs]`.
    pub fn dequantise(&self) -> Vec<f32> {
        let groups = self.codes.chunks_exact(self.group).zip(&self.scales);
        groups
            .flat_map(|(codes, scale)| codes.iter().map(|c| grid::value(*c, scale.to_f32())))
            .collect()
    }

    /// The same as a tensor on the CPU.
    ///
    /// # Errors
    /// Whatever the tensor library reports.
    pub fn to_tensor(&self) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.dequantise(), (self.outputs, self.inputs), &Device::Cpu)?)
    }
}

impl Coded for QuantLinear {
    fn codes(&self) -> &[u8] {
        self.codes()
    }

    fn affine(&self) -> Affine {
        let steps = self.scales.iter().map(|s| s.to_f32()).collect();
        Affine { zero: grid::ZERO, part: self.group, steps, offsets: None, block: self.group }
    }

    fn values(&self) -> Result<Tensor> {
        self.to_tensor()
    }

    fn moved(&self, moved: &Moved) -> Result<Box<dyn Coded>> {
        Ok(Box::new(self.moved(moved)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dequantises_by_group() {
        let scales = [1.0, 0.5, 2.0, 0.25].map(f16::from_f32).to_vec();
        let linear = QuantLinear::new(2, 4, 2, vec![0, 8, 15, 9, 8, 7, 10, 0], scales).unwrap();
        assert_eq!(linear.dequantise(), [-8.0, 0.0, 3.5, 0.5, 0.0, -2.0, 0.5, -2.0]);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        assert!(QuantLinear::new(1, 4, 4, vec![16, 0, 0, 0], vec![f16::ONE]).is_err());
        assert!(QuantLinear::new(1, 4, 3, vec![0; 4], vec![f16::ONE]).is_err());
        assert!(QuantLinear::new(1, 4, 2, vec![0; 4], vec![f16::ONE]).is_err());
    }
}
