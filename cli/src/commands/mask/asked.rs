//! What the flags of `mask build` ask to be cut, checked before anything is opened.

use super::{layers, target};
use crate::args::{MaskBuildArgs, Spread};
use crate::error::{CliError, Exit, Result};
use target::Target;
use uspx_colony::Share;
use uspx_domain::UnitKind;

/// What is to be cut.
pub(super) enum Asked {
    /// Of some kinds of unit all but these shares.
    Units(Vec<(UnitKind, Share)>),
    /// All but this share of the layers.
    Layers(Share),
    /// Nothing: all of it fits.
    Nothing,
}

/// What is asked for, and what of it a size has decided.
pub(super) fn asked(args: &MaskBuildArgs) -> Result<(Asked, Option<Target>)> {
    if let Some(bytes) = args.target_bytes {
        let target = target::chosen(args, bytes)?;
        let asked =
            if target.is_whole() { Asked::Nothing } else { Asked::Units(target.shares(args)) };
        return Ok((asked, Some(target)));
    }
    let wanted = wanted(args)?;
    let asked = match args.spread {
        Spread::Layers => Asked::Layers(layers::share(args, &wanted)?),
        Spread::Global | Spread::Uniform => Asked::Units(wanted),
    };
    Ok((asked, None))
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
