//! What holds of any records, and of any bytes at all.

use super::places;
use super::sim::Sim;
use crate::ServiceError;
use crate::ledger::log::Log;
use proptest::collection::vec;
use proptest::prelude::*;

fn batches() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
    vec(vec(vec(any::<u8>(), 0..40), 0..4), 0..6)
}

/// A ledger of these batches; opened anew for each where told so.
fn written(batches: &[Vec<Vec<u8>>], anew: bool) -> Sim {
    let mut sim = Sim::empty();
    sim.open().unwrap();
    if anew {
        for batch in batches {
            Log::open(&mut sim, |_, _| Ok(())).unwrap().append(batch).unwrap();
        }
    } else {
        let mut log = Log::open(&mut sim, |_, _| Ok(())).unwrap();
        batches.iter().for_each(|batch| log.append(batch).unwrap());
    }
    sim
}

proptest! {
    #[test]
    fn records_come_back_in_order_with_their_numbers(batches in batches(), anew: bool) {
        let mut sim = written(&batches, anew);
        let mut read = Vec::new();
        let log = Log::open(&mut sim, |sequence, payload| {
            read.push((sequence, payload.to_vec()));
            Ok(())
        });
        let wanted: Vec<_> = (1..).zip(batches.concat()).collect();
        prop_assert_eq!(log.unwrap().sequence(), wanted.len() as u64);
        prop_assert_eq!(read, wanted);
    }

    #[test]
    fn how_records_were_appended_does_not_show(batches in batches()) {
        let (once, anew) = (written(&batches, false), written(&batches, true));
        let single: Vec<_> = batches.concat().into_iter().map(|record| vec![record]).collect();
        let single = written(&single, false);
        prop_assert_eq!(once.ledger(), anew.ledger());
        prop_assert_eq!(once.ledger(), single.ledger());
    }

    #[test]
    fn whatever_lies_beyond_the_head_is_kept_aside(batches in batches(), tail in vec(any::<u8>(), 1..200)) {
        let sim = written(&batches, false);
        let torn = [sim.ledger(), &tail].concat();
        let mut sim = Sim::holding([Some(torn), Some(sim.head().to_vec())]);
        let records = sim.open().unwrap();
        let next = records.len() as u64 + 1;
        prop_assert_eq!(records, batches.concat());
        prop_assert_eq!(&sim.aside, &[(next, tail)]);
        prop_assert_eq!(places(sim.ledger()).len() as u64, next - 1);
    }

    #[test]
    fn any_bytes_are_opened_or_refused(ledger in vec(any::<u8>(), 0..300), head in vec(any::<u8>(), 0..300), begun: bool) {
        let ledger = if begun { [&b"USPXLED2"[..], &ledger].concat() } else { ledger };
        let opened = Sim::holding([Some(ledger), Some(head)]).open();
        let refused = matches!(opened, Err(ServiceError::Damaged { .. } | ServiceError::NotALedger(_)));
        prop_assert!(refused || opened.is_ok_and(|records| records.is_empty()));
    }
}
