//! What becomes of each tensor: copied, cut along its experts, given another name, or left out.

use super::plan::Plan;
use crate::{ExportError, Result};
use safetensors::tensor::Dtype;
use std::ops::Range;
use uspx_model::checkpoint::StoredTensor;
use uspx_model::{ExpertPart, ExpertTensor, StoredModel};

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
    /// So many zeros.
    Zeros(usize),
    /// These.
    These(Vec<u8>),
}

impl Run {
    fn len(&self) -> usize {
        match self {
            Self::Copy(range) => range.len(),
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
/// A tensor that does not have an entry for each expert, or a router's bias that is no float.
pub fn written(source: &StoredModel, plan: &Plan) -> Result<Vec<(String, Vec<Written>)>> {
    let of_experts = source.expert_tensors();
    let mut shards = Vec::new();
    for (path, tensors) in source.checkpoint.shards() {
        let each = |tensor: &StoredTensor<'_>| match of_experts.get(tensor.name) {
            Some(place) => cut(tensor, place, plan).transpose(),
            None => Some(Ok(whole(tensor, tensor.name.to_owned()))),
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

/// What a router's or expert's tensor becomes; nothing where its expert goes.
fn cut(tensor: &StoredTensor<'_>, place: &ExpertTensor, plan: &Plan) -> Result<Option<Written>> {
    let slots = plan.layer(place.layer);
    match &place.part {
        ExpertPart::Own(own) => {
            let slot = slots.iter().position(|slot| *slot == Some(own.expert as u32));
            Ok(slot.map(|slot| whole(tensor, own.renumbered(slot))))
        }
        ExpertPart::Entries => entries(tensor, place, plan, Run::Zeros).map(Some),
        ExpertPart::RouterBias => {
            let never = never(tensor)?;
            entries(tensor, place, plan, |_| Run::These(never.clone())).map(Some)
        }
    }
}

/// The entries of the experts that stay; `dead` makes one of so many bytes for one that is none.
fn entries(
    tensor: &StoredTensor<'_>,
    place: &ExpertTensor,
    plan: &Plan,
    dead: impl Fn(usize) -> Run,
) -> Result<Written> {
    let (slots, experts) = (plan.layer(place.layer), plan.before.get(place.layer).copied());
    let (first, rest) = tensor.shape.split_first().map_or((None, &[][..]), |(f, r)| (Some(*f), r));
    let Some(count) = experts.filter(|n| *n > 0 && first == Some(*n)) else {
        let want = format!("[{}, ..]", experts.unwrap_or(0));
        let (name, got) = (tensor.name.to_owned(), tensor.shape.to_vec());
        return Err(ExportError::Shape { name, got, want });
    };
    let bytes = tensor.bytes / count;
    let run = |slot: &Option<u32>| match slot {
        Some(expert) => Run::Copy(*expert as usize * bytes..(*expert as usize + 1) * bytes),
        None => dead(bytes),
    };
    Ok(Written {
        shape: std::iter::once(slots.len()).chain(rest.iter().copied()).collect(),
        runs: slots.iter().map(run).collect(),
        ..whole(tensor, tensor.name.to_owned())
    })
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
