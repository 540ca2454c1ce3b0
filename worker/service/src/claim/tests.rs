//! The claim on the embedded bus, with time that stands still until somebody waits.

use super::*;
use std::path::PathBuf;
use tempfile::{TempDir, tempdir};
use uspx_bus::EmbeddedBus;

fn bus() -> Arc<dyn Bus> {
    Arc::new(EmbeddedBus::default())
}

fn settings(state: &Path) -> WorkerSettings {
    WorkerSettings::on_cpu("box".parse().unwrap(), Vec::<PathBuf>::new(), state.to_owned())
}

/// A worker at a state folder of its own.
fn started(bus: &Arc<dyn Bus>) -> (TempDir, Seat, Name) {
    let folder = tempdir().unwrap();
    let seat = Seat::take(folder.path()).unwrap();
    let name = Name::new(bus.clone(), &settings(folder.path()), &seat);
    (folder, seat, name)
}

#[tokio::test(start_paused = true)]
async fn the_second_of_a_name_that_lives_refuses_and_names_the_first() {
    let (bus, shutdown) = (bus(), Shutdown::new());
    let (_one, _seat, first) = started(&bus);
    assert!(first.take(&shutdown).await.unwrap());
    let (_two, _other, second) = started(&bus);
    let error = tokio::select! {
        error = first.keep() => panic!("the first has lost its name: {error}"),
        taken = second.take(&shutdown) => taken.unwrap_err().to_string(),
    };
    assert!(error.contains("box") && error.contains(&format!("process {}", std::process::id())));
    assert!(error.contains(&host::name()), "{error}");
}

#[tokio::test(start_paused = true)]
async fn one_that_let_go_is_followed_at_once_and_one_that_died_after_a_while() {
    let (bus, shutdown) = (bus(), Shutdown::new());
    let (_one, _seat, first) = started(&bus);
    assert!(first.take(&shutdown).await.unwrap());
    first.release().await;
    let start = Instant::now();
    let (_two, _other, second) = started(&bus);
    assert!(second.take(&shutdown).await.unwrap());
    assert_eq!(start.elapsed(), Duration::ZERO);
    drop(second);
    let (_three, _third, third) = started(&bus);
    assert!(third.take(&shutdown).await.unwrap());
    let waited = start.elapsed();
    assert!(waited >= third.claim.takeover() && waited < third.claim.takeover() * 2, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn the_same_state_folder_goes_on_at_once_and_the_one_before_ends() {
    let (bus, shutdown) = (bus(), Shutdown::new());
    let (folder, seat, killed) = started(&bus);
    assert!(killed.take(&shutdown).await.unwrap());
    assert!(matches!(Seat::take(folder.path()), Err(WorkerError::Busy(_))));
    drop(seat);
    let again = Seat::take(folder.path()).unwrap();
    let again = Name::new(bus, &settings(folder.path()), &again);
    let start = Instant::now();
    assert!(again.take(&shutdown).await.unwrap());
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(matches!(killed.keep().await, WorkerError::Taken { .. }));
    let kept = tokio::time::timeout(Duration::from_secs(60), again.keep()).await;
    assert!(kept.is_err(), "the one that runs keeps its name");
}

#[tokio::test(start_paused = true)]
async fn another_name_is_nobody_s_concern_and_the_end_ends_the_waiting() {
    let (bus, shutdown) = (bus(), Shutdown::new());
    let (_one, _seat, first) = started(&bus);
    assert!(first.take(&shutdown).await.unwrap());
    let folder = tempdir().unwrap();
    let seat = Seat::take(folder.path()).unwrap();
    let other = WorkerSettings { id: "box2".parse().unwrap(), ..settings(folder.path()) };
    assert!(Name::new(bus.clone(), &other, &seat).take(&shutdown).await.unwrap());
    let (_two, _other, second) = started(&bus);
    shutdown.cancel();
    assert!(!second.take(&shutdown).await.unwrap());
}
