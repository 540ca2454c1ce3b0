//! Plain slices of tensors, for the loops that the tensor library has no fused operation for.

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor};

/// Whether the hand-written CPU loops serve `x`: f32 in main memory, and nothing is differentiated
/// through it.
pub(crate) fn is_plain(x: &Tensor) -> bool {
    is_float(x) && !x.track_op()
}

/// Whether `x` is f32 in main memory.
pub(crate) fn is_float(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32
}

/// Calls `f` with the values of `x`, row-major. `x` must be f32 on the CPU; a view is made
/// contiguous first.
pub(crate) fn with_values<R>(x: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(f(elements(storage, layout)?)),
        _ => candle_core::bail!("values of a tensor that is not on the CPU"),
    }
}

/// The elements of contiguous f32 storage.
pub(crate) fn elements<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let all = storage.as_slice::<f32>()?;
    let range = layout.contiguous_offsets().and_then(|(start, end)| all.get(start..end));
    range.ok_or_else(|| candle_core::Error::Msg("the values must be contiguous".into()))
}
