//! What `mask build` ranks units by, measured: every estimator once, on all prompts.

use crate::args::MaskBuildArgs;
use crate::error::Result;
use crate::grid::sums;
use crate::measured::{needed, together};
use crate::models::Subject;
use crate::scores::scores;
use std::collections::BTreeMap;
use uspx_domain::{Unit, UnitKind};
use uspx_probe::ProbeRequest;
use uspx_runtime::Shutdown;

/// Of each kind of unit its scores, larger for what matters more; several where the method has
/// several.
pub(super) fn measured(
    args: &MaskBuildArgs,
    subject: &Subject,
    shutdown: &Shutdown,
) -> Result<Vec<Vec<BTreeMap<Unit, f64>>>> {
    let Subject { model, prompts, batch_tokens, .. } = subject;
    let (ranking, shape) = (args.ranking(), model.shape());
    if let Some(kind) = args.units.iter().find(|kind| ranking.estimators(**kind).is_empty()) {
        return Err(ranking.cannot_rank(*kind));
    }
    let needed = needed(&[ranking], &args.units);
    let request = |estimator| ProbeRequest::all(estimator, model, prompts, *batch_tokens);
    let found = together(&needed, request, (args.common.run.json, shutdown))?;
    let of = |kind: &UnitKind| {
        scores(ranking, *kind, &shape, |statistic| sums(&found, &shape, *kind, statistic))
    };
    Ok(args.units.iter().map(of).collect())
}
