//! The shipped prompts, split for a campaign.

use crate::error::{BenchError, Result};
use std::path::Path;
use uspx_bench_engine::place::Place;

/// The first lines of the prompts that ship with uspx, as files to learn from, to choose by and
/// to judge by, so many each; the lines of a configuration that name them.
///
/// # Errors
/// A file that cannot be read or written, or fewer prompts than that.
pub fn split(place: &Place, folder: &Path, counts: [usize; 3]) -> Result<String> {
    let all = place.root.join("cli/assets/prompts/cli-train.jsonl");
    let text = std::fs::read_to_string(&all).map_err(BenchError::file(&all))?;
    let mut lines = text.lines();
    let mut config = String::new();
    for (name, count) in ["train", "validation", "gate"].into_iter().zip(counts) {
        let taken: Vec<&str> = lines.by_ref().take(count).collect();
        if taken.len() < count {
            let why = format!("{} has fewer prompts than are asked for", all.display());
            return Err(BenchError::Colony(why));
        }
        let path = folder.join(format!("{name}.jsonl"));
        std::fs::write(&path, taken.join("\n")).map_err(BenchError::file(&path))?;
        config += &format!("{name} = '{}'\n", path.display());
    }
    Ok(config)
}
