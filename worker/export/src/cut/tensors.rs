//! What becomes of each tensor: copied, cut along its rows or columns, given another name, or left
//! out.

use super::plan::{Along, Fate, Filler, Pick, Plan};
use crate::{ExportError, Result};
use safetensors::tensor::Dtype;
use std::ops::Range;
use uspx_model::StoredModel;
use uspx_model::checkpoint::StoredTensor;

/// A tensor to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its name.
    pub name: String,
    /// Its type, as in the source.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The source's tensor that it is made of.
    pub from: String,
    /// Its bytes, one run after another.
    pub runs: Vec<Run>,
}

/// Bytes of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Run {
    /// These bytes of the source's tensor.
    Copy(Range<usize>),
    /// Of each of its rows these bytes.
    Columns {
        /// Its rows.
        rows: usize,
        /// Bytes of a row.
        width: usize,
        /// Those that stay.
        kept: Vec<Range<usize>>,
    },
    /// So many zeros.
    Zeros(usize),
    /// These.
    These(Vec<u8>),
}

impl Run {
    fn len(&self) -> usize {
        match self {
            Self::Copy(range) => range.len(),
            Self::Columns { rows, kept, .. } => rows * kept.iter().map(Range::len).sum::<usize>(),
            Self::Zeros(bytes) => *bytes,
            Self::These(bytes) => bytes.len(),
        }
    }
}

impl Written {
    /// Its bytes.
    pub fn bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.len() as u64).sum()
    }
}

/// The files to write, with their tensors in order: the source's, but for those that nothing is left
/// of.
///
/// # Errors
/// A tensor that has other entries than the plan takes, or a router's bias that is no float.
pub fn written(source: &StoredModel, plan: &Plan) -> Result<Vec<(String, Vec<Written>)>> {
    let fates = plan.fates(source);
    let mut shards = Vec::new();
    for (path, tensors) in source.checkpoint.shards() {
        let each = |tensor: &StoredTensor<'_>| {
            let name = plan.renamed(tensor.name)?;
            match fates.get(tensor.name) {
                None => Some(Ok(whole(tensor, name))),
                Some(Fate::Whole(name)) => Some(Ok(whole(tensor, name.clone()))),
                Some(Fate::Gone) => None,
                Some(Fate::Picked(pick)) => Some(picked(tensor, name, pick)),
            }
        };
        let tensors = tensors.iter().filter_map(each).collect::<Result<Vec<_>>>()?;
        if !tensors.is_empty() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            shards.push((name, tensors));
        }
    }
    Ok(shards)
}

fn whole(tensor: &StoredTensor<'_>, name: String) -> Written {
    Written {
        name,
        dtype: tensor.dtype,
        shape: tensor.shape.to_vec(),
        from: tensor.name.to_owned(),
        runs: vec![Run::Copy(0..tensor.bytes)],
    }
}

/// The entries that stay.
fn picked(tensor: &StoredTensor<'_>, name: String, pick: &Pick<'_>) -> Result<Written> {
    let (axis, rows) = match pick.along {
        Along::Rows => (0, 1),
        Along::Columns => (1, tensor.shape.first().copied().unwrap_or(0)),
    };
    let mut shape = tensor.shape.to_vec();
    let (wanted, entries) = (pick.of * pick.each, rows * pick.of);
    let fits = pick.along == Along::Rows || shape.len() == 2;
    match shape.get_mut(axis) {
        Some(count) if fits && *count == wanted && entries > 0 => {
            *count = pick.slots.len() * pick.each;
        }
        _ => return Err(other_entries(tensor, pick.along, wanted)),
    }
    if !tensor.bytes.is_multiple_of(entries) {
        return Err(other_entries(tensor, pick.along, wanted));
    }
    let bytes = tensor.bytes / entries;
    let runs = match pick.along {
        Along::Rows => these_rows(tensor, pick, bytes)?,
        Along::Columns => vec![these_columns(rows, pick, bytes)],
    };
    Ok(Written { shape, runs, ..whole(tensor, name) })
}

fn other_entries(tensor: &StoredTensor<'_>, along: Along, wanted: usize) -> ExportError {
    let want = match along {
        Along::Rows => format!("[{wanted}, ..]"),
        Along::Columns => format!("[.., {wanted}]"),
    };
    ExportError::Shape { name: tensor.name.to_owned(), got: tensor.shape.to_vec(), want }
}

/// Entries of so many bytes that lie one after another; neighbours are one run.
fn these_rows(tensor: &StoredTensor<'_>, pick: &Pick<'_>, bytes: usize) -> Result<Vec<Run>> {
    let dead = match pick.dead {
        Filler::Zeros => Run::Zeros(bytes),
        Filler::Never => Run::These(never(tensor)?),
    };
    let mut runs = Vec::new();
    for slots in pick.slots.chunk_by(|a, b| a.is_some() && b.is_some()) {
        let kept: Vec<u32> = slots.iter().flatten().copied().collect();
        match kept.is_empty() {
            true => runs.push(dead.clone()),
            false => runs.extend(stretches(&kept, bytes).into_iter().map(Run::Copy)),
        }
    }
    Ok(runs)
}

/// Entries of so many bytes of each of a matrix's rows.
fn these_columns(rows: usize, pick: &Pick<'_>, bytes: usize) -> Run {
    let kept: Vec<u32> = pick.slots.iter().flatten().copied().collect();
    let (width, kept) = (pick.of * bytes, stretches(&kept, bytes));
    match kept.as_slice() {
        [all] if all.len() == width => Run::Copy(0..rows * width),
        _ => Run::Columns { rows, width, kept },
    }
}

/// Where entries of so many bytes lie; neighbours are one.
fn stretches(kept: &[u32], bytes: usize) -> Vec<Range<usize>> {
    let place = |run: &[u32]| match run {
        [first, .., last] => *first as usize * bytes..(*last as usize + 1) * bytes,
        [one] => *one as usize * bytes..(*one as usize + 1) * bytes,
        [] => 0..0,
    };
    kept.chunk_by(|a, b| a + 1 == *b).map(place).collect()
}

/// -∞ in a tensor's type, little-endian.
fn never(tensor: &StoredTensor<'_>) -> Result<Vec<u8>> {
    match tensor.dtype {
        Dtype::BF16 => Ok(half::bf16::NEG_INFINITY.to_le_bytes().to_vec()),
        Dtype::F16 => Ok(half::f16::NEG_INFINITY.to_le_bytes().to_vec()),
        Dtype::F32 => Ok(f32::NEG_INFINITY.to_le_bytes().to_vec()),
        other => {
            let stored = uspx_model::checkpoint::dtype_name(other);
            let reason = format!("`{}` is stored as {stored}: a float is expected", tensor.name);
            Err(ExportError::Unsupported(reason))
        }
    }
}
