//! What GPTQ and rounding to nearest share: codes packed into a Hugging Face folder.

use super::{Linear, Stored, Writer};
use crate::coded::{Coded, Moved};
use crate::hf::{self, Weights};
use crate::quantised::QuantLinear;
use crate::{ExportError, ExportRequest, ExportSettings, Result, grid, weights};
use candle_core::DType;
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::path::Path;

/// Chooses codes and scales of one linear map with groups of so many inputs; says which damping it
/// needed, if any.
pub(super) type Choose =
    fn(&Linear<'_>, usize, &ExportSettings) -> Result<(QuantLinear, Option<f64>)>;

/// A folder on its way.
pub(super) struct Packed<'a> {
    request: &'a ExportRequest<'a>,
    choose: Choose,
    group: usize,
    linears: BTreeMap<String, QuantLinear>,
}

impl<'a> Packed<'a> {
    /// A folder whose codes `choose` finds.
    pub(super) fn begin(request: &'a ExportRequest<'a>, choose: Choose) -> Result<Self> {
        let group = grid::group_size(weights::input_widths(&request.student.transformer)?)?;
        Ok(Self { request, choose, group, linears: BTreeMap::new() })
    }
}

impl Writer for Packed<'_> {
    fn group(&self) -> usize {
        self.group
    }

    fn linear(&mut self, linear: &Linear<'_>) -> Result<Stored> {
        let (codes, damping) = (self.choose)(linear, self.group, &self.request.settings)?;
        let groups = codes.scales().len();
        // Codes, scales, zero points and g_idx.
        let bytes = codes.codes().len() / 2 + groups * 2 + groups / 2 + codes.inputs() * 4;
        let (kind, values) = (format!("int4 g{}", self.group), codes.to_tensor()?);
        self.linears.insert(linear.module.clone(), codes);
        Ok(Stored { kind, bytes: bytes as u64, values, damping })
    }

    fn coded(&self, module: &str) -> Option<&dyn Coded> {
        self.linears.get(module).map(|linear| linear as &dyn Coded)
    }

    fn recode(&mut self, module: &str, moved: &Moved) -> Result<Tensor> {
        let linear = self.linears.get_mut(module);
        let linear = linear.ok_or_else(|| ExportError::MissingTensor(module.to_owned()))?;
        *linear = linear.moved(moved)?;
        linear.to_tensor()
    }

    fn write(
        &mut self,
        rest: &BTreeMap<String, Tensor>,
        out: &Path,
    ) -> Result<BTreeMap<String, Stored>> {
        let weights = Weights { linears: std::mem::take(&mut self.linears), rest: rest.clone() };
        let dtype =
            hf::write_folder(out, self.request.base, &weights, self.request.settings.damping)?;
        let each =
            |(name, tensor): (&String, &Tensor)| Ok((name.clone(), as_float(tensor, dtype)?));
        rest.iter().map(each).collect()
    }
}

/// A tensor that stays a float.
fn as_float(tensor: &Tensor, dtype: DType) -> Result<Stored> {
    let values = tensor.to_dtype(dtype)?.to_dtype(DType::F32)?;
    let bytes = (tensor.elem_count() * dtype.size_in_bytes()) as u64;
    Ok(Stored { kind: format!("{dtype:?}"), bytes, values, damping: None })
}
