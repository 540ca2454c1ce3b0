//! What `mask build` ranks units by, measured: every estimator once, on all prompts.

use crate::args::MaskBuildArgs;
use crate::error::Result;
use crate::grid::sums;
use crate::measured::{needed, together};
use crate::models::Subject;
use crate::scores::scores;
use std::collections::BTreeMap;
use uspx_domain::Unit;
use uspx_probe::ProbeRequest;
use uspx_runtime::Shutdown;

/// Scores of every unit, larger for what matters more; several where the method has several.
pub(super) fn measured(
    args: &MaskBuildArgs,
    subject: &Subject,
    shutdown: &Shutdown,
) -> Result<Vec<BTreeMap<Unit, f64>>> {
    let Subject { model, prompts, batch_tokens, .. } = subject;
    let (kind, ranking, shape) = (args.units, args.ranking(), model.shape());
    let needed = needed(&[ranking], &[kind]);
    if needed.is_empty() {
        return Err(ranking.cannot_rank(kind));
    }
    let request = |estimator| ProbeRequest::all(estimator, model, prompts, *batch_tokens);
    let found = together(&needed, request, (args.common.run.json, shutdown))?;
    Ok(scores(ranking, kind, &shape, |statistic| sums(&found, &shape, kind, statistic)))
}
