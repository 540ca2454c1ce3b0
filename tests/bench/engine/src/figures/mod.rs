//! The figures, a file each.

mod agreement;
mod decode;
mod exact;
mod gpu;
mod leak;
mod memory;
mod speed;

use crate::bench::Bench;
use crate::error::Result;
use crate::figure::Report;
use clap::ValueEnum;

/// What can be measured.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Every architecture against transformers.
    Agreement,
    /// `probe trace` against transformers with hooks.
    Speed,
    /// A checkpoint larger than the memory, streamed.
    Memory,
    /// `run` against llama.cpp.
    Decode,
    /// Memory over 10,000 batches.
    Leak,
    /// The large checkpoint on a GPU.
    Gpu,
    /// `probe patch --method exact` against transformers with hooks. Not among `ALL`.
    Exact,
}

impl Group {
    /// What is measured where nothing is named: the engine itself.
    pub const ALL: &[Self] =
        &[Self::Agreement, Self::Speed, Self::Memory, Self::Decode, Self::Leak, Self::Gpu];

    fn measure(self, bench: &Bench, report: &mut Report) -> Result<()> {
        match self {
            Self::Agreement => agreement::measure(bench, report),
            Self::Speed => speed::measure(bench, report),
            Self::Memory => memory::measure(bench, report),
            Self::Decode => decode::measure(bench, report),
            Self::Leak => leak::measure(bench, report),
            Self::Gpu => gpu::measure(bench, report),
            Self::Exact => exact::measure(bench, report),
        }
    }
}

/// Measures these groups, one after another; one that fails does not keep the next from running.
pub fn measure(bench: &Bench, groups: &[Group]) -> Report {
    let mut report = Report::default();
    for group in groups {
        let done = group.measure(bench, &mut report);
        report.ended(group, done);
    }
    report
}
