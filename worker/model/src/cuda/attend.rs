//! Attention of ragged sequences on a GPU: nothing is padded and no scores are laid out (see
//! `attend` in `kernels.cu`).

use super::op::{Input, only_cuda, op3};
use super::{Value, kernel, serves, view};
use crate::batch::Span;
use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::{CudaStorage, WrapErr};
use candle_core::{DType, Device, Result, Shape, Storage, Tensor};
use half::bf16;

/// Warps of a block.
const WARPS: usize = 8;

/// Keys that a block looks at together.
const KEYS: usize = 32;

/// Pairs of query and head that a warp serves, by how many times 32 values a head has.
fn pairs(head_dim: usize) -> Option<usize> {
    match head_dim {
        32 | 64 => Some(8),
        128 => Some(4),
        _ => None,
    }
}

/// Where the sequences of a batch are, on the device.
#[derive(Debug)]
pub(crate) struct Ragged {
    /// Rows of every sequence's positions, one sequence after another.
    rows: Tensor,
    /// Of every tile: where its sequence begins in `rows`, its first position, its sequence's
    /// length.
    tiles: Tensor,
    count: usize,
    /// Queries of a tile.
    queries: usize,
}

/// Whether the kernel serves queries `[N, heads, dim]` with so many KV heads.
pub(crate) fn attends(q: &Tensor, kv_heads: usize) -> bool {
    let Ok((_, heads, dim)) = q.dims3() else { return false };
    let group = heads / kv_heads.max(1);
    serves(q)
        && group > 0
        && heads.is_multiple_of(kv_heads)
        && pairs(dim).is_some_and(|p| group <= WARPS * p)
}

impl Ragged {
    /// Of the sequences of a batch, for heads of `dim` in groups that share a KV head.
    pub fn new(spans: &[Span], group: usize, dim: usize, device: &Device) -> Result<Self> {
        let queries = WARPS * pairs(dim).unwrap_or(1) / group.max(1);
        let (mut rows, mut tiles): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
        for span in spans {
            let start = rows.len() as u32;
            rows.extend(span.prefix.iter().copied().chain(span.queries.clone()));
            for first in (span.first..span.len()).step_by(queries.max(1)) {
                tiles.extend([start, first as u32, span.len() as u32]);
            }
        }
        let count = tiles.len() / 3;
        let (many, three) = (rows.len(), tiles.len());
        let rows = Tensor::from_vec(rows, many, device)?;
        Ok(Self { rows, tiles: Tensor::from_vec(tiles, three, device)?, count, queries })
    }
}

/// softmax(q·kᵀ / √d)·v of every sequence: `[N, heads, dim]`; `sinks` are f32, one a head. Not
/// differentiable.
pub(crate) fn attend(
    [q, k, v]: [&Tensor; 3],
    ragged: &Ragged,
    sinks: Option<&Tensor>,
    window: Option<usize>,
) -> Result<Tensor> {
    let (q, k, v) = (q.contiguous()?, k.contiguous()?, v.contiguous()?);
    let (dtype, op) = (q.dtype(), Attend { ragged, sinks, window });
    op3("attend", [&q, &k, &v], |inputs| by_type!(dtype, run(&op, inputs)))
}

struct Attend<'a> {
    ragged: &'a Ragged,
    sinks: Option<&'a Tensor>,
    window: Option<usize>,
}

fn run<T: Value>(op: &Attend<'_>, inputs: [Input<'_>; 3]) -> Result<(CudaStorage, Shape)> {
    let [(q, ql), (k, kl), (v, vl)] = inputs;
    let ((n, heads, dim), (kn, kv_heads, kd)) = (ql.shape().dims3()?, kl.shape().dims3()?);
    let Some(pairs) = pairs(dim) else {
        candle_core::bail!("no attention kernel for heads of {dim}")
    };
    if (kn, kd) != (n, dim)
        || vl.dims() != kl.dims()
        || heads / kv_heads * op.ragged.queries > WARPS * pairs
    {
        candle_core::bail!("attention of {ql:?} on {kl:?} and {vl:?}");
    }
    if op.sinks.is_some_and(|s| s.dims() != [heads] || s.dtype() != DType::F32) {
        candle_core::bail!("{heads} heads, but other sinks");
    }
    let device = q.device();
    let guards = [&op.ragged.rows, &op.ragged.tiles, op.sinks.unwrap_or(&op.ragged.rows)]
        .map(Tensor::storage_and_layout);
    let [(rows, rl), (tiles, tl), (sinks, sl)] = &guards;
    let (Storage::Cuda(rows), Storage::Cuda(tiles), Storage::Cuda(sinks)) =
        (&**rows, &**tiles, &**sinks)
    else {
        return only_cuda("attend");
    };
    let (rows, tiles) = (view::<u32>(rows, rl)?, view::<u32>(tiles, tl)?);
    let (q, k, v) = (view::<T>(q, ql)?, view::<T>(k, kl)?, view::<T>(v, vl)?);
    // SAFETY: the kernel writes all values of rows that are queries; the others (the trunk's, before
    // a stack of branches) are cut off unread.
    let mut out = unsafe { device.alloc::<T>(n * heads * dim)? };
    let function = kernel::<T>(device, &format!("attend_{}", dim / 32))?;
    let (h, kv, window) = (heads as u32, kv_heads as u32, op.window.unwrap_or(0) as u32);
    let (has, scale) = (u32::from(op.sinks.is_some()), 1.0 / (dim as f32).sqrt());
    let stream = device.cuda_stream();
    let mut launch = stream.launch_builder(&function);
    launch.arg(&q).arg(&k).arg(&v).arg(&rows).arg(&tiles);
    // Where there are no sinks the kernel does not look at what stands for them.
    let (some, none);
    if op.sinks.is_some() {
        some = view::<f32>(sinks, sl)?;
        launch.arg(&some);
    } else {
        none = view::<u32>(sinks, sl)?;
        launch.arg(&none);
    }
    launch.arg(&mut out).arg(&h).arg(&kv).arg(&window).arg(&has).arg(&scale);
    let shared = (WARPS * pairs * dim + KEYS * (dim + 1)) * size_of::<f32>();
    let grid_dim = (u32::try_from(op.ragged.count)?, kv, 1);
    let block_dim = (32 * WARPS as u32, 1, 1);
    // SAFETY: the rows of `ragged` are those of this batch, of whose size q, k and v are.
    unsafe { launch.launch(LaunchConfig { grid_dim, block_dim, shared_mem_bytes: shared as u32 }) }
        .w()?;
    Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), ql.shape().clone()))
}
