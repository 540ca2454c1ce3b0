//! Reading back: what a file holds against what it was meant to hold.

use crate::{ExportError, Result};
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// The outcome of reading a student back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// Tensors compared.
    pub tensors: usize,
    /// The largest difference between a tensor read and the tensor meant. 0 for every writer of
    /// this crate.
    pub max_error: f64,
}

/// Compares what was read with what was meant, tensor by tensor; both must hold the same names and
/// shapes.
///
/// # Errors
/// [`ExportError::MissingTensor`], [`ExportError::Shape`] or, above `bound`,
/// [`ExportError::Mismatch`].
pub fn compare(
    read: &HashMap<String, Tensor>,
    meant: &BTreeMap<String, Tensor>,
    bound: f64,
) -> Result<Verification> {
    if let Some(extra) = read.keys().find(|name| !meant.contains_key(*name)) {
        return Err(ExportError::Unsupported(format!(
            "tensor `{extra}` was read back but never meant to be written"
        )));
    }
    let mut worst = 0f64;
    for (name, meant) in meant {
        let read = read.get(name).ok_or_else(|| ExportError::MissingTensor(name.clone()))?;
        let error = max_error(name, read, meant)?;
        if error > bound || error.is_nan() {
            return Err(ExportError::Mismatch { name: name.clone(), error, bound });
        }
        worst = worst.max(error);
    }
    Ok(Verification { tensors: meant.len(), max_error: worst })
}

/// The largest absolute difference of two tensors; NaN where one holds a NaN.
///
/// # Errors
/// [`ExportError::Shape`] where the shapes differ.
pub fn max_error(name: &str, a: &Tensor, b: &Tensor) -> Result<f64> {
    if a.dims() != b.dims() {
        return Err(ExportError::Shape {
            name: name.to_owned(),
            got: a.dims().to_vec(),
            want: format!("{:?}", b.dims()),
        });
    }
    let flat =
        |t: &Tensor| -> Result<Vec<f32>> { Ok(t.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?) };
    let differences = flat(a)?.into_iter().zip(flat(b)?).map(|(x, y)| f64::from((x - y).abs()));
    Ok(differences.fold(0.0, |worst, d| if d > worst || d.is_nan() { d } else { worst }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    #[test]
    fn finds_what_differs() {
        let meant = BTreeMap::from([("a".to_owned(), tensor(&[1.0, 2.0]))]);
        let read = |values: &[f32]| HashMap::from([("a".to_owned(), tensor(values))]);
        assert_eq!(
            compare(&read(&[1.0, 2.0]), &meant, 0.0).unwrap(),
            Verification { tensors: 1, max_error: 0.0 }
        );
        assert!(matches!(
            compare(&read(&[1.0, 2.5]), &meant, 0.1),
            Err(ExportError::Mismatch { error: 0.5, .. })
        ));
        assert!(matches!(
            compare(&read(&[f32::NAN, 2.0]), &meant, 0.1),
            Err(ExportError::Mismatch { .. })
        ));
        assert!(matches!(compare(&read(&[1.0]), &meant, 0.1), Err(ExportError::Shape { .. })));
        assert!(matches!(
            compare(&HashMap::new(), &meant, 0.1),
            Err(ExportError::MissingTensor(_))
        ));
        let mut more = read(&[1.0, 2.0]);
        more.insert("b".into(), tensor(&[0.0]));
        assert!(matches!(compare(&more, &meant, 0.1), Err(ExportError::Unsupported(_))));
    }
}
