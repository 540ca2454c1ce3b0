//! Invariant 9, frozen bytes: what is written today equals what was written when the message was
//! released, and that still reads.
//!
//! Fixtures are never written anew by a test run. A message of a new kind or version gets its
//! files, once, from `cargo test -p uspx-wire --test invariant_9 -- --ignored`, which leaves files
//! alone that are there. `NAME-vN.bin` is the message, `NAME-vN.txt` the same for people (offset,
//! hexadecimal, characters).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod values;

use std::fmt::{Debug, Write as _};
use std::path::PathBuf;
use uspx_domain::Statistic;
use uspx_wire::{Message, decode, encode};

fn path(name: &str, version: u16, end: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(format!("{name}-v{version}.{end}"))
}

fn dump(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (row, chunk) in bytes.chunks(16).enumerate() {
        let hex: String = chunk.iter().map(|b| format!("{b:02x} ")).collect();
        let text: String =
            chunk.iter().map(|b| if b.is_ascii_graphic() { *b as char } else { '.' }).collect();
        writeln!(out, "{:06x}  {hex:<48} {text}", row * 16).unwrap();
    }
    out
}

fn holds<M: Message + PartialEq + Debug>(name: &str, value: &M) {
    let read = |end| {
        let path = path(name, M::VERSION, end);
        std::fs::read(&path)
            .unwrap_or_else(|e| panic!("{}: {e} (see the head of this file)", path.display()))
    };
    let frozen = read("bin");
    assert_eq!(
        decode::<M>(&frozen).unwrap(),
        *value,
        "{name}: frozen bytes read as something else"
    );
    let written = encode(value).unwrap();
    assert_eq!(
        dump(&written),
        dump(&frozen),
        "{name}: a frozen message is written otherwise: make a new version"
    );
    assert_eq!(
        String::from_utf8(read("txt")).unwrap(),
        dump(&frozen),
        "{name}: the readable twin is another message"
    );
}

fn write_if_missing<M: Message>(name: &str, value: &M) {
    let bytes = encode(value).unwrap();
    for (end, content) in [("bin", bytes.to_vec()), ("txt", dump(&bytes).into_bytes())] {
        let path = path(name, M::VERSION, end);
        if !path.exists() {
            std::fs::write(path, content).unwrap();
        }
    }
}

#[test]
fn invariant_9_every_statistic_is_in_a_fixture() {
    let frozen = values::frozen_statistics();
    let missing: Vec<_> = Statistic::ALL.iter().filter(|s| !frozen.contains(s)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn invariant_9_tasks_are_frozen() {
    values::tasks().iter().for_each(|(name, message)| holds(name, message));
}

#[test]
fn invariant_9_answers_are_frozen() {
    values::answers().iter().for_each(|(name, message)| holds(name, message));
}

#[test]
fn invariant_9_heartbeat_status_and_mask_are_frozen() {
    holds("heartbeat", &values::heartbeat());
    holds("heartbeat-speed", &values::heartbeat_with_speed());
    holds("heartbeat-losses", &values::heartbeat_with_losses());
    holds("heartbeat-ways", &values::heartbeat_with_ways());
    holds("status", &values::status());
    holds("status-reasons", &values::status_with_reasons());
    holds("status-seams", &values::status_with_seams());
    holds("status-campaign", &values::status_with_campaign());
    holds("status-students", &values::status_with_students());
    holds("status-wrong", &values::status_with_wrong());
    holds("status-drift", &values::status_with_drift());
    holds("mask", &values::mask_message());
}

#[test]
fn invariant_9_no_fixture_is_without_a_test() {
    let dir = path("x", 1, "bin").parent().unwrap().to_owned();
    let files = std::fs::read_dir(dir).unwrap().count();
    assert_eq!(files, 2 * (values::tasks().len() + values::answers().len() + 12));
}

#[test]
#[ignore = "writes the fixtures of new messages; never changes one that is there"]
fn write_missing_fixtures() {
    values::tasks().iter().for_each(|(name, message)| write_if_missing(name, message));
    values::answers().iter().for_each(|(name, message)| write_if_missing(name, message));
    write_if_missing("heartbeat", &values::heartbeat());
    write_if_missing("heartbeat-speed", &values::heartbeat_with_speed());
    write_if_missing("heartbeat-losses", &values::heartbeat_with_losses());
    write_if_missing("heartbeat-ways", &values::heartbeat_with_ways());
    write_if_missing("status", &values::status());
    write_if_missing("status-reasons", &values::status_with_reasons());
    write_if_missing("status-seams", &values::status_with_seams());
    write_if_missing("status-campaign", &values::status_with_campaign());
    write_if_missing("status-students", &values::status_with_students());
    write_if_missing("status-wrong", &values::status_with_wrong());
    write_if_missing("status-drift", &values::status_with_drift());
    write_if_missing("mask", &values::mask_message());
}
