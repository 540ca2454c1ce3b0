//! The walk through the student: layer by layer, each linear is quantised on the inputs that it
//! will really get, those that the linears before it, already quantised, let through. One layer and one
//! Hessian are there at a time; what enters the layer is kept as far as the student keeps boundaries.

use crate::formats::Inputs;
use crate::hessian::{Hessian, HessianSum};
use crate::{ExportError, Result, weights};
use candle_core::Tensor;
use std::time::{Duration, Instant};
use uspx_model::Spool;
use uspx_model::batch::Batch;
use uspx_model::layers::frame::Frame;
use uspx_model::layers::weight::Weight;
use uspx_model::taps::{NoTaps, Projection};
use uspx_model::transformer::{Layer, Transformer};

/// Tokens of a batch where nothing is said.
pub const CALIBRATION_TOKENS: usize = 4096;

/// Linears of each half of a layer that share an input, in forward order; the first of each says which.
const ATTENTION: [&[Projection]; 2] =
    [&[Projection::Q, Projection::K, Projection::V], &[Projection::O]];
const MLP: [&[Projection]; 2] = [&[Projection::Gate, Projection::Up], &[Projection::Down]];

/// One linear of the student.
pub struct CalibrationStep<'a> {
    /// Layer, from 0.
    pub layer: usize,
    /// Which map.
    pub projection: Projection,
    /// The weight `[outputs, inputs]`, adapter merged.
    pub weight: &'a Tensor,
    /// tr(W·H·Wᵀ): twice the sum of its outputs' squares.
    pub output_energy: f64,
}

/// What quantises.
pub trait Quantiser {
    /// Makes of a Hessian what the linears that come next are quantised by.
    ///
    /// # Errors
    /// One that is of no use.
    fn prepare(&mut self, hessian: Hessian) -> Result<Inputs>;

    /// Quantises a linear; gives the weight that the file will hold, to run on with.
    ///
    /// # Errors
    /// Weights that the file cannot hold.
    fn quantise(&mut self, step: CalibrationStep<'_>, inputs: &Inputs) -> Result<Weight>;
}

/// Walks `student` over the calibration batches; it stays as it is. Tells how long the Hessians' sums took.
///
/// # Errors
/// [`ExportError::Unsupported`] for an empty calibration; whatever the model or the quantiser reports.
pub fn walk(
    student: &Transformer,
    calibration: &[Batch],
    quantiser: &mut dyn Quantiser,
) -> Result<Duration> {
    if calibration.iter().all(|b| b.tokens() == 0) {
        return Err(ExportError::Unsupported(
            "there is no prompt to calibrate on: give at least one".into(),
        ));
    }
    let mut streams = Streams::start(student, calibration)?;
    for layer in 0..student.layers() {
        let mut own = student.layer(layer)?;
        for shared in ATTENTION {
            streams.quantise((layer, &mut own), shared, quantiser)?;
        }
        streams.pass(student, |x, frame| own.run_to_middle(x, frame))?;
        for shared in MLP {
            streams.quantise((layer, &mut own), shared, quantiser)?;
        }
        streams
            .pass(student, |x, frame| own.run_from_middle(x, frame.spans().len(), &mut NoTaps))?;
    }
    Ok(streams.summing)
}

/// The batches on their way through the layers.
struct Streams {
    frames: Vec<Frame>,
    /// Of each, the residual stream.
    residuals: Spool,
    /// How long the sums of Hessians took.
    summing: Duration,
}

impl Streams {
    fn start(student: &Transformer, calibration: &[Batch]) -> Result<Self> {
        let (mut frames, mut residuals) = (Vec::new(), student.spool());
        for batch in calibration {
            frames.push(student.frame(batch)?);
            residuals.push(&student.embed(&batch.ids)?)?;
        }
        Ok(Self { frames, residuals, summing: Duration::ZERO })
    }

    /// Takes all of them on through `half` a layer.
    fn pass(
        &mut self,
        student: &Transformer,
        half: impl Fn(Tensor, &Frame) -> uspx_model::Result<Tensor>,
    ) -> Result<()> {
        let mut next = student.spool();
        for (at, frame) in self.frames.iter().enumerate() {
            next.push(&half(self.residuals.take(at)?, frame)?)?;
        }
        self.residuals = next;
        Ok(())
    }

    /// Quantises linears that share an input.
    fn quantise(
        &mut self,
        (layer, own): (usize, &mut Layer<'_>),
        shared: &[Projection],
        quantiser: &mut dyn Quantiser,
    ) -> Result<()> {
        let (hessian, energies) = self.measure(own, shared)?;
        let inputs = quantiser.prepare(hessian)?;
        for (&projection, output_energy) in shared.iter().zip(energies) {
            let weight = own.linear(projection)?.merged()?;
            let step = CalibrationStep { layer, projection, weight: &weight, output_energy };
            let quantised = quantiser.quantise(step, &inputs)?;
            own.linear_mut(projection)?.replace(quantised);
        }
        Ok(())
    }

    /// The Hessian of their input over all batches, and the energy of each one's outputs.
    fn measure(&mut self, own: &Layer<'_>, shared: &[Projection]) -> Result<(Hessian, Vec<f64>)> {
        let Some(&first) = shared.first() else {
            return Err(ExportError::Unsupported("there is no linear to quantise".into()));
        };
        let mut hessian = HessianSum::new(own.linear(first)?.dims()?.1);
        let mut energies = vec![0.0; shared.len()];
        for (at, frame) in self.frames.iter().enumerate() {
            let input = own.linear_input(first, &self.residuals.get(at)?, frame)?;
            let start = Instant::now();
            hessian.add(&input)?;
            self.summing += start.elapsed();
            for (energy, projection) in energies.iter_mut().zip(shared) {
                *energy += 2.0 * squares(&own.linear(*projection)?.product(&input)?)?;
            }
        }
        Ok((hessian.whole(), energies))
    }
}

/// The sum of a tensor's squares.
fn squares(tensor: &Tensor) -> Result<f64> {
    let values: Vec<f32> = weights::plain(tensor)?.flatten_all()?.to_vec1()?;
    Ok(values.iter().map(|v| f64::from(*v).powi(2)).sum())
}
