//! `uspx mask build`: scores on this machine, and the colony's own rule to cut by.
//!
//! `scores` measures the units and `search` tries whole masks; `forecast` says before what that
//! will cost, `cost` after what the cut does, `show` what a mask keeps (`uspx mask show`), `export`
//! writes a model without the rest (`uspx mask export`).

mod cost;
mod export;
mod forecast;
mod scores;
mod search;
mod show;

use crate::args::{MaskBuildArgs, Spread};
use crate::draft::FileDraft;
use crate::error::{CliError, Exit, Result};
use crate::left_out::{self, LeftOut};
use crate::mask_file::MaskFile;
use crate::models;
use crate::output;
use crate::saes::{self, Saes};
use serde::Serialize;
use uspx_colony::Share;
use uspx_colony::mask::{Budget, Rule};
use uspx_model::budget::Workload;
use uspx_runtime::Shutdown;

/// `uspx mask build`.
pub fn build(args: &MaskBuildArgs, shutdown: &Shutdown) -> Result<()> {
    if !(args.keep > 0.0 && args.keep <= 1.0) {
        return Err(CliError::new(
            Exit::Usage,
            format!("--keep {} is not a share: above 0, at most 1", args.keep),
        ));
    }
    // Scoring can take hours: that the mask can be written is known before.
    let draft = FileDraft::of(&args.out)?;
    let built = score_and_cut(args, shutdown)?;
    let text =
        serde_json::to_string_pretty(&built.file).map_err(|e| CliError::new(Exit::Failed, e))?;
    draft.keep((text + "\n").as_bytes())?;
    tell(args, &built)
}

pub use export::run as export;
pub use show::run as show;

/// The JSON form: the mask as it stands in its file, and the prompts that were left out, if any.
#[derive(Serialize)]
struct Built {
    #[serde(flatten)]
    file: MaskFile,
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
    built.cost.as_ref().map_or(Ok(()), |cost| output::paragraph(&cost.to_string()))
}

/// The mask of the best units at the budget.
fn score_and_cut(args: &MaskBuildArgs, shutdown: &Shutdown) -> Result<Built> {
    let with = (Workload::Backward, Saes::read(&args.saes)?);
    let subject = models::subject(&args.common, with, shutdown)?;
    let (kind, shape) = (args.units, subject.model.shape());
    if shape.count(kind) == 0 {
        return Err(saes::no_units(kind));
    }
    if !args.common.run.json {
        forecast::tell(args, &subject)?;
    }
    let scores = scores::measured(args, &subject, shutdown)?;
    let rule = match args.spread {
        Spread::Global => Rule::Global,
        Spread::Uniform => Rule::Uniform,
    };
    let (model, keep) = (subject.model.fingerprint, Share::nearest(args.keep));
    let budget = Budget { model, shape: &shape, kind, keep, rule };
    let mask = search::best(args, &subject, (budget, &scores), shutdown)?;
    // For people alone: a program measures it where it wants it.
    let wanted = !args.common.run.json && !subject.model.transformer.is_streamed();
    let cost = wanted.then(|| cost::of(&subject, &mask)).transpose()?;
    let file = MaskFile::new(mask, &subject.model);
    Ok(Built { file, skipped: left_out::listed(&subject.prompts.skipped), cost })
}
