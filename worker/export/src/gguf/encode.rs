//! Weights as GGML blocks.

use crate::quantised::QuantLinear;
use crate::{ExportError, Result};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{D, Tensor};

/// Weights of a Q4_0 block.
pub const Q4_0_BLOCK: usize = 32;
/// Weights of a K-quant's block.
const K_BLOCK: usize = 256;

/// The 4-bit block type for rows of `inputs` weights: Q4_K where its blocks of 256 fit, Q4_0
/// otherwise.
pub fn linear_type(inputs: usize) -> GgmlDType {
    if inputs.is_multiple_of(K_BLOCK) { GgmlDType::Q4K } else { GgmlDType::Q4_0 }
}

/// The type of the embedding, and of a head of its own, with rows of `hidden`: about 8 bits, or 6
/// in K-quants where the logits come from it; f16 where no block fits.
pub fn embedding_type(hidden: usize) -> GgmlDType {
    match () {
        () if hidden.is_multiple_of(K_BLOCK) => GgmlDType::Q6K,
        () if hidden.is_multiple_of(Q4_0_BLOCK) => GgmlDType::Q8_0,
        () => GgmlDType::F16,
    }
}

/// Quantises as GGML does: by itself, or, for K-quants, weighted by each input's energy where that
/// is known.
///
/// # Errors
/// Rows that the blocks do not fit.
pub fn quantise(weight: &Tensor, dtype: GgmlDType, energy: &[f64]) -> Result<QTensor> {
    // Of a tensor that is a part of another, the tensor library would quantise the whole.
    let weight = &weight.force_contiguous()?;
    let importance: Vec<f32> = energy.iter().map(|e| *e as f32).collect();
    let known = importance.len() == weight.dim(D::Minus1)? && importance.iter().any(|i| *i > 0.0);
    if known && dtype == GgmlDType::Q4K {
        return Ok(QTensor::quantize_imatrix(weight, &importance, dtype)?);
    }
    Ok(QTensor::quantize(weight, dtype)?)
}

/// A 4-bit linear as Q4_0, losslessly: Q4_0's blocks are symmetric groups of 32 with the same zero
/// point of 8, so any group that is a multiple of 32 becomes blocks of equal scale. This is how
/// GPTQ's error feedback gets into GGUF.
///
/// # Errors
/// [`ExportError::Unsupported`] where the group is not a multiple of 32.
pub fn q4_0(linear: &QuantLinear) -> Result<Vec<u8>> {
    if !linear.group().is_multiple_of(Q4_0_BLOCK) {
        return Err(ExportError::Unsupported(format!(
            "groups of {} do not make blocks of {Q4_0_BLOCK}",
            linear.group()
        )));
    }
    let mut bytes =
        Vec::with_capacity(linear.codes().len() / Q4_0_BLOCK * GgmlDType::Q4_0.type_size());
    for (group, scale) in linear.codes().chunks_exact(linear.group()).zip(linear.scales()) {
        for block in group.chunks_exact(Q4_0_BLOCK) {
            let (low, high) = block.split_at(Q4_0_BLOCK / 2);
            bytes.extend(scale.to_le_bytes());
            bytes.extend(low.iter().zip(high).map(|(l, h)| l | h << 4));
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use candle_core::quantized::ggml_file;
    use half::f16;

    #[test]
    fn q4_0_holds_a_group_exactly() {
        let codes: Vec<u8> = (0..2 * 128u32).map(|i| (i * 7 % 16) as u8).collect();
        let scales = [0.5, -0.031, 2.0, 1e-3].map(f16::from_f32).to_vec();
        let linear = QuantLinear::new(2, 128, 64, codes, scales).unwrap();
        let (bytes, shape) = (q4_0(&linear).unwrap(), vec![2, 128]);
        let read = ggml_file::qtensor_from_ggml(GgmlDType::Q4_0, &bytes, shape, &Device::Cpu);
        let read = read.unwrap().dequantize(&Device::Cpu).unwrap();
        assert_eq!(read.flatten_all().unwrap().to_vec1::<f32>().unwrap(), linear.dequantise());
        let odd = QuantLinear::new(1, 48, 48, vec![0; 48], vec![f16::ONE]).unwrap();
        assert!(q4_0(&odd).is_err());
    }

    #[test]
    fn energy_steers_k_quants() {
        let weight = Tensor::randn(0f32, 1.0, (8, 256), &Device::Cpu).unwrap();
        let energy: Vec<f64> = (0..256).map(|i| if i % 8 == 0 { 100.0 } else { 1.0 }).collect();
        let weights =
            Tensor::from_vec(energy.iter().map(|e| *e as f32).collect(), 256, &Device::Cpu)
                .unwrap();
        let error = |energy: &[f64]| {
            let read = quantise(&weight, GgmlDType::Q4K, energy)
                .unwrap()
                .dequantize(&Device::Cpu)
                .unwrap();
            let square = (read - &weight).unwrap().sqr().unwrap().broadcast_mul(&weights).unwrap();
            square.sum_all().unwrap().to_scalar::<f32>().unwrap()
        };
        assert!(error(&energy) < 0.9 * error(&[]));
    }
}
