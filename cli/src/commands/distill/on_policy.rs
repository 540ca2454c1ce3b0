//! The rounds after a training in which the student learns from its own answers. Teacher and student
//! are open in turn: together they might not fit into memory.

use super::Split;
use super::local::Local;
use crate::args::DistillArgs;
use crate::error::{CliError, Exit, Result};
use crate::models::Opened;
use crate::progress::Bar;
use crate::student;
use std::collections::HashSet;
use std::slice::from_ref;
use uspx_distill::on_policy::{Own, Stage};
use uspx_distill::{Labels, load_adapter};
use uspx_domain::Prompt;
use uspx_model::budget::Workload;
use uspx_runtime::Shutdown;

/// Makes all rounds. The trained adapter hangs on the student.
pub(super) fn rounds(
    args: &DistillArgs,
    (stage, work): (&mut Stage, Workload),
    (labels, mut student): (&Split<Labels>, Opened),
    shutdown: &Shutdown,
) -> Result<()> {
    let prompts = asked(&labels.train);
    while let Some(round) = stage.next() {
        let bar = |what: &str| Bar::new(&format!("round {round}, {what}"), args.run.json, shutdown);
        let bounds = args.run.bounds(args.max_new_tokens);
        let answering = bar("answering");
        let within = (bounds, student.room);
        let own = stage.answers(&mut student.model, &prompts, within, &answering)?;
        answering.finish();
        drop(student);
        let own = scored(args, &own, bar("labelling"), shutdown)?;
        student = student::open(&args.student, &args.run, work)?;
        load_adapter(&mut student.model, stage.adapter())?;
        let training = bar("training");
        stage.learn(&mut student.model, (&own, from_ref(&labels.validation)), &training)?;
        training.finish();
    }
    Ok(())
}

/// Each prompt of the lessons once: several may be answers to the same.
fn asked(labels: &Labels) -> Vec<Prompt> {
    let mut seen = HashSet::new();
    let prompts = labels.prompts.iter().map(|lesson| &lesson.prompt);
    prompts.filter(|p| seen.insert(p.digest())).cloned().collect()
}

/// What the teacher says of the student's answers.
fn scored(args: &DistillArgs, own: &[Own], bar: Bar, shutdown: &Shutdown) -> Result<Labels> {
    let Some(path) = &args.teacher else {
        let message = "a server's teacher cannot read the student's own answers";
        return Err(
            CliError::new(Exit::Usage, message).help("give --teacher, or leave --on-policy out")
        );
    };
    let labels = Local::open(path, args, shutdown)?.judged(own, &bar)?;
    bar.finish();
    Ok(labels)
}
