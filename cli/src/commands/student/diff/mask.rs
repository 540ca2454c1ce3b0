//! Which units one release's mask keeps that another's does not.

use crate::commands::mask::{KindChange, between};
use crate::commands::student::published::{Published, json_file};
use crate::error::Result;
use crate::mask_file::MaskFile;
use uspx_artifact::Store;

/// The changes by kind; none where a release has no mask.
pub async fn changes(
    store: &Store,
    first: &Published,
    second: &Published,
) -> Result<Option<Vec<KindChange>>> {
    let a: Option<MaskFile> = json_file(store, &first.manifest, "mask.json").await?;
    let b: Option<MaskFile> = json_file(store, &second.manifest, "mask.json").await?;
    Ok(a.zip(b).map(|(a, b)| between(&a.mask, &b.mask)))
}
