//! Where in a model an SAE sits, under TransformerLens' names.

use serde::{Deserialize, Serialize};

/// A site whose value is `[tokens, hidden]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Site {
    /// The residual stream that enters the layer.
    ResidPre,
    /// The one between its attention and its MLP.
    ResidMid,
    /// The one that leaves the layer.
    ResidPost,
    /// What its attention adds to the stream.
    AttnOut,
    /// What its MLP adds.
    MlpOut,
}

impl Site {
    /// All of them, in forward order.
    pub const ALL: [Self; 5] =
        [Self::ResidPre, Self::AttnOut, Self::ResidMid, Self::MlpOut, Self::ResidPost];

    /// Its name here: `resid-post`.
    pub fn name(self) -> &'static str {
        match self {
            Self::ResidPre => "resid-pre",
            Self::ResidMid => "resid-mid",
            Self::ResidPost => "resid-post",
            Self::AttnOut => "attn-out",
            Self::MlpOut => "mlp-out",
        }
    }
}

/// A site of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Layer, from 0.
    pub layer: usize,
    /// Which value of it.
    pub site: Site,
}

impl Place {
    /// TransformerLens' name: `blocks.2.hook_resid_post`.
    pub fn hook_name(self) -> String {
        format!("blocks.{}.hook_{}", self.layer, self.site.name().replace('-', "_"))
    }

    /// The place of such a name; none of a name that means no place here.
    pub fn of_hook(name: &str) -> Option<Self> {
        let (layer, site) = name.strip_prefix("blocks.")?.split_once(".hook_")?;
        let layer = layer.parse().ok()?;
        let site = Site::ALL.into_iter().find(|s| s.name().replace('-', "_") == site)?;
        Some(Self { layer, site })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_transformer_lens_and_come_back() {
        let place = Place { layer: 12, site: Site::AttnOut };
        assert_eq!(place.hook_name(), "blocks.12.hook_attn_out");
        for site in Site::ALL {
            let place = Place { layer: 3, site };
            assert_eq!(Place::of_hook(&place.hook_name()), Some(place));
            assert_eq!(serde_json::to_value(site).unwrap(), site.name());
        }
        for name in ["blocks.3.attn.hook_z", "hook_embed", "blocks.x.hook_resid_pre", ""] {
            assert_eq!(Place::of_hook(name), None, "{name}");
        }
    }
}
