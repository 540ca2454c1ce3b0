//! `uspx mask show` of a file, and the same of a mask that was just built: what is kept of each layer.

use super::drawn;
use crate::args::{MaskName, MaskShowArgs};
use crate::error::Result;
use crate::mask_file::MaskFile;
use crate::output;
use serde::Serialize;
use std::collections::BTreeMap;
use uspx_domain::{LayerLists, Mask, UnitKind};

/// The JSON form: the mask as it stands in its file, and how much it keeps.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    file: &'a MaskFile,
    kept_per_layer: Kept,
}

/// Units kept of each layer, by kind.
pub(super) type Kept = BTreeMap<&'static str, Vec<usize>>;

/// `uspx mask show`.
pub fn run(args: &MaskShowArgs) -> Result<()> {
    let path = match &args.mask {
        Some(MaskName::File(path)) => path,
        Some(MaskName::Version(number)) => return drawn::run(args, Some(*number)),
        None => return drawn::run(args, None),
    };
    let file = MaskFile::read(path)?;
    if !args.json {
        return print(&path.display().to_string(), &file.mask);
    }
    output::json(&Shown { file: &file, kept_per_layer: kept(&file.mask) })
}

/// How many units a mask keeps of each layer.
pub(super) fn kept(mask: &Mask) -> Kept {
    let lengths = |lists: &LayerLists| lists.iter().map(Vec::len).collect();
    mask.keep.0.iter().map(|(kind, lists)| (kind.name(), lengths(lists))).collect()
}

/// What it keeps, for a person.
pub(super) fn print(name: &str, mask: &Mask) -> Result<()> {
    if mask.keep.0.is_empty() {
        return output::line(&format!("{name}: keeps everything"));
    }
    for (kind, lists) in &mask.keep.0 {
        let kept: usize = lists.iter().map(Vec::len).sum();
        output::line(&format!("{name}: keeps {kept} {kind}s"))?;
        output::line(&layers(*kind, lists).to_string())?;
    }
    output::paragraph(&format!("of the model {}", mask.model))
}

fn layers(kind: UnitKind, lists: &LayerLists) -> output::Table {
    let heading = format!("{kind}s");
    let mut table = output::table(&["layer", "kept", &heading]);
    for (layer, list) in lists.iter().enumerate() {
        table.add_row([layer.to_string(), list.len().to_string(), ranges(list)]);
    }
    table
}

/// `0-3, 7, 9-11`, as much of it as one line holds.
pub(in crate::commands) fn ranges(list: &[u32]) -> String {
    let room = usize::from(output::columns()).saturating_sub(24);
    let mut text = String::new();
    for run in list.chunk_by(|a, b| a + 1 == *b) {
        let part = match run {
            [first, .., last] => format!("{first}-{last}"),
            [one] => one.to_string(),
            [] => continue,
        };
        if text.len() + part.len() > room {
            return text + ", ..";
        }
        text = if text.is_empty() { part } else { format!("{text}, {part}") };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_indices_are_put_together() {
        assert_eq!(ranges(&[0, 1, 2, 3, 7, 9, 10]), "0-3, 7, 9-10");
        assert_eq!(ranges(&[]), "");
        let many: Vec<u32> = (0..900).step_by(2).collect();
        let text = ranges(&many);
        assert!(text.ends_with(", ..") && text.len() < usize::from(output::columns()), "{text}");
    }
}
