//! Numbers as one byte string, four little-endian bytes each: deposits have millions of them.

use crate::{Flaw, Unread};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Floats(ByteBuf);

impl From<&[f32]> for Floats {
    fn from(values: &[f32]) -> Self {
        Self(ByteBuf::from(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()))
    }
}

impl TryFrom<Floats> for Vec<f32> {
    type Error = Unread;
    fn try_from(floats: Floats) -> Result<Self, Unread> {
        let (values, rest) = floats.0.as_chunks::<4>();
        if rest.is_empty() {
            Ok(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
        } else {
            Err(Flaw::Fields.into())
        }
    }
}
