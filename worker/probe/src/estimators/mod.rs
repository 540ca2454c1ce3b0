//! How units are measured, one estimator a file. Its row stands in the domain's table of
//! estimators.

mod atp;
mod atp_star;
mod eap_ig;
mod exact;
mod features;
mod relp;
mod reroute;
mod trace;

use crate::{ExpertMode, Means, Result};
use std::ops::Range;
use uspx_domain::{Baseline, Deposit, Estimator, Moments, PromptTokens, Unit, UnitKind};
use uspx_model::cuts::CutTaps;
use uspx_model::{LoadedModel, ModelError, Progress, Readable};

/// What is to be measured.
#[derive(Clone)]
pub struct ProbeRequest<'a> {
    /// The model.
    pub model: &'a LoadedModel,
    /// The prompts that it can run.
    pub prompts: &'a Readable,
    /// All units of these kinds ...
    pub kinds: &'a [UnitKind],
    /// ... in these layers.
    pub layers: Range<u32>,
    /// What replaces a unit.
    pub baseline: Baseline,
    /// What becomes of an expert that is taken out exactly.
    pub expert_mode: ExpertMode,
    /// Decides who is resampled from whom.
    pub seed: u64,
    /// Inputs along the path to a prompt, where gradients are taken along one; at least 1.
    pub steps: usize,
    /// Tokens run together.
    pub batch_tokens: usize,
    /// Mean outputs that are known already; where they are the baseline and none are given, they
    /// are taken over the prompts.
    pub means: Option<&'a Means>,
    /// What is cut while it is measured; nothing is said of units that are.
    pub within: Option<&'a CutTaps>,
}

impl<'a> ProbeRequest<'a> {
    /// All that `estimator` measures of a model, with its usual baseline.
    pub fn all(
        estimator: Estimator,
        model: &'a LoadedModel,
        prompts: &'a Readable,
        batch_tokens: usize,
    ) -> Self {
        let (kinds, baseline) = (estimator.row().kinds, estimator.usual_baseline());
        let layers = 0..model.transformer.layers() as u32;
        let (expert_mode, steps) = (ExpertMode::Ban, estimator.row().steps.unwrap_or(1));
        let (seed, means, within) = (0, None, None);
        Self {
            model,
            prompts,
            kinds,
            layers,
            baseline,
            expert_mode,
            seed,
            steps,
            batch_tokens,
            means,
            within,
        }
    }

    /// The kinds that an estimator's row has and that are asked for.
    pub(crate) fn wants(&self, kind: UnitKind) -> bool {
        self.kinds.contains(&kind)
    }

    /// Response tokens of each sequence.
    pub(crate) fn tokens(&self) -> Vec<u32> {
        self.prompts.sequences.iter().map(|s| s.response_len() as u32).collect()
    }

    /// An empty deposit on these prompts.
    pub(crate) fn deposit(&self) -> Deposit {
        self.deposit_on(&self.tokens())
    }

    /// The same where so many tokens of each prompt are looked at. Bare sequences have no names.
    pub(crate) fn deposit_on(&self, tokens: &[u32]) -> Deposit {
        let named = self.prompts.prompts.iter().zip(tokens);
        let prompts = named.map(|(p, tokens)| PromptTokens { id: p.id.clone(), tokens: *tokens });
        Deposit { prompts: prompts.collect(), ..Deposit::default() }
    }
}

/// A way to measure units.
pub trait Measure: Sync {
    /// Its row.
    fn estimator(&self) -> Estimator;

    /// Measures what is asked for; kinds and baseline are its row's.
    ///
    /// # Errors
    /// Those of the model; a stop by the keeper.
    fn measure(&self, request: &ProbeRequest<'_>, progress: &dyn Progress) -> Result<Deposit>;
}

/// Every estimator there is.
const ALL: &[&dyn Measure] = &[
    &trace::Trace,
    &atp::AttributionPatching,
    &eap_ig::IntegratedGradients,
    &atp_star::GradDrop,
    &relp::RelevancePatching,
    &reroute::Reroute::Here,
    &reroute::Reroute::Along,
    &exact::Exact,
];

/// Measures units: per prompt sums over its response tokens, or their moments over the prompts.
///
/// # Errors
/// A kind or baseline that the estimator does not serve; those of the model; a stop by the keeper.
pub fn measure(
    estimator: Estimator,
    request: &ProbeRequest<'_>,
    progress: &dyn Progress,
) -> Result<Deposit> {
    measure_by(ALL, estimator, request, progress)
}

fn measure_by(
    all: &[&dyn Measure],
    estimator: Estimator,
    request: &ProbeRequest<'_>,
    progress: &dyn Progress,
) -> Result<Deposit> {
    let refuse = |what: String| Err(ModelError::Request(format!("{estimator}: {what}")));
    let row = estimator.row();
    if let Some(kind) = request.kinds.iter().find(|kind| !row.kinds.contains(kind)) {
        let served: Vec<&str> = row.kinds.iter().map(|kind| kind.name()).collect();
        return refuse(format!("{kind}s are not served, only {}", served.join(", ")));
    }
    if row.is_exact && request.within.is_some() {
        return refuse("it does not measure within a mask: ablate masks instead".to_owned());
    }
    if request.steps == 0 {
        return refuse("a path has one input at least".to_owned());
    }
    if !row.baselines.contains(&request.baseline) {
        return refuse(format!("the baseline {:?} is not served", request.baseline));
    }
    let Some(found) = all.iter().find(|e| e.estimator() == estimator) else {
        return refuse("this uspx cannot measure by it: upgrade".to_owned());
    };
    let mut deposit = found.measure(request, progress)?;
    if let Some(cut) = request.within {
        deposit.columns.retain(|column| !cut.cuts(column.unit));
        deposit.moments.iter_mut().for_each(|moments| silence(moments, cut));
    }
    Ok(deposit)
}

/// Of what is cut moments say nothing: they have a place for every unit.
fn silence(moments: &mut Moments, cut: &CutTaps) {
    let (kind, layer) = (moments.kind, moments.layer);
    let Moments { x, xx, xt, .. } = moments;
    for (index, ((x, xx), xt)) in (0..).zip(x.iter_mut().zip(xx).zip(xt)) {
        if cut.cuts(Unit { kind, layer, index }) {
            (*x, *xx, *xt) = (0.0, 0.0, 0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use std::path::Path;
    use uspx_domain::{EstimatorRow, Needs, Prompt, Statistic};
    use uspx_model::{NoProgress, Placement};

    #[test]
    fn every_row_has_its_estimator() {
        let rows: Vec<Estimator> = ALL.iter().map(|e| e.estimator()).collect();
        assert_eq!(rows, Estimator::ALL);
    }

    static ROW: EstimatorRow = EstimatorRow {
        name: "example",
        help: "Counts response tokens",
        kinds: &[UnitKind::Head],
        statistics: &[Statistic::HEAD_NORM],
        effect: None,
        baselines: &[Baseline::Zero],
        is_exact: false,
        needs: Needs::Forward,
        passes: Some(|_| 0.0),
        steps: None,
    };

    /// An estimator for tests: what adding one takes, besides its row and its place in `ALL`.
    struct Example;

    impl Measure for Example {
        fn estimator(&self) -> Estimator {
            Estimator::of(&ROW)
        }

        fn measure(&self, request: &ProbeRequest<'_>, _: &dyn Progress) -> Result<Deposit> {
            let (shape, tokens) = (request.model.shape(), request.tokens());
            let of = (UnitKind::Head, ROW.statistics);
            let mut sums = crate::sums::UnitSums::new(of, &shape, &request.layers, tokens.len());
            for unit in shape.units(UnitKind::Head) {
                for (prompt, tokens) in tokens.iter().enumerate() {
                    sums.add((unit.layer as usize, unit.index), prompt, [f64::from(*tokens)]);
                }
            }
            let mut deposit = request.deposit();
            sums.tell(&tokens, &mut deposit);
            Ok(deposit)
        }
    }

    #[test]
    fn an_estimator_is_one_file_and_one_row() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/nano/student");
        let placement = Placement::floats(DType::F32, &Device::Cpu);
        let model = LoadedModel::open(&folder, placement).unwrap();
        let prompt = Prompt {
            id: "p".into(),
            prompt: "list files".into(),
            reference: Some("ls".into()),
            ..Prompt::default()
        };
        let (prompts, example) = (model.readable(&[prompt]).unwrap(), Estimator::of(&ROW));
        let request = ProbeRequest::all(example, &model, &prompts, 64);
        let deposit = measure_by(&[&Example], example, &request, &NoProgress).unwrap();
        let heads = model.shape().count(UnitKind::Head);
        assert_eq!((deposit.columns.len(), deposit.prompts.len()), (heads, 1));
        assert_eq!(deposit.columns[0].values, [deposit.prompts[0].tokens as f32]);

        let refused = |request: &ProbeRequest<'_>| {
            measure(example, request, &NoProgress).unwrap_err().to_string()
        };
        assert!(refused(&request).contains("upgrade"), "it has a row and no file");
        let experts = ProbeRequest { kinds: &[UnitKind::Expert], ..request.clone() };
        assert!(refused(&experts).contains("experts are not served, only head"));
        let mean = ProbeRequest { baseline: Baseline::Mean, ..request };
        assert!(refused(&mean).contains("baseline"));
    }
}
