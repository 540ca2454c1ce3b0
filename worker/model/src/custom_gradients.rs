//! Custom gradients of a value with respect to three inputs at once; see
//! [`crate::custom_gradient`].

use crate::given::Given;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp3, Layout, MetalStorage, Result, Shape, Tensor,
};

/// Gradients with respect to three inputs, from the gradient of y. None where one is not asked for,
/// or where an input is given twice to fill the places.
type Backward3 = Box<dyn Fn(&Tensor) -> Result<[Option<Tensor>; 3]> + Send + Sync>;

struct CustomGradients {
    y: Given,
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
    F: Fn(&Tensor) -> Result<[Option<Tensor>; 3]> + Send + Sync + 'static,
{
    if !x.iter().any(|x| x.track_op()) {
        return Ok(y);
    }
    let [first, second, third] = x;
    let y = Given::new(name, y)?;
    first.apply_op3(second, third, CustomGradients { y, backward: Box::new(backward) })
}

impl CustomOp3 for CustomGradients {
    fn name(&self) -> &'static str {
        self.y.name
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
        self.y.on_cpu()
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
        self.y.on_cuda()
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
        self.y.on_metal()
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [first, second, third] = (self.backward)(grad)?;
        Ok((first, second, third))
    }
}
