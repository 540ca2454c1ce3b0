//! Models that are kept open fit into the machine's budget together, and what does not fit is the
//! machine's matter.

use std::path::{Path, PathBuf};
use tempfile::TempDir;
use uspx_domain::{FailureReason, Fingerprint};
use uspx_model::Holding;
use uspx_model::budget::{Demands, Plan, Workload};
use uspx_model::fingerprint;
use uspx_worker::holdings::Holdings;
use uspx_worker::open_models::OpenModels;
use uspx_worker::planning::Machine;

fn nano(which: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/nano").join(which)
}

fn of(which: &str) -> Fingerprint {
    fingerprint(&nano(which)).unwrap()
}

/// The shipped models on a machine with so many bytes.
fn models(memory: u64) -> (OpenModels, TempDir) {
    let scratch = tempfile::tempdir().unwrap();
    let holdings = Holdings::scan(&[nano("teacher"), nano("student")]).unwrap();
    let machine = Machine { memory: Some(memory), ..Machine::cpu() };
    (OpenModels::new(holdings, machine, scratch.path().to_owned()), scratch)
}

fn plan(which: &str, work: Workload, memory: u64) -> Option<Plan> {
    let demands = Demands::of_folder(&nano(which)).unwrap();
    Machine::cpu().plan(&demands, work, memory).ok()
}

/// The least budget for which `enough` holds.
fn least(enough: impl Fn(u64) -> bool) -> u64 {
    let (mut below, mut above) = (0, 64 << 30);
    while above - below > 1 {
        let middle = below + (above - below) / 2;
        if enough(middle) { above = middle } else { below = middle }
    }
    above
}

#[test]
fn models_stay_open_together_where_they_fit() {
    let (mut models, _scratch) = models(8 << 30);
    for which in ["student", "teacher", "student"] {
        let opened = models.get(of(which), Workload::Forward).unwrap();
        assert_eq!(opened.plan.holding, Holding::Stored);
        assert!(!opened.model.transformer.is_streamed());
    }
    assert_eq!(models.kept(), [of("teacher"), of("student")], "the one last used is last");
}

#[test]
fn the_one_longest_unused_is_closed_where_the_next_does_not_fit() {
    let held = |memory| {
        let plan = plan("teacher", Workload::Forward, memory);
        plan.is_some_and(|plan| plan.holding == Holding::Stored)
    };
    let (mut models, _scratch) = models(least(held) + (8 << 20));
    models.get(of("student"), Workload::Forward).unwrap();
    let opened = models.get(of("teacher"), Workload::Forward).unwrap();
    assert_eq!(opened.plan.holding, Holding::Stored);
    assert_eq!(models.kept(), [of("teacher")]);
}

#[test]
fn a_training_closes_what_is_in_its_way_and_takes_no_more_than_there_is() {
    let work = Workload::Training { batch_tokens: 1024, rank: 64 };
    let enough = least(|memory| plan("student", work, memory).is_some());
    let (mut models, _scratch) = self::models(enough);
    models.get(of("teacher"), Workload::Forward).unwrap();
    let (_student, plan) = models.fresh(of("student"), work).unwrap();
    assert_eq!((plan.holding, models.kept()), (Holding::Floats, vec![]));
    let (mut models, _scratch) = self::models(enough - 1);
    models.get(of("teacher"), Workload::Forward).unwrap();
    let error = models.fresh(of("student"), work).err().unwrap();
    assert_eq!(error.reason(), FailureReason::NoMemory);
    assert!(error.to_string().contains("MiB"), "{error}");
    assert_eq!(models.kept(), [of("teacher")], "nothing is closed in vain");
}

#[test]
fn what_does_not_fit_even_streamed_is_the_machines_matter() {
    let (mut models, _scratch) = models(1 << 20);
    let error = models.get(of("teacher"), Workload::Forward).err().unwrap();
    assert_eq!(error.reason(), FailureReason::NoMemory);
    assert_eq!(models.student(of("student")).err().unwrap().reason(), FailureReason::NoMemory);
}

/// With less to spend the same model is opened another way.
#[test]
fn work_that_needs_more_than_is_left_beside_the_weights_streams_them() {
    let held = |work: Workload, memory| {
        plan("teacher", work, memory).is_some_and(|plan| plan.holding == Holding::Stored)
    };
    let memory = least(|memory| held(Workload::Forward, memory));
    assert!(!held(Workload::Backward, memory));
    let (mut models, _scratch) = models(memory);
    for (work, streamed) in
        [(Workload::Forward, false), (Workload::Backward, true), (Workload::Forward, false)]
    {
        let opened = models.get(of("teacher"), work).unwrap();
        assert_eq!(opened.model.transformer.is_streamed(), streamed, "{work:?}");
    }
    assert_eq!(models.kept(), [of("teacher")]);
}
