//! The walk through the student: layer by layer, each linear is quantised on the inputs that it
//! will really get, those that the linears before it, already quantised, let through.

use crate::hessian::Hessian;
use crate::{ExportError, Result};
use candle_core::Tensor;
use uspx_model::batch::Batch;
use uspx_model::layers::frame::Frame;
use uspx_model::taps::{Projection, Site};
use uspx_model::transformer::Transformer;

/// Tokens of a calibration batch where nothing is said.
pub const CALIBRATION_TOKENS: usize = 4096;

/// Linears that share an input, in forward order; the first of each is where the model shows it.
const SHARED_INPUTS: [&[Projection]; 4] = [
    &[Projection::Q, Projection::K, Projection::V],
    &[Projection::O],
    &[Projection::Gate, Projection::Up],
    &[Projection::Down],
];

/// One linear of the student: its layer, its place, its f32 weight `[outputs, inputs]`, and its
/// input's Hessian.
pub struct CalibrationStep<'a> {
    /// Layer, from 0.
    pub layer: usize,
    /// Which map.
    pub projection: Projection,
    /// The weight, adapter merged.
    pub weight: &'a Tensor,
    /// 2·XᵀX of its inputs.
    pub hessian: &'a Hessian,
}

/// Walks `student` over the calibration batches. `quantise` turns each linear's weight into the one
/// that the file will hold, which takes its place at once, without an adapter.
///
/// # Errors
/// [`ExportError::Unsupported`] for an empty calibration; whatever the model or `quantise` reports.
pub fn walk(
    student: &mut Transformer,
    calibration: &[Batch],
    mut quantise: impl FnMut(CalibrationStep<'_>) -> Result<Tensor>,
) -> Result<()> {
    if calibration.iter().all(|b| b.tokens() == 0) {
        return Err(ExportError::Unsupported(
            "there is no prompt to calibrate on: give at least one".into(),
        ));
    }
    let mut streams = calibration
        .iter()
        .map(|batch| Stream::start(student, batch))
        .collect::<Result<Vec<_>>>()?;
    for layer in 0..student.layers() {
        for shared in SHARED_INPUTS {
            let Some(first) = shared.first() else { continue };
            let width = student.linear(layer, *first)?.dims()?.1;
            let hessian = hessian_at(student, &streams, layer, *first, width)?;
            for &projection in shared {
                let weight = student.linear(layer, projection)?.merged()?;
                let quantised = quantise(CalibrationStep {
                    layer,
                    projection,
                    weight: &weight,
                    hessian: &hessian,
                })?;
                let linear = student.linear_mut(layer, projection)?;
                linear.set_weight(quantised);
                linear.adapter = None;
            }
        }
        for stream in &mut streams {
            stream.pass(student, layer)?;
        }
    }
    Ok(())
}

/// A batch on its way through the layers.
struct Stream {
    frame: Frame,
    residual: Tensor,
}

impl Stream {
    fn start(student: &Transformer, batch: &Batch) -> Result<Self> {
        Ok(Self { frame: student.frame(batch)?, residual: student.embed(&batch.ids)? })
    }

    fn pass(&mut self, student: &Transformer, layer: usize) -> Result<()> {
        let x = student.run(
            layer..layer + 1,
            self.residual.clone(),
            &self.frame,
            None,
            &mut uspx_model::taps::NoTaps,
        )?;
        self.residual = x.detach();
        Ok(())
    }
}

/// The Hessian of one linear's inputs over all batches.
fn hessian_at(
    student: &Transformer,
    streams: &[Stream],
    layer: usize,
    at: Projection,
    width: usize,
) -> Result<Hessian> {
    let mut hessian = Hessian::new(width);
    for stream in streams {
        let mut seen = None;
        let mut look = |site: Site<'_>, value: &Tensor| -> uspx_model::Result<Option<Tensor>> {
            if matches!(site, Site::LinearInput { projection, .. } if projection == at) {
                seen = Some(value.clone());
            }
            Ok(None)
        };
        student.run(layer..layer + 1, stream.residual.clone(), &stream.frame, None, &mut look)?;
        let input = seen
            .ok_or_else(|| ExportError::Unsupported(format!("{} is never run", at.path(layer))))?;
        hessian.add(&input)?;
    }
    Ok(hessian)
}
