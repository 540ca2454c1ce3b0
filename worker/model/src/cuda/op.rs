//! A kernel's launch as an operation of the tensor library, which hands over storages and wraps the
//! result. None of these is differentiable, and none runs on the CPU.

use candle_core::cuda_backend::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

/// A tensor as a launch sees it.
pub(super) type Input<'a> = (&'a CudaStorage, &'a Layout);

struct Op<F> {
    name: &'static str,
    run: F,
}

/// What `run` makes of one tensor.
pub(super) fn op1<F>(name: &'static str, x: &Tensor, run: F) -> Result<Tensor>
where
    F: Fn(Input<'_>) -> Result<(CudaStorage, Shape)>,
{
    x.apply_op1_no_bwd(&Op { name, run })
}

/// What `run` makes of two.
pub(super) fn op2<F>(name: &'static str, [x, y]: [&Tensor; 2], run: F) -> Result<Tensor>
where
    F: Fn([Input<'_>; 2]) -> Result<(CudaStorage, Shape)>,
{
    x.apply_op2_no_bwd(y, &Op { name, run })
}

/// What `run` makes of three.
pub(super) fn op3<F>(name: &'static str, [x, y, z]: [&Tensor; 3], run: F) -> Result<Tensor>
where
    F: Fn([Input<'_>; 3]) -> Result<(CudaStorage, Shape)>,
{
    x.apply_op3_no_bwd(y, z, &Op { name, run })
}

/// What the CPU says.
pub(super) fn only_cuda<T>(name: &str) -> Result<T> {
    candle_core::bail!("{name} runs on CUDA only")
}

impl<F: Fn(Input<'_>) -> Result<(CudaStorage, Shape)>> CustomOp1 for Op<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        only_cuda(self.name)
    }

    fn cuda_fwd(&self, x: &CudaStorage, xl: &Layout) -> Result<(CudaStorage, Shape)> {
        (self.run)((x, xl))
    }
}

impl<F: Fn([Input<'_>; 2]) -> Result<(CudaStorage, Shape)>> CustomOp2 for Op<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        only_cuda(self.name)
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        xl: &Layout,
        y: &CudaStorage,
        yl: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        (self.run)([(x, xl), (y, yl)])
    }
}

impl<F: Fn([Input<'_>; 3]) -> Result<(CudaStorage, Shape)>> CustomOp3 for Op<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        only_cuda(self.name)
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        xl: &Layout,
        y: &CudaStorage,
        yl: &Layout,
        z: &CudaStorage,
        zl: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        (self.run)([(x, xl), (y, yl), (z, zl)])
    }
}
