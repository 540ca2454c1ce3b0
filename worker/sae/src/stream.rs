//! A forward pass that halts where an SAE sits: the activations there, and what becomes of the rest
//! where something else takes their place.

use crate::place::{Place, Site};
use candle_core::Tensor;
use uspx_model::batch::{Batch, Sequence};
use uspx_model::dictionary::values;
use uspx_model::layers::frame::Frame;
use uspx_model::taps::{NoTaps, Site as TapSite};
use uspx_model::transformer::Transformer;
use uspx_model::{LoadedModel, ModelError, Result};
use uspx_probe::batching::each_batch;

/// A batch that has run up to the layer of a place.
pub struct Halted<'a> {
    transformer: &'a Transformer,
    frame: Frame,
    place: Place,
    /// The residual stream after the layers that have run, `[N, hidden]`.
    before: Tensor,
}

impl<'a> Halted<'a> {
    /// Runs `batch` until there.
    ///
    /// # Errors
    /// A layer that the model lacks; those of the model.
    pub fn at(transformer: &'a Transformer, batch: &Batch, place: Place) -> Result<Self> {
        if place.layer >= transformer.layers() {
            let what = format!(
                "the model has no layer {}: its layers are 0 to {}",
                place.layer,
                transformer.layers().saturating_sub(1)
            );
            return Err(ModelError::Request(what));
        }
        let frame = transformer.frame(batch)?;
        let start = transformer.embed(&batch.ids)?;
        let layers = 0..ran(place);
        let before = transformer.run(layers, start, &frame, None, &mut NoTaps)?;
        Ok(Self { transformer, frame, place, before })
    }

    /// The activations, `[N, hidden]`.
    ///
    /// # Errors
    /// Those of the model.
    pub fn activations(&self) -> Result<Tensor> {
        if at_boundary(self.place.site) {
            return Ok(self.before.clone());
        }
        let mut kept = None;
        let mut keep = |site: TapSite<'_>, value: &Tensor| -> Result<Option<Tensor>> {
            if is_at(site, self.place) {
                kept = Some(value.clone());
            }
            Ok(None)
        };
        let layer = self.place.layer..self.place.layer + 1;
        self.transformer.run(layer, self.before.clone(), &self.frame, None, &mut keep)?;
        kept.ok_or_else(|| ModelError::Request("a layer without this site".to_owned()))
    }

    /// The residual stream after the last layer, `[N, hidden]`, with `instead` in the activations'
    /// place.
    ///
    /// # Errors
    /// Those of the model.
    pub fn finish(&self, instead: Option<&Tensor>) -> Result<Tensor> {
        let layers = ran(self.place)..self.transformer.layers();
        let boundary = instead.filter(|_| at_boundary(self.place.site));
        let start = boundary.unwrap_or(&self.before).clone();
        let mut replace = |site: TapSite<'_>, _: &Tensor| -> Result<Option<Tensor>> {
            Ok(instead.filter(|_| is_at(site, self.place)).cloned())
        };
        self.transformer.run(layers, start, &self.frame, None, &mut replace)
    }
}

/// Layers that run before the halt.
fn ran(place: Place) -> usize {
    place.layer + usize::from(place.site == Site::ResidPost)
}

/// Whether a site's value is the residual stream between two layers.
fn at_boundary(site: Site) -> bool {
    matches!(site, Site::ResidPre | Site::ResidPost)
}

fn is_at(tap: TapSite<'_>, place: Place) -> bool {
    let (layer, site) = match tap {
        TapSite::ResidMid { layer } => (layer, Site::ResidMid),
        TapSite::AttentionOut { layer } => (layer, Site::AttnOut),
        TapSite::MlpOut { layer } => (layer, Site::MlpOut),
        _ => return false,
    };
    Place { layer, site } == place
}

/// The activations of all tokens of `sequences` but their first `skip`, one sequence after
/// another: `[rows, hidden]`, flat. `beat` is called between batches.
///
/// # Errors
/// Those of the model and of `beat`.
pub fn activations(
    model: &LoadedModel,
    sequences: &[Sequence],
    place: Place,
    (batch_tokens, skip): (usize, usize),
    beat: &dyn Fn() -> Result<()>,
) -> Result<Vec<f32>> {
    let width = model.transformer.config().hidden;
    let mut ends = Vec::with_capacity(sequences.len());
    let mut total = 0;
    for sequence in sequences {
        total += sequence.ids.len().saturating_sub(skip) * width;
        ends.push(total);
    }
    let mut all = vec![0.0; total];
    each_batch(sequences, batch_tokens, Batch::new, &mut |members, batch| {
        beat()?;
        let found = values(&Halted::at(&model.transformer, batch, place)?.activations()?)?;
        for (member, span) in members.iter().zip(&batch.spans) {
            let rows = span.queries.start as usize + skip..span.queries.end as usize;
            let own = found.get(rows.start * width..rows.end * width).unwrap_or_default();
            let end = ends.get(*member).copied().unwrap_or_default();
            let place = all.get_mut(end - own.len()..end).unwrap_or_default();
            place.copy_from_slice(own);
        }
        Ok(())
    })?;
    Ok(all)
}
