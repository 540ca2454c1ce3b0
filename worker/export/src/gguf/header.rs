//! The header of a GGUF file (version 2): pairs, and what each tensor is and where it lies.

use crate::gguf::block_types;
use crate::tensor_file::Place;
use crate::{ExportError, Result};
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Value;
use std::collections::BTreeMap;

/// "GGUF".
pub(super) const MAGIC: u32 = 0x4655_4747;
const VERSION: u32 = 2;
/// What every tensor's place is a multiple of.
const ALIGNMENT: u64 = 32;

/// A tensor of a GGUF file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorType {
    /// Its blocks.
    pub dtype: GgmlDType,
    /// Its shape, outermost dimension first.
    pub shape: Vec<usize>,
}

impl TensorType {
    /// Bytes of so many of its values, which are whole blocks.
    pub fn bytes(&self, values: usize) -> usize {
        values / self.dtype.block_size() * self.dtype.type_size()
    }

    /// Bytes of a row; of a value, where it is a vector.
    pub fn row(&self) -> usize {
        self.bytes(self.shape.iter().skip(1).product())
    }

    /// Bytes of all of it.
    pub fn all(&self) -> usize {
        self.bytes(self.shape.iter().product())
    }
}

/// Pairs as they stand in a file.
#[derive(Debug)]
pub(super) struct Encoded {
    count: u64,
    bytes: Vec<u8>,
}

impl Encoded {
    /// These.
    ///
    /// # Errors
    /// Lists that GGUF has no number for.
    pub fn of(pairs: &BTreeMap<String, Value>) -> Result<Self> {
        let (count, mut bytes) = (pairs.len() as u64, Vec::new());
        for (key, value) in pairs {
            text(&mut bytes, key);
            bytes.extend(kind(value).to_le_bytes());
            put(&mut bytes, value)?;
        }
        Ok(Self { count, bytes })
    }
}

/// The header of a file of these pairs and tensors, where each tensor lies, and the file's length.
///
/// # Errors
/// Blocks that GGUF has no number for.
pub(super) fn header(
    pairs: &Encoded,
    tensors: &[(String, TensorType)],
) -> Result<(Vec<u8>, BTreeMap<String, Place>, u64)> {
    let mut out = Vec::new();
    out.extend(MAGIC.to_le_bytes());
    out.extend(VERSION.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend(pairs.count.to_le_bytes());
    out.extend(&pairs.bytes);
    let (mut places, mut offset) = (BTreeMap::new(), 0u64);
    for (name, tensor) in tensors {
        text(&mut out, name);
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        for size in tensor.shape.iter().rev() {
            out.extend((*size as u64).to_le_bytes());
        }
        let number = block_types::number(tensor.dtype).ok_or_else(|| {
            ExportError::Unsupported(format!("GGUF has no blocks of type {:?}", tensor.dtype))
        })?;
        out.extend(number.to_le_bytes());
        out.extend(offset.to_le_bytes());
        let bytes = tensor.all() as u64;
        places.insert(name.clone(), Place { offset, bytes });
        offset += bytes.next_multiple_of(ALIGNMENT);
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT as usize), 0);
    places.values_mut().for_each(|place| place.offset += out.len() as u64);
    let length = out.len() as u64 + offset;
    Ok((out, places, length))
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// GGUF's number for a value's type.
fn kind(value: &Value) -> u32 {
    match value {
        Value::U8(_) => 0,
        Value::I8(_) => 1,
        Value::U16(_) => 2,
        Value::I16(_) => 3,
        Value::U32(_) => 4,
        Value::I32(_) => 5,
        Value::F32(_) => 6,
        Value::Bool(_) => 7,
        Value::String(_) => 8,
        Value::Array(_) => 9,
        Value::U64(_) => 10,
        Value::I64(_) => 11,
        Value::F64(_) => 12,
    }
}

fn put(out: &mut Vec<u8>, value: &Value) -> Result<()> {
    match value {
        Value::U8(v) => out.extend(v.to_le_bytes()),
        Value::I8(v) => out.extend(v.to_le_bytes()),
        Value::U16(v) => out.extend(v.to_le_bytes()),
        Value::I16(v) => out.extend(v.to_le_bytes()),
        Value::U32(v) => out.extend(v.to_le_bytes()),
        Value::I32(v) => out.extend(v.to_le_bytes()),
        Value::F32(v) => out.extend(v.to_le_bytes()),
        Value::Bool(v) => out.push(u8::from(*v)),
        Value::String(v) => text(out, v),
        Value::Array(values) => list(out, values)?,
        Value::U64(v) => out.extend(v.to_le_bytes()),
        Value::I64(v) => out.extend(v.to_le_bytes()),
        Value::F64(v) => out.extend(v.to_le_bytes()),
    }
    Ok(())
}

/// A list has one type; an empty one is of numbers.
fn list(out: &mut Vec<u8>, values: &[Value]) -> Result<()> {
    let own = values.first().map_or(4, kind);
    if values.iter().any(|value| kind(value) != own) {
        return Err(ExportError::Unsupported("a list of GGUF has values of one type".into()));
    }
    out.extend(own.to_le_bytes());
    out.extend((values.len() as u64).to_le_bytes());
    values.iter().try_for_each(|value| put(out, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::quantized::{QTensor, gguf_file};
    use candle_core::{Device, Tensor};

    /// candle's writer made these files before.
    #[test]
    fn it_is_the_header_that_candle_writes() {
        let list = vec![Value::String("a".into()), Value::String("bc".into())];
        let pairs = BTreeMap::from([
            ("a.list".to_owned(), Value::Array(list)),
            ("b.bool".to_owned(), Value::Bool(true)),
            ("c.real".to_owned(), Value::F32(0.5)),
            ("d.whole".to_owned(), Value::I32(-3)),
            ("e.text".to_owned(), Value::String("ä".into())),
            ("f.many".to_owned(), Value::Array(vec![Value::U32(7), Value::U32(8)])),
        ]);
        let of = |rows: usize, columns: usize, dtype| {
            let values = Tensor::ones((rows, columns), candle_core::DType::F32, &Device::Cpu);
            QTensor::quantize(&values.unwrap(), dtype).unwrap()
        };
        let tensors = [
            ("x", of(3, 32, GgmlDType::Q4_0)),
            ("y", of(2, 256, GgmlDType::Q6K)),
            ("z", of(1, 5, GgmlDType::F32)),
        ];
        let mut theirs = std::io::Cursor::new(Vec::new());
        let named: Vec<(&str, &Value)> = pairs.iter().map(|(k, v)| (k.as_str(), v)).collect();
        let all: Vec<(&str, &QTensor)> = tensors.iter().map(|(k, v)| (*k, v)).collect();
        gguf_file::write(&mut theirs, &named, &all).unwrap();
        let theirs = theirs.into_inner();
        let types = tensors.each_ref().map(|(name, t)| {
            let shape = t.shape().dims().to_vec();
            ((*name).to_owned(), TensorType { dtype: t.dtype(), shape })
        });
        let (ours, places, length) = header(&Encoded::of(&pairs).unwrap(), &types).unwrap();
        assert_eq!((&theirs[..ours.len()], theirs.len() as u64), (&ours[..], length));
        for (name, tensor) in &tensors {
            let place = places[*name];
            let (from, data) = (place.offset as usize, tensor.data().unwrap());
            assert_eq!(theirs[from..from + place.bytes as usize], data[..], "{name}");
        }
        let mixed = Value::Array(vec![Value::U32(7), Value::Bool(true)]);
        assert!(Encoded::of(&BTreeMap::from([("a".to_owned(), mixed)])).is_err());
    }
}
