//! `uspx mask build`: scores on this machine, and the colony's own rule to cut by.
//!
//! `asked` reads what is to be cut, `target` from how large the student may be; `scores` measures the units
//! and `search` tries whole masks; `layers` cuts whole layers instead; `forecast` says before what that will
//! cost, `cost` after what the cut does, `show` what a mask keeps (`uspx mask show`), of a colony's `drawn`, `export` writes a model
//! without the rest (`uspx mask export`); `why` asks a colony's ledger about a unit (`uspx mask why`), `diff` says what changed between two
//! masks (`uspx mask diff`), its units by `changes`; `versions` finds those of a colony's mask in its ledger.

mod asked;
mod changes;
mod cost;
mod diff;
mod drawn;
mod export;
mod forecast;
mod layers;
mod scores;
mod search;
mod show;
mod target;
mod versions;
mod why;

use crate::args::{MaskBuildArgs, MaskWhyArgs, Spread};
use crate::draft::FileDraft;
use crate::error::{CliError, Exit, Result};
use crate::left_out::{self, LeftOut};
use crate::mask_file::MaskFile;
use crate::models::{self, Subject};
use crate::output;
use crate::saes::{self, Saes};
use asked::Asked;
use layers::Gone;
use serde::Serialize;
use target::Target;
use uspx_colony::Share;
use uspx_colony::mask::{Budget, Rule};
use uspx_domain::{Mask, ModelShape, UnitKind};
use uspx_model::budget::Workload;
use uspx_runtime::Shutdown;

/// `uspx mask why`.
pub fn why(args: &MaskWhyArgs) -> Result<()> {
    why::run(args)
}

/// `uspx mask build`.
pub fn build(args: &MaskBuildArgs, shutdown: &Shutdown) -> Result<()> {
    let (asked, target) = asked::asked(args)?;
    // Scoring can take hours: that the mask can be written is known before.
    let draft = FileDraft::of(&args.out)?;
    target.iter().filter(|_| !args.common.run.json).for_each(Target::tell);
    let built = match asked {
        Asked::Layers(share) => layers::score_and_cut(args, share, shutdown)?,
        Asked::Units(wanted) => score_and_cut(args, &wanted, shutdown)?,
        Asked::Nothing => target::nothing_cut(args, shutdown)?,
    };
    let built = Built { target, ..built };
    let text =
        serde_json::to_string_pretty(&built.file).map_err(|e| CliError::new(Exit::Failed, e))?;
    draft.keep((text + "\n").as_bytes())?;
    tell(args, &built)
}

pub(super) use changes::{KindChange, between};
pub use diff::run as diff;
pub use export::run as export;
pub(super) use show::ranges;
pub use show::run as show;

/// The JSON form: the mask as it stands in its file, the size that it was built for and the layers that it
/// cuts whole where that was asked for, and the prompts that were left out, if any.
#[derive(Serialize)]
struct Built {
    #[serde(flatten)]
    file: MaskFile,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Target>,
    /// In the order in which they went.
    #[serde(rename = "layers_gone", skip_serializing_if = "Vec::is_empty")]
    gone: Vec<Gone>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    skipped: Vec<LeftOut>,
    #[serde(skip)]
    cost: Option<cost::Cost>,
}

impl Built {
    /// A mask of which nothing more is told.
    fn of(file: MaskFile) -> Self {
        Self { file, target: None, gone: Vec::new(), skipped: Vec::new(), cost: None }
    }
}

fn tell(args: &MaskBuildArgs, built: &Built) -> Result<()> {
    if args.common.run.json {
        return output::json(built);
    }
    show::print(&args.out.display().to_string(), &built.file.mask)?;
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
    let skipped = left_out::listed(&subject.prompts.skipped);
    Ok(Built { skipped, cost, ..Built::of(MaskFile::new(mask, &subject.model)) })
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
