//! What a second version of a message takes, shown by a heartbeat of a later release: a structure
//! of its own, and an arm in [`Message::read`]. What was written in the first version is read as
//! before.

use crate::envelope::{Message, Unread, decode, encode, read_body, write_body};
use crate::{HeartbeatMessage, v1};
use serde::{Deserialize, Serialize};
use uspx_domain::Speaks;

/// The same noun, in a build that writes version 2.
#[derive(Debug, PartialEq)]
struct Later(HeartbeatMessage);

/// Version 2: memory in KiB, and one field for the program and its version.
#[derive(Serialize, Deserialize)]
struct Heartbeat2 {
    worker: uspx_domain::WorkerId,
    program: String,
    memory_kib: u64,
}

impl From<&HeartbeatMessage> for Heartbeat2 {
    fn from(message: &HeartbeatMessage) -> Self {
        Self {
            worker: message.worker.clone(),
            program: format!("uspx/{}", message.uspx_version),
            memory_kib: message.memory_bytes / 1024,
        }
    }
}

impl TryFrom<Heartbeat2> for HeartbeatMessage {
    type Error = Unread;
    fn try_from(message: Heartbeat2) -> Result<Self, Unread> {
        let version = message.program.strip_prefix("uspx/").ok_or(Unread::Unknown("a program"))?;
        Ok(Self {
            worker: message.worker,
            uspx_version: version.to_owned(),
            memory_bytes: message.memory_kib * 1024,
            ..bare()
        })
    }
}

impl Message for Later {
    const KIND: &'static str = HeartbeatMessage::KIND;
    const VERSION: u16 = 2;

    fn write(&self) -> Result<Vec<u8>, rmp_serde::encode::Error> {
        write_body(&Heartbeat2::from(&self.0))
    }

    fn read(version: u16, body: &[u8]) -> Result<Self, Unread> {
        let message = match version {
            1 => read_body::<v1::Heartbeat>(body)?.try_into(),
            2 => read_body::<Heartbeat2>(body)?.try_into(),
            _ => Err(Unread::Version),
        };
        message.map(Self)
    }
}

fn bare() -> HeartbeatMessage {
    HeartbeatMessage {
        worker: "w".parse().unwrap(),
        uspx_version: "0.1.0".into(),
        speaks: Speaks::default(),
        reads: [].into(),
        models: vec![],
        threads: 0,
        memory_bytes: 4 << 20,
        device: String::new(),
        current: None,
        beats: None,
        speed: None,
    }
}

#[test]
fn both_versions_are_read_as_the_same_noun() {
    let (first, second) = (encode(&bare()).unwrap(), encode(&Later(bare())).unwrap());
    assert_ne!(first, second);
    assert_eq!(decode::<Later>(&first), Ok(Later(bare())));
    assert_eq!(decode::<Later>(&second), Ok(Later(bare())));
    assert!(decode::<HeartbeatMessage>(&second).unwrap_err().is_not_spoken());
}
