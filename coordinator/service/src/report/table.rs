//! A table of which only the columns with something in them are set.

/// Headings and rows; the first column is text, the others are figures.
pub(super) struct Table {
    pub headings: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
}

/// A cell without a figure.
pub(super) fn none() -> String {
    "-".to_owned()
}

impl Table {
    /// Of rows as long as the headings. A column without any figure is left out.
    pub(super) fn of<const N: usize>(headings: [&'static str; N], rows: Vec<[String; N]>) -> Self {
        let told: Vec<bool> = (0..N)
            .map(|at| rows.iter().any(|row| row.get(at).is_some_and(|c| *c != none())))
            .collect();
        let headings = headings.into_iter().zip(&told).filter(|(_, told)| **told).map(|(h, _)| h);
        let cells = |row: [String; N]| {
            row.into_iter().zip(&told).filter(|(_, told)| **told).map(|(cell, _)| cell).collect()
        };
        Self { headings: headings.collect(), rows: rows.into_iter().map(cells).collect() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_without_figures_is_left_out() {
        let cells = |row: [&str; 3]| row.map(str::to_owned);
        let table =
            Table::of(["a", "b", "c"], vec![cells(["x", "-", "-"]), cells(["y", "-", "1"])]);
        assert_eq!(table.headings, ["a", "c"]);
        assert_eq!(table.rows, [["x", "-"], ["y", "1"]]);
        assert!(Table::of(["a"], vec![]).is_empty());
    }
}
