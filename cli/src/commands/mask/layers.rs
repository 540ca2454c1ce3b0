//! `mask build --spread layers`: whole layers kept or cut, by what the loss rises by without them.

use super::{Built, finished, forecast};
use crate::args::MaskBuildArgs;
use crate::error::{CliError, Exit, Result};
use crate::models::{self, Subject};
use crate::output;
use crate::progress::Bar;
use crate::saes::Saes;
use serde::Serialize;
use std::collections::BTreeSet;
use uspx_colony::Share;
use uspx_domain::{Mask, ModelShape, UnitKind};
use uspx_model::budget::Workload;
use uspx_probe::layers::{drop_greedily, rises};
use uspx_runtime::Shutdown;

/// The flags, as people write them.
const EXAMPLE: &str = "--units head,channel --keep 0.75 --spread layers";

/// A layer that goes.
#[derive(Serialize)]
pub(super) struct Gone {
    layer: u32,
    /// How far the loss then lies above the whole model's, nats per response token.
    rise: f64,
}

/// The share of the layers to keep.
pub(super) fn share(args: &MaskBuildArgs, wanted: &[(UnitKind, Share)]) -> Result<Share> {
    let usage = |what: &str, help: &str| Err(CliError::new(Exit::Usage, what).help(help));
    let both = [UnitKind::Head, UnitKind::Channel].iter().all(|kind| args.units.contains(kind));
    let (Some((_, keep)), true, 2) = (wanted.first(), both, args.units.len()) else {
        return usage(
            "--spread layers cuts heads and channels of a layer together",
            &format!("name both, and no others: {EXAMPLE}"),
        );
    };
    if wanted.iter().any(|(_, share)| share != keep) {
        return usage(
            "--spread layers keeps as many heads as channels: whole layers",
            &format!("give --keep one share: {EXAMPLE}"),
        );
    }
    if args.method.is_some() || args.search.is_some() {
        return usage(
            "--spread layers measures exactly what layers cost, one after another",
            "leave out --method and --search",
        );
    }
    Ok(*keep)
}

/// The mask of the layers that are left, one gone after another.
pub(super) fn score_and_cut(
    args: &MaskBuildArgs,
    share: Share,
    shutdown: &Shutdown,
) -> Result<Built> {
    let with = (Workload::Forward, Saes::read(&args.saes)?);
    let subject = models::subject(&args.common, with, shutdown)?;
    let shape = subject.model.shape();
    check(&subject, &shape)?;
    let keep = share.of(shape.layers.len()).max(1);
    if !args.common.run.json {
        forecast::tell_passes("exact losses without layers", &subject, passes(&shape, keep))?;
    }
    let dropped = drop_greedily(shape.depth(), keep, |gone| {
        let stage = format!("layer {} of {} to go", gone.len() + 1, shape.layers.len() - keep);
        let bar = Bar::new(&stage, args.common.run.json, shutdown);
        let Subject { model, prompts, batch_tokens, .. } = &subject;
        let found = rises(model, prompts, gone, *batch_tokens, &bar)?;
        bar.finish();
        Ok::<_, CliError>(found)
    })?;
    let layers: BTreeSet<u32> = dropped.iter().map(|dropped| dropped.layer).collect();
    let mask = Mask::without_layers(subject.model.fingerprint, &shape, &layers);
    let gone = dropped.iter().map(|d| Gone { layer: d.layer, rise: d.rise }).collect();
    Ok(Built { gone, ..finished(args, &subject, mask)? })
}

/// Refuses a model whose layers a mask cannot cut whole.
fn check(subject: &Subject, shape: &ModelShape) -> Result<()> {
    let refuse = |what: &str| {
        let help = "cut what each layer can do without: --spread uniform";
        Err(CliError::new(Exit::BadInput, what).help(help))
    };
    if shape.widths(UnitKind::Channel).contains(&0) {
        return refuse("only layers of a dense model can be cut whole: this one has experts");
    }
    if subject.model.transformer.config().bias.o {
        return refuse(
            "attention's output has a bias here, which a layer adds even without heads and channels: none can be cut whole",
        );
    }
    Ok(())
}

/// Forward-equivalents of one prompt: a cut runs from the first layer that is gone.
fn passes(shape: &ModelShape, keep: usize) -> f64 {
    let layers = shape.layers.len();
    let round = |gone: usize| 1.0 + (1..=layers - gone).sum::<usize>() as f64 / layers as f64;
    (0..layers.saturating_sub(keep)).map(round).sum()
}

/// Says which went.
pub(super) fn tell(gone: &[Gone]) -> Result<()> {
    if gone.is_empty() {
        return Ok(());
    }
    let each = |Gone { layer, rise }: &Gone| format!("{layer} ({rise:+.4})");
    let all: Vec<String> = gone.iter().map(each).collect();
    output::paragraph(&format!(
        "layers that go, in this order, each with how far the loss then lies above the whole model's, nats per response \
         token: {}",
        all.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_domain::{LayerShape, MlpShape};

    /// Four layers: the clean run and 4 + 3 + 2 + 1 quarters, then the clean run and at most 3 + 2 + 1.
    #[test]
    fn passes_are_counted_from_where_a_cut_bites() {
        let shape = ModelShape::uniform(4, LayerShape::new(2, MlpShape::Dense { channels: 3 }));
        assert_eq!(passes(&shape, 4), 0.0);
        assert_eq!(passes(&shape, 3), 1.0 + 2.5);
        assert_eq!(passes(&shape, 2), 1.0 + 2.5 + 1.0 + 1.5);
    }
}
