//! How much of which units is to be kept: `0.5`, or `head=0.5,channel=0.75`.

use std::str::FromStr;
use uspx_colony::Share;
use uspx_domain::{NotAUnitKind, UnitKind};

/// A share to keep, of one kind of unit or of all that are not named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepShare {
    kind: Option<UnitKind>,
    share: Share,
}

/// Not a share to keep.
#[derive(Debug, thiserror::Error)]
pub enum NotAShare {
    /// No number above 0 and at most 1.
    #[error("{0} is not a share: above 0, at most 1")]
    Number(String),
    /// Another kind of unit.
    #[error(transparent)]
    Kind(#[from] NotAUnitKind),
}

impl FromStr for KeepShare {
    type Err = NotAShare;

    fn from_str(text: &str) -> Result<Self, NotAShare> {
        let (kind, number) = match text.split_once('=') {
            Some((kind, number)) => (Some(kind.trim().parse()?), number),
            None => (None, text),
        };
        let share: Option<f64> = number.trim().parse().ok();
        let share = share.filter(|share| *share > 0.0 && *share <= 1.0);
        let share = share.ok_or_else(|| NotAShare::Number(number.to_owned()))?;
        Ok(Self { kind, share: Share::nearest(share) })
    }
}

/// The share of `kind` to keep: that of its name, or else the one without a name.
pub fn of(shares: &[KeepShare], kind: UnitKind) -> Option<Share> {
    let named = |wanted| shares.iter().find(|keep| keep.kind == wanted);
    named(Some(kind)).or_else(|| named(None)).map(|keep| keep.share)
}

/// A kind that is named and not among `kinds`.
pub fn superfluous(shares: &[KeepShare], kinds: &[UnitKind]) -> Option<UnitKind> {
    shares.iter().filter_map(|keep| keep.kind).find(|kind| !kinds.contains(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<KeepShare>, NotAShare> {
        text.split(',').map(str::parse).collect()
    }

    #[test]
    fn a_named_share_comes_before_the_one_for_all() {
        let shares = parsed("0.5,channel=0.75").unwrap();
        assert_eq!(of(&shares, UnitKind::Head), Some(Share::percent(50)));
        assert_eq!(of(&shares, UnitKind::Channel), Some(Share::percent(75)));
        let one = parsed("head=1").unwrap();
        assert_eq!(
            (of(&one, UnitKind::Channel), of(&one, UnitKind::Head)),
            (None, Some(Share(1_000_000)))
        );
        assert_eq!(superfluous(&shares, &[UnitKind::Head]), Some(UnitKind::Channel));
        assert_eq!(superfluous(&one, &[UnitKind::Head]), None);
    }

    #[test]
    fn what_is_no_share_is_refused_by_its_word() {
        for (text, word) in [
            ("1.5", "1.5"),
            ("0", "0 is"),
            ("NaN", "NaN"),
            ("head=x", "x is"),
            ("neck=0.5", "`neck`"),
        ] {
            let error = parsed(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
