//! Q4_K, the 4-bit block of llama.cpp's K-quants: 256 weights in eight parts of 32, each with a step and an
//! offset of 6 bits; a weight is d·step·code − dmin·offset.
//!
//! Here GGML's own search finds a block's steps, and GPTQ its codes: an error that one code makes is mended by
//! those after it, which GGML's tools leave out.
#![allow(clippy::indexing_slicing)] // Bounds: blocks are whole, `find` laid out those that are asked for, and parts and codes run below 8 and 256.

use super::encode;
use crate::gptq::Steps;
use crate::{ExportError, Result};
use candle_core::quantized::{GgmlDType, QTensor, ggml_file};
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
#[derive(Default)]
pub struct Q4K {
    /// Of each block column, `[outputs, BYTES]`.
    blocks: Vec<Vec<u8>>,
    /// Of each block column, `[outputs, PARTS]`.
    parts: Vec<Vec<Part>>,
}

impl Steps for Q4K {
    fn group(&self) -> usize {
        WEIGHTS
    }

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
}

impl Q4K {
    /// The matrix with codes `[outputs, inputs]`, its rows in the order `rows`.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn matrix(&self, codes: &[u8], rows: &[usize]) -> Result<QTensor> {
        let inputs = self.blocks.len() * WEIGHTS;
        let mut bytes = Vec::with_capacity(rows.len() * self.blocks.len() * BYTES);
        for row in rows {
            for (column, blocks) in self.blocks.iter().enumerate() {
                let block = &blocks[row * BYTES..(row + 1) * BYTES];
                let from = row * inputs + column * WEIGHTS;
                bytes.extend(&block[..CODES]);
                bytes.extend(packed(&codes[from..from + WEIGHTS]));
            }
        }
        let shape = vec![rows.len(), inputs];
        Ok(ggml_file::qtensor_from_ggml(GgmlDType::Q4K, &bytes, shape, &Device::Cpu)?)
    }
}

/// Steps and offsets of a block.
fn parts(block: &[u8]) -> [Part; PARTS] {
    let half = |at: usize| f16::from_le_bytes([block[at], block[at + 1]]).to_f32();
    let (d, dmin, six) = (half(0), half(2), &block[SCALES..CODES]);
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
        let again = ours.matrix(&codes, &[0, 1, 2]).unwrap();
        assert_eq!(again.data().unwrap(), data);
        let turned = ours.matrix(&codes, &[2, 0, 1]).unwrap();
        assert_eq!(turned.data().unwrap()[..2 * BYTES], data[4 * BYTES..]);
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
