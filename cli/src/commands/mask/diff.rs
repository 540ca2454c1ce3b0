//! `uspx mask diff`: which units came and went between two masks; of two versions of a colony's mask also why, and for
//! which prompts. The ledger is only read, beside a running coordinator too.

use super::changes::{KindChange, between};
use super::versions::{find, replay};
use crate::args::{MaskDiffArgs, MaskName};
use crate::error::{CliError, Exit, Result};
use crate::mask_file::MaskFile;
use crate::output;
use serde::Serialize;
use uspx_colony::diff::{Changed, Diff, Drawn, Flipped, Versions, diff};
use uspx_colony::why::{Interval, Need};
use uspx_domain::UnitKind;

/// The JSON form.
#[derive(Serialize)]
struct Told {
    first: String,
    second: String,
    /// What came and went, by kind.
    kinds: Vec<KindChange>,
    /// Of two versions of a colony's mask.
    #[serde(flatten)]
    diff: Option<Diff>,
}

/// `uspx mask diff`.
pub fn run(args: &MaskDiffArgs) -> Result<()> {
    let versions = versions(args)?;
    let (first, second) = (mask(&args.first, &versions)?, mask(&args.second, &versions)?);
    comparable(&first, &second)?;
    let state = |name: &MaskName| versions.state(name.version()?);
    let both = state(&args.first).zip(state(&args.second));
    let told = Told {
        first: args.first.to_string(),
        second: args.second.to_string(),
        kinds: between(&first.mask, &second.mask),
        diff: both.and_then(|(then, now)| diff(then, now, args.prompts)),
    };
    if args.json { output::json(&told) } else { print(&told) }
}

/// The versions that are named, from the ledger; it is left alone where none is.
fn versions(args: &MaskDiffArgs) -> Result<Versions> {
    let named = [&args.first, &args.second].into_iter().filter_map(MaskName::version);
    let wanted: Vec<u32> = named.collect();
    if wanted.is_empty() { Ok(Versions::default()) } else { replay(&wanted, &args.state) }
}

fn mask(name: &MaskName, versions: &Versions) -> Result<MaskFile> {
    let number = match name {
        MaskName::File(path) => return MaskFile::read(path),
        MaskName::Version(number) => *number,
    };
    let (_, drawn) = find(versions, Some(number))?;
    Ok(MaskFile { mask: drawn.mask.clone(), saes: Vec::new() })
}

/// Units of two models, or features of two autoencoders, have nothing to do with one another.
fn comparable(first: &MaskFile, second: &MaskFile) -> Result<()> {
    let features = [first, second].map(|file| file.mask.lists(UnitKind::Feature).is_some());
    let what = match () {
        () if first.mask.model != second.mask.model => "they are of two models",
        () if features == [true; 2] && first.saes != second.saes => {
            "they cut features of different sparse autoencoders"
        }
        () => return Ok(()),
    };
    Err(CliError::new(Exit::Refused, format!("the masks cannot be compared: {what}"))
        .help("name two masks that were made for one model"))
}

fn print(told: &Told) -> Result<()> {
    told.kinds.iter().try_for_each(KindChange::show)?;
    let Some(diff) = &told.diff else { return Ok(()) };
    let cut = |of: &Drawn| format!("{:.5} (version {}, {})", of.cut, of.version, of.basis.unit());
    output::paragraph(&format!("the cut: {}, then {}", cut(&diff.then), cut(&diff.now)))?;
    if !diff.changed.is_empty() {
        output::line(&changed(&diff.changed).to_string())?;
    }
    if !diff.flipped.is_empty() {
        output::line(&flipped(&diff.flipped).to_string())?;
    }
    Ok(())
}

fn changed(all: &[Changed]) -> output::Table {
    let mut table = output::table(&["unit", "is", "effect then", "effect now", "needed most by"]);
    let effect = |of: &Option<Interval>| {
        let told = |i: &Interval| format!("{:.4} ({:.4} to {:.4})", i.mean, i.low, i.high);
        of.as_ref().map_or_else(|| "-".to_owned(), told)
    };
    let need = |need: &Need| format!("{} {:+.3}", need.prompt, need.rise);
    for unit in all {
        let side = if unit.kept { "kept" } else { "cut" };
        let needed: Vec<String> = unit.needed_by.iter().map(need).collect();
        let (then, now) = (effect(&unit.then), effect(&unit.now));
        table.add_row([unit.unit.clone(), side.to_owned(), then, now, needed.join(", ")]);
    }
    table
}

fn flipped(all: &[Flipped]) -> output::Table {
    let headings = ["to this prompt the change is", "by then", "by now", "units tried", ""];
    let mut table = output::table(&headings);
    for prompt in all {
        let then = prompt.then.map_or_else(|| "-".to_owned(), |then| format!("{then:+.4}"));
        let turned = if prompt.has_turned() { "turned" } else { "" };
        let now = format!("{:+.4}", prompt.now);
        let tried = prompt.tried.to_string();
        table.add_row([prompt.prompt.clone(), then, now, tried, turned.to_owned()]);
    }
    table
}
