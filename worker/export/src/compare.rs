//! Reading back: what a file holds against what it was meant to hold, tensor by tensor and bit by bit. Of
//! each a digest is kept, so that neither side is ever in memory.

use crate::{ExportError, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uspx_domain::Digest;

/// The outcome of reading a student back: every tensor holds the values that it was meant to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Tensors compared.
    pub tensors: usize,
}

/// What tensors hold, by name.
#[derive(Debug, Default)]
pub struct Contents(BTreeMap<String, Content>);

/// What a tensor holds: its shape, and a digest of its values in f32.
#[derive(Debug)]
struct Content {
    shape: Vec<usize>,
    values: usize,
    digest: blake3::Hasher,
}

impl Contents {
    /// Adds values to a tensor, those that follow the ones it has.
    pub fn add(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let content = self.0.entry(name.to_owned()).or_insert_with(|| Content {
            shape: shape.to_vec(),
            values: 0,
            digest: blake3::Hasher::new(),
        });
        content.values += values.len();
        let mut bytes = Vec::new();
        for values in values.chunks(1 << 16) {
            bytes.clear();
            // A zero has one sign here.
            bytes.extend(values.iter().flat_map(|value| (value + 0.0).to_le_bytes()));
            content.digest.update(&bytes);
        }
    }

    /// Forgets a tensor.
    pub fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }
}

impl Content {
    fn digest(&self) -> Digest {
        Digest(*self.digest.finalize().as_bytes())
    }
}

/// Compares what was read with what was meant; both must hold the same names and shapes.
///
/// # Errors
/// [`ExportError::MissingTensor`], [`ExportError::Shape`] or [`ExportError::Mismatch`].
pub fn compare(read: &Contents, meant: &Contents) -> Result<Verification> {
    if let Some(extra) = read.0.keys().find(|name| !meant.0.contains_key(*name)) {
        return Err(ExportError::Unsupported(format!(
            "tensor `{extra}` was read back but never meant to be written"
        )));
    }
    for (name, meant) in &meant.0 {
        let read = read.0.get(name).ok_or_else(|| ExportError::MissingTensor(name.clone()))?;
        let whole = meant.shape.iter().product::<usize>();
        if (&read.shape, read.values, meant.values) != (&meant.shape, whole, whole) {
            return Err(ExportError::Shape {
                name: name.clone(),
                got: read.shape.clone(),
                want: format!("{:?}", meant.shape),
            });
        }
        if read.digest() != meant.digest() {
            return Err(ExportError::Mismatch { name: name.clone() });
        }
    }
    Ok(Verification { tensors: meant.0.len() })
}

/// The largest absolute difference of two tensors' values; NaN where one holds a NaN.
///
/// # Errors
/// [`ExportError::Shape`] where they are not as many.
pub fn max_error(name: &str, a: &[f32], b: &[f32]) -> Result<f64> {
    if a.len() != b.len() {
        let (name, got) = (name.to_owned(), vec![a.len()]);
        return Err(ExportError::Shape { name, got, want: format!("{} values", b.len()) });
    }
    let differences = a.iter().zip(b).map(|(x, y)| (x - y).abs());
    let worst = |worst: f32, d: f32| if d > worst || d.is_nan() { d } else { worst };
    Ok(f64::from(differences.fold(0.0, worst)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parts: &[(&str, &[usize], &[f32])]) -> Contents {
        let mut contents = Contents::default();
        parts.iter().for_each(|(name, shape, values)| contents.add(name, shape, values));
        contents
    }

    #[test]
    fn finds_what_differs() {
        let meant = of(&[("a", &[2], &[1.0, 0.0])]);
        let read = |values: &[f32]| of(&[("a", &[2], values)]);
        assert_eq!(compare(&read(&[1.0, -0.0]), &meant).unwrap(), Verification { tensors: 1 });
        let next = f32::from_bits(1.0f32.to_bits() + 1);
        for wrong in [[next, 0.0], [f32::NAN, 0.0], [0.0, 1.0]] {
            let found = compare(&read(&wrong), &meant);
            assert!(matches!(found, Err(ExportError::Mismatch { name }) if name == "a"));
        }
        let short = compare(&read(&[1.0]), &meant);
        assert!(matches!(short, Err(ExportError::Shape { .. })));
        let turned = compare(&of(&[("a", &[1, 2], &[1.0, 0.0])]), &meant);
        assert!(matches!(turned, Err(ExportError::Shape { .. })));
        let none = compare(&Contents::default(), &meant);
        assert!(matches!(none, Err(ExportError::MissingTensor(_))));
        let more = of(&[("a", &[2], &[1.0, 0.0]), ("b", &[1], &[0.0])]);
        assert!(matches!(compare(&more, &meant), Err(ExportError::Unsupported(_))));
    }

    #[test]
    fn pieces_are_one_tensor() {
        let pieces = of(&[("a", &[3], &[1.0]), ("a", &[3], &[2.0, 3.0])]);
        compare(&pieces, &of(&[("a", &[3], &[1.0, 2.0, 3.0])])).unwrap();
    }

    #[test]
    fn the_largest_difference_is_told() {
        assert_eq!(max_error("a", &[1.0, 2.0], &[1.0, 2.5]).unwrap(), 0.5);
        assert!(max_error("a", &[f32::NAN, 2.0], &[1.0, 2.5]).unwrap().is_nan());
        assert!(max_error("a", &[1.0], &[1.0, 2.5]).is_err());
    }
}
