//! Which features each row has, and how strongly: sparse, row by row.

use crate::number::Number;

/// The codes of `n` rows (compressed sparse rows).
#[derive(Debug, Clone, PartialEq)]
pub struct Codes<T> {
    /// Where each row begins in the two lists, and where the last one ends.
    starts: Vec<usize>,
    /// Features, ascending within a row.
    features: Vec<u32>,
    /// Their activations.
    values: Vec<T>,
}

/// An entry of [`Codes`] seen from its feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Which row has it.
    pub row: u32,
    /// Its place among all entries.
    pub at: usize,
}

impl<T: Number> Codes<T> {
    /// From each row's features and activations.
    pub fn of_rows(rows: Vec<Vec<(u32, T)>>) -> Self {
        let (mut starts, mut features, mut values) = (vec![0], Vec::new(), Vec::new());
        for mut row in rows {
            row.sort_unstable_by_key(|(feature, _)| *feature);
            for (feature, value) in row {
                features.push(feature);
                values.push(value);
            }
            starts.push(features.len());
        }
        Self { starts, features, values }
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// How many entries in all.
    pub fn active(&self) -> usize {
        self.values.len()
    }

    /// A row's features and activations; none of a row that is not there.
    pub fn row(&self, row: usize) -> impl Iterator<Item = (u32, T)> + '_ {
        let range =
            self.starts.get(row).zip(self.starts.get(row + 1)).map_or(0..0, |(a, b)| *a..*b);
        let features = self.features.get(range.clone()).unwrap_or_default();
        features.iter().copied().zip(self.values.get(range).unwrap_or_default().iter().copied())
    }

    /// Features of all entries.
    pub fn features(&self) -> &[u32] {
        &self.features
    }

    /// Activations of all entries.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// The entries of each of so many features, by row.
    pub(crate) fn by_feature(&self, features: usize) -> Vec<Vec<Entry>> {
        let mut all = vec![Vec::new(); features];
        for (row, bounds) in self.starts.windows(2).enumerate() {
            let [start, end] = bounds else { continue };
            for at in *start..*end {
                let feature = self.features.get(at).and_then(|f| all.get_mut(*f as usize));
                feature.into_iter().for_each(|list| list.push(Entry { row: row as u32, at }));
            }
        }
        all
    }
}
