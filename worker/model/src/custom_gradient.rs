//! Backward passes that candle does not give, or gives too dearly.
//!
//! candle loses gradients silently in its fused operations (norm, softmax, rope), and its `matmul`
//! computes a weight-sized gradient for frozen weights. Here the value `y` is computed by the fast
//! path from a detached `x`, and `x` is then given its gradient through `y`, written by hand. All
//! of them are checked against finite differences.

use candle_core::{
    CpuStorage, CudaStorage, CustomOp2, Layout, MetalStorage, Result, Shape, Tensor,
};

/// The gradient with respect to x, from (x, y, gradient of y).
type Backward = Box<dyn Fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor> + Send + Sync>;

struct CustomGradient {
    name: &'static str,
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
    x.apply_op2(&y.contiguous()?, CustomGradient { name, backward: Box::new(backward) })
}

impl CustomOp2 for CustomGradient {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        y: &CpuStorage,
        l: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        // `with_gradient` hands over a contiguous y; the storage may still be larger than the view.
        let whole = l.start_offset() == 0 && l.shape().elem_count() == storage_len(y);
        if !whole {
            candle_core::bail!("{}: a value with its own gradient must own its storage", self.name);
        }
        Ok((y.clone(), l.shape().clone()))
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        y: &CudaStorage,
        l: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        Ok((y.try_clone(l)?, l.shape().clone()))
    }

    fn metal_fwd(
        &self,
        _: &MetalStorage,
        _: &Layout,
        y: &MetalStorage,
        l: &Layout,
    ) -> Result<(MetalStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        Ok((y.try_clone(l)?, l.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        _: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = (self.backward)(&x.detach(), &y.detach(), grad)?;
        Ok((Some(grad), None))
    }
}

fn storage_len(storage: &CpuStorage) -> usize {
    match storage {
        CpuStorage::F64(v) => v.len(),
        CpuStorage::F32(v) => v.len(),
        CpuStorage::F16(v) => v.len(),
        CpuStorage::BF16(v) => v.len(),
        _ => 0,
    }
}
