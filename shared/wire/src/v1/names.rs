//! Things that travel as names, looked up in the domain's tables.

use crate::Unread;
use uspx_domain::{
    Baseline, DistilLoss, Estimator, ExportFormat, FailureKind, SaeKind, Statistic, UnitKind,
};

/// Something with a name in bytes.
pub(crate) trait Named: Copy + 'static {
    /// What it is, for people.
    const WHAT: &'static str;
    /// All that there are.
    const ALL: &'static [Self];
    /// Its name. Frozen.
    fn name(self) -> &'static str;
}

/// The name of a thing.
pub(crate) fn name<T: Named>(thing: T) -> String {
    thing.name().to_owned()
}

/// The thing of that name.
pub(crate) fn known<T: Named>(name: &str) -> Result<T, Unread> {
    T::ALL.iter().copied().find(|thing| thing.name() == name).ok_or(Unread::Unknown(T::WHAT))
}

impl Named for Statistic {
    const WHAT: &'static str = "a statistic";
    const ALL: &'static [Self] = Self::ALL;
    fn name(self) -> &'static str {
        self.row().name
    }
}

impl Named for Estimator {
    const WHAT: &'static str = "an estimator";
    const ALL: &'static [Self] = Self::ALL;
    fn name(self) -> &'static str {
        self.row().name
    }
}

impl Named for UnitKind {
    const WHAT: &'static str = "a kind of unit";
    const ALL: &'static [Self] = Self::ALL;
    fn name(self) -> &'static str {
        self.row().name
    }
}

impl Named for ExportFormat {
    const WHAT: &'static str = "an export format";
    const ALL: &'static [Self] = Self::ALL;
    fn name(self) -> &'static str {
        self.row().name
    }
}

impl Named for DistilLoss {
    const WHAT: &'static str = "a distillation loss";
    const ALL: &'static [Self] = Self::ALL;
    fn name(self) -> &'static str {
        self.row().name
    }
}

impl Named for Baseline {
    const WHAT: &'static str = "a baseline";
    // Not resampling: the prompts of a task need not find each other.
    const ALL: &'static [Self] = &[Self::Zero, Self::Mean];
    fn name(self) -> &'static str {
        Self::name(self)
    }
}

impl Named for SaeKind {
    const WHAT: &'static str = "a kind of sparse autoencoder";
    const ALL: &'static [Self] = Self::ALL;
    fn name(self) -> &'static str {
        Self::name(self)
    }
}

impl Named for FailureKind {
    const WHAT: &'static str = "a kind of failure";
    const ALL: &'static [Self] = &[Self::Task, Self::Machine, Self::NotSpoken];
    fn name(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Machine => "machine",
            Self::NotSpoken => "not_spoken",
        }
    }
}
