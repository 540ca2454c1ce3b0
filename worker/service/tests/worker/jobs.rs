//! What a job tells of its prompts, on copies of the shipped models with another template.

use candle_core::{DType, Device};
use std::path::Path;
use tempfile::TempDir;
use uspx_domain::{
    Answers, Judge, Label, Outcome, Prompt, SkipReason, Skipped, Subject, Task, TaskId, Work,
};
use uspx_model::chat::Bounds;
use uspx_model::generate::fill_references;
use uspx_model::taps::NoTaps;
use uspx_model::{LoadedModel, NoProgress, Placement, fingerprint};
use uspx_worker::holdings::Holdings;
use uspx_worker::jobs::run;
use uspx_worker::open_models::OpenModels;
use uspx_worker::planning::Machine;
use uspx_worker::product::{Inputs, Product};

/// A shipped model in a folder of its own.
fn copied(which: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/nano").join(which);
    for entry in std::fs::read_dir(shipped).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

/// The same with this template.
fn changed(which: &str, template: &str) -> TempDir {
    let folder = copied(which);
    std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    folder
}

fn prompt(id: &str, text: &str, reference: Option<&str>) -> Prompt {
    let reference = reference.map(str::to_owned);
    Prompt { id: id.into(), prompt: text.into(), reference, ..Prompt::default() }
}

fn done(folder: &TempDir, work: Work<Prompt>) -> Product {
    let model = fingerprint(folder.path()).unwrap();
    let scratch = folder.path().join("scratch");
    let inputs = Inputs::new_in(&scratch).unwrap();
    let holdings = Holdings::scan(&[folder.path().to_owned()]).unwrap();
    let mut models = OpenModels::new(holdings, Machine::cpu(), scratch);
    let task = Task { id: TaskId::derived(b"t"), epoch: 1, model, work };
    run(&task, &mut models, &inputs, &NoProgress).unwrap().0
}

/// "l" and "s" are one token of the whole text; in use the model has read the one and has to emit
/// the other.
#[test]
fn prompts_with_a_seam_are_counted_among_those_that_can_be_run() {
    let template = "{% for m in messages %}{{ m.content }}{% endfor %}{{ eos_token if not add_generation_prompt }}";
    let student = changed("student", template);
    let prompts = vec![
        prompt("seam", "cd; l", Some("s")),
        prompt("none", "Type 1", Some("ls")),
        prompt("bare", "cd; l", None),
    ];
    let product = done(
        &student,
        Work::Judge(Judge { prompts, subject: Subject::Model, answers: Answers::default() }),
    );
    let Outcome::Losses(rows) = &product.outcome else { panic!("{:?}", product.outcome) };
    assert_eq!((rows[0].prompts.len(), product.seams), (2, 1));
    assert_eq!(product.skipped, [Skipped { id: "bare".into(), reason: SkipReason::NoReference }]);
}

/// Answers by another way: each prompt alone, through labels of prompts that have none.
fn own_answers(folder: &TempDir, prompts: &[Prompt], tokens: usize) -> Vec<Option<String>> {
    let floats = Placement::floats(DType::F32, &Device::Cpu);
    let model = LoadedModel::open(folder.path(), floats).unwrap();
    let bounds = Bounds::answer(tokens);
    let one = |prompt: &Prompt| {
        let mut open = [Prompt { reference: None, ..prompt.clone() }];
        let stop = &NoProgress;
        fill_references(&model, &mut open, bounds, usize::MAX, &mut NoTaps, stop).unwrap();
        open[0].reference.take()
    };
    prompts.iter().map(one).collect()
}

#[test]
fn a_judged_student_answers_right_where_its_own_answer_is_the_reference() {
    let student = copied("student");
    let mut prompts = crate::prompts(45);
    let own = own_answers(&student, &prompts, 12);
    // Every third has the student's own answer as its reference, among white space.
    for (prompt, answer) in prompts.iter_mut().zip(&own).step_by(3) {
        prompt.reference = answer.as_ref().map(|answer| format!(" {answer}\n"));
    }
    let same = |(prompt, answer): (&Prompt, &Option<String>)| {
        prompt.reference.as_deref().map(str::trim) == answer.as_deref().map(str::trim)
    };
    let expected: Vec<bool> = prompts.iter().zip(&own).map(same).collect();
    let answers = Answers { tokens: 12, reasoning: 12 };
    let judge =
        |answers| Work::Judge(Judge { prompts: prompts.clone(), subject: Subject::Model, answers });
    let Outcome::Losses(rows) = done(&student, judge(answers)).outcome else { panic!("no losses") };
    assert_eq!(rows[0].right, expected);
    assert!(expected.iter().filter(|right| **right).count() >= 15 && expected.contains(&false));
    let pace = rows[0].pace.unwrap();
    assert!(pace.is_possible(45) && (64..64 + 12).contains(&pace.tokens), "{pace:?}");
    let silent = done(&student, judge(Answers::default())).outcome;
    let Outcome::Losses(silent) = silent else { panic!("no losses") };
    assert!(silent[0].right.is_empty() && silent[0].pace.is_none());
    assert_eq!((&silent[0].nats, &silent[0].bytes), (&rows[0].nats, &rows[0].bytes));
}

/// The template leaves the channels to the model, so that the first tokens of its reply are not
/// answer yet.
#[test]
fn a_label_task_bounds_reasoning_as_it_says() {
    let template = "{% for m in messages %}<|start|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final{% endif %}\
         <|message|>{{ m.content }}{% if m.role == 'assistant' %}<|return|>{% else %}<|end|>{% endif %}{% endfor %}\
         {% if add_generation_prompt %}<|start|>assistant{% endif %}";
    let teacher = changed("teacher", template);
    let label = |max_reasoning_tokens| {
        let prompts = vec![prompt("asked", "List all files", None)];
        let bounds = Label { top_k: 4, max_new_tokens: 8, ..Label::of(prompts) };
        done(&teacher, Work::Label(Label { max_reasoning_tokens, ..bounds }))
    };
    for bound in [1, 2] {
        let product = label(bound);
        assert_eq!(
            product.skipped,
            [Skipped { id: "asked".into(), reason: SkipReason::Unfinished { tokens: bound } }]
        );
        assert!(matches!(product.outcome, Outcome::Labels { prompts: 0, .. }));
    }
}
