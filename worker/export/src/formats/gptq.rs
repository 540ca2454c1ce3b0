//! GPTQ folders for transformers, vLLM and SGLang: codes with error feedback.

use super::packed::Packed;
use super::{Format, Linear, Writer};
use crate::gptq::{self, GptqConfig};
use crate::grid::ScaleRule;
use crate::quantised::QuantLinear;
use crate::{ExportRequest, ExportSettings, Result, hf, open_gptq};
use candle_core::Tensor;
use std::collections::HashMap;
use std::path::Path;
use uspx_domain::ExportFormat;
use uspx_model::{LoadedModel, Placement};

pub(super) struct Gptq;

impl Format for Gptq {
    fn format(&self) -> ExportFormat {
        ExportFormat::GPTQ
    }

    fn settings(&self) -> ExportSettings {
        settings()
    }

    fn begin<'a>(&self, request: &'a ExportRequest<'a>) -> Result<Box<dyn Writer + 'a>> {
        Ok(Box::new(Packed::begin(request, fitted)?))
    }

    fn is_at(&self, path: &Path) -> bool {
        hf::is_gptq(path)
    }

    fn open(&self, path: &Path, placement: Placement) -> Result<LoadedModel> {
        open_gptq(path, placement)
    }

    fn tensors(&self, path: &Path) -> Result<HashMap<String, Tensor>> {
        hf::read_gptq(path)
    }
}

/// Passes of the finish.
const FINISH: u32 = 4;

/// What ships: positive scales, which every reader of this layout has always met.
pub(super) fn settings() -> ExportSettings {
    let GptqConfig { damping, act_order, .. } = GptqConfig::new(128);
    let rule = ScaleRule::Search { signed: false };
    ExportSettings { rule, damping, act_order, fitted_blocks: true, finish: FINISH }
}

/// Codes by GPTQ, with the damping that they took.
pub(super) fn fitted(
    linear: &Linear<'_>,
    group: usize,
    settings: &ExportSettings,
) -> Result<(QuantLinear, Option<f64>)> {
    let ExportSettings { rule, damping, act_order, .. } = *settings;
    let config = GptqConfig { group, damping, rule, act_order };
    let quantised = gptq::quantise(&linear.values, linear.hessian, &config)?;
    Ok((quantised.linear, Some(quantised.damping)))
}
