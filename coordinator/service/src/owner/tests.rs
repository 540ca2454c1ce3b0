//! Claims under a paused clock: who waits, who refuses, who finds out.

use super::*;
use gate::{Gate, Mode};
use uspx_bus::EmbeddedBus;

#[path = "../../tests/owner/gate.rs"]
#[allow(dead_code)]
mod gate;

const TAKEOVER: Duration = Duration::from_secs(60);

fn bus() -> Arc<dyn Bus> {
    Arc::new(EmbeddedBus::new())
}

async fn try_claim(bus: &Arc<dyn Bus>, ledger: &str) -> Result<Arc<Owner>, ServiceError> {
    let claimed = claim(bus, ledger, TAKEOVER, &Shutdown::new()).await?;
    Ok(Arc::new(claimed.expect("the end was not asked for")))
}

async fn owner(bus: &Arc<dyn Bus>, ledger: &str) -> Arc<Owner> {
    try_claim(bus, ledger).await.unwrap_or_else(|e| panic!("{e}"))
}

/// An owner that renews its claim, as a service does.
fn keeping(owner: &Arc<Owner>) -> tokio::task::JoinHandle<ServiceError> {
    let owner = owner.clone();
    tokio::spawn(async move { owner.keep().await })
}

fn is_replaced(outcome: Result<(), ServiceError>) -> bool {
    matches!(outcome, Err(ServiceError::Replaced { .. }))
}

#[tokio::test(start_paused = true)]
async fn a_second_ledger_refuses_and_names_the_first() {
    let bus = bus();
    let first = owner(&bus, "one").await;
    let alive = keeping(&first);
    let asked = Instant::now();
    let error = try_claim(&bus, "two").await.err().expect("refused").to_string();
    assert!(asked.elapsed() < TAKEOVER / 4, "said soon: {:?}", asked.elapsed());
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    for part in [&host, &std::process::id().to_string(), "since 20", "stop that one"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    tokio::time::sleep(TAKEOVER * 10).await;
    assert!(try_claim(&bus, "two").await.is_err());
    assert!(!alive.is_finished() && first.confirm().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_colony_of_a_dead_owner_is_taken_over_after_the_wait() {
    let bus = bus();
    let first = owner(&bus, "one").await;
    tokio::time::sleep(TAKEOVER / 2).await;
    let asked = Instant::now();
    let second = owner(&bus, "two").await;
    assert!(asked.elapsed() >= TAKEOVER, "by its own clock: {:?}", asked.elapsed());
    assert!(asked.elapsed() < TAKEOVER + TAKEOVER / 10, "{:?}", asked.elapsed());
    assert_eq!((first.claim.epoch, second.claim.epoch), (1, 2));
    // The first was not dead, but stopped. It settles nothing more, and ends.
    assert!(is_replaced(first.confirm().await));
    assert!(is_replaced(Err(first.keep().await)));
    second.confirm().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_longer_of_both_waits_counts() {
    let bus = bus();
    let long = claim(&bus, "one", TAKEOVER * 3, &Shutdown::new()).await.unwrap();
    drop(long);
    let asked = Instant::now();
    owner(&bus, "two").await;
    assert!(asked.elapsed() >= TAKEOVER * 3, "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_same_ledger_takes_over_at_once() {
    let bus = bus();
    let first = owner(&bus, "one").await;
    let asked = Instant::now();
    let again = owner(&bus, "one").await;
    assert_eq!(asked.elapsed(), Duration::ZERO);
    assert_eq!(again.claim.epoch, 2);
    tokio::time::sleep(TAKEOVER / TRUSTED).await;
    assert!(is_replaced(first.confirm().await));
}

#[tokio::test(start_paused = true)]
async fn a_released_claim_is_free_and_its_epoch_goes_on() {
    let bus = bus();
    owner(&bus, "one").await.release().await;
    let asked = Instant::now();
    let second = owner(&bus, "two").await;
    assert_eq!((asked.elapsed(), second.claim.epoch), (Duration::ZERO, 2));
}

#[tokio::test(start_paused = true)]
async fn of_many_at_once_one_wins() {
    let bus = bus();
    let tries = (0..16).map(|n| {
        let bus = bus.clone();
        tokio::spawn(async move {
            let won = try_claim(&bus, &format!("ledger {n}")).await;
            match won {
                Ok(owner) => Some(keeping(&owner)),
                Err(ServiceError::Owned { .. }) => None,
                Err(error) => panic!("{error}"),
            }
        })
    });
    let tries: Vec<_> = tries.collect();
    let mut winners = 0;
    for one in tries {
        winners += usize::from(one.await.unwrap().is_some());
    }
    assert_eq!(winners, 1);
}

#[tokio::test(start_paused = true)]
async fn an_owner_lives_through_an_outage_and_looks_before_it_settles() {
    let bus = bus();
    let gate = Gate::before(&bus);
    let behind: Arc<dyn Bus> = gate.clone();
    let first = owner(&behind, "one").await;
    let alive = keeping(&first);
    gate.set(Mode::Away);
    tokio::time::sleep(TAKEOVER * 5).await;
    assert!(!alive.is_finished(), "it goes on");
    assert!(matches!(first.confirm().await, Err(ServiceError::Bus(_))), "it cannot know");
    gate.set(Mode::Open);
    first.confirm().await.unwrap();
    // Away alone: meanwhile another one takes over.
    gate.set(Mode::Away);
    owner(&bus, "two").await;
    gate.set(Mode::Open);
    assert!(is_replaced(first.confirm().await));
    assert!(is_replaced(Err(alive.await.unwrap())));
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_is_not_trusted_either() {
    let bus = bus();
    let gate = Gate::before(&bus);
    let behind: Arc<dyn Bus> = gate.clone();
    let first = owner(&behind, "one").await;
    gate.set(Mode::Away);
    assert!(first.confirm().await.is_err());
    let (_, revision) = bus.get_revision(OWNER).await.unwrap().unwrap();
    let _ = bus.swap(OWNER, Some(revision), "another's".into()).await.unwrap();
    gate.set(Mode::Open);
    assert!(is_replaced(first.confirm().await), "within the time of trust");
}

#[tokio::test(start_paused = true)]
async fn a_challenger_counts_no_time_in_which_it_saw_nothing() {
    let bus = bus();
    let gate = Gate::before(&bus);
    drop(owner(&bus, "one").await);
    let behind: Arc<dyn Bus> = gate.clone();
    let second = tokio::spawn(async move { owner(&behind, "two").await });
    tokio::time::sleep(TAKEOVER - TAKEOVER / 10).await;
    gate.set(Mode::Away);
    tokio::time::sleep(TAKEOVER / 10).await;
    gate.set(Mode::Open);
    tokio::time::sleep(TAKEOVER - TAKEOVER / 10).await;
    assert!(!second.is_finished());
    let back = Instant::now();
    second.await.unwrap();
    assert!(back.elapsed() <= TAKEOVER / 5, "{:?}", back.elapsed());
}

#[tokio::test(start_paused = true)]
async fn without_room_for_a_renewal_what_is_read_counts_once() {
    let bus = bus();
    let gate = Gate::before(&bus);
    let behind: Arc<dyn Bus> = gate.clone();
    let first = owner(&behind, "one").await;
    gate.set(Mode::NoRoom);
    tokio::time::sleep(TAKEOVER).await;
    first.confirm().await.unwrap();
    first.confirm().await.unwrap();
    let (_, revision) = bus.get_revision(OWNER).await.unwrap().unwrap();
    let _ = bus.swap(OWNER, Some(revision), "another's".into()).await.unwrap();
    assert!(is_replaced(first.confirm().await));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_was_stored_unheard_is_no_other_owner() {
    let bus = bus();
    let first = owner(&bus, "one").await;
    bus.put(OWNER, first.value.clone()).await.unwrap();
    tokio::time::sleep(TAKEOVER).await;
    first.confirm().await.unwrap();
    first.confirm().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_asked_for_ends_the_wait() {
    let bus = bus();
    drop(owner(&bus, "one").await);
    let end = Shutdown::new();
    let asking = end.clone();
    tokio::spawn(async move {
        tokio::time::sleep(TAKEOVER / 2).await;
        asking.cancel();
    });
    assert!(claim(&bus, "two", TAKEOVER, &end).await.unwrap().is_none());
}

#[test]
fn a_ledger_keeps_its_name() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let id = ledger_id(one.path()).unwrap();
    assert_eq!(ledger_id(one.path()).unwrap(), id);
    assert_ne!(ledger_id(two.path()).unwrap(), id);
    std::fs::write(one.path().join(ID_FILE), "").unwrap();
    assert_ne!(ledger_id(one.path()).unwrap(), "", "one that was torn is made anew");
}

/// A snapshot takes along what was issued since the one before it: an answer that comes late is
/// still this ledger's, live and after a start alike.
#[test]
fn tasks_issued_lately_outlive_a_snapshot() {
    let task = |n: u8| uspx_domain::TaskId::derived(&[n]);
    let opened = |n: u8| {
        let model = uspx_domain::Fingerprint(uspx_domain::Digest::of(b"m"));
        let purpose = uspx_colony::Purpose::Evidence;
        let ablate = uspx_domain::Ablate { prompts: vec![], cuts: vec![] };
        let work = uspx_domain::Work::Ablate(ablate);
        let planned =
            uspx_colony::PlannedTask { id: task(n), epoch: 1, index: 0, model, purpose, work };
        let (epoch, stage) = (1, uspx_colony::Stage::Explore);
        Record::EpochOpened { epoch, stage, tasks: vec![planned] }
    };
    let snapshot = |issued: &Issued| {
        let state = State::default();
        let lately = issued.lately(&state);
        let snapshot = uspx_colony::Snapshot::of(1, &state, lately).unwrap();
        Record::Snapshot(Box::new(snapshot))
    };
    let mut live = Issued::default();
    live.note(&opened(1));
    let first = snapshot(&live);
    live.note(&first);
    live.note(&opened(2));
    assert!(live.contains(task(1)) && live.contains(task(2)));
    let mut started = Issued::default();
    [&first, &opened(2)].into_iter().for_each(|record| started.note(record));
    assert!(started.contains(task(1)) && started.contains(task(2)));
    let second = snapshot(&live);
    assert_eq!(second, snapshot(&started));
    live.note(&second);
    assert!(!live.contains(task(1)) && live.contains(task(2)), "not for ever");
}
