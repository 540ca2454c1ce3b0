//! What a mask keeps or cuts. Everything that differs between kinds of unit stands in one row each.

use crate::{LayerShape, Statistic};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What there is to know of a kind of unit.
#[derive(Debug, Clone, Copy)]
pub struct UnitKindRow {
    /// Its name, in JSON and on the command line.
    pub name: &'static str,
    /// How many units a layer has.
    pub width: fn(&LayerShape) -> u32,
    /// The least that a mask must keep of a layer that has any.
    pub floor: fn(&LayerShape) -> u32,
    /// Whether a model has so many that deposits hold moments instead of a value per prompt.
    pub is_large: bool,
    /// The cheap scores that are ranked together: none of them is safe alone, and each sees what the
    /// others miss. The first is an effect in nats, which gives the sizes. Empty where nothing is
    /// known to rank such units by.
    pub ensemble: &'static [Statistic],
}

/// The kinds, their list and their rows, from one table.
macro_rules! unit_kinds {
    ($($(#[doc = $doc:literal])* $(#[cfg($cfg:meta)])? $kind:ident: $row:expr,)*) => {
        /// The kinds of unit.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
        )]
        #[serde(rename_all = "snake_case")]
        pub enum UnitKind {
            $($(#[doc = $doc])* $(#[cfg($cfg)])? $kind,)*
        }

        impl UnitKind {
            /// Every kind, in the order in which they are told.
            pub const ALL: &[Self] = &[$($(#[cfg($cfg)])? Self::$kind,)*];

            /// What there is to know of it.
            pub const fn row(self) -> &'static UnitKindRow {
                match self {
                    $($(#[cfg($cfg)])? Self::$kind => &$row,)*
                }
            }
        }
    };
}

unit_kinds! {
    /// One expert of a mixture-of-experts layer.
    Expert: UnitKindRow {
        name: "expert",
        width: |layer| layer.mlp.experts(),
        floor: |layer| layer.mlp.top_k(),
        is_large: false,
        ensemble: &[Statistic::EAP_IG_ABS, Statistic::EASY_EP, Statistic::REROUTE_ABS],
    },
    /// One query head's output, before the output projection.
    Head: UnitKindRow {
        name: "head",
        width: |layer| layer.heads,
        floor: |_| 0,
        is_large: false,
        ensemble: &[Statistic::EAP_IG_ABS, Statistic::ATP_ABS],
    },
    /// One hidden channel of a dense MLP.
    Channel: UnitKindRow {
        name: "channel",
        width: |layer| layer.mlp.dense_channels(),
        floor: |_| 0,
        is_large: true,
        ensemble: &[Statistic::ATP_ABS],
    },
    /// One hidden channel of one expert; its index is expert · channels of an expert + channel.
    ExpertChannel: UnitKindRow {
        name: "expert_channel",
        width: |layer| layer.mlp.expert_channels(),
        floor: |_| 0,
        is_large: true,
        ensemble: &[Statistic::ATP_ABS],
    },
    /// One feature of the sparse autoencoder that reads the residual stream after the layer.
    Feature: UnitKindRow {
        name: "feature",
        width: |layer| layer.features,
        floor: |_| 0,
        is_large: true,
        ensemble: &[Statistic::EAP_IG_ABS, Statistic::ATP_ABS],
    },
    /// For tests: all that it takes to add a kind.
    #[cfg(test)]
    Example: UnitKindRow {
        name: "example",
        width: |layer| layer.heads / 2,
        floor: |_| 1,
        is_large: false,
        ensemble: &[],
    },
}

impl UnitKind {
    /// Its name, in JSON and on the command line.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Whether deposits hold moments of such units instead of a value per prompt.
    pub fn is_large(self) -> bool {
        self.row().is_large
    }
}

impl fmt::Display for UnitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is not a kind of unit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a kind of unit: expert, head, channel, expert_channel and feature are")]
pub struct NotAUnitKind(pub String);

impl FromStr for UnitKind {
    type Err = NotAUnitKind;
    fn from_str(name: &str) -> Result<Self, NotAUnitKind> {
        let named = Self::ALL.iter().find(|kind| kind.name() == name).copied();
        named.ok_or_else(|| NotAUnitKind(name.to_owned()))
    }
}

/// One unit: its kind, its layer (from 0) and its index in the layer (from 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Unit {
    /// What kind of unit.
    pub kind: UnitKind,
    /// Its layer, from 0.
    pub layer: u32,
    /// Its index within the layer, from 0.
    pub index: u32,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}.{}", self.kind, self.layer, self.index)
    }
}

/// A name that is no unit's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no unit: write KIND:LAYER.INDEX, as expert:2.17")]
pub struct NotAUnit(String);

impl FromStr for Unit {
    type Err = NotAUnit;
    fn from_str(name: &str) -> Result<Self, NotAUnit> {
        let read = || {
            let (kind, place) = name.split_once(':')?;
            let (layer, index) = place.split_once('.')?;
            let (layer, index) = (layer.parse().ok()?, index.parse().ok()?);
            Some(Self { kind: kind.parse().ok()?, layer, index })
        };
        read().ok_or_else(|| NotAUnit(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MlpShape, ModelShape};

    #[test]
    fn a_unit_s_name_names_it() {
        for kind in UnitKind::ALL.iter().copied() {
            let unit = Unit { kind, layer: 3, index: 17 };
            assert_eq!(unit.to_string().parse(), Ok(unit));
        }
        for name in ["expert", "expert:3", "expert:3.x", "wheel:1.2", "expert:-1.2"] {
            assert_eq!(name.parse::<Unit>(), Err(NotAUnit(name.into())));
        }
    }

    #[test]
    fn names_are_those_that_serde_writes_and_differ() {
        for kind in UnitKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
            assert_eq!(kind.name().parse(), Ok(*kind));
        }
        assert!("neuron".parse::<UnitKind>().unwrap_err().to_string().contains("`neuron`"));
    }

    /// What adding a kind of unit takes: the row `Example` above.
    #[test]
    fn a_kind_of_unit_is_one_row() {
        let layer = LayerShape::new(8, MlpShape::Dense { channels: 3 });
        let shape = ModelShape { layers: vec![layer] };
        assert_eq!(shape.units(UnitKind::Example).count(), 4);
        assert_eq!((shape.floor(UnitKind::Example, 0), UnitKind::Example.is_large()), (1, false));
        assert!(UnitKind::ALL.contains(&UnitKind::Example));
    }
}
