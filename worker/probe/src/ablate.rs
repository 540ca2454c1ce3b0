//! Losses under many cuts. The clean run is kept at every layer's boundary; a cut runs only from
//! where it bites.

use crate::Result;
use crate::batching::each_batch;
use crate::evaluate::{loss_row, scatter};
use candle_core::Tensor;
use uspx_domain::{Cut, LossRow, UnitKind};
use uspx_model::batch::{Batch, Sequence};
use uspx_model::cuts::CutTaps;
use uspx_model::layers::frame::Frame;
use uspx_model::taps::Site;
use uspx_model::{LoadedModel, Progress, Readable, Spool, loss};

/// Runs every cut on every prompt: the first row without a cut, then one row per cut, in order.
///
/// Experts are banned at the router and their tokens re-routed; heads and channels are zeroed at
/// all positions.
///
/// # Errors
/// A cut that does not fit the model; those of the model; a stop by the keeper.
pub fn ablate(
    model: &LoadedModel,
    prompts: &Readable,
    cuts: &[Cut],
    batch_tokens: usize,
    progress: &dyn Progress,
) -> Result<Vec<LossRow>> {
    let nats = ablate_sequences(model, &prompts.sequences, cuts, batch_tokens, progress)?;
    Ok(nats.iter().map(|row| loss_row(prompts, row)).collect())
}

/// The same on sequences: summed nats, `[1 + cuts][sequences]`.
///
/// # Errors
/// As [`ablate`].
pub fn ablate_sequences(
    model: &LoadedModel,
    sequences: &[Sequence],
    cuts: &[Cut],
    batch_tokens: usize,
    progress: &dyn Progress,
) -> Result<Vec<Vec<f64>>> {
    let shape = model.shape();
    let taps: Vec<Prepared> =
        cuts.iter().map(|cut| Prepared::new(cut, model, &shape)).collect::<Result<_>>()?;
    let mut rows = vec![vec![0.0; sequences.len()]; cuts.len() + 1];
    let total = (sequences.len() * rows.len()) as u64;
    let mut done = 0;
    each_batch(sequences, batch_tokens, Batch::sharing, &mut |members, batch| {
        let clean = Clean::run(model, batch)?;
        let mut all = std::iter::once(None).chain(taps.iter().map(Some));
        for (at, row) in rows.iter_mut().enumerate() {
            let x = match all.next().flatten() {
                None => clean.output.clone(),
                Some(cut) => clean.with(model, cut)?,
            };
            let values = model.transformer.response_nll(&x, batch)?;
            scatter(row, members, &loss::per_sequence(&values, batch)?);
            progress.report(done + ((at + 1) * members.len()) as u64, total)?;
        }
        done += (members.len() * (taps.len() + 1)) as u64;
        Ok(())
    })?;
    Ok(rows)
}

/// A cut, and where it first bites.
struct Prepared {
    taps: CutTaps,
    start: Option<Start>,
}

/// A place to start a run from.
#[derive(Clone, Copy)]
enum Start {
    /// The residual stream that enters a layer.
    Layer(usize),
    /// The one between its attention and its experts.
    Mid(usize),
}

impl Prepared {
    fn new(cut: &Cut, model: &LoadedModel, shape: &uspx_domain::ModelShape) -> Result<Self> {
        let taps = CutTaps::new(cut, shape, model.transformer.device())?;
        let start = taps.first_layer().map(|layer| {
            let head =
                |u: &uspx_domain::Unit| u.kind == UnitKind::Head && u.layer as usize == layer;
            let cuts_heads = match cut {
                Cut::Unit(unit) => head(unit),
                Cut::Mask(mask) => mask.cut(shape, UnitKind::Head).iter().any(head),
            };
            if cuts_heads { Start::Layer(layer) } else { Start::Mid(layer) }
        });
        Ok(Self { taps, start })
    }
}

/// The clean run, kept at every boundary.
struct Clean {
    frame: Frame,
    residual: Spool,
    middle: Spool,
    output: Tensor,
}

impl Clean {
    fn run(model: &LoadedModel, batch: &Batch) -> Result<Self> {
        let frame = model.transformer.frame(batch)?;
        let [mut residual, mut middle] = model.transformer.two_spools();
        let mut keep = |site: Site<'_>, value: &Tensor| -> Result<Option<Tensor>> {
            match site {
                Site::ResidPre { .. } => residual.push(value)?,
                Site::ResidMid { .. } => middle.push(value)?,
                _ => {}
            }
            Ok(None)
        };
        let output = model.transformer.forward(batch, &frame, &mut keep)?;
        Ok(Self { frame, residual, middle, output })
    }

    fn with(&self, model: &LoadedModel, cut: &Prepared) -> Result<Tensor> {
        let Some(start) = cut.start else { return Ok(self.output.clone()) };
        let mut taps = cut.taps.clone();
        let transformer = &model.transformer;
        match start {
            Start::Layer(layer) => {
                let x = self.residual.get(layer)?;
                transformer.run(layer..transformer.layers(), x, &self.frame, None, &mut taps)
            }
            Start::Mid(layer) => {
                let x = self.middle.get(layer)?;
                transformer.run_from_middle(layer, x, &self.frame, &mut taps)
            }
        }
    }
}
