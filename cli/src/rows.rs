//! What the command line offers of the domain's tables: kinds of unit, estimators, ways to rank
//! units, export formats, distillation losses.

use crate::args::Written;
use crate::error::{CliError, Exit};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use uspx_domain::{
    Baseline, DistilLoss, Estimator, ExportFormat, NotAUnitKind, ScoreMethod, Statistic, UnitKind,
};
use uspx_sae::Site;

/// Parses the name of a kind of unit.
pub fn unit_kind() -> impl TypedValueParser<Value = UnitKind> {
    let names = PossibleValuesParser::new(UnitKind::ALL.iter().map(|kind| kind.name()));
    names.try_map(|name| -> Result<UnitKind, NotAUnitKind> { name.parse() })
}

/// A name that is not in a table; clap refuses it before.
#[derive(Debug, thiserror::Error)]
#[error("this name is not known here")]
pub struct NotInTheTable;

/// Parses the name of a baseline.
pub fn baseline() -> impl TypedValueParser<Value = Baseline> {
    let value = |baseline: &Baseline| {
        PossibleValue::new(baseline.name()).help(match baseline {
            Baseline::Zero => "Nothing",
            Baseline::Mean => "Its mean over the prompts",
            Baseline::Resample => "Its output on another prompt with as many tokens",
        })
    };
    let names = PossibleValuesParser::new(Baseline::ALL.iter().map(value));
    names.try_map(|name| {
        Baseline::ALL.iter().copied().find(|b| b.name() == name).ok_or(NotInTheTable)
    })
}

/// Parses the name of a distillation loss.
pub fn distil_loss() -> impl TypedValueParser<Value = DistilLoss> {
    let value = |loss: &DistilLoss| PossibleValue::new(loss.name()).help(loss.row().help);
    let names = PossibleValuesParser::new(DistilLoss::ALL.iter().map(value));
    names.try_map(|name| DistilLoss::named(&name).ok_or(NotInTheTable))
}

/// Parses the name of a site that a sparse autoencoder can sit at.
pub fn site() -> impl TypedValueParser<Value = Site> {
    let names = PossibleValuesParser::new(Site::ALL.map(Site::name));
    names.try_map(|name| Site::ALL.into_iter().find(|s| s.name() == name).ok_or(NotInTheTable))
}

/// A way to tell what single units are worth.
#[derive(Debug, Clone, Copy)]
pub enum Method {
    /// Their effects on the loss, by an estimator.
    Effects(Estimator),
    /// The mean of the ranks that several cheap scores give them.
    Ensemble,
}

/// Parses the name of a way to tell what single units are worth.
pub fn patch_method() -> impl TypedValueParser<Value = Method> {
    let value = |e: Estimator| PossibleValue::new(e.name()).help(e.row().help);
    let ensemble = PossibleValue::new(Ranking::Ensemble.name()).help(Ranking::Ensemble.help());
    let names = PossibleValuesParser::new(Estimator::of_effects().map(value).chain([ensemble]));
    names.try_map(|name| match Estimator::named(&name) {
        Some(estimator) => Ok(Method::Effects(estimator)),
        None if name == Ranking::Ensemble.name() => Ok(Method::Ensemble),
        None => Err(NotInTheTable),
    })
}

/// Parses the name of what a student is written as.
pub fn written() -> impl TypedValueParser<Value = Written> {
    let floats = PossibleValue::new(Written::FLOATS)
        .help("floats: a Hugging Face folder as the base is, the adapter merged");
    let formats = ExportFormat::ALL.iter().copied().map(possible).chain([floats]);
    PossibleValuesParser::new(formats).try_map(|name| match ExportFormat::named(&name) {
        Some(format) => Ok(Written::FourBit(format)),
        None if name == Written::FLOATS => Ok(Written::Floats),
        None => Err(NotInTheTable),
    })
}

/// Parses the name of a format that releases have.
pub fn released_format() -> impl TypedValueParser<Value = ExportFormat> {
    let names = PossibleValuesParser::new(ExportFormat::released().map(possible));
    names.try_map(|name| ExportFormat::named(&name).ok_or(NotInTheTable))
}

fn possible(format: ExportFormat) -> PossibleValue {
    let row = format.row();
    PossibleValue::new(row.name).help(format!("{}: {}", row.title, row.help))
}

/// A way to rank units.
#[derive(Debug, Clone, Copy)]
pub enum Ranking {
    /// By the mean of the ranks that several scores give.
    Ensemble,
    /// By a statistic.
    Score(Statistic, &'static ScoreMethod),
}

/// Parses the name of a way to rank units.
pub fn ranking() -> impl TypedValueParser<Value = Ranking> {
    let value = |ranking: Ranking| PossibleValue::new(ranking.name()).help(ranking.help());
    let names = PossibleValuesParser::new(Ranking::all().map(value));
    names.try_map(|name| Ranking::all().find(|r| r.name() == name).ok_or(NotInTheTable))
}

impl Ranking {
    /// Every way to rank units.
    pub fn all() -> impl Iterator<Item = Self> {
        let scores = Statistic::methods().map(|(statistic, method)| Self::Score(statistic, method));
        std::iter::once(Self::Ensemble).chain(scores)
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ensemble => "ensemble",
            Self::Score(_, method) => method.name,
        }
    }

    fn help(self) -> &'static str {
        match self {
            Self::Ensemble => "The mean of the ranks by several cheap scores",
            Self::Score(_, method) => method.help,
        }
    }

    /// The statistics of units of `kind` that it needs; none where it does not rank them.
    pub fn statistics(self, kind: UnitKind) -> Vec<Statistic> {
        let all: Vec<Statistic> = match self {
            Self::Ensemble => kind.row().ensemble.to_vec(),
            Self::Score(statistic, method) => [statistic].into_iter().chain(method.per).collect(),
        };
        let measured =
            |s: &Statistic| Estimator::yielding(*s, kind).is_some_and(|e| e.may_yield(*s, kind));
        if all.iter().all(measured) { all } else { Vec::new() }
    }

    /// The estimators to ask, each once.
    pub fn estimators(self, kind: UnitKind) -> Vec<Estimator> {
        let mut found: Vec<Estimator> = Vec::new();
        for statistic in self.statistics(kind) {
            found.extend(Estimator::yielding(statistic, kind).filter(|e| !found.contains(e)));
        }
        found
    }

    /// Whether it is what the product ranks by where nothing is said.
    pub fn is_default(self) -> bool {
        matches!(self, Self::Ensemble)
    }

    /// Whether it ranks by exact effects, which others only predict.
    pub fn is_exact(self) -> bool {
        matches!(self, Self::Score(statistic, _) if statistic.row().is_effect)
    }

    /// All ways to rank units of `kind`.
    pub fn all_for(kind: UnitKind) -> impl Iterator<Item = Self> {
        Self::all().filter(move |r| !r.statistics(kind).is_empty())
    }

    /// The error of who asks for units of `kind` to be ranked this way.
    pub fn cannot_rank(self, kind: UnitKind) -> CliError {
        let others: Vec<&str> = Self::all_for(kind).map(Self::name).collect();
        let help = match others.as_slice() {
            [] => format!("no way to rank {kind}s is known: choose other --units"),
            some => format!("these do: {}", some.join(", ")),
        };
        let what = format!("the method {} does not rank {kind}s", self.name());
        CliError::new(Exit::Usage, what).help(help)
    }
}
