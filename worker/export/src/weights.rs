//! The student's tensors under their checkpoint names, whether it is in memory or read from its file: linear
//! maps by their sizes, everything else in pieces that are never a whole vocabulary.

use crate::{ExportError, Result};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::ops::Range;
use uspx_model::config::ModelConfig;
use uspx_model::taps::Projection;
use uspx_model::transformer::Transformer;

/// The embedding's tensor.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
/// The output head's, where it is one of its own.
pub(crate) const HEAD: &str = "lm_head.weight";

/// Rows of a vocabulary that are there together.
const ROWS: usize = 2048;

/// Whole rows of a tensor that stays a float.
pub struct Piece<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its whole shape.
    pub shape: &'a [usize],
    /// The first of the rows.
    pub first: usize,
    /// `[rows, ..]`, f32 on the CPU.
    pub rows: Tensor,
}

/// Shapes of everything that is no linear map: embedding, head where it is one of its own, norms, biases.
pub fn rest(c: &ModelConfig) -> BTreeMap<String, Vec<usize>> {
    let table = vec![c.vocab, c.hidden];
    let mut shapes = BTreeMap::from([
        (EMBEDDING.to_owned(), table.clone()),
        ("model.norm.weight".to_owned(), vec![c.hidden]),
    ]);
    if !c.tied {
        shapes.insert(HEAD.into(), table);
    }
    let vectors = (0..c.mlps.len()).flat_map(|layer| c.vectors(layer));
    shapes.extend(vectors.map(|(name, width)| (name, vec![width])));
    shapes
}

/// Calls `see` with all of it, piece by piece.
///
/// # Errors
/// Those of the model and of `see`.
pub fn each_piece(
    student: &Transformer,
    see: &mut dyn FnMut(Piece<'_>) -> Result<()>,
) -> Result<()> {
    let c = student.config();
    let shape = [c.vocab, c.hidden];
    let mut table = |name: &str, of: &dyn Fn(Range<usize>) -> Result<Tensor>| {
        for rows in panels(c.vocab) {
            let first = rows.start;
            see(Piece { name, shape: &shape, first, rows: plain(&of(rows)?)? })?;
        }
        Ok::<_, ExportError>(())
    };
    table(EMBEDDING, &|rows| Ok(student.embedding_rows(rows)?))?;
    if !c.tied {
        table(HEAD, &|rows| Ok(student.head_rows(rows)?))?;
    }
    let mut vector = |name: &str, vector: &Tensor| {
        see(Piece { name, shape: vector.dims(), first: 0, rows: plain(vector)? })
    };
    vector("model.norm.weight", student.norm().gain())?;
    for layer in 0..student.layers() {
        student.vectors(layer)?.iter().try_for_each(|(name, tensor)| vector(name, tensor))?;
    }
    Ok(())
}

/// Rows of a table that are read, written and compared together.
pub(crate) fn panels(rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(ROWS).map(move |start| start..(start + ROWS).min(rows))
}

/// The size of every linear map, (outputs, inputs), by its module.
///
/// # Errors
/// [`ExportError::Unsupported`] for a model that is not dense.
pub fn linears(c: &ModelConfig) -> Result<BTreeMap<String, (usize, usize)>> {
    let places = (0..c.mlps.len()).flat_map(|layer| Projection::DENSE.map(|p| (layer, p)));
    let experts = || ExportError::Unsupported("only dense models are written as students".into());
    let each = |(layer, p): (usize, Projection)| {
        Ok((p.path(layer), c.linear_dims(layer, p).ok_or_else(experts)?))
    };
    places.map(each).collect()
}

/// f32, on the CPU, contiguous, without history.
///
/// # Errors
/// Those of the tensor library.
pub fn plain(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?)
}

/// The values of a tensor, all of them finite; `name` is for the error.
///
/// # Errors
/// [`ExportError::NotFinite`] where one is not finite.
pub fn values(name: &str, tensor: &Tensor) -> Result<Vec<f32>> {
    let values: Vec<f32> = plain(tensor)?.flatten_all()?.to_vec1()?;
    if values.iter().all(|v| v.is_finite()) {
        Ok(values)
    } else {
        Err(ExportError::NotFinite(name.to_owned()))
    }
}
