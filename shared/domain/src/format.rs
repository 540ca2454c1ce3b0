//! The formats that a 4-bit student is written in, one row each. Planner, gate, releases, wire and
//! command line read the rows; `worker/export/src/formats/` has the writers, one file each.

/// What there is to know of an export format.
#[derive(Debug)]
pub struct ExportFormatRow {
    /// Its name, on the wire, in the ledger, on the command line and in JSON.
    pub name: &'static str,
    /// What a student in it is called in tables.
    pub title: &'static str,
    /// What it is, in a line of help and in the model card.
    pub help: &'static str,
    /// Its folder within a release; none where it is a yardstick, judged and never released.
    pub folder: Option<&'static str>,
    /// Whether the gate judges the student in it. One row does.
    pub is_gated: bool,
}

/// An export format: a reference to its row.
#[derive(Clone, Copy)]
pub struct ExportFormat(&'static ExportFormatRow);

table! {
    ExportFormat(ExportFormatRow), "this is not the name of an export format known here";
    /// GPTQ v1, symmetric, Hessian-aware (Frantar et al. 2023).
    GPTQ: ExportFormatRow {
        name: "gptq",
        title: "GPTQ, 4 bits",
        help: "a Hugging Face folder (GPTQ, symmetric)",
        folder: Some("gptq"),
        is_gated: true,
    },
    /// The same layout, rounded to nearest: the yardstick.
    RTN: ExportFormatRow {
        name: "rtn",
        title: "rounded to nearest, 4 bits",
        help: "a Hugging Face folder, rounded to nearest",
        folder: None,
        is_gated: false,
    },
    /// GGUF for llama.cpp and its family.
    GGUF: ExportFormatRow {
        name: "gguf",
        title: "GGUF, 4 bits",
        help: "for llama.cpp and its family",
        folder: Some("gguf"),
        is_gated: false,
    },
}

impl ExportFormat {
    /// The format that the gate judges a student in.
    pub fn gated() -> Self {
        Self::ALL.iter().copied().find(|format| format.row().is_gated).unwrap_or(Self::GPTQ)
    }

    /// The formats that a release has, in the table's order.
    pub fn released() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|format| format.row().folder.is_some())
    }

    /// Its place in the table, by which figures are ordered.
    pub fn place(self) -> usize {
        Self::ALL.iter().position(|format| *format == self).unwrap_or(Self::ALL.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_and_folders_differ_and_names_are_read_again() {
        let names: BTreeSet<&str> = ExportFormat::ALL.iter().map(|f| f.name()).collect();
        assert_eq!(names.len(), ExportFormat::ALL.len());
        let folders: BTreeSet<_> = ExportFormat::released().map(|f| f.row().folder).collect();
        assert_eq!(folders.len(), ExportFormat::released().count());
        for format in ExportFormat::ALL {
            let written = serde_json::to_value(format).unwrap();
            assert_eq!(serde_json::from_value::<ExportFormat>(written).unwrap(), *format);
        }
        assert!(serde_json::from_str::<ExportFormat>("\"secret\"").is_err());
    }

    #[test]
    fn the_gate_judges_one_format_and_it_is_released() {
        let gated: Vec<_> = ExportFormat::ALL.iter().filter(|f| f.row().is_gated).collect();
        assert_eq!(gated, [&ExportFormat::gated()]);
        assert!(ExportFormat::released().any(|format| format == ExportFormat::gated()));
    }
}
