//! A mask: per kind and layer one bitmap, so that layers of ninety thousand units stay small.

use super::names::{known, name};
use super::status::MaskStatus;
use crate::{Flaw, Unread};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;
use uspx_domain::{Fingerprint, KeepLists, LayerLists};

/// More units in one mask's bitmaps are refused: a few bytes must not take all memory.
const MOST_UNITS: u64 = 1 << 26;

#[derive(Serialize, Deserialize)]
pub(crate) struct MaskMessage {
    status: MaskStatus,
    mask: Mask,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Mask {
    version: u32,
    model: Fingerprint,
    /// By kind of unit, layer by layer; all of the other kinds stay.
    keep: BTreeMap<String, Vec<Kept>>,
}

one_of! {
    /// What a layer keeps.
    Kept { Bits(Bits) = "bits", List(Vec<u32>) = "list", }
}

/// Bit i of the bytes, the lowest of a byte first, says whether unit i stays.
#[derive(Serialize, Deserialize)]
pub(crate) struct Bits {
    /// Units up to the last that stays.
    width: u32,
    bytes: ByteBuf,
}

/// A bitmap, except where the list is shorter, or is none of ascending indices.
impl From<&Vec<u32>> for Kept {
    fn from(list: &Vec<u32>) -> Self {
        let width = list.last().map_or(0, |last| u64::from(*last) + 1);
        let ascends = list.is_sorted_by(|a, b| a < b);
        match u32::try_from(width) {
            Ok(width) if ascends && width.div_ceil(8) as usize <= 5 * list.len() => {
                Self::Bits(bits(list, width))
            }
            _ => Self::List(list.clone()),
        }
    }
}

fn bits(list: &[u32], width: u32) -> Bits {
    let mut bytes = vec![0u8; width.div_ceil(8) as usize];
    for index in list {
        if let Some(byte) = bytes.get_mut((index / 8) as usize) {
            *byte |= 1 << (index % 8);
        }
    }
    Bits { width, bytes: ByteBuf::from(bytes) }
}

impl Kept {
    fn units(&self) -> u64 {
        if let Self::Bits(bits) = self { u64::from(bits.width) } else { 0 }
    }
}

impl TryFrom<Kept> for Vec<u32> {
    type Error = Unread;
    fn try_from(kept: Kept) -> Result<Self, Unread> {
        match kept {
            Kept::List(list) => Ok(list),
            Kept::Bits(bits) => bits.indices(),
            Kept::Unknown => Err(Unread::Unknown("a form of mask")),
        }
    }
}

impl Bits {
    /// The units that stay; refused where the bytes are not as many as the width takes, or go
    /// beyond it.
    fn indices(&self) -> Result<Vec<u32>, Unread> {
        let is_set = |at: &u32| {
            self.bytes.get((*at / 8) as usize).is_some_and(|byte| byte >> (at % 8) & 1 == 1)
        };
        let set: u32 = self.bytes.iter().map(|byte| byte.count_ones()).sum();
        let kept: Vec<u32> = if self.bytes.len() == self.width.div_ceil(8) as usize {
            (0..self.width).filter(is_set).collect()
        } else {
            return Err(Flaw::Fields.into());
        };
        if kept.len() == set as usize { Ok(kept) } else { Err(Flaw::Fields.into()) }
    }
}

impl From<&uspx_domain::Mask> for Mask {
    fn from(mask: &uspx_domain::Mask) -> Self {
        let keep = mask.keep.0.iter().map(|(kind, lists)| (name(*kind), super::all(lists)));
        Self { version: mask.version, model: mask.model, keep: keep.collect() }
    }
}

impl TryFrom<Mask> for uspx_domain::Mask {
    type Error = Unread;
    fn try_from(mask: Mask) -> Result<Self, Unread> {
        let units: u64 = mask.keep.values().flatten().map(Kept::units).sum();
        if units > MOST_UNITS {
            return Err(Flaw::Fields.into());
        }
        let lists = |(kind, layers): (String, Vec<Kept>)| -> Result<_, Unread> {
            let lists: LayerLists = super::try_all(layers)?;
            Ok((known(&kind)?, lists))
        };
        let keep = KeepLists(mask.keep.into_iter().map(lists).collect::<Result<_, _>>()?);
        Ok(Self { version: mask.version, model: mask.model, keep })
    }
}

impl From<&crate::MaskMessage> for MaskMessage {
    fn from(message: &crate::MaskMessage) -> Self {
        Self { status: message.status, mask: (&message.mask).into() }
    }
}

impl TryFrom<MaskMessage> for crate::MaskMessage {
    type Error = Unread;
    fn try_from(message: MaskMessage) -> Result<Self, Unread> {
        Ok(Self { status: message.status, mask: message.mask.try_into()? })
    }
}
