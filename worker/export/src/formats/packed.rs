//! What GPTQ and rounding to nearest share: codes packed into a Hugging Face folder.

use super::{Inputs, Linear, Stored, StoredLinear, Writer, running};
use crate::coded::{Coded, Moved};
use crate::gguf::encode;
use crate::hessian::Hessian;
use crate::hf::{self, FolderWriter, Layout};
use crate::quantised::QuantLinear;
use crate::weights::Piece;
use crate::{ExportError, ExportRequest, ExportSettings, Result, grid, weights};
use candle_core::quantized::GgmlDType;
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;
use std::path::Path;
use uspx_model::config::ModelConfig;

/// How codes and scales are chosen.
pub(super) struct Way {
    /// Makes of a Hessian what it takes, for groups of so many inputs.
    pub prepare: fn(Hessian, usize, &ExportSettings) -> Result<Inputs>,
    /// Chooses those of one linear map.
    pub choose: fn(&Linear<'_>, usize, &ExportSettings) -> Result<Chosen>,
}

/// Codes and scales of a linear map, and what they cost.
pub(super) struct Chosen {
    pub codes: QuantLinear,
    /// See [`StoredLinear`].
    pub output_energy: f64,
    pub damping: Option<f64>,
}

/// A folder on its way.
pub(super) struct Packed<'a> {
    request: &'a ExportRequest<'a>,
    way: Way,
    group: usize,
    dtype: DType,
    folder: FolderWriter,
    /// Those that a finish is to move.
    kept: BTreeMap<String, QuantLinear>,
}

impl<'a> Packed<'a> {
    /// A folder whose codes are chosen in that way.
    pub(super) fn begin(request: &'a ExportRequest<'a>, out: &Path, way: Way) -> Result<Self> {
        let student = &request.student.transformer;
        let dtype = hf::float_type(student)?;
        let layout = layout(student.config(), request.settings.damping, dtype)?;
        let group = layout.group;
        let folder = FolderWriter::create(out, request.base, layout)?;
        Ok(Self { request, way, group, dtype, folder, kept: BTreeMap::new() })
    }
}

/// What a folder of codes is to hold of a model.
fn layout(config: &ModelConfig, damping: f64, dtype: DType) -> Result<Layout> {
    let (linears, floats) = (weights::linears(config)?, weights::rest(config));
    let group = grid::group_size(linears.values().map(|(_, inputs)| *inputs))?;
    Ok(Layout { linears, group, damping, floats, dtype })
}

/// See [`super::Format::sizer`]. The two types that floats may have take as many bytes.
pub(super) fn bytes(config: &ModelConfig) -> Result<u64> {
    hf::folder_bytes(&layout(config, 0.0, DType::F16)?)
}

impl Writer for Packed<'_> {
    fn group(&self) -> usize {
        self.group
    }

    fn prepare(&self, hessian: Hessian) -> Result<Inputs> {
        (self.way.prepare)(hessian, self.group, &self.request.settings)
    }

    fn linear(&mut self, linear: &Linear<'_>) -> Result<StoredLinear> {
        let chosen = (self.way.choose)(linear, self.group, &self.request.settings)?;
        let Chosen { codes, output_energy, damping } = chosen;
        let groups = codes.scales().len();
        // Codes, scales, zero points and g_idx.
        let bytes = codes.codes().len() / 2 + groups * 2 + groups / 2 + codes.inputs() * 4;
        let (kind, values) = (format!("int4 g{}", self.group), codes.to_tensor()?);
        let blocks = (GgmlDType::Q4_0, encode::q4_0(&codes)?);
        let weight = running(linear.dims, Some(blocks), &values)?;
        if self.request.settings.finish > 0 {
            self.kept.insert(linear.module.clone(), codes);
        } else {
            self.folder.linear(&linear.module, &codes)?;
        }
        let stored = Stored { kind, bytes: bytes as u64, values };
        Ok(StoredLinear { stored, weight, output_energy, damping })
    }

    fn coded(&self, module: &str) -> Option<&dyn Coded> {
        self.kept.get(module).map(|linear| linear as &dyn Coded)
    }

    fn recode(&mut self, module: &str, moved: &Moved) -> Result<Tensor> {
        let linear = self.kept.get_mut(module);
        let linear = linear.ok_or_else(|| ExportError::MissingTensor(module.to_owned()))?;
        *linear = linear.moved(moved)?;
        linear.to_tensor()
    }

    fn piece(&mut self, piece: &Piece<'_>) -> Result<Stored> {
        let (values, bytes) = self.folder.floats(piece)?;
        Ok(Stored { kind: format!("{:?}", self.dtype), bytes, values })
    }

    fn finish(&mut self) -> Result<()> {
        for (module, codes) in std::mem::take(&mut self.kept) {
            self.folder.linear(&module, &codes)?;
        }
        self.folder.finish()
    }
}
