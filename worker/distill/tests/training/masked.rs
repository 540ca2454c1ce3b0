//! Students with a mask of their own: how it fades, what is learned of it, and what is refused.

use super::{labels, open, short};
use candle_core::{Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use std::slice::from_ref;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use uspx_distill::gradient::{Way, gradient};
use uspx_distill::losses::text_lesson;
use uspx_distill::{
    DistilRequest, DistillError, Distilled, Fading, Keep, Labels, Sharing, distil, lora, schedule,
};
use uspx_domain::{Digest, DistilRecipe, Fingerprint, Mask, UnitKind};
use uspx_model::batch::{Batch, Sequence};
use uspx_model::cuts::CutTaps;
use uspx_model::taps::{Projection, Site};
use uspx_model::{LoadedModel, NoProgress, Progress, loss};

/// Heads that each of the student's layers keeps, of four; of the channels two of three stay.
const HEADS: [[u32; 2]; 4] = [[0, 2], [1, 3], [0, 3], [1, 2]];

fn keeps_channel(at: u32) -> bool {
    at % 3 != 1
}

fn mask(student: &LoadedModel) -> Mask {
    let mut mask = Mask::everything(student.fingerprint);
    let channels = (0..384).filter(|at| keeps_channel(*at)).collect();
    mask.keep.0.insert(UnitKind::Head, HEADS.map(|heads| heads.to_vec()).to_vec());
    mask.keep.0.insert(UnitKind::Channel, vec![channels; 4]);
    mask
}

/// Ones at what stays of a layer's heads or channels, along a value's second dimension.
fn stays(site: Site<'_>) -> Option<Tensor> {
    let row =
        |kept: Vec<f32>, shape: &[usize]| Tensor::from_vec(kept, shape, &Device::Cpu).unwrap();
    let one = |kept: bool| if kept { 1.0 } else { 0.0 };
    match site {
        Site::Z { layer } => {
            Some(row((0..4).map(|head| one(HEADS[layer].contains(&head))).collect(), &[1, 4, 1]))
        }
        Site::Channels { .. } => {
            Some(row((0..384).map(|at| one(keeps_channel(at))).collect(), &[1, 384]))
        }
        _ => None,
    }
}

/// The mask, written down here once more.
fn by_hand(site: Site<'_>, value: &Tensor) -> uspx_model::Result<Option<Tensor>> {
    Ok(stays(site).map(|stays| value.broadcast_mul(&stays)).transpose()?)
}

fn few() -> Labels {
    let mut labels = labels().0.clone();
    labels.prompts.truncate(24);
    labels
}

fn trained(
    (labels, recipe): (&Labels, &DistilRecipe),
    (mask, ramp): (&Mask, f32),
    keep: Option<Keep<'_>>,
    progress: &dyn Progress,
) -> Result<(LoadedModel, Distilled), DistillError> {
    let mut student = open("student");
    let fading = Some(Fading { mask, ramp });
    let request = DistilRequest::new(from_ref(labels), from_ref(labels), recipe);
    let made = distil(&mut student, &DistilRequest { keep, fading, ..request }, progress)?;
    Ok((student, made))
}

/// Nats per answer token without what the mask cuts.
fn masked_loss(student: &LoadedModel, labels: &Labels) -> f32 {
    let lessons = labels.prompts.iter().map(|p| text_lesson::<()>(p, &student.chat).unwrap());
    let sequences: Vec<Sequence> = lessons.map(|lesson| lesson.sequence).collect();
    let batch = Batch::new(&sequences.iter().collect::<Vec<_>>()).unwrap();
    let frame = student.transformer.frame(&batch).unwrap();
    let x = student.transformer.forward(&batch, &frame, &mut by_hand).unwrap();
    let nll = student.transformer.response_nll(&x, &batch).unwrap();
    nll.mean_all().unwrap().to_scalar().unwrap()
}

#[test]
fn a_student_learns_to_do_without_and_is_judged_so() {
    let (labels, mask) = (few(), mask(&open("student")));
    let recipe = DistilRecipe { epochs: 6, batch_tokens: 128, ..short() };
    for ramp in [0.0, 0.5] {
        let (student, made) =
            trained((&labels, &recipe), (&mask, ramp), None, &NoProgress).unwrap();
        let summary = made.summary;
        let [before, after] = [&open("student"), &student].map(|model| masked_loss(model, &labels));
        println!("ramp {ramp}: {summary:?}");
        assert!(summary.after < summary.before - 0.5, "{ramp}: {summary:?}");
        assert!((summary.before - before).abs() < 1e-3, "{before}, {summary:?}");
        assert!((summary.after - after).abs() < 1e-3, "{after}, {summary:?}");
    }
}

/// The same steps by candle's optimiser and a mask of this file's own.
fn one_pass_by_hand(labels: &Labels, recipe: &DistilRecipe) -> Vec<Tensor> {
    let mut student = open("student");
    let pairs =
        lora::attach(&mut student, recipe.rank as usize, recipe.alpha.into(), recipe.seed).unwrap();
    let vars: Vec<Var> = pairs.into_iter().flat_map(|pair| [pair.a, pair.b]).collect();
    let lessons = labels.prompts.iter().map(|p| text_lesson::<()>(p, &student.chat).unwrap());
    let sequences: Vec<Sequence> = lessons.map(|lesson| lesson.sequence).collect();
    let lengths: Vec<usize> = sequences.iter().map(|s| s.ids.len()).collect();
    let plan = schedule::epochs(&lengths, recipe).concat();
    let usual = ParamsAdamW { weight_decay: 0.0, eps: 1e-8, ..ParamsAdamW::default() };
    let mut optimiser = AdamW::new(vars.clone(), usual).unwrap();
    for (step, members) in (0..).zip(&plan) {
        let batch =
            Batch::new(&members.iter().map(|i| &sequences[*i]).collect::<Vec<_>>()).unwrap();
        let frame = student.transformer.frame(&batch).unwrap();
        let x = student.transformer.forward(&batch, &frame, &mut by_hand).unwrap();
        let logits = student.transformer.logits(&x, &batch.predicting).unwrap();
        let nll = loss::token_nll(&logits, &batch.targets).unwrap().mean_all().unwrap();
        let mut gradients = nll.backward().unwrap();
        let shrink = schedule::shrink(&gradients, &vars, 1.0).unwrap();
        for var in &vars {
            if let Some(gradient) = gradients.remove(var) {
                gradients.insert(var, (gradient * shrink).unwrap());
            }
        }
        let rate = schedule::rate(recipe.learning_rate.into(), step, plan.len() as u32);
        optimiser.set_learning_rate(rate);
        optimiser.step(&gradients).unwrap();
    }
    vars.iter().map(|var| var.as_detached_tensor()).collect()
}

#[test]
fn without_a_ramp_it_is_the_training_of_the_masked_student() {
    let (labels, mask) = (few(), mask(&open("student")));
    let recipe = DistilRecipe { epochs: 1, teacher_weight: 0.0, batch_tokens: 256, ..short() };
    let (student, made) = trained((&labels, &recipe), (&mask, 0.0), None, &NoProgress).unwrap();
    assert_eq!(made.summary.best_epoch, 1, "{:?}", made.summary);
    let mut by_hand = one_pass_by_hand(&labels, &recipe).into_iter();
    let (mut squares, mut count) = (0.0, 0);
    for layer in 0..4 {
        for projection in Projection::DENSE {
            let linear = student.transformer.linear(layer, projection).unwrap();
            let adapter = linear.adapter.as_ref().unwrap();
            for ours in [&adapter.a, &adapter.b] {
                let apart = (ours - by_hand.next().unwrap()).unwrap().sqr().unwrap();
                squares += apart.sum_all().unwrap().to_scalar::<f32>().unwrap();
                count += ours.elem_count();
            }
        }
    }
    // A value whose gradient is little more than rounding is moved by that all the same, so single ones
    // differ more.
    let apart = (squares / count as f32).sqrt();
    println!("{apart:e} apart in the mean, of a rate of {:e}", recipe.learning_rate);
    assert!(apart < 1e-5, "{apart} apart");
}

/// Adapters with random values throughout: fresh ones have zeros, and no gradient for A.
fn attach(student: &mut LoadedModel) -> Vec<Var> {
    let pairs = lora::attach(student, 4, 8.0, 1).unwrap();
    for (at, pair) in pairs.iter().enumerate() {
        let (out, rank) = pair.b.dims2().unwrap();
        let value = |i: usize| ((i * 7919 + at * 104_729) % 211) as f32 / 2110.0 - 0.05;
        let values: Vec<f32> = (0..out * rank).map(value).collect();
        pair.b.set(&Tensor::from_vec(values, (out, rank), &Device::Cpu).unwrap()).unwrap();
    }
    pairs.into_iter().flat_map(|pair| [pair.a, pair.b]).collect()
}

#[test]
fn the_gradient_of_a_student_that_fades_agrees_with_finite_differences() {
    let mut student = open("student");
    let vars = attach(&mut student);
    let lessons = few().prompts[..4].to_vec();
    let sequences: Vec<Sequence> =
        lessons.iter().map(|p| text_lesson::<()>(p, &student.chat).unwrap().sequence).collect();
    let batch = Batch::new(&sequences.iter().collect::<Vec<_>>()).unwrap();
    let nll = |logits: &Tensor| Ok(loss::token_nll(logits, &batch.targets)?.mean_all()?);
    let mask = mask(&student);
    let cut = CutTaps::of_mask(&mask, &student.shape(), &Device::Cpu).unwrap();
    let transformer = &student.transformer;
    for left in [1.0, 0.37, 0.0] {
        let faded = cut.faded(left).unwrap();
        let found = |way| gradient(transformer, (&batch, &vars, way), &faded, nll).unwrap();
        let ((value, whole), (layered_value, layered)) = (found(Way::Whole), found(Way::Layers));
        assert!((value - layered_value).abs() < 1e-6);
        let mut squares = 0.0;
        for var in &vars {
            let [one, other] = [&whole, &layered].map(|all| all.get(var).unwrap());
            let apart = (one - other).unwrap().abs().unwrap().max_all().unwrap();
            assert!(apart.to_scalar::<f32>().unwrap() < 1e-6);
            squares += one.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        }
        // Along the gradient the loss rises by its norm.
        let (norm, far) = (f64::from(squares).sqrt(), 2e-2);
        let start: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().copy().unwrap()).collect();
        let at = |by: f64| {
            for (var, start) in vars.iter().zip(&start) {
                let way = (whole.get(var).unwrap() * (by / norm)).unwrap();
                var.set(&(start + way).unwrap()).unwrap();
            }
            f64::from(gradient(transformer, (&batch, &vars, Way::Whole), &faded, nll).unwrap().0)
        };
        let slope = (at(far) - at(-far)) / (2.0 * far);
        at(0.0);
        println!("{left} left: {slope} along the gradient, whose norm is {norm}");
        assert!((slope / norm - 1.0).abs() < 5e-3, "{left}: {slope} of {norm}");
        // A of the output projection reads the heads: nothing of those that are gone.
        let reads = whole.get(&vars[2 * 3]).unwrap().abs().unwrap().narrow(1, 32, 32).unwrap();
        let most: f32 = reads.max_all().unwrap().to_scalar().unwrap();
        assert_eq!(most > 0.0, left > 0.0, "{left}: {most}");
    }
}

#[test]
fn a_training_with_a_ramp_goes_on_where_it_was_stopped() {
    let (labels, mask) = (few(), mask(&open("student")));
    let recipe = DistilRecipe { batch_tokens: 256, teacher_weight: 0.0, ..short() };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state");
    let keep = Some(Keep { file: &file, every: Duration::MAX });
    let train = |ramp, progress: &dyn Progress| {
        trained((&labels, &recipe), (&mask, ramp), keep, progress).map(|(_, made)| made)
    };
    let whole = train(0.7, &NoProgress).unwrap();
    let told = AtomicU32::new(0);
    let stop = |_: u64, _: u64| told.fetch_add(1, Ordering::Relaxed) < 6;
    assert!(train(0.7, &stop).unwrap_err().is_stopped());
    let error = train(0.5, &NoProgress).unwrap_err().to_string();
    assert!(error.contains("its student's mask differ"), "{error}");
    let made = train(0.7, &NoProgress).unwrap();
    assert!(made.resumed > 0 && made.adapter == whole.adapter);
}

#[test]
fn masks_that_do_not_fit_are_refused() {
    let (labels, student) = (few(), open("student"));
    let refused = |mask: &Mask, ramp| {
        trained((&labels, &short()), (mask, ramp), None, &NoProgress).err().unwrap().to_string()
    };
    let own = mask(&student);
    assert!(refused(&own, 1.5).contains("the ramp is 1.5"));
    assert!(refused(&own, f32::NAN).contains("the ramp is"));
    let other = Mask { model: Fingerprint(Digest::of(b"another")), ..own.clone() };
    assert!(refused(&other, 0.5).contains("the student's mask is of model"));
    let (train, recipe) = (from_ref(&labels), short());
    let sharing = Some(Sharing::among(2));
    let fading = Some(Fading { mask: &own, ramp: 0.5 });
    let request = DistilRequest { sharing, fading, ..DistilRequest::new(train, train, &recipe) };
    let error = distil(&mut open("student"), &request, &NoProgress).unwrap_err().to_string();
    assert!(error.contains("leave out its mask"), "{error}");
    // Experts are banned or not.
    let teacher = open("teacher");
    let mut experts = Mask::everything(teacher.fingerprint);
    experts.keep.0.insert(UnitKind::Expert, vec![vec![0, 1]; 4]);
    let cut = teacher.cut_of_mask(&experts).unwrap();
    assert!(cut.faded(0.5).unwrap_err().to_string().contains("only heads and channels"));
}
