//! What every tensor read is held to: its shape, and numbers that are finite.

use crate::{ModelError, Result};
use candle_core::DType;
use safetensors::tensor::Dtype;

pub(super) fn check_shape(name: &str, got: &[usize], want: &[usize]) -> Result<()> {
    if got == want {
        return Ok(());
    }
    Err(ModelError::tensor(name, format!("has shape {got:?}, config.json asks for {want:?}")))
}

pub(super) fn not_finite(name: &str) -> ModelError {
    ModelError::tensor(
        name,
        "holds a value that is not a finite number: the file is damaged, fetch it again",
    )
}

/// Whether all little-endian floats have an exponent below the one of infinities and NaN.
pub(super) fn all_finite(bytes: &[u8], dtype: DType) -> bool {
    let half =
        |mask: u16| bytes.as_chunks::<2>().0.iter().all(|b| u16::from_le_bytes(*b) & mask != mask);
    match dtype {
        DType::BF16 => half(0x7f80),
        DType::F16 => half(0x7c00),
        _ => bytes
            .as_chunks::<4>()
            .0
            .iter()
            .all(|b| u32::from_le_bytes(*b) & 0x7f80_0000 != 0x7f80_0000),
    }
}

/// A type as it is called in messages: bf16, f8_e4m3.
pub fn dtype_name(dtype: Dtype) -> String {
    format!("{dtype:?}").to_lowercase()
}
