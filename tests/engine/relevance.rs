//! Relevance patching against finite differences of the *frozen* model: denominators of norms,
//! attention's probabilities, router's gates and activations' factors stay as they are at the prompts,
//! put in by taps, and each factor of a gated unit moves half of it. The coefficients of relevance are
//! this model's gradient, exactly. And of every architecture against PyTorch with replaced modules
//! (tests/parity/relevance.py).

use crate::architectures::{cases, golden, open};
use crate::slopes::{prove, prove_moments, scaling, slope};
use crate::support::{a_quarter_cut, in_f64, nano, opened, prompts};
use candle_core::{D, Tensor};
use std::collections::BTreeMap;
use uspx_domain::{Baseline, Deposit, Estimator, Statistic, Unit, UnitKind};
use uspx_model::batch::Batch;
use uspx_model::config::GatedUnit;
use uspx_model::cuts::CutTaps;
use uspx_model::layers::block::FeedForward;
use uspx_model::layers::moe::FirstMaps;
use uspx_model::loss::token_nll;
use uspx_model::taps::{Backward, NoTaps, Site, Taps};
use uspx_model::{Holding, LoadedModel, ModelError, NoProgress, Readable, Result};
use uspx_probe::{ProbeRequest, measure};

fn sigmoid(x: &Tensor) -> candle_core::Result<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
}

/// A gated unit's factors as they are at the prompts, `[rows, inner]`.
struct Factors {
    gate: Tensor,
    up: Tensor,
    /// act(gate) / gate, and what a clamp leaves of `up`.
    of_gate: Tensor,
    of_up: Tensor,
    /// What is added to `up`.
    bias: f64,
}

impl Factors {
    fn new([gate, up]: [Tensor; 2], unit: GatedUnit) -> Result<Self> {
        let (of_gate, of_up, bias) = match unit {
            GatedUnit::Silu => (sigmoid(&gate)?, up.ones_like()?, 0.0),
            GatedUnit::Clamped { alpha, limit } => {
                let clamped = gate.minimum(limit)?;
                let swish = (&clamped * sigmoid(&(&clamped * alpha)?)?)?;
                ((swish / &gate)?, (up.clamp(-limit, limit)? / &up)?, 1.0)
            }
        };
        Ok(Self { gate, up, of_gate, of_up, bias })
    }

    /// Half with the gate as it was, half with `up` as it was.
    fn unit(&self, [gate, up]: [Tensor; 2]) -> Result<Tensor> {
        let act = |gate: &Tensor| gate * &self.of_gate;
        let linear = |up: &Tensor| (up * &self.of_up)? + self.bias;
        let by_up = (act(&self.gate)? * linear(&up)?)?;
        let by_gate = (act(&gate)? * linear(&self.up)?)?;
        Ok(((by_up + by_gate)? * 0.5)?)
    }
}

/// What stands still, once it was seen.
struct Frozen<'a> {
    model: &'a LoadedModel,
    seen: bool,
    /// Gains over denominators, and values that are given, by what they are, layer and expert.
    given: BTreeMap<(&'static str, usize), Tensor>,
    factors: BTreeMap<(usize, u32), Factors>,
    /// The stream before the norm, and the input of the MLP or expert that runs.
    stream: Option<Tensor>,
    input: Option<Tensor>,
}

impl<'a> Frozen<'a> {
    fn new(model: &'a LoadedModel) -> Self {
        let (given, factors) = (BTreeMap::new(), BTreeMap::new());
        Self { model, seen: false, given, factors, stream: None, input: None }
    }

    fn value(&mut self, name: &'static str, layer: usize, value: &Tensor) -> Option<Tensor> {
        if self.seen {
            return self.given.get(&(name, layer)).cloned();
        }
        self.given.insert((name, layer), value.clone());
        None
    }

    fn normed(&mut self, name: &'static str, layer: usize, y: &Tensor) -> Result<Option<Tensor>> {
        let x = self.stream.clone().unwrap();
        if self.seen {
            return Ok(Some((x * &self.given[&(name, layer)])?));
        }
        self.given.insert((name, layer), (y / x)?);
        Ok(None)
    }

    /// Gate and up of the MLP or expert that runs.
    fn maps(&self, layer: usize, expert: u32) -> Result<([Tensor; 2], GatedUnit)> {
        let x = self.input.as_ref().unwrap();
        let block = self.model.transformer.block(layer)?;
        let experts = match &block.feed_forward {
            FeedForward::Dense(mlp) => {
                return Ok(([mlp.gate.forward(x)?, mlp.up.forward(x)?], GatedUnit::Silu));
            }
            FeedForward::Experts(experts) => experts,
        };
        let FirstMaps::InTurns(map) = experts.source.expert(expert as usize)?.first.clone() else {
            return Err(ModelError::Request("not gpt-oss".into()));
        };
        let pairs = map.forward(x)?;
        let pairs = pairs.reshape((pairs.dim(0)?, (), 2))?;
        let half = |i| pairs.narrow(D::Minus1, i, 1)?.squeeze(2)?.contiguous();
        Ok(([half(0)?, half(1)?], experts.mixture.unit))
    }

    fn unit(&mut self, layer: usize, expert: u32) -> Result<Option<Tensor>> {
        let (maps, unit) = self.maps(layer, expert)?;
        if self.seen {
            return self.factors[&(layer, expert)].unit(maps).map(Some);
        }
        self.factors.insert((layer, expert), Factors::new(maps, unit)?);
        Ok(None)
    }

    /// The batch's summed loss through `others`, which act behind what stands still; what was seen
    /// first stands still from then on.
    fn loss(&mut self, batch: &Batch, others: &mut dyn Taps, cut: &mut dyn Taps) -> f64 {
        let model = self.model;
        let transformer = &model.transformer;
        let (layers, frame) = (0..transformer.layers(), transformer.frame(batch).unwrap());
        let start = transformer.embed(&batch.ids).unwrap();
        let mut own = (&mut *self, others);
        let mut all = (cut, &mut own);
        let x = transformer.run(layers, start, &frame, None, &mut all).unwrap();
        self.head(&x, batch).unwrap()
    }

    fn head(&mut self, x: &Tensor, batch: &Batch) -> Result<f64> {
        let model = self.model;
        let transformer = &model.transformer;
        let rows = Tensor::from_slice(&batch.predicting, batch.predicting.len(), x.device())?;
        self.stream = Some(x.index_select(&rows, 0)?);
        let y = transformer.norm().forward(self.stream.as_ref().unwrap(), Backward::Gradient)?;
        let y = self.normed("last", 0, &y)?.unwrap_or(y);
        self.seen = true;
        let logits = y.matmul(&transformer.head()?.to_dtype(y.dtype())?.t()?)?;
        Ok(token_nll(&logits, &batch.targets)?.sum_all()?.to_scalar()?)
    }
}

impl Taps for Frozen<'_> {
    fn at(&mut self, site: Site<'_>, value: &Tensor) -> Result<Option<Tensor>> {
        match site {
            Site::ResidPre { .. } | Site::ResidMid { .. } => self.stream = Some(value.clone()),
            Site::ExpertIn(_) | Site::LinearInput { .. } => self.input = Some(value.clone()),
            Site::AttentionNorm { layer } => return self.normed("attention", layer, value),
            Site::MlpNorm { layer } => return self.normed("mlp", layer, value),
            Site::Queries { layer } => return Ok(self.value("queries", layer, value)),
            Site::Keys { layer } => return Ok(self.value("keys", layer, value)),
            Site::Router { layer } => return Ok(self.value("router", layer, value)),
            Site::ExpertChannels(at) => return self.unit(at.layer, at.expert),
            Site::Channels { layer } => return self.unit(layer, 0),
            _ => {}
        }
        Ok(None)
    }
}

fn relevance(
    model: &LoadedModel,
    prompts: &Readable,
    kinds: &[UnitKind],
    within: Option<&CutTaps>,
) -> Deposit {
    let all = ProbeRequest::all(Estimator::RELP, model, prompts, 4096);
    let request = ProbeRequest { kinds, baseline: Baseline::Zero, within, ..all };
    measure(Estimator::RELP, &request, &NoProgress).unwrap()
}

/// What is cut, as a tap.
fn cutting(within: Option<&CutTaps>) -> Box<dyn Taps> {
    within.map_or(Box::new(NoTaps), |cut| Box::new(cut.clone()))
}

const BOTH: [Statistic; 2] = [Statistic::RELP, Statistic::RELP_ABS];

/// Holds what is measured of a shipped model, within a mask or not, against the frozen one.
fn is_the_frozen_models_slope(which: &str, kinds: &[UnitKind], within: Option<&CutTaps>) {
    let (model, exact) = (opened(which, Holding::Floats), in_f64(which));
    let some = model.readable(&prompts("cli-heldout.jsonl", 4)).unwrap();
    let deposit = relevance(&model, &some, kinds, within);
    let batch = Batch::new(&some.sequences.iter().collect::<Vec<_>>()).unwrap();
    let mut frozen = Frozen::new(&exact);
    let clean = frozen.loss(&batch, &mut NoTaps, &mut *cutting(within));
    let again = frozen.loss(&batch, &mut NoTaps, &mut *cutting(within));
    assert!((clean - again).abs() < 1e-9 * clean, "held still it is another model");
    let frozen = std::cell::RefCell::new(frozen);
    let slope_of = |unit: Unit| {
        slope(1e-4, |s| {
            let mut scale = scaling(unit.kind, unit.layer as usize, unit.index, 1.0 - s);
            frozen.borrow_mut().loss(&batch, &mut scale, &mut *cutting(within))
        })
    };
    if kinds.iter().all(|kind| kind.is_large()) {
        return prove_moments((which, &deposit), BOTH, slope_of);
    }
    prove((which, &deposit), BOTH, |index| index % 5 < 2, slope_of);
}

#[test]
fn relevance_is_the_slope_of_the_frozen_model() {
    is_the_frozen_models_slope("teacher", &[UnitKind::Expert, UnitKind::Head], None);
    is_the_frozen_models_slope("student", &[UnitKind::Head], None);
}

#[test]
fn relevance_of_channels_is_the_slope_of_the_frozen_model() {
    is_the_frozen_models_slope("student", &[UnitKind::Channel], None);
    is_the_frozen_models_slope("teacher", &[UnitKind::ExpertChannel], None);
}

#[test]
fn relevance_within_a_mask_is_the_slope_of_the_masked_frozen_model() {
    let shape = nano("teacher").shape();
    let (_, taps) = a_quarter_cut(&shape);
    is_the_frozen_models_slope("teacher", &[UnitKind::Expert, UnitKind::Head], Some(&taps));
}

/// How far effects may be from PyTorch's, of what they are made of.
const NEAR: f64 = 1e-3;

#[test]
fn relevance_agrees_with_pytorch() {
    // Only to have a tokenizer, which sequences of ids need not.
    let mut model = nano("student");
    for case in cases() {
        let (golden, sequences) = golden(&case);
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let bare = Readable { sequences, ..Readable::default() };
        for holding in [Holding::Floats, Holding::Stored, Holding::Streamed] {
            model.transformer = open(&case, holding);
            let kinds = Estimator::RELP.usual_kinds_of(&model.shape());
            let deposit = relevance(&model, &bare, &kinds, None);
            let of = |statistic| deposit.columns.iter().filter(move |c| c.statistic == statistic);
            let mut worst = 0f64;
            for (signed, positive) in of(Statistic::RELP).zip(of(Statistic::RELP_ABS)) {
                let Unit { kind, layer, index } = signed.unit;
                let wanted = &golden.relevance[kind.name()][layer as usize][index as usize];
                assert_eq!((signed.unit, signed.values.len()), (positive.unit, wanted.len()));
                for ((f, w), size) in signed.values.iter().zip(wanted).zip(&positive.values) {
                    let off = (f64::from(*f) - w).abs();
                    let size = f64::from(*size);
                    assert!(
                        off <= NEAR * size,
                        "{name} {holding:?} {}: {f} against {w}, made of {size}",
                        signed.unit
                    );
                    worst = worst.max(off / size.max(f64::MIN_POSITIVE));
                }
            }
            println!("{name} {holding:?}: at worst off by {worst:.1e}");
        }
    }
}
