//! What the clean run of a batch has of a layer's features, seen from each feature: which rows change
//! where it is moved, and to what.

use crate::Result;
use candle_core::{Device, Tensor};
use std::collections::HashMap;
use std::sync::Arc;
use uspx_model::Dictionary;
use uspx_model::dictionary::values;

/// The features of a batch's rows behind a layer.
pub(super) struct Active {
    dictionary: Arc<dyn Dictionary>,
    /// The rows that have each feature, ascending, with its strength there.
    places: HashMap<u32, Vec<(u32, f32)>>,
    rows: u32,
}

impl Active {
    /// Of the stream behind the layer, `[N, hidden]`.
    pub fn new(dictionary: Arc<dyn Dictionary>, x: &Tensor) -> Result<Self> {
        let mut places: HashMap<u32, Vec<(u32, f32)>> = HashMap::new();
        for (row, active) in (0..).zip(dictionary.strengths(&values(x)?)) {
            for (feature, strength) in active {
                places.entry(feature).or_default().push((row, strength));
            }
        }
        Ok(Self { dictionary, places, rows: x.dim(0)? as u32 })
    }

    fn places(&self, feature: u32) -> &[(u32, f32)] {
        self.places.get(&feature).map(Vec::as_slice).unwrap_or_default()
    }

    /// The rows that change where a feature is moved to `base`, ascending: of zero those that have
    /// it.
    pub fn changed(&self, feature: u32, base: f32) -> Vec<u32> {
        match base == 0.0 {
            true => self.places(feature).iter().map(|(row, _)| *row).collect(),
            false => (0..self.rows).collect(),
        }
    }

    /// The stream at some rows with a feature moved to `base`, x + (base − a)·d: `[rows, hidden]`
    /// from x at these, `[rows, hidden]`.
    pub fn moved(&self, (feature, base): (u32, f32), rows: &[u32], x: &Tensor) -> Result<Tensor> {
        let places = self.places(feature);
        let strength = |row: &u32| match places.binary_search_by_key(row, |(row, _)| *row) {
            Ok(at) => places.get(at).map_or(0.0, |(_, strength)| *strength),
            Err(_) => 0.0,
        };
        let ways: Vec<f32> = rows.iter().map(|row| base - strength(row)).collect();
        let direction = self.dictionary.direction(feature);
        let ways = Tensor::from_vec(ways, (rows.len(), 1), &Device::Cpu)?;
        let moves = ways.broadcast_mul(&Tensor::from_slice(
            direction,
            (1, direction.len()),
            &Device::Cpu,
        )?)?;
        Ok((x + moves.to_dtype(x.dtype())?.to_device(x.device())?)?)
    }
}
