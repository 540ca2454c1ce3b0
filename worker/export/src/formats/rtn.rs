//! GPTQ's layout, rounded to nearest: the yardstick that GPTQ is held against.

use super::packed::{self, Chosen, Packed, Way};
use super::{Format, Inputs, Linear, Sizer, Writer, difference, gptq};
use crate::compare::Contents;
use crate::hessian::Hessian;
use crate::{ExportRequest, ExportSettings, Result, hf, open_gptq, rtn};
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

    fn begin<'a>(
        &self,
        request: &'a ExportRequest<'a>,
        out: &Path,
    ) -> Result<Box<dyn Writer + 'a>> {
        let way = Way { prepare: whole, choose: rounded };
        Ok(Box::new(Packed::begin(request, out, way)?))
    }

    /// Its folders say that they are GPTQ's, and are read as such.
    fn is_at(&self, _: &Path) -> bool {
        false
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

fn whole(hessian: Hessian, _: usize, _: &ExportSettings) -> Result<Inputs> {
    Ok(Inputs::Whole(hessian))
}

fn rounded(linear: &Linear<'_>, group: usize, settings: &ExportSettings) -> Result<Chosen> {
    let hessian = linear.inputs.whole()?;
    let (inputs, energy) = (hessian.inputs(), hessian.energy());
    let codes = rtn::quantise(&linear.values, inputs, group, settings.rule, &energy)?;
    let moved = difference(&linear.values, &codes.dequantise());
    Ok(Chosen { codes, output_energy: hessian.output_energy(&moved)?, damping: None })
}
