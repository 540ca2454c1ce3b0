//! What several estimators find on the same prompts, as one deposit.

use crate::error::Result;
use crate::progress::Bar;
use crate::rows::Ranking;
use uspx_domain::{Deposit, Estimator, UnitKind};
use uspx_probe::{ProbeRequest, measure};
use uspx_runtime::Shutdown;

/// An estimator, and the kinds of unit that it is needed for.
pub type Needed = (Estimator, Vec<UnitKind>);

/// What it takes to rank units of some kinds in some ways, every estimator once.
pub fn needed(rankings: &[Ranking], kinds: &[UnitKind]) -> Vec<Needed> {
    let mut found: Vec<Needed> = Vec::new();
    for kind in kinds {
        for estimator in rankings.iter().flat_map(|ranking| ranking.estimators(*kind)) {
            match found.iter_mut().find(|(known, _)| *known == estimator) {
                Some((_, kinds)) if kinds.contains(kind) => {}
                Some((_, kinds)) => kinds.push(*kind),
                None => found.push((estimator, vec![*kind])),
            }
        }
    }
    found
}

/// Measures by one estimator after another, each as `request` says but for its kinds of unit;
/// whether the output is JSON decides how progress is told.
pub fn together<'a>(
    needed: &'a [Needed],
    request: impl Fn(Estimator) -> ProbeRequest<'a>,
    (json, shutdown): (bool, &Shutdown),
) -> Result<Deposit> {
    let mut found = Deposit::default();
    for (estimator, kinds) in needed {
        let bar = Bar::new(&format!("scoring by {estimator}"), json, shutdown);
        let request = ProbeRequest { kinds, ..request(*estimator) };
        let Deposit { prompts, columns, moments } = measure(*estimator, &request, &bar)?;
        bar.finish();
        found.prompts = prompts;
        found.columns.extend(columns);
        found.moments.extend(moments);
    }
    Ok(found)
}
