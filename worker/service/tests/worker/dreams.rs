//! Labels with new prompts beside the person's: they are labelled like these, and only these are counted
//! as the task's.

use super::{models, prompts, task};
use uspx_distill::Labels;
use uspx_domain::{
    Answering, Asked, Dreams, Job, Label, ModelShape, Outcome, Prompt, Refusal, SkipReason,
    Skipped, Work,
};
use uspx_model::NoProgress;
use uspx_worker::jobs::run;
use uspx_worker::planning::Machine;
use uspx_worker::product::{Blob, Inputs, Product};

fn labelled(job: Label<Prompt>) -> Product {
    let scratch = tempfile::tempdir().unwrap();
    let inputs = Inputs::new_in(scratch.path()).unwrap();
    let mut models = models(Machine::cpu(), scratch.path());
    run(&task(Work::Label(job)), &mut models, &inputs, &NoProgress).unwrap().0
}

fn job(rounds: u32, seed: u64) -> Label<Prompt> {
    let dreams = Dreams { rounds, seed };
    Label { top_k: 4, max_new_tokens: 24, dreams, ..Label::of(prompts(12)) }
}

fn labels(product: &Product) -> Labels {
    let Blob::Bytes(blob) = &product.blobs[0] else { panic!("labels in a file") };
    Labels::from_bytes(blob).unwrap()
}

#[test]
fn new_prompts_are_labelled_beside_the_task_s_own() {
    let product = labelled(job(3, 7));
    let Outcome::Labels { prompts: own, dreams, .. } = product.outcome else { panic!() };
    let all = labels(&product).prompts;
    assert_eq!((own, all.len()), (12, 12 + dreams as usize));
    assert!((8..=36).contains(&dreams), "{dreams} of 36");
    let new = all.iter().filter(|p| p.prompt.id.starts_with("dream-"));
    assert_eq!(new.count(), dreams as usize);
    let mut texts: Vec<&str> = all.iter().map(|p| p.prompt.prompt.as_str()).collect();
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), all.len(), "none stands twice");
    assert!(all.iter().all(|p| !p.answer.is_empty()));
    assert_eq!(labels(&labelled(job(3, 7))), labels(&product), "the seed decides");
    assert_ne!(labels(&labelled(job(3, 8))), labels(&product));
    let ids: Vec<String> = prompts(12).into_iter().map(|p| p.id).collect();
    let shape = ModelShape { layers: vec![] };
    let asked = Asked { ids: ids.iter().map(String::as_str).collect(), shape: &shape };
    assert_eq!(job(3, 7).check(&asked, &product.outcome), Ok(()));
    let refused = job(0, 7).check(&asked, &product.outcome);
    assert!(matches!(refused, Err(Refusal::Value(_))), "nobody asked for new ones: {refused:?}");
}

#[test]
fn without_rounds_it_is_the_prompts_alone() {
    let product = labelled(job(0, 7));
    assert!(matches!(product.outcome, Outcome::Labels { prompts: 12, dreams: 0, .. }));
    assert_eq!(labels(&product).prompts.len(), 12);
}

#[test]
fn a_task_may_ask_for_samples_and_for_what_most_of_them_say() {
    let sampled = |min_consistency| {
        let answering = Answering { samples: 3, min_consistency, ..Answering::default() };
        labelled(Label { answering, seed: 5, ..job(0, 7) })
    };
    let all = sampled(None);
    assert!(
        matches!(all.outcome, Outcome::Labels { prompts: 12, dreams: 0, .. })
            && all.skipped.is_empty()
    );
    let labels = labels(&all).prompts;
    let further = labels.iter().filter(|p| p.prompt.id.starts_with("sample-")).count();
    assert!((1..=36).contains(&further) && labels.len() == 12 + further, "{further}");
    // Few references are what the teacher says in every of three draws.
    let strict = sampled(Some(1.0));
    let Outcome::Labels { prompts: own, .. } = strict.outcome else { panic!() };
    assert_eq!(own as usize + strict.skipped.len(), 12);
    assert!(!strict.skipped.is_empty());
    let doubted = |s: &Skipped| matches!(s.reason, SkipReason::Inconsistent { samples: 3, .. });
    assert!(strict.skipped.iter().all(doubted), "{:?}", strict.skipped);
}

#[test]
fn a_reference_that_the_teacher_finds_unlikely_is_left_out_and_named() {
    let answering = Answering { max_reference_nats: Some(0.5), ..Answering::default() };
    let product = labelled(Label { answering, ..job(0, 7) });
    let Outcome::Labels { prompts: own, .. } = product.outcome else { panic!() };
    assert!((1..12).contains(&own) && own as usize + product.skipped.len() == 12, "{own}");
    let unlikely = |s: &Skipped| matches!(s.reason, SkipReason::Unlikely { millinats: 501.. });
    assert!(product.skipped.iter().all(unlikely), "{:?}", product.skipped);
}
