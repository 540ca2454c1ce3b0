//! Where a model's weights are kept, and where and in what type it is computed.

use candle_core::{DType, Device};

/// Where a model's weights are kept, and as what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// In memory, every weight expanded to the type that is computed with: for training and
    /// exporting.
    Floats,
    /// In memory as they are stored (bf16, MXFP4), where this device has a kernel for that.
    Stored,
    /// In memory, the linear maps of all layers in NF4 whatever they are stored as, each quantised as it is
    /// read; the head as it is stored, the embedding in its file. For training an adapter where floats do not
    /// fit (QLoRA): on the CPU in f32, on CUDA in bf16 or f32.
    Nf4,
    /// In their file; a layer, and of its experts one at a time, is read when it is needed and then
    /// dropped.
    Streamed,
}

/// How a model is to be loaded.
#[derive(Debug, Clone)]
pub struct Placement {
    /// The type computed with.
    pub dtype: DType,
    /// The device computed on.
    pub device: Device,
    /// Where weights are kept.
    pub holding: Holding,
    /// Bytes of residual streams that a pass may keep in memory at layer boundaries; the rest goes
    /// to a temporary file.
    pub boundaries: usize,
}

/// Enough for the small models that are held in memory.
const BOUNDARIES: usize = 1 << 30;

impl Placement {
    /// In memory as floats.
    pub fn floats(dtype: DType, device: &Device) -> Self {
        Self::new(Holding::Floats, dtype, device)
    }

    /// As `holding` says.
    pub fn new(holding: Holding, dtype: DType, device: &Device) -> Self {
        Self { dtype, device: device.clone(), holding, boundaries: BOUNDARIES }
    }
}
