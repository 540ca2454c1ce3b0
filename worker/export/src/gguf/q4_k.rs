//! Q4_K, the 4-bit block of llama.cpp's K-quants: 256 weights in eight parts of 32, each with a step and an
//! offset of 6 bits; a weight is d·step·code − dmin·offset.
//!
//! Here GGML's own search finds a block's steps, and GPTQ its codes: an error that one code makes is mended by
//! those after it, which GGML's tools leave out.
#![allow(clippy::indexing_slicing)] // Bounds: blocks are whole, `find` laid out those that are asked for, and parts and codes run below 8 and 256.

use super::encode;
use crate::coded::{Affine, Coded, Moved};
use crate::gptq::Steps;
use crate::{ExportError, Result};
use candle_core::quantized::GgmlDType;
use candle_core::{Device, Tensor};
use half::f16;

/// Weights of a block.
pub const WEIGHTS: usize = 256;
/// Weights that share a step and an offset.
const PART: usize = 32;
const PARTS: usize = WEIGHTS / PART;
/// Bytes of a block: d, dmin, twelve of steps and offsets, and the codes.
const BYTES: usize = 144;
/// Where the steps and offsets begin.
const SCALES: usize = 4;
/// Where the codes begin.
const CODES: usize = 16;
/// The largest code.
const MAX_CODE: f32 = 15.0;

/// Step and offset of a part.
type Part = (f32, f32);

/// The blocks of a matrix, found one column of blocks after another.
#[derive(Clone, Default)]
pub struct Q4K {
    /// Of each block column, `[outputs, BYTES]`.
    blocks: Vec<Vec<u8>>,
    /// Of each block column, `[outputs, PARTS]`.
    parts: Vec<Vec<Part>>,
}

impl Steps for Q4K {
    fn find(&mut self, group: usize, weights: &[f32], energy: &[f64]) -> Result<()> {
        let unfit = || ExportError::NotFinite("a linear's weight".into());
        // GGML's search passes over what is not a number.
        if !weights.iter().all(|w| w.is_finite()) {
            return Err(unfit());
        }
        let weights =
            Tensor::from_slice(weights, (weights.len() / WEIGHTS, WEIGHTS), &Device::Cpu)?;
        let block = encode::quantise(&weights, GgmlDType::Q4K, energy)?;
        let blocks = block.data()?.into_owned();
        let parts: Vec<Part> = blocks.chunks_exact(BYTES).flat_map(parts).collect();
        if parts.iter().any(|(step, offset)| !step.is_finite() || !offset.is_finite()) {
            return Err(unfit());
        }
        let columns = self.blocks.len().max(group + 1);
        self.blocks.resize(columns, Vec::new());
        self.parts.resize(columns, Vec::new());
        self.blocks[group] = blocks;
        self.parts[group] = parts;
        Ok(())
    }

    fn round(&self, output: usize, input: usize, weight: f32) -> (u8, f32) {
        let at = output * PARTS + input % WEIGHTS / PART;
        let (step, offset) = self.parts[input / WEIGHTS][at];
        // A part whose weights are all alike has no step.
        let code = if step == 0.0 { 0.0 } else { (weight + offset) / step };
        let code = code.round().clamp(0.0, MAX_CODE);
        (code as u8, step * code - offset)
    }

    fn append(&mut self, others: Self) {
        let columns = self.blocks.len().max(others.blocks.len());
        self.blocks.resize(columns, Vec::new());
        self.parts.resize(columns, Vec::new());
        let own = self.blocks.iter_mut().zip(&mut self.parts);
        for ((blocks, parts), others) in own.zip(others.blocks.into_iter().zip(others.parts)) {
            blocks.extend(others.0);
            parts.extend(others.1);
        }
    }
}

/// A matrix: blocks and the codes in them, `[outputs, inputs]`.
pub struct Q4KMatrix {
    /// What the codes stand for.
    pub steps: Q4K,
    /// The codes.
    pub codes: Vec<u8>,
}

impl Q4KMatrix {
    fn inputs(&self) -> usize {
        self.steps.blocks.len() * WEIGHTS
    }

    /// Its rows.
    pub fn outputs(&self) -> usize {
        self.codes.len() / self.inputs().max(1)
    }

    /// As GGML has it.
    pub fn blocks(&self) -> Vec<u8> {
        let (inputs, columns) = (self.inputs(), &self.steps.blocks);
        let mut bytes = Vec::with_capacity(self.outputs() * columns.len() * BYTES);
        for row in 0..self.outputs() {
            for (column, blocks) in columns.iter().enumerate() {
                let block = &blocks[row * BYTES..(row + 1) * BYTES];
                let from = row * inputs + column * WEIGHTS;
                bytes.extend(&block[..CODES]);
                bytes.extend(packed(&self.codes[from..from + WEIGHTS]));
            }
        }
        bytes
    }

    /// Steps and offsets of all parts, row by row.
    fn parts(&self) -> impl Iterator<Item = Part> + '_ {
        let column = move |row: usize| {
            move |parts: &'_ Vec<Part>| parts[row * PARTS..(row + 1) * PARTS].to_vec()
        };
        (0..self.outputs()).flat_map(move |row| self.steps.parts.iter().flat_map(column(row)))
    }

    /// The same with other codes, and factors on the steps and offsets of each block, rounded as they are
    /// stored.
    ///
    /// # Errors
    /// Factors that leave what a block can hold.
    pub fn moved(&self, moved: &Moved) -> Result<Self> {
        let (mut steps, columns) = (self.steps.clone(), self.steps.blocks.len());
        for (column, (blocks, parts)) in steps.blocks.iter_mut().zip(&mut steps.parts).enumerate() {
            for (row, block) in blocks.chunks_exact_mut(BYTES).enumerate() {
                let at = row * columns + column;
                scale(block, 0, moved.steps[at])?;
                scale(block, 2, moved.offsets[at])?;
            }
            *parts = blocks.chunks_exact(BYTES).flat_map(self::parts).collect();
        }
        Ok(Self { steps, codes: moved.codes.clone() })
    }
}

/// Multiplies the half float at `at`.
fn scale(block: &mut [u8], at: usize, factor: f32) -> Result<()> {
    let scaled = f16::from_f32(half(block, at) * factor);
    if !scaled.is_finite() {
        return Err(ExportError::NotFinite("a block's step".into()));
    }
    block[at..at + 2].copy_from_slice(&scaled.to_le_bytes());
    Ok(())
}

/// The half float at `at`.
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

impl Coded for Q4KMatrix {
    fn codes(&self) -> &[u8] {
        &self.codes
    }

    fn affine(&self) -> Affine {
        let (steps, offsets) = self.parts().unzip();
        Affine { zero: 0, part: PART, steps, offsets: Some(offsets), block: WEIGHTS }
    }

    fn values(&self) -> Result<Tensor> {
        let of = |((step, offset), codes): (Part, &[u8])| -> Vec<f32> {
            codes.iter().map(|code| step * f32::from(*code) - offset).collect()
        };
        let values = self.parts().zip(self.codes.chunks_exact(PART)).flat_map(of).collect();
        Ok(Tensor::from_vec(values, (self.outputs(), self.inputs()), &Device::Cpu)?)
    }

    fn moved(&self, moved: &Moved) -> Result<Box<dyn Coded>> {
        Ok(Box::new(self.moved(moved)?))
    }
}

/// Steps and offsets of a block.
fn parts(block: &[u8]) -> [Part; PARTS] {
    let (d, dmin, six) = (half(block, 0), half(block, 2), &block[SCALES..CODES]);
    std::array::from_fn(|part| {
        let (step, offset) = match part {
            0..4 => (six[part] & 63, six[part + 4] & 63),
            _ => {
                let (both, low, high) = (six[part + 4], six[part - 4], six[part]);
                (both & 15 | low >> 6 << 4, both >> 4 | high >> 6 << 4)
            }
        };
        (d * f32::from(step), dmin * f32::from(offset))
    })
}

/// Two codes a byte: those of a pair of parts lie in the lower and the upper half.
fn packed(codes: &[u8]) -> impl Iterator<Item = u8> {
    codes.chunks_exact(2 * PART).flat_map(|pair| {
        let (low, high) = pair.split_at(PART);
        low.iter().zip(high).map(|(low, high)| low | high << 4)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::quantized::QTensor;

    /// Codes as GGML packs them.
    fn unpacked(block: &[u8]) -> Vec<u8> {
        let pair = |bytes: &[u8]| -> Vec<u8> {
            bytes.iter().map(|b| b & 15).chain(bytes.iter().map(|b| b >> 4)).collect()
        };
        block[CODES..].chunks_exact(PART).flat_map(pair).collect()
    }

    #[test]
    fn a_block_is_read_and_written_as_ggml_does() {
        let weights = Tensor::randn(0.1f32, 1.0, (3, 2 * WEIGHTS), &Device::Cpu).unwrap();
        let whole = QTensor::quantize(&weights, GgmlDType::Q4K).unwrap();
        let values: Vec<f32> =
            whole.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let weights: Vec<f32> = weights.flatten_all().unwrap().to_vec1().unwrap();
        let mut ours = Q4K::default();
        // The later column first: each has its place.
        for column in [1, 0] {
            let own: Vec<f32> = weights
                .chunks_exact(2 * WEIGHTS)
                .flat_map(|row| row[column * WEIGHTS..][..WEIGHTS].to_vec())
                .collect();
            ours.find(column, &own, &[]).unwrap();
        }
        let data = whole.data().unwrap();
        let codes: Vec<u8> = data.chunks_exact(BYTES).flat_map(unpacked).collect();
        for (i, (code, value)) in codes.iter().zip(&values).enumerate() {
            let (output, input) = (i / (2 * WEIGHTS), i % (2 * WEIGHTS));
            assert_eq!(ours.round(output, input, *value), (*code, *value), "weight {i}");
        }
        let ours = Q4KMatrix { steps: ours, codes };
        assert_eq!(ours.blocks(), *data);
        let read = |of: &Tensor| of.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(read(&ours.values().unwrap()), values);
    }

    #[test]
    fn weights_without_steps_are_refused_and_equal_ones_kept() {
        let mut blocks = Q4K::default();
        assert!(blocks.find(0, &[f32::NAN; WEIGHTS], &[]).is_err());
        let mut blocks = Q4K::default();
        blocks.find(0, &[0.0; WEIGHTS], &[]).unwrap();
        assert_eq!(blocks.round(0, 7, 0.0), (0, 0.0));
    }
}
