//! A value that is already known, handed to the tensor library as the outcome of an operation of
//! ours: it is copied into the graph once and not kept beside it.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, MetalStorage, Result, Shape, Storage, Tensor};
use std::sync::{Mutex, PoisonError};

/// The value, until it is taken.
pub(crate) struct Given {
    /// The operation's name, for errors.
    pub name: &'static str,
    value: Mutex<Option<Tensor>>,
}

impl Given {
    pub fn new(name: &'static str, value: Tensor) -> Result<Self> {
        let value = value.contiguous()?;
        let value = if is_whole(&value) { value } else { value.force_contiguous()? };
        Ok(Self { name, value: Mutex::new(Some(value)) })
    }

    pub fn on_cpu(&self) -> Result<(CpuStorage, Shape)> {
        self.take(|storage, value| match storage {
            Storage::Cpu(own) => Some(own.try_clone(value.layout())),
            _ => None,
        })
    }

    pub fn on_cuda(&self) -> Result<(CudaStorage, Shape)> {
        self.take(|storage, value| match storage {
            Storage::Cuda(own) => Some(own.try_clone(value.layout())),
            _ => None,
        })
    }

    pub fn on_metal(&self) -> Result<(MetalStorage, Shape)> {
        self.take(|storage, value| match storage {
            Storage::Metal(own) => Some(own.try_clone(value.layout())),
            _ => None,
        })
    }

    fn take<S>(
        &self,
        copy: impl FnOnce(&Storage, &Tensor) -> Option<Result<S>>,
    ) -> Result<(S, Shape)> {
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(value) = value else {
            candle_core::bail!("{}: the value was handed out before", self.name)
        };
        let (storage, layout) = value.storage_and_layout();
        match copy(&storage, &value) {
            Some(copied) => Ok((copied?, layout.shape().clone())),
            None => candle_core::bail!("{}: input and output lie on different devices", self.name),
        }
    }
}

/// Whether a contiguous value is all that its storage holds, as far as that can be asked.
fn is_whole(value: &Tensor) -> bool {
    let (storage, layout) = value.storage_and_layout();
    let held = match &*storage {
        Storage::Cpu(CpuStorage::F64(v)) => v.len(),
        Storage::Cpu(CpuStorage::F32(v)) => v.len(),
        Storage::Cpu(CpuStorage::F16(v)) => v.len(),
        Storage::Cpu(CpuStorage::BF16(v)) => v.len(),
        _ => value.elem_count(),
    };
    layout.start_offset() == 0 && held == value.elem_count()
}
