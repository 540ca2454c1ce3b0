//! What `mask build` ranks units by, measured: every estimator once, on all prompts.

use crate::args::MaskBuildArgs;
use crate::error::Result;
use crate::grid::sums;
use crate::models::Subject;
use crate::progress::Bar;
use crate::scores::scores;
use std::collections::BTreeMap;
use uspx_domain::{Deposit, Unit};
use uspx_probe::{ProbeRequest, measure};
use uspx_runtime::Shutdown;

/// Scores of every unit, larger for what matters more; several where the method has several.
pub(super) fn measured(
    args: &MaskBuildArgs,
    subject: &Subject,
    shutdown: &Shutdown,
) -> Result<Vec<BTreeMap<Unit, f64>>> {
    let Subject { model, prompts, batch_tokens, .. } = subject;
    let (kind, ranking, shape) = (args.units, args.ranking(), model.shape());
    let estimators = ranking.estimators(kind);
    if estimators.is_empty() {
        return Err(ranking.cannot_rank(kind));
    }
    let mut found = Deposit::default();
    for estimator in estimators {
        let bar = Bar::new(&format!("scoring by {estimator}"), args.common.run.json, shutdown);
        let request = ProbeRequest {
            kinds: &[kind],
            ..ProbeRequest::all(estimator, model, prompts, *batch_tokens)
        };
        let Deposit { prompts, columns, moments } = measure(estimator, &request, &bar)?;
        bar.finish();
        found.prompts = prompts;
        found.columns.extend(columns);
        found.moments.extend(moments);
    }
    Ok(scores(ranking, kind, &shape, |statistic| sums(&found, &shape, kind, statistic)))
}
