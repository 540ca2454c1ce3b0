//! Custom gradients of a value with respect to three inputs at once; see
//! [`crate::custom_gradient`].

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp3, Layout, MetalStorage, Result, Shape, Storage, Tensor,
};

/// Gradients with respect to three inputs, from the gradient of y. The first may be left out where
/// it is not asked for.
type Backward3 = Box<dyn Fn(&Tensor) -> Result<(Option<Tensor>, Tensor, Tensor)> + Send + Sync>;

struct CustomGradients {
    name: &'static str,
    y: Tensor,
    backward: Backward3,
}

/// Gives `y`, computed from detached inputs, with the gradients of the three `x` through it
/// computed by `backward(grad_y)`.
///
/// # Errors
/// Those of the tensor library.
pub fn with_gradients<F>(
    name: &'static str,
    x: [&Tensor; 3],
    y: Tensor,
    backward: F,
) -> Result<Tensor>
where
    F: Fn(&Tensor) -> Result<(Option<Tensor>, Tensor, Tensor)> + Send + Sync + 'static,
{
    if !x.iter().any(|x| x.track_op()) {
        return Ok(y);
    }
    let [first, second, third] = x;
    first.apply_op3(
        second,
        third,
        CustomGradients { name, y: y.contiguous()?, backward: Box::new(backward) },
    )
}

fn on_cpu(name: &str, y: &Tensor) -> Result<(CpuStorage, Shape)> {
    let (storage, layout) = y.storage_and_layout();
    match &*storage {
        Storage::Cpu(cpu) if layout.start_offset() == 0 => {
            Ok((cpu.try_clone(layout)?, layout.shape().clone()))
        }
        _ => candle_core::bail!(
            "{name}: inputs and output lie on different devices, or the output is a view"
        ),
    }
}

fn on_cuda(name: &str, y: &Tensor) -> Result<(CudaStorage, Shape)> {
    let (storage, layout) = y.storage_and_layout();
    match &*storage {
        Storage::Cuda(cuda) if layout.start_offset() == 0 => {
            Ok((cuda.try_clone(layout)?, layout.shape().clone()))
        }
        _ => candle_core::bail!(
            "{name}: inputs and output lie on different devices, or the output is a view"
        ),
    }
}

fn on_metal(name: &str, y: &Tensor) -> Result<(MetalStorage, Shape)> {
    let (storage, layout) = y.storage_and_layout();
    match &*storage {
        Storage::Metal(metal) if layout.start_offset() == 0 => {
            Ok((metal.try_clone(layout)?, layout.shape().clone()))
        }
        _ => candle_core::bail!(
            "{name}: inputs and output lie on different devices, or the output is a view"
        ),
    }
}

impl CustomOp3 for CustomGradients {
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
        on_cpu(self.name, &self.y)
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        on_cuda(self.name, &self.y)
    }

    fn metal_fwd(
        &self,
        _: &MetalStorage,
        _: &Layout,
        _: &MetalStorage,
        _: &Layout,
        _: &MetalStorage,
        _: &Layout,
    ) -> Result<(MetalStorage, Shape)> {
        on_metal(self.name, &self.y)
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (first, second, third) = (self.backward)(grad)?;
        Ok((first, Some(second), Some(third)))
    }
}
