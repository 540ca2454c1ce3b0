//! GPTQ folders for transformers, vLLM and SGLang: codes with error feedback.

use super::packed::{self, Chosen, Packed, Way};
use super::{Format, Inputs, Linear, Sizer, Writer};
use crate::compare::Contents;
use crate::gptq::{self, Factored, GptqConfig, Quantised};
use crate::grid::ScaleRule;
use crate::hessian::Hessian;
use crate::{ExportRequest, ExportSettings, Result, hf, open_gptq};
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

    fn begin<'a>(
        &self,
        request: &'a ExportRequest<'a>,
        out: &Path,
    ) -> Result<Box<dyn Writer + 'a>> {
        let way = Way { prepare: factored, choose: fitted };
        Ok(Box::new(Packed::begin(request, out, way)?))
    }

    fn is_at(&self, path: &Path) -> bool {
        hf::is_gptq(path)
    }

    fn sizer(&self, _: &Path) -> Result<Sizer> {
        Ok(Box::new(packed::bytes))
    }

    fn open(&self, path: &Path, placement: Placement) -> Result<LoadedModel> {
        open_gptq(path, placement)
    }

    fn contents(&self, path: &Path) -> Result<Contents> {
        hf::gptq_contents(path)
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

/// The Hessian factored, as the settings have it.
pub(super) fn factored(
    hessian: Hessian,
    group: usize,
    settings: &ExportSettings,
) -> Result<Inputs> {
    let how = (settings.damping, settings.act_order);
    Ok(Inputs::Factored(Factored::of(hessian, group, how)?))
}

/// Codes by GPTQ, with the damping that they took.
pub(super) fn fitted(linear: &Linear<'_>, _: usize, settings: &ExportSettings) -> Result<Chosen> {
    let factored = linear.inputs.factored()?;
    let quantised = gptq::quantise(&linear.values, factored, settings.rule)?;
    let Quantised { linear: codes, output_energy } = quantised;
    Ok(Chosen { codes, output_energy, damping: Some(factored.damping()) })
}
