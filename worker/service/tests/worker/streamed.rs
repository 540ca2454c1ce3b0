//! Every kind of work on a teacher that is streamed gives what it gives on one that is held, and
//! tells of its progress between two steps.

use super::{assets, models, prompts, task};
use uspx_distill::Labels;
use uspx_domain::{
    Ablate, Answers, Baseline, Cut, Estimate, Estimator, Judge, Label, Mask, Outcome, Prompt,
    Subject, Unit, UnitKind, Work,
};
use uspx_model::{NoProgress, fingerprint};
use uspx_worker::compute::JobProgress;
use uspx_worker::jobs::run;
use uspx_worker::planning::Machine;
use uspx_worker::product::{Blob, Inputs, Product};

fn unanswered(count: usize) -> Vec<Prompt> {
    prompts(count).into_iter().map(|p| Prompt { reference: None, ..p }).collect()
}

/// What a machine makes of the work.
fn done(machine: &Machine, work: &Work<Prompt>) -> Product {
    let scratch = tempfile::tempdir().unwrap();
    let inputs = Inputs::new_in(scratch.path()).unwrap();
    let mut models = models(machine.clone(), scratch.path());
    let done = run(&task(work.clone()), &mut models, &inputs, &NoProgress).unwrap();
    let speed = done.1.unwrap();
    assert_eq!((speed.streamed, speed.work.as_str()), (machine.stream, work.name()));
    done.0
}

fn values(product: &Product) -> Vec<f32> {
    match &product.outcome {
        Outcome::Scores(deposit) => {
            deposit.columns.iter().flat_map(|c| c.values.iter().copied()).collect()
        }
        Outcome::Losses(rows) => rows.iter().flat_map(|r| r.nats.iter().copied()).collect(),
        Outcome::Labels { .. } => {
            let Blob::Bytes(blob) = &product.blobs[0] else { panic!("labels in a file") };
            let labels = Labels::from_bytes(blob).unwrap();
            let tokens = labels.prompts.iter().flat_map(|p| &p.tokens);
            tokens.flat_map(|t| [t.log_prob, t.top[0].1]).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn assert_alike(work: &Work<Prompt>) {
    let held = Machine { memory: Some(4 << 30), ..Machine::cpu() };
    // Little beside one part of the weights: small batches.
    let streamed = Machine { stream: true, memory: Some(172 << 20), ..Machine::cpu() };
    let (held, streamed) = (values(&done(&held, work)), values(&done(&streamed, work)));
    assert_eq!(held.len(), streamed.len());
    assert!(!held.is_empty());
    for (one, other) in held.iter().zip(&streamed) {
        assert!((one - other).abs() <= 1e-4 + 1e-3 * one.abs(), "{one} {other}");
    }
}

fn estimate(estimator: Estimator) -> Work<Prompt> {
    let baseline = estimator.usual_baseline();
    let kinds = vec![UnitKind::Expert, UnitKind::Head];
    Work::Estimate(Estimate { prompts: prompts(6), estimator, kinds, baseline })
}

#[test]
fn traces_and_effects_of_a_streamed_teacher_are_those_of_a_held_one() {
    assert_alike(&estimate(Estimator::TRACE));
    assert_alike(&estimate(Estimator::ATP));
    assert!(Estimator::ATP.row().baselines.contains(&Baseline::Mean));
}

#[test]
fn losses_under_cuts_of_a_streamed_teacher_are_those_of_a_held_one() {
    let unit = |kind, layer, index| Cut::Unit(Unit { kind, layer, index });
    let cuts = vec![
        unit(UnitKind::Expert, 0, 1),
        unit(UnitKind::Head, 2, 0),
        unit(UnitKind::Expert, 3, 2),
        Cut::Mask(mask()),
    ];
    assert_alike(&Work::Ablate(Ablate { prompts: prompts(6), cuts }));
    let answers = Answers { tokens: 8, reasoning: 8 };
    let judge = Work::Judge(Judge { prompts: prompts(6), subject: Subject::Model, answers });
    assert_alike(&judge);
    let right = |machine| match done(&machine, &judge).outcome {
        Outcome::Losses(rows) => (rows[0].right.len(), rows[0].pace.is_some()),
        other => panic!("{other:?}"),
    };
    assert_eq!(right(Machine::cpu()), (6, true));
    let streamed = Machine { stream: true, ..Machine::cpu() };
    assert_eq!(right(streamed), (0, false), "every token would read the whole file");
}

/// Every second expert of the first layer is cut.
fn mask() -> Mask {
    let teacher = assets().join("nano/teacher");
    let shape = uspx_model::config::ModelConfig::open(&teacher).unwrap().shape();
    let kept = |layer: usize, experts: u32| {
        (0..experts).filter(|e| layer > 0 || e % 2 == 0).collect::<Vec<u32>>()
    };
    let widths = shape.widths(UnitKind::Expert);
    let lists = widths.iter().enumerate().map(|(layer, n)| kept(layer, *n)).collect();
    let keep = uspx_domain::KeepLists([(UnitKind::Expert, lists)].into());
    Mask { version: 1, model: fingerprint(&teacher).unwrap(), keep }
}

#[test]
fn answers_and_labels_of_a_streamed_teacher_are_those_of_a_held_one() {
    let label = |prompts| {
        Work::Label(Label { mask: Some(mask()), top_k: 4, max_new_tokens: 8, ..Label::of(prompts) })
    };
    assert_alike(&label(prompts(6)));
    assert_alike(&label(unanswered(4)));
}

#[test]
fn invariant_4_a_large_batch_tells_of_its_layers_and_can_be_stopped_between_two() {
    let scratch = tempfile::tempdir().unwrap();
    let inputs = Inputs::new_in(scratch.path()).unwrap();
    let mut models =
        models(Machine { stream: true, memory: Some(4 << 30), ..Machine::cpu() }, scratch.path());
    let work = task(estimate(Estimator::TRACE));
    let progress = JobProgress::default();
    run(&work, &mut models, &inputs, &progress).unwrap();
    // One batch: one step; the rest is layers, and experts read from the file.
    assert_eq!(progress.steps(), (6, 6));
    assert!(progress.reports() > 20, "{}", progress.reports());
    let stopped = JobProgress::default();
    stopped.stop();
    let error = run(&work, &mut models, &inputs, &stopped).err().unwrap();
    assert_eq!(error.reason(), uspx_domain::FailureReason::Stopped);
    assert!(stopped.reports() < 4, "it ran on: {}", stopped.reports());
    run(&work, &mut models, &inputs, &JobProgress::default()).unwrap();
}
