//! A teacher without what a mask cuts.

use crate::Result;
use uspx_domain::Mask;
use uspx_model::LoadedModel;
use uspx_model::cuts::CutTaps;

/// The cut that `mask` is of the teacher; none without a mask.
pub(crate) fn taps_of(teacher: &LoadedModel, mask: Option<&Mask>) -> Result<CutTaps> {
    Ok(match mask {
        Some(mask) => teacher.cut_of_mask(mask)?,
        None => CutTaps::default(),
    })
}
