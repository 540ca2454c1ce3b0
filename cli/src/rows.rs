//! What the command line offers of the domain's tables: kinds of unit, estimators, ways to rank
//! units, export formats.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use uspx_domain::{
    Baseline, Estimator, ExportFormat, NotAUnitKind, ScoreMethod, Statistic, UnitKind,
};

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

/// Parses the name of an estimator that measures effects.
pub fn effect_estimator() -> impl TypedValueParser<Value = Estimator> {
    let value = |e: Estimator| PossibleValue::new(e.name()).help(e.row().help);
    let names = PossibleValuesParser::new(Estimator::of_effects().map(value));
    names.try_map(|name| Estimator::named(&name).ok_or(NotInTheTable))
}

/// Parses the name of a format that students are written in.
pub fn format() -> impl TypedValueParser<Value = ExportFormat> {
    one_of(ExportFormat::ALL.to_vec())
}

/// Parses the name of a format that releases have.
pub fn released_format() -> impl TypedValueParser<Value = ExportFormat> {
    one_of(ExportFormat::released().collect())
}

fn one_of(formats: Vec<ExportFormat>) -> impl TypedValueParser<Value = ExportFormat> {
    let value = |format: ExportFormat| {
        let row = format.row();
        PossibleValue::new(row.name).help(format!("{}: {}", row.title, row.help))
    };
    let names = PossibleValuesParser::new(formats.into_iter().map(value));
    names.try_map(|name| ExportFormat::named(&name).ok_or(NotInTheTable))
}

/// A way to rank units, and the statistic that it ranks by.
#[derive(Debug, Clone, Copy)]
pub struct Ranking {
    /// The statistic.
    pub statistic: Statistic,
    /// How.
    pub method: &'static ScoreMethod,
}

/// Parses the name of a way to rank units.
pub fn ranking() -> impl TypedValueParser<Value = Ranking> {
    let value = |(_, m): (Statistic, &ScoreMethod)| PossibleValue::new(m.name).help(m.help);
    let names = PossibleValuesParser::new(Statistic::methods().map(value));
    names.try_map(|name| {
        let mut all = Statistic::methods().map(|(statistic, method)| Ranking { statistic, method });
        all.find(|r| r.method.name == name).ok_or(NotInTheTable)
    })
}

impl Ranking {
    /// The estimator to ask, where it ranks units of `kind`.
    pub fn estimator(&self, kind: UnitKind) -> Option<Estimator> {
        Estimator::yielding(self.statistic, kind)
            .filter(|e| e.may_yield(self.statistic, kind))
            .filter(|e| self.method.per.is_none_or(|per| e.may_yield(per, kind)))
    }

    /// The names of all ways to rank units of `kind`.
    pub fn names_for(kind: UnitKind) -> String {
        let all = Statistic::methods().map(|(statistic, method)| Self { statistic, method });
        let fit = all.filter(|r| r.estimator(kind).is_some()).map(|r| r.method.name);
        fit.collect::<Vec<_>>().join(", ")
    }
}
