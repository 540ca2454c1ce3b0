//! The header of a safetensors file, from names and shapes alone.

use crate::tensor_file::Place;
use crate::{ExportError, Result};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// A tensor to come: name, type, shape.
pub(crate) type Coming = (String, Dtype, Vec<usize>);

/// The header's length and the header, padded with blanks to a multiple of 8 so that tensors are
/// aligned. They lie in the order of `tensors`; `path` is for the error.
///
/// # Errors
/// Tensors that make no file.
pub(crate) fn header(path: &Path, tensors: Vec<Coming>) -> Result<Vec<u8>> {
    let mut at = 0;
    let infos = tensors.into_iter().map(|(name, dtype, shape)| {
        let start = at;
        at += bytes(dtype, &shape);
        (name, TensorInfo { dtype, shape, data_offsets: (start, at) })
    });
    let infos = infos.collect();
    // transformers refuses a file that does not say which framework's tensors these are.
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let wrong = |e: &dyn std::fmt::Display| ExportError::format(path, e.to_string());
    let metadata = Metadata::new(Some(format), infos).map_err(|e| wrong(&e))?;
    let mut text = serde_json::to_vec(&metadata).map_err(|e| wrong(&e))?;
    text.resize(text.len().next_multiple_of(8), b' ');
    Ok([(text.len() as u64).to_le_bytes().as_slice(), text.as_slice()].concat())
}

/// Where each tensor lies behind a header of so many bytes, and the length of the file.
pub(crate) fn places(tensors: &[Coming], header: usize) -> (BTreeMap<String, Place>, u64) {
    let mut offset = header as u64;
    let place = |(name, dtype, shape): &Coming| {
        let place = Place { offset, bytes: bytes(*dtype, shape) as u64 };
        offset += place.bytes;
        (name.clone(), place)
    };
    let places = tensors.iter().map(place).collect();
    (places, offset)
}

fn bytes(dtype: Dtype, shape: &[usize]) -> usize {
    shape.iter().product::<usize>() * dtype.bitsize() / 8
}
