//! Learning from its own answers: they are the adapted student's, the teacher says of them what it would
//! say without labels, and rounds make them likelier to the teacher.

use super::*;
use uspx_distill::Distilled;
use uspx_distill::on_policy::{OnPolicy, Own, Round, Sampling, Stage, learn, own_answers};
use uspx_distill::teach::label_own;
use uspx_model::batch::Sequence;

const BOUNDS: (Bounds, usize) = (Bounds { answer: 12, reasoning: 0 }, usize::MAX);

fn asked() -> Vec<Prompt> {
    prompts()[..64].to_vec()
}

fn sampling(temperature: f64, seed: u64) -> Sampling {
    Sampling { temperature, seed }
}

fn distilled() -> (LoadedModel, Distilled) {
    let recipe = short();
    let train = std::slice::from_ref(&labels().0);
    let mut student = open("student");
    let request = DistilRequest::new(train, train, &recipe);
    let made = distil(&mut student, &request, &NoProgress).unwrap();
    (student, made)
}

/// Log-probabilities of a sequence's response by one pass over the whole of it.
fn log_probs(model: &LoadedModel, sequence: &Sequence) -> Vec<f32> {
    let batch = Batch::new(&[sequence]).unwrap();
    let frame = model.transformer.frame(&batch).unwrap();
    let x = model.transformer.forward(&batch, &frame, &mut NoTaps).unwrap();
    let logits = model.transformer.logits(&x, &batch.predicting).unwrap();
    let nll = uspx_model::loss::token_nll(&logits, &batch.targets).unwrap();
    nll.to_vec1::<f32>().unwrap().into_iter().map(|nats| -nats).collect()
}

/// The likeliest answer, every token by one pass over the whole text.
fn greedy(model: &LoadedModel, prompt: &Prompt) -> (String, bool) {
    let mut ids = model.chat.sequence(prompt, None).unwrap().ids;
    let start = ids.len();
    loop {
        if ids.len() == start + BOUNDS.0.answer {
            return (model.chat.answer_text(&ids[start..]), false);
        }
        let sequence = Sequence { ids: ids.clone(), response_start: ids.len() - 1 };
        let batch = Batch::new(&[&sequence]).unwrap();
        let frame = model.transformer.frame(&batch).unwrap();
        let x = model.transformer.forward(&batch, &frame, &mut NoTaps).unwrap();
        let logits = model.transformer.logits(&x, &batch.last_rows()).unwrap();
        let next = logits.argmax(1).unwrap().to_vec1::<u32>().unwrap()[0];
        if model.chat.ends().contains(&next) {
            return (model.chat.answer_text(&ids[start..]), true);
        }
        ids.push(next);
    }
}

#[test]
fn answers_are_those_of_the_adapted_student() {
    let (mut student, _) = distilled();
    let asked = &asked()[..6];
    let answers = |student: &mut LoadedModel, how| {
        own_answers(student, asked, (BOUNDS, how), &NoProgress).unwrap()
    };
    let cold = answers(&mut student, sampling(1e-4, 1));
    assert!(cold.len() >= 5);
    for own in &cold {
        assert_eq!((own.answer.clone(), own.ended), greedy(&student, &own.prompt));
    }
    assert_ne!(cold, answers(&mut open_with_nothing(), sampling(1e-4, 1)));
    let warm = answers(&mut student, sampling(1.0, 1));
    assert_eq!(warm, answers(&mut student, sampling(1.0, 1)));
    assert_ne!(warm, answers(&mut student, sampling(1.0, 2)));
}

/// The base student, its adapters at their start.
fn open_with_nothing() -> LoadedModel {
    let mut student = open("student");
    lora::attach(&mut student, 4, 8.0, 1).unwrap();
    student
}

#[test]
fn the_teacher_s_word_on_an_own_answer_is_its_probability() {
    let teacher = open("teacher");
    let own = |at: usize, answer: &str, ended| {
        let (prompt, answer) = (prompts()[at].clone(), answer.to_owned());
        Own { prompt, answer, ended }
    };
    let all = [own(0, "ls -la --color", true), own(1, "git comm", false), own(2, "  ", true)];
    let (labels, skipped) = label_own(&teacher, &all, None, (8, usize::MAX), &NoProgress).unwrap();
    assert_eq!(skipped.len(), 1);
    for (own, labelled) in all.iter().zip(&labels.prompts) {
        assert_eq!((&own.answer, own.ended), (&labelled.answer, labelled.ended));
        let answered = teacher.chat.answered(&own.prompt, &own.answer).unwrap();
        let want = log_probs(&teacher, &answered.sequence);
        // What met its bound has no end of turn to be judged.
        let tokens = want.len() - usize::from(!own.ended);
        assert_eq!(labelled.tokens.len(), tokens);
        for (label, want) in labelled.tokens.iter().zip(want) {
            assert!((label.log_prob - want).abs() < 1e-3, "{} {want}", label.log_prob);
        }
    }
    assert_eq!(labels.prompts.len(), 2);
}

/// The teacher's nats a token of what it labelled.
fn surprise(labels: &Labels) -> f32 {
    let each = labels.prompts.iter().flat_map(|prompt| &prompt.tokens);
    -each.map(|token| token.log_prob).sum::<f32>() / labels.tokens() as f32
}

fn scored(own: &[Own]) -> Labels {
    label_own(&open("teacher"), own, None, (32, usize::MAX), &NoProgress).unwrap().0
}

#[test]
fn rounds_make_own_answers_likelier_to_the_teacher() {
    let (mut student, _) = distilled();
    let own = |student: &mut LoadedModel, seed| {
        scored(&own_answers(student, &asked(), (BOUNDS, sampling(1.0, seed)), &NoProgress).unwrap())
    };
    let before = surprise(&own(&mut student, 7));
    let recipe = short();
    for number in 0..5 {
        let labels = own(&mut student, number.into());
        let validation = std::slice::from_ref(&labels);
        let round =
            Round { own: &labels, validation, recipe: &recipe, rate: 2e-3, place: (number, 5) };
        let learned = learn(&mut student, &round, &NoProgress).unwrap();
        assert!(learned.steps > 0 && learned.pace.tokens > 0 && learned.loss.is_finite());
        // What is written is what hangs on the student.
        let mut other = open("student");
        load_adapter(&mut other, &learned.adapter).unwrap();
        assert!(close(&logits(&other), &logits(&student)));
    }
    let after = surprise(&own(&mut student, 7));
    assert!(after < before - 0.2, "{before} nats a token before, {after} after");
}

/// Rounds of a stage: what they began with, and the stage.
fn staged(rate: f64) -> (Distilled, Stage) {
    let (mut student, made) = distilled();
    let how = OnPolicy { rounds: 3, rate, ..OnPolicy::default() };
    let validation = std::slice::from_ref(&labels().0);
    let mut stage = Stage::after(&made, (how, &short()));
    while stage.next().is_some() {
        load_adapter(&mut student, stage.adapter()).unwrap();
        let own = stage.answers(&mut student, &asked(), BOUNDS, &NoProgress).unwrap();
        stage.learn(&mut student, (&scored(&own), validation), &NoProgress).unwrap();
    }
    (made, stage)
}

#[test]
fn a_stage_never_returns_a_worse_student_and_is_the_same_again() {
    let (made, stage) = staged(0.5);
    let rounds = stage.rounds().unwrap();
    assert_eq!(rounds.summary.before, made.summary.after);
    assert!(rounds.summary.after <= rounds.summary.before);
    assert_eq!(rounds.summary.best_epoch == 0, stage.best() == made.adapter);
    assert_ne!(stage.adapter(), made.adapter);
    // Judged on what it learned by heart, its own answers cannot help: two such rounds are enough.
    assert_eq!((rounds.rounds, rounds.summary.best_epoch), (2, 0));
    let (_, again) = staged(0.5);
    assert_eq!((stage.adapter(), Some(rounds)), (again.adapter(), again.rounds()));
}

#[test]
fn a_student_without_an_adapter_cannot_go_on() {
    let labels = &labels().0;
    let (recipe, validation) = (short(), std::slice::from_ref(labels));
    let round = Round { own: labels, validation, recipe: &recipe, rate: 1e-3, place: (0, 1) };
    let error = learn(&mut open("student"), &round, &NoProgress).unwrap_err();
    assert!(matches!(error, DistillError::Adapter(_)), "{error}");
}

#[test]
fn without_rounds_the_training_s_adapter_stays() {
    let (_, made) = distilled();
    let stage = Stage::after(&made, (OnPolicy::default(), &short()));
    assert_eq!((stage.next(), stage.rounds()), (None, None));
    assert_eq!(stage.best(), made.adapter);
}
