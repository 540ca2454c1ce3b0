//! 1,000 random flips, cuts and zeroings of a ledger of real records in real files: each is refused
//! with its place, or a tail that was never synced and lies aside, or costs nothing. Never a silent
//! loss.

use super::{first_change, places, record_at};
use crate::ServiceError;
use crate::ledger::{Damage, Fault, Ledger, head_path, survey};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::collections::BTreeMap;
use std::path::Path;
use uspx_colony::{Ending, Record};

const RECORDS: usize = 300;
const TIMES: usize = 1000;

struct Dice(ChaCha8Rng);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        (self.0.next_u64() % bound.max(1) as u64) as usize
    }

    fn text(&mut self, longest: usize) -> String {
        (0..self.below(longest)).map(|_| char::from(b' ' + self.below(95) as u8)).collect()
    }

    fn record(&mut self) -> Record {
        let worker = || "worker-7".parse().unwrap();
        match self.below(4) {
            0 => Record::Quarantined { worker: worker(), reason: self.text(200) },
            1 => Record::Ended { ending: Ending::Failed(self.text(3000)) },
            2 => Record::Ended { ending: Ending::Refused(self.text(40)) },
            _ => Record::Published { release: self.0.next_u32().into() },
        }
    }

    /// One to eight bytes flipped, the end cut off, or a stretch zeroed.
    fn change(&mut self, bytes: &mut Vec<u8>) -> &'static str {
        let at = self.below(bytes.len());
        match self.below(3) {
            0 => {
                for _ in 0..=self.below(8) {
                    let at = self.below(bytes.len());
                    bytes[at] ^= 1 + self.below(255) as u8;
                }
                "flip"
            }
            1 => {
                bytes.truncate(at);
                "cut"
            }
            _ => {
                let end = (at + 1 + self.below(2000)).min(bytes.len());
                bytes[at..end].fill(0);
                "zeroing"
            }
        }
    }
}

/// A ledger: its records, its bytes, and the head after each append with the records synced then.
struct Whole {
    records: Vec<Record>,
    ledger: Vec<u8>,
    heads: Vec<(usize, Vec<u8>)>,
}

fn whole(path: &Path, records: Vec<Record>, dice: &mut Dice) -> Whole {
    let mut ledger = Ledger::open(path, |_| {}).unwrap();
    let (mut heads, mut synced) = (Vec::new(), 0);
    while synced < records.len() {
        let next = (synced + 1 + dice.below(6)).min(records.len());
        ledger.append(&records[synced..next]).unwrap();
        synced = next;
        heads.push((synced, std::fs::read(head_path(path)).unwrap()));
    }
    Whole { records, ledger: std::fs::read(path).unwrap(), heads }
}

/// What became of a changed ledger.
type Outcome = Result<Vec<Record>, Damage>;

/// Looks at it, which changes nothing, and opens it; both must say the same.
fn opened(path: &Path) -> Outcome {
    let before = std::fs::read(path).unwrap();
    let mut looked = Vec::new();
    let seen = survey(path, |r| looked.push(r));
    assert_eq!(std::fs::read(path).unwrap(), before);
    let mut records = Vec::new();
    match Ledger::open(path, |r| records.push(r)) {
        Ok(_) => {
            assert_eq!((seen.unwrap().records as usize, &looked), (records.len(), &records));
            Ok(records)
        }
        Err(ServiceError::Damaged { damage, .. }) => {
            assert_eq!(std::fs::read(path).unwrap(), before, "a refused ledger was changed");
            assert!(
                matches!(seen, Err(ServiceError::Damaged { damage: seen, .. }) if seen == damage)
            );
            Err(damage)
        }
        Err(other) => panic!("{other}"),
    }
}

fn aside(folder: &Path) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|p| p.display().to_string().contains(".tail-"))
        .map(|p| std::fs::read(p).unwrap())
        .collect()
}

impl Whole {
    /// A ledger changed at `changed`, with `synced` records below the head.
    fn judge(
        &self,
        folder: &Path,
        changed: &[u8],
        synced: usize,
        outcome: Outcome,
    ) -> &'static str {
        let Some(change) = first_change(&self.ledger, changed) else {
            assert_eq!(outcome.unwrap(), self.records);
            return "nothing changed";
        };
        let (sequence, at) = record_at(&places(&self.ledger), change);
        if change < 8 && changed.len() < 8 {
            let damage = outcome.unwrap_err();
            assert_eq!(damage, Damage { at: 8, sequence: 1, fault: Fault::Cut });
            return "refused with its place";
        }
        if sequence as usize <= synced {
            let damage = outcome.unwrap_err();
            assert_eq!(
                (damage.sequence, damage.at),
                (sequence, at),
                "{damage:?} for a change at {change}"
            );
            return "refused with its place";
        }
        assert_eq!(outcome.unwrap(), self.records[..sequence as usize - 1]);
        let tail = &changed[at as usize..];
        let copies: Vec<_> = (!tail.is_empty()).then(|| tail.to_vec()).into_iter().collect();
        assert_eq!(aside(folder), copies);
        "a tail, set aside"
    }

    /// A head changed somehow: one good slot is enough.
    fn judge_head(&self, folder: &Path, outcome: Outcome) -> &'static str {
        match outcome {
            Ok(records) => {
                assert_eq!((&records, aside(folder).len()), (&self.records, 0));
                "all records read"
            }
            Err(damage) => {
                assert_eq!(damage.fault, Fault::HeadBroken);
                "head refused"
            }
        }
    }

    fn befall(&self, dice: &mut Dice) -> (&'static str, &'static str) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let last = self.heads.len() - 1;
        // Half of the heads are behind, as a crash between the two files leaves them.
        let (synced, head) =
            &self.heads[if dice.below(2) == 0 { last } else { last - 1 - dice.below(20) }];
        let (mut ledger, mut head) = (self.ledger.clone(), head.clone());
        let of_head = dice.below(5) == 0;
        let kind = dice.change(if of_head { &mut head } else { &mut ledger });
        std::fs::write(&path, &ledger).unwrap();
        std::fs::write(head_path(&path), &head).unwrap();
        let outcome = opened(&path);
        match of_head {
            true => (kind, self.judge_head(dir.path(), outcome)),
            false => (kind, self.judge(dir.path(), &ledger, *synced, outcome)),
        }
    }
}

/// All that befalls a ledger, counted; each outcome is judged on the way.
fn befall(records: Vec<Record>, dice: &mut Dice) -> Whole {
    let dir = tempfile::tempdir().unwrap();
    let whole = whole(&dir.path().join("ledger"), records, dice);
    let mut table = BTreeMap::<_, usize>::new();
    for _ in 0..TIMES {
        *table.entry(whole.befall(dice)).or_default() += 1;
    }
    eprintln!("{} records in {} bytes: {table:#?}", whole.records.len(), whole.ledger.len());
    for kind in ["flip", "cut", "zeroing"] {
        for outcome in ["refused with its place", "a tail, set aside", "all records read"] {
            assert!(table.contains_key(&(kind, outcome)), "no {kind} ended with: {outcome}");
        }
    }
    whole
}

#[test]
fn a_thousand_flips_cuts_and_zeroings_are_never_a_silent_loss() {
    let mut dice = Dice(ChaCha8Rng::seed_from_u64(7));
    let records = (0..RECORDS).map(|_| dice.record()).collect();
    befall(records, &mut dice);
}

#[test]
fn a_thousand_flips_cuts_and_zeroings_of_the_frozen_ledger_are_never_a_silent_loss() {
    let whole = befall(super::frozen::records(), &mut Dice(ChaCha8Rng::seed_from_u64(11)));
    assert!(whole.ledger == super::frozen::bytes());
}
