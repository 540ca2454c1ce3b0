//! Generated answers: who is asked for them, what is refused of them, and what they do to the gate and
//! the report.

use crate::world::*;
use uspx_colony::advice::{Advice, advise};
use uspx_colony::*;
use uspx_domain::*;

/// The tasks that judge students, by contender.
fn judgements(service: &Service) -> Vec<(Contender, PlannedTask)> {
    let opened = service.ledger.iter().filter_map(|record| match record {
        Record::EpochOpened { stage: Stage::JudgeStudents, tasks, .. } => Some(tasks.clone()),
        _ => None,
    });
    let who = |task: PlannedTask| match task.purpose {
        Purpose::Contender(who) => (who, task),
        _ => panic!("{task:?}"),
    };
    opened.flatten().map(who).collect()
}

fn answering(right: Option<(u32, u32)>) -> (Service, World) {
    let mut world = World::new(campaign("answers"));
    (world.config.distil.max_new_tokens, world.config.distil.max_reasoning_tokens) = (7, 77);
    world.right = right;
    (run(&world), world)
}

#[test]
fn those_answer_that_people_would_use() {
    let (service, _) = answering(Some((30, 60)));
    let judged = judgements(&service);
    for (who, task) in &judged {
        let Work::Judge(judge) = &task.work else { panic!("{task:?}") };
        let asked = !matches!(who, Contender::Distilled(_));
        let wanted = Answers { tokens: 7, reasoning: 77 };
        assert_eq!(judge.answers, if asked { wanted } else { Answers::default() }, "{who:?}");
        assert_eq!(task.work.name(), if asked { "answer" } else { "judge" });
    }
    let of = |wanted| judged.iter().any(|(who, _)| *who == wanted);
    assert!(of(Contender::Teacher) && of(Contender::Base) && of(Contender::Distilled(0)));
    assert!(ExportFormat::ALL.iter().all(|format| of((*format).into())));
}

#[test]
fn a_student_that_surely_answers_fewer_prompts_right_is_refused() {
    let (service, world) = answering(Some((70, 30)));
    let state = service.colony.state();
    let gate = state.gate().unwrap();
    assert!(gate.difference.upper < 0.0, "it is better in bits");
    let answers = gate.answers.unwrap();
    assert!(answers.is_surely_worse() && answers.prompts == gate.prompts, "{answers:?}");
    let Some(Ending::Refused(why)) = &service.ending else { panic!("{:?}", service.ending) };
    assert!(why.contains("fewer prompts with their reference"), "{why}");
    for (tag, report) in &gate.tags {
        let of = report.answers.unwrap();
        assert_eq!(of.prompts, report.prompts, "{tag}");
    }
    assert_eq!(gate.tags["all"].answers, Some(answers));
    let figures = report(state).unwrap();
    let lost = figures.regressions.clone().unwrap().lost.unwrap();
    let net = (f64::from(lost.won) - f64::from(lost.prompts)) / f64::from(answers.prompts);
    assert!((net - answers.difference.mean).abs() < 1e-12);
    assert_eq!(lost.named.len(), 10);
    let (new, old) = (ExportFormat::gated().into(), Contender::Base);
    for id in &lost.named {
        let at = world.config.prompts.iter().position(|p| p.id == *id).unwrap() as u32;
        let right = |who| state.judged(who).unwrap()[&at].right;
        assert_eq!((right(new), right(old)), (Some(false), Some(true)));
    }
    assert!(matches!(advise(&figures, 0.02)[..], [Advice::Answers { .. }]));
}

#[test]
fn the_report_counts_right_answers_and_tells_the_pace() {
    let (service, _) = answering(Some((30, 60)));
    assert_eq!(service.ending, Some(Ending::Published(1)));
    let state = service.colony.state();
    let figures = report(state).unwrap();
    assert_eq!(figures.answered_prompts, 80);
    let base = state.judged(Contender::Base).unwrap();
    let share = |rows: &std::collections::BTreeMap<u32, state::Judged>| {
        rows.values().filter(|j| j.right == Some(true)).count() as f64 / rows.len() as f64
    };
    for student in &figures.students {
        let rows = state.judged(student.contender).unwrap();
        if let Contender::Distilled(_) = student.contender {
            assert_eq!((student.exact_match, student.tokens_per_second), (None, None));
            assert_eq!((student.exact_against_base, student.bytes), (None, None));
            continue;
        }
        let (found, (low, high)) =
            (student.exact_match.unwrap(), student.exact_match_interval.unwrap());
        assert!((found - share(rows)).abs() < 1e-12 && low < found && found < high, "{student:?}");
        let is_base = student.contender == Contender::Base;
        let against = student.exact_against_base.map(|d| d.mean);
        assert_eq!(against.is_none(), is_base);
        assert!(against.is_none_or(|d| (d - (found - share(base))).abs() < 1e-12));
        let pace = student.tokens_per_second.unwrap();
        assert!((pace - if is_base { 30.0 } else { 60.0 }).abs() < 1e-3, "{pace}");
        let exported = matches!(student.contender, Contender::Exported(_));
        assert_eq!(student.bytes.is_some(), exported);
    }
}

/// Workers of earlier releases tell losses alone, and ledgers from before have no answers.
#[test]
fn without_answers_everything_is_as_it_was() {
    let (service, _) = answering(None);
    assert_eq!(service.ending, Some(Ending::Published(1)));
    let state = service.colony.state();
    let gate = state.gate().unwrap();
    assert!(gate.answers.is_none() && gate.tags.values().all(|tag| tag.answers.is_none()));
    let figures = report(state).unwrap();
    assert_eq!((figures.answered_prompts, figures.regressions.unwrap().lost), (0, None));
    assert!(figures.students.iter().all(|s| s.exact_match.is_none()));
    // Nothing of it is written, so that what was written before reads and is written as it was.
    let told = |bytes: &[u8], word: &str| bytes.windows(word.len()).any(|w| w == word.as_bytes());
    let gate = rmp_serde::to_vec_named(gate).unwrap();
    let results = rmp_serde::to_vec_named(state.judged(Contender::Base).unwrap()).unwrap();
    assert!(!told(&gate, "answers") && !told(&results, "right"));
    assert_eq!(rmp_serde::from_slice::<GateReport>(&gate).unwrap(), *state.gate().unwrap());
    let mut replayed = State::default();
    service.ledger.iter().for_each(|record| replayed.fold(record));
    assert_eq!(replayed.digest().unwrap(), state.digest().unwrap());
}

#[test]
fn answers_that_do_not_fit_are_refused() {
    let (service, world) = answering(Some((30, 60)));
    let judged = judgements(&service);
    let of = |wanted| judged.iter().find(|(who, _)| *who == wanted).unwrap().1.clone();
    let check = |who, change: &dyn Fn(&mut LossRow)| {
        let task = of(who);
        let Outcome::Losses(mut rows) = world.outcome(&task) else { panic!("{task:?}") };
        change(&mut rows[0]);
        let ids = task.work.prompts().iter().filter_map(|at| world.config.id(*at)).collect();
        let asked = Asked { ids, shape: &shape() };
        task.work.job().check(&asked, &Outcome::Losses(rows))
    };
    let (base, adapted) = (Contender::Base, Contender::Distilled(0));
    assert_eq!(check(base, &|_| {}), Ok(()));
    let none = |row: &mut LossRow| (row.right, row.pace) = (vec![], None);
    assert_eq!(check(base, &none), Ok(()), "it could not answer");
    let count = |got, want| Err(Refusal::Count { what: "answers", got, want });
    assert_eq!(check(base, &|row| row.right.truncate(79)), count(79, 80));
    assert_eq!(check(adapted, &|row| row.right = vec![true; 80]), count(80, 0));
    let pace = Err(Refusal::Value("the pace of answers"));
    assert_eq!(check(adapted, &|row| row.pace = Some(Pace { tokens: 1, micros: 1 })), pace);
    for (tokens, micros) in [(0, 5), (5, 0), (u64::MAX, 5), (5, u64::MAX)] {
        assert_eq!(check(base, &|row| row.pace = Some(Pace { tokens, micros })), pace);
    }
}
