//! Backward passes that candle does not give, or gives too dearly.
//!
//! candle loses gradients silently in its fused operations (norm, softmax, rope), and its `matmul`
//! computes a weight-sized gradient for frozen weights. Here the value `y` is computed by the fast
//! path from a detached `x`, and `x` is then given its gradient through `y`, written by hand. All
//! of them are checked against finite differences.

use crate::given::Given;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, Layout, MetalStorage, Result, Shape, Tensor,
};

/// The gradient with respect to x, from (x, y, gradient of y).
type Backward = Box<dyn Fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor> + Send + Sync>;

struct CustomGradient {
    y: Given,
    backward: Backward,
}

/// Gives `y`, with the gradient of `x` through it computed by `backward(x, y, grad_y)`.
///
/// `y` must have been computed from `x.detach()`. Where nothing upstream of `x` is differentiated,
/// `y` comes back as is.
///
/// # Errors
/// Those of the tensor library.
pub fn with_gradient<F>(name: &'static str, x: &Tensor, y: Tensor, backward: F) -> Result<Tensor>
where
    F: Fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor> + Send + Sync + 'static,
{
    if !x.track_op() {
        return Ok(y);
    }
    let y = Given::new(name, y)?;
    x.apply_op1(CustomGradient { y, backward: Box::new(backward) })
}

impl CustomOp1 for CustomGradient {
    fn name(&self) -> &'static str {
        self.y.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.y.on_cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.y.on_cuda()
    }

    fn metal_fwd(&self, _: &MetalStorage, _: &Layout) -> Result<(MetalStorage, Shape)> {
        self.y.on_metal()
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some((self.backward)(&x.detach(), &y.detach(), grad)?))
    }
}
