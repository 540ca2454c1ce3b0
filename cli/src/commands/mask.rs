//! `uspx mask build`: scores on this machine, and the colony's own rule to cut by.
//!
//! `scores` measures the units and `search` tries whole masks; `layers` cuts whole layers instead;
//! `forecast` says before what that will cost, `cost` after what the cut does, `show` what a mask keeps (`uspx mask show`), `export`
//! writes a model without the rest (`uspx mask export`).

mod cost;
mod export;
mod forecast;
mod layers;
mod scores;
mod search;
mod show;

use crate::args::{MaskBuildArgs, Spread};
use crate::draft::FileDraft;
use crate::error::{CliError, Exit, Result};
use crate::left_out::{self, LeftOut};
use crate::mask_file::MaskFile;
use crate::models::{self, Subject};
use crate::output;
use crate::saes::{self, Saes};
use layers::Gone;
use serde::Serialize;
use uspx_colony::Share;
use uspx_colony::mask::{Budget, Rule};
use uspx_domain::{Mask, ModelShape, UnitKind};
use uspx_model::budget::Workload;
use uspx_runtime::Shutdown;

/// `uspx mask build`.
pub fn build(args: &MaskBuildArgs, shutdown: &Shutdown) -> Result<()> {
    let wanted = wanted(args)?;
    let layers = (args.spread == Spread::Layers).then(|| layers::share(args, &wanted));
    let layers = layers.transpose()?;
    // Scoring can take hours: that the mask can be written is known before.
    let draft = FileDraft::of(&args.out)?;
    let built = match layers {
        Some(share) => layers::score_and_cut(args, share, shutdown)?,
        None => score_and_cut(args, &wanted, shutdown)?,
    };
    let text =
        serde_json::to_string_pretty(&built.file).map_err(|e| CliError::new(Exit::Failed, e))?;
    draft.keep((text + "\n").as_bytes())?;
    tell(args, &built)
}

/// The kinds to cut, each with the share to keep.
fn wanted(args: &MaskBuildArgs) -> Result<Vec<(UnitKind, Share)>> {
    if let Some(kind) = args.superfluous() {
        let what = format!("--keep has a share of {kind}s, and --units does not name them");
        return Err(CliError::new(Exit::Usage, what).help("name the same kinds in both"));
    }
    let share = |(kind, share): (UnitKind, Option<Share>)| {
        let missing = || CliError::new(Exit::Usage, format!("--keep has no share of {kind}s"));
        let help = "give one for each kind of --units: --keep head=0.5,channel=0.75";
        share.map(|share| (kind, share)).ok_or_else(|| missing().help(help))
    };
    args.budgets().map(share).collect()
}

pub use export::run as export;
pub(super) use show::ranges;
pub use show::run as show;

/// The JSON form: the mask as it stands in its file, the layers that it cuts whole where that was asked
/// for, and the prompts that were left out, if any.
#[derive(Serialize)]
struct Built {
    #[serde(flatten)]
    file: MaskFile,
    /// In the order in which they went.
    #[serde(rename = "layers_gone", skip_serializing_if = "Vec::is_empty")]
    gone: Vec<Gone>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    skipped: Vec<LeftOut>,
    #[serde(skip)]
    cost: Option<cost::Cost>,
}

fn tell(args: &MaskBuildArgs, built: &Built) -> Result<()> {
    if args.common.run.json {
        return output::json(built);
    }
    show::print(&args.out, &built.file.mask)?;
    layers::tell(&built.gone)?;
    built.cost.as_ref().map_or(Ok(()), |cost| output::paragraph(&cost.to_string()))
}

/// The mask of the best units at the budget.
fn score_and_cut(
    args: &MaskBuildArgs,
    wanted: &[(UnitKind, Share)],
    shutdown: &Shutdown,
) -> Result<Built> {
    let with = (Workload::Backward, Saes::read(&args.saes)?);
    let subject = models::subject(&args.common, with, shutdown)?;
    let shape = subject.model.shape();
    if let Some(kind) = args.units.iter().find(|kind| shape.count(**kind) == 0) {
        return Err(saes::no_units(*kind));
    }
    if !args.common.run.json {
        forecast::tell(args, &subject)?;
    }
    let scores = scores::measured(args, &subject, shutdown)?;
    let mut mask = Mask::everything(subject.model.fingerprint);
    for ((kind, keep), scores) in wanted.iter().zip(&scores) {
        let budget = budget(args, &subject, &shape, (*kind, *keep));
        let best = search::best(args, &subject, (budget, scores, &mask), shutdown)?;
        mask.keep.0.extend(best.keep.0);
    }
    finished(args, &subject, mask)
}

/// The mask with what is told of it.
fn finished(args: &MaskBuildArgs, subject: &Subject, mask: Mask) -> Result<Built> {
    // For people alone: a program measures it where it wants it.
    let wanted = !args.common.run.json && !subject.model.transformer.is_streamed();
    let cost = wanted.then(|| cost::of(subject, &mask)).transpose()?;
    let file = MaskFile::new(mask, &subject.model);
    let skipped = left_out::listed(&subject.prompts.skipped);
    Ok(Built { file, gone: Vec::new(), skipped, cost })
}

/// How much of a kind is kept, and how that is spread.
fn budget<'a>(
    args: &MaskBuildArgs,
    subject: &Subject,
    shape: &'a ModelShape,
    (kind, keep): (UnitKind, Share),
) -> Budget<'a> {
    let rule = if args.spread == Spread::Global { Rule::Global } else { Rule::Uniform };
    let kv_heads = subject.model.transformer.config().kv_heads as u32;
    let parts = if kind == UnitKind::Head { kv_heads } else { 1 };
    Budget { model: subject.model.fingerprint, shape, kind, keep, rule, parts }
}
