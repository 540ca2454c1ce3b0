//! Our own kernels for NVIDIA GPUs (`kernels.cu`): MXFP4 and NF4 expanded where they lie, gpt-oss's gated
//! unit, sums over a token's experts, norms of rows. Each computes in f32 and rounds once; f32 and
//! bf16 are served.
//!
//! The callers (`layers`) decide which tensor comes here and what its gradient is; here only shapes
//! are checked.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaView, DeviceRepr, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};
use candle_core::cuda_backend::{CudaDType, CudaDevice, CudaStorage, WrapErr};
use candle_core::{DType, Device, Layout, Result, Shape, Tensor};
use half::bf16;
use op::{Input, op1, op2, op3};
use std::sync::OnceLock;

/// Calls `$f::<T>` for the type of values.
macro_rules! by_type {
    ($dtype:expr, $f:ident ( $($arg:expr),* )) => {
        match $dtype {
            DType::F32 => $f::<f32>($($arg),*),
            DType::BF16 => $f::<bf16>($($arg),*),
            other => candle_core::bail!("no CUDA kernel for {other:?}"),
        }
    };
}

mod attend;
mod nf4;
mod op;

pub(crate) use attend::{Ragged, attend, attends};
pub(crate) use nf4::expand_nf4;

/// Threads of a block.
const THREADS: u32 = 256;

/// Whether the kernels serve `x`.
pub(crate) fn serves(x: &Tensor) -> bool {
    x.device().is_cuda() && matches!(x.dtype(), DType::F32 | DType::BF16)
}

/// Bytes of a CUDA device that are free.
pub(crate) fn free_memory(device: &Device) -> Option<u64> {
    let Device::Cuda(device) = device else { return None };
    device.cuda_stream().context().mem_get_info().ok().map(|(free, _)| free as u64)
}

/// Has the driver keep freed memory for what is allocated next, as PyTorch does: by default it
/// unmaps all of it each time that a number is read, and maps it anew. Where the driver cannot,
/// everything works as well, only slower.
pub(crate) fn keep_freed_memory(device: &Device) {
    use candle_core::cuda_backend::cudarc::driver::sys;
    let Device::Cuda(device) = device else { return };
    let mut pool = std::ptr::null_mut();
    let mut all = u64::MAX;
    let attribute = sys::CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the device is open; both calls write or read what they are given pointers to, before
    // they return.
    unsafe {
        let found =
            sys::cuDeviceGetDefaultMemPool(&mut pool, device.cuda_stream().context().cu_device());
        if found == sys::cudaError_enum::CUDA_SUCCESS {
            let _ = sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut all).cast());
        }
    }
}

/// MXFP4 blocks and scales, bytes as a checkpoint holds them, to `shape` values of `dtype`.
pub(crate) fn expand(
    blocks: &Tensor,
    scales: &Tensor,
    shape: (usize, usize),
    dtype: DType,
) -> Result<Tensor> {
    op2("mxfp4-expand", [blocks, scales], |inputs| by_type!(dtype, run_expand(shape, inputs)))
}

/// gpt-oss's unit, `[S, 2·inner]` to `[S, inner]`; not differentiable.
pub(crate) fn unit(pairs: &Tensor, alpha: f64, limit: f64) -> Result<Tensor> {
    let (dtype, numbers) = (pairs.dtype(), [alpha as f32, limit as f32]);
    op1("clamped-unit", &pairs.contiguous()?, |pairs| by_type!(dtype, run_unit(numbers, pairs)))
}

/// Its gradient, `[S, 2·inner]` and `[S, inner]` to `[S, 2·inner]`.
pub(crate) fn unit_back(pairs: &Tensor, grad: &Tensor, alpha: f64, limit: f64) -> Result<Tensor> {
    let (dtype, numbers) = (pairs.dtype(), [alpha as f32, limit as f32]);
    op2("clamped-unit-backward", [&pairs.contiguous()?, &grad.contiguous()?], |inputs| {
        by_type!(dtype, run_unit_back(numbers, inputs))
    })
}

/// Row n of the result is the sum of gates\[s\] times row places\[s\] of `[S, W]`, s from n · k:
/// `[N, W]`; not differentiable.
pub(crate) fn sum_places(
    rows: &Tensor,
    places: &Tensor,
    gates: &Tensor,
    k: usize,
) -> Result<Tensor> {
    let dtype = rows.dtype();
    op3("sum-places", [&rows.contiguous()?, places, &gates.contiguous()?], |inputs| {
        by_type!(dtype, run_sum_places(k, inputs))
    })
}

/// Rows `ids` of `[N, W]`, each of them a row of it; W is even. Not differentiable.
pub(crate) fn gather(x: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let dtype = x.dtype();
    op2("gather-rows", [&x.contiguous()?, ids], |inputs| by_type!(dtype, run_gather(inputs)))
}

/// Adds `[W]` to every row of `[N, W]`; not differentiable.
pub(crate) fn add_bias(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let dtype = x.dtype();
    op2("add-bias", [&x.contiguous()?, &bias.contiguous()?], |inputs| {
        by_type!(dtype, run_add_bias(inputs))
    })
}

/// Euclidean norms over the last dimension, in f32.
pub(crate) fn norms(x: &Tensor) -> Result<Tensor> {
    let dtype = x.dtype();
    op1("norms", &x.contiguous()?, |x| by_type!(dtype, run_norms(x)))
}

/// The compiled kernels, for any GPU that CUDA 13 knows; the driver makes its own code of it.
fn ptx() -> Result<&'static str> {
    static PTX: OnceLock<std::result::Result<String, String>> = OnceLock::new();
    let compile = || {
        let options = vec!["--gpu-architecture=compute_75".to_owned(), "--std=c++17".to_owned()];
        let options = CompileOptions { options, ..CompileOptions::default() };
        compile_ptx_with_opts(include_str!("kernels.cu"), options)
            .map(|ptx| ptx.to_src())
            .map_err(|e| format!("{e:?}"))
    };
    match PTX.get_or_init(compile) {
        Ok(ptx) => Ok(ptx),
        Err(why) => candle_core::bail!("the CUDA kernels do not compile: {why}"),
    }
}

/// A value type of the kernels.
trait Value: CudaDType + DeviceRepr {
    const NAME: &'static str;
}

impl Value for f32 {
    const NAME: &'static str = "f32";
}

impl Value for bf16 {
    const NAME: &'static str = "bf16";
}

/// A kernel by its name.
fn function(device: &CudaDevice, name: &str) -> Result<CudaFunction> {
    Ok(device.get_or_load_custom_func(name, "uspx", ptx()?)?.into_cuda_function())
}

/// The kernel of a type of values.
fn kernel<T: Value>(device: &CudaDevice, name: &str) -> Result<CudaFunction> {
    function(device, &format!("{name}_{}", T::NAME))
}

/// The elements of a contiguous tensor.
fn view<'a, T: CudaDType>(storage: &'a CudaStorage, layout: &Layout) -> Result<CudaView<'a, T>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(storage.as_cuda_slice::<T>()?.slice(start..end)),
        None => candle_core::bail!("a CUDA kernel was given values that are not contiguous"),
    }
}

/// A thread an element.
fn each(count: usize) -> Result<LaunchConfig> {
    let blocks = u32::try_from(count.div_ceil(THREADS as usize))?;
    Ok(LaunchConfig {
        grid_dim: (blocks.max(1), 1, 1),
        block_dim: (THREADS, 1, 1),
        shared_mem_bytes: 0,
    })
}

/// A block a row.
fn by_row(rows: usize) -> Result<LaunchConfig> {
    Ok(LaunchConfig {
        grid_dim: (u32::try_from(rows)?, 1, 1),
        block_dim: (THREADS, 1, 1),
        shared_mem_bytes: 0,
    })
}

fn run_expand<T: Value>(
    shape: (usize, usize),
    inputs: [Input<'_>; 2],
) -> Result<(CudaStorage, Shape)> {
    let [(blocks, bl), (scales, sl)] = inputs;
    let (device, count) = (blocks.device(), shape.0 * shape.1);
    if bl.shape().elem_count() * 2 != count
        || sl.shape().elem_count() * 32 != count
        || bl.start_offset() != 0
    {
        candle_core::bail!("MXFP4 of {bl:?} and {sl:?} is not a matrix of {shape:?}");
    }
    let (blocks, scales) = (view::<u8>(blocks, bl)?, view::<u8>(scales, sl)?);
    // SAFETY: the kernel writes all `count` values.
    let mut out = unsafe { device.alloc::<T>(count)? };
    let (function, words) = (kernel::<T>(device, "expand")?, count / 8);
    let stream = device.cuda_stream();
    let mut launch = stream.launch_builder(&function);
    launch.arg(&blocks).arg(&scales).arg(&mut out).arg(&words);
    // SAFETY: `words` words of blocks (aligned: they begin their allocation), a scale for each
    // four, eight values for each.
    unsafe { launch.launch(each(words)?) }.w()?;
    Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), shape.into()))
}

fn run_unit<T: Value>(
    [alpha, limit]: [f32; 2],
    (pairs, layout): Input<'_>,
) -> Result<(CudaStorage, Shape)> {
    let (rows, width) = layout.shape().dims2()?;
    let (device, count) = (pairs.device(), rows * (width / 2));
    let pairs = view::<T>(pairs, layout)?;
    // SAFETY: the kernel writes all `count` values.
    let mut out = unsafe { device.alloc::<T>(count)? };
    let function = kernel::<T>(device, "unit")?;
    let stream = device.cuda_stream();
    let mut launch = stream.launch_builder(&function);
    launch.arg(&pairs).arg(&mut out).arg(&count).arg(&alpha).arg(&limit);
    // SAFETY: two values of `pairs` for each of `count` outputs; the width is even (checked by the
    // caller).
    unsafe { launch.launch(each(count)?) }.w()?;
    Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), (rows, width / 2).into()))
}

fn run_unit_back<T: Value>(
    [alpha, limit]: [f32; 2],
    inputs: [Input<'_>; 2],
) -> Result<(CudaStorage, Shape)> {
    let [(pairs, pl), (grad, gl)] = inputs;
    let (device, count) = (pairs.device(), gl.shape().elem_count());
    if pl.shape().elem_count() != 2 * count {
        candle_core::bail!("the gradient {gl:?} is not of a unit on {pl:?}");
    }
    let (pairs, grad) = (view::<T>(pairs, pl)?, view::<T>(grad, gl)?);
    // SAFETY: the kernel writes all values, two for each of `count`.
    let mut out = unsafe { device.alloc::<T>(2 * count)? };
    let function = kernel::<T>(device, "unit_back")?;
    let stream = device.cuda_stream();
    let mut launch = stream.launch_builder(&function);
    launch.arg(&pairs).arg(&grad).arg(&mut out).arg(&count).arg(&alpha).arg(&limit);
    // SAFETY: the sizes are checked above.
    unsafe { launch.launch(each(count)?) }.w()?;
    Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), pl.shape().clone()))
}

fn run_gather<T: Value>(inputs: [Input<'_>; 2]) -> Result<(CudaStorage, Shape)> {
    let [(x, xl), (ids, il)] = inputs;
    let ((_, width), rows, device) = (xl.shape().dims2()?, il.shape().dims1()?, x.device());
    let bytes = width * size_of::<T>();
    if !bytes.is_multiple_of(4) || !(xl.start_offset() * size_of::<T>()).is_multiple_of(4) {
        candle_core::bail!("rows of {bytes} bytes are not words of 32 bits");
    }
    let (x, ids, words) = (view::<T>(x, xl)?, view::<u32>(ids, il)?, (bytes / 4) as u32);
    // SAFETY: the kernel writes a row for each id.
    let mut out = unsafe { device.alloc::<T>(rows * width)? };
    let function = function(device, "gather")?;
    let stream = device.cuda_stream();
    let mut launch = stream.launch_builder(&function);
    launch.arg(&x).arg(&ids).arg(&mut out).arg(&words);
    if rows > 0 {
        // SAFETY: the caller's ids are rows of x; rows begin at whole words, checked above.
        unsafe { launch.launch(by_row(rows)?) }.w()?;
    }
    Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), (rows, width).into()))
}

fn run_add_bias<T: Value>(inputs: [Input<'_>; 2]) -> Result<(CudaStorage, Shape)> {
    let [(x, xl), (bias, bl)] = inputs;
    let (device, count, width) = (x.device(), xl.shape().elem_count(), bl.shape().dims1()? as u32);
    if xl.dims().last().copied() != Some(width as usize) {
        candle_core::bail!("a bias of {width} for {xl:?}");
    }
    let (x, bias) = (view::<T>(x, xl)?, view::<T>(bias, bl)?);
    // SAFETY: the kernel writes all `count` values.
    let mut out = unsafe { device.alloc::<T>(count)? };
    let function = kernel::<T>(device, "add_bias")?;
    let stream = device.cuda_stream();
    let mut launch = stream.launch_builder(&function);
    launch.arg(&x).arg(&bias).arg(&mut out).arg(&width);
    if count > 0 {
        // SAFETY: `count` values in rows of `width`, checked above.
        unsafe { launch.launch(by_row(count / width as usize)?) }.w()?;
    }
    Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), xl.shape().clone()))
}

fn run_sum_places<T: Value>(k: usize, inputs: [Input<'_>; 3]) -> Result<(CudaStorage, Shape)> {
    let [(rows, rl), (places, pl), (gates, gl)] = inputs;
    let ((_, width), device) = (rl.shape().dims2()?, rows.device());
    let tokens = pl.shape().elem_count() / k.max(1);
    if gl.shape().elem_count() != pl.shape().elem_count() {
        candle_core::bail!("{pl:?} places, but gates {gl:?}");
    }
    let (rows, places, gates) =
        (view::<T>(rows, rl)?, view::<u32>(places, pl)?, view::<T>(gates, gl)?);
    // SAFETY: the kernel writes a row of `width` for each token.
    let mut out = unsafe { device.alloc::<T>(tokens * width)? };
    let (function, w, k) = (kernel::<T>(device, "sum_places")?, width as u32, k as u32);
    let stream = device.cuda_stream();
    let mut launch = stream.launch_builder(&function);
    launch.arg(&rows).arg(&places).arg(&gates).arg(&mut out).arg(&w).arg(&k);
    if tokens > 0 {
        // SAFETY: k places for each of `tokens`; the caller made them of the rows' order, so each
        // is a row.
        unsafe { launch.launch(by_row(tokens)?) }.w()?;
    }
    Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), (tokens, width).into()))
}

fn run_norms<T: Value>((x, layout): Input<'_>) -> Result<(CudaStorage, Shape)> {
    let (device, dims) = (x.device(), layout.dims());
    let Some((width, outer)) = dims.split_last() else { candle_core::bail!("norms of a scalar") };
    let (rows, w) = (outer.iter().product::<usize>(), *width as u32);
    let x = view::<T>(x, layout)?;
    // SAFETY: the kernel writes a norm for each row.
    let mut out = unsafe { device.alloc::<f32>(rows)? };
    let function = kernel::<T>(device, "norms")?;
    let stream = device.cuda_stream();
    let mut launch = stream.launch_builder(&function);
    launch.arg(&x).arg(&mut out).arg(&rows).arg(&w);
    // SAFETY: `rows` rows of `w` values; a warp serves one.
    unsafe { launch.launch(each(rows * 32)?) }.w()?;
    Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), outer.into()))
}
