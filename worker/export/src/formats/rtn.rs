//! GPTQ's layout, rounded to nearest: the yardstick that GPTQ is held against.

use super::packed::Packed;
use super::{Format, Linear, Writer, gptq};
use crate::quantised::QuantLinear;
use crate::{ExportRequest, ExportSettings, Result, hf, open_gptq, rtn};
use candle_core::Tensor;
use std::collections::HashMap;
use std::path::Path;
use uspx_domain::ExportFormat;
use uspx_model::{LoadedModel, Placement};

pub(super) struct RoundToNearest;

impl Format for RoundToNearest {
    fn format(&self) -> ExportFormat {
        ExportFormat::RTN
    }

    fn settings(&self) -> ExportSettings {
        ExportSettings { finish: 0, ..gptq::settings() }
    }

    fn begin<'a>(&self, request: &'a ExportRequest<'a>) -> Result<Box<dyn Writer + 'a>> {
        Ok(Box::new(Packed::begin(request, rounded)?))
    }

    /// Its folders say that they are GPTQ's, and are read as such.
    fn is_at(&self, _: &Path) -> bool {
        false
    }

    fn open(&self, path: &Path, placement: Placement) -> Result<LoadedModel> {
        open_gptq(path, placement)
    }

    fn tensors(&self, path: &Path) -> Result<HashMap<String, Tensor>> {
        hf::read_gptq(path)
    }
}

fn rounded(
    linear: &Linear<'_>,
    group: usize,
    settings: &ExportSettings,
) -> Result<(QuantLinear, Option<f64>)> {
    let (inputs, energy) = (linear.hessian.inputs(), linear.hessian.matrix().diagonal());
    Ok((rtn::quantise(&linear.values, inputs, group, settings.rule, &energy)?, None))
}
