//! NF4 expanded where it lies (see `nf4` in `kernels.cu`).

use super::op::{Input, op3};
use super::{THREADS, Value, kernel, view};
use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::{CudaStorage, WrapErr};
use candle_core::{DType, Result, Shape, Tensor};
use half::bf16;

/// Values of a thread.
const EACH: usize = 8;

/// Codes, scales and numbers as [`uspx_kernel::Nf4Parts`] has them, to `shape` values of `dtype`, of the
/// matrix's values from number `first` on.
pub(crate) fn expand_nf4(
    parts: [&Tensor; 3],
    first: usize,
    shape: (usize, usize),
    dtype: DType,
) -> Result<Tensor> {
    op3("nf4-expand", parts, |inputs| by_type!(dtype, run(first, shape, inputs)))
}

fn run<T: Value>(
    first: usize,
    shape: (usize, usize),
    inputs: [Input<'_>; 3],
) -> Result<(CudaStorage, Shape)> {
    let [(codes, cl), (scales, sl), (numbers, nl)] = inputs;
    let (device, count) = (codes.device(), shape.0 * shape.1);
    let blocks = sl.shape().elem_count();
    if cl.shape().elem_count() * 2 < first + count
        || blocks * 64 < first + count
        || nl.shape().elem_count() != 257 + blocks.div_ceil(256)
    {
        candle_core::bail!(
            "NF4 of {cl:?}, {sl:?} and {nl:?} does not reach to {shape:?} at {first}"
        );
    }
    let (codes, scales) = (view::<u8>(codes, cl)?, view::<u8>(scales, sl)?);
    let numbers = view::<f32>(numbers, nl)?;
    // SAFETY: the kernel writes all `count` values.
    let mut out = unsafe { device.alloc::<T>(count)? };
    let function = kernel::<T>(device, "nf4")?;
    let stream = device.cuda_stream();
    let mut launch = stream.launch_builder(&function);
    launch.arg(&codes).arg(&scales).arg(&numbers).arg(&mut out).arg(&first).arg(&count);
    let blocks = u32::try_from(count.div_ceil(EACH * THREADS as usize))?;
    let config = LaunchConfig {
        grid_dim: (blocks.max(1), 1, 1),
        block_dim: (THREADS, 1, 1),
        shared_mem_bytes: 0,
    };
    // SAFETY: value first + count is within codes and scales, and there is a number for each group
    // of scales, checked above.
    unsafe { launch.launch(config) }.w()?;
    Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), shape.into()))
}
