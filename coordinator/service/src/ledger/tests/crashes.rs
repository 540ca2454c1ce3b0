//! A crash after every single step of opening and appending, and a second one while the first is
//! mended: the ledger opens again, with every record whose append had returned.

use super::sim::Sim;
use crate::ServiceError;
use crate::ledger::frame::MAGIC;
use crate::ledger::log::Log;

/// What is appended, call by call.
const BATCHES: [&[&[u8]]; 4] = [&[b"first"], &[b"two", b"of one call"], &[b""], &[b"the last"]];

fn wanted() -> Vec<Vec<u8>> {
    BATCHES.concat().into_iter().map(<[u8]>::to_vec).collect()
}

/// Opens, appends everything, and counts the records whose append returned; none where it came to
/// its end.
fn live(sim: &mut Sim) -> (usize, Result<(), ServiceError>) {
    let mut kept = 0;
    let mut appended = || {
        let mut log = Log::open(&mut *sim, |_, _| Ok(()))?;
        for batch in BATCHES {
            log.append(batch)?;
            kept += batch.len();
        }
        Ok(())
    };
    let outcome = appended();
    (kept, outcome)
}

/// It opens with all that was kept and nothing that was never appended; what was cut off lies
/// aside; it goes on.
fn recovers(mut sim: Sim, kept: usize) {
    let (before, copies) = (sim.ledger().to_vec(), sim.aside.len());
    let mut records = sim.open().unwrap_or_else(|error| panic!("{error}: {sim:?}"));
    assert!(
        records.len() >= kept && wanted().starts_with(&records),
        "{kept} were kept: {records:?}"
    );
    if before.starts_with(MAGIC) {
        let cut: Vec<u8> =
            sim.aside[copies..].iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        assert_eq!([sim.ledger(), &cut].concat(), before);
    }
    Log::open(&mut sim, |_, _| Ok(())).unwrap().append(&[b"goes on"]).unwrap();
    records.push(b"goes on".to_vec());
    for mut found in sim.after_death(1) {
        assert_eq!(found.open().unwrap(), records);
    }
}

#[test]
fn a_crash_at_any_step_loses_nothing_that_was_appended() {
    let (mut steps, mut crashes) = (0, 0);
    loop {
        let mut sim = Sim::empty().dying_after(steps);
        let (kept, outcome) = live(&mut sim);
        for found in sim.after_death(1) {
            recovers(found, kept);
            crashes += 1;
        }
        if outcome.is_ok() {
            break;
        }
        steps += 1;
    }
    assert!(steps > 20 && crashes > 1000, "{crashes} crashes over {steps} steps");
}

#[test]
fn a_crash_while_a_crash_is_mended_loses_nothing_either() {
    let mut crashes = 0;
    for steps in 0..30 {
        let mut sim = Sim::empty().dying_after(steps);
        let (kept, _) = live(&mut sim);
        for found in sim.after_death(9) {
            for again in 0..8 {
                let mut dying = found.clone().dying_after(again);
                let _ = dying.open();
                for found in dying.after_death(17) {
                    recovers(found, kept);
                    crashes += 1;
                }
            }
        }
    }
    assert!(crashes > 10_000, "{crashes} crashes");
}

#[test]
fn after_a_failed_append_it_takes_no_more_until_it_is_opened_again() {
    let mut sim = Sim::empty();
    sim.open().unwrap();
    // The write is done, the sync is not.
    let mut sim = sim.dying_after(7);
    let mut log = Log::open(&mut sim, |_, _| Ok(())).unwrap();
    log.append(&[b"kept"]).unwrap();
    assert!(log.append(&[b"perhaps"]).is_err());
    let refused = log.append(&[b"never"]).unwrap_err().to_string();
    assert!(refused.contains("open it again"), "{refused}");
    let mut sim = sim.dying_after(usize::MAX);
    assert_eq!(sim.open().unwrap(), [&b"kept"[..], b"perhaps"]);
}
