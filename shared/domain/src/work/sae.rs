//! Training a sparse autoencoder on a layer's activations, and judging it. The activations stay where
//! they are made; what comes back is the SAE, as SAELens reads it.

use super::{Job, export};
use crate::{Asked, LARGEST, Outcome, Refusal, SaeRecipe, SaeSummary};
use serde::{Deserialize, Serialize};

/// Trains an SAE on what leaves a layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sae<P> {
    /// The prompts to train on, then those to judge by.
    pub prompts: Vec<P>,
    /// How many of them it is judged by.
    pub judged: u32,
    /// The layer, from 0.
    pub layer: u32,
    /// How.
    pub recipe: SaeRecipe,
}

impl<P> Sae<P> {
    pub(super) fn on<Q>(self, prompts: Vec<Q>) -> Sae<Q> {
        Sae { prompts, judged: self.judged, layer: self.layer, recipe: self.recipe }
    }

    /// The prompts to train on, and those to judge by.
    pub fn split(&self) -> (&[P], &[P]) {
        let train = self.prompts.len().saturating_sub(self.judged as usize);
        self.prompts.split_at(train)
    }
}

impl<P> Job<P> for Sae<P> {
    fn name(&self) -> &'static str {
        "sae"
    }

    fn prompts(&self) -> &[P] {
        &self.prompts
    }

    fn check(&self, _: &Asked<'_>, outcome: &Outcome) -> Result<(), Refusal> {
        let Outcome::Sae { files, summary } = outcome else { return Err(Refusal::Kind("sae")) };
        export::paths(files)?;
        let SaeSummary { l0, explained_variance, dead, clean, grafted, zero, mean, .. } = *summary;
        let losses = [clean, grafted, zero, mean];
        let features = self.recipe.features;
        match () {
            () if !losses.iter().all(|loss| (0.0..=LARGEST).contains(loss)) => {
                Err(Refusal::Value("a loss of the SAE"))
            }
            () if !(0.0..=features as f32).contains(&l0) || dead as usize > features => {
                Err(Refusal::Value("the SAE's number of features"))
            }
            () if !(-LARGEST..=1.0).contains(&explained_variance) => {
                Err(Refusal::Value("the variance that the SAE explains"))
            }
            () => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlobRef, ModelShape, StoredFile};

    fn job() -> Sae<u32> {
        Sae { prompts: vec![1, 2, 3], judged: 1, layer: 2, recipe: SaeRecipe::default() }
    }

    #[test]
    fn the_last_prompts_judge() {
        assert_eq!(job().split(), (&[1, 2][..], &[3][..]));
        assert_eq!(Sae { judged: 9, ..job() }.split(), (&[][..], &[1, 2, 3][..]));
        assert_eq!(job().on(vec!["a", "b", "c"]).split().1, ["c"]);
    }

    #[test]
    fn an_answer_that_cannot_be_is_refused() {
        let shape = ModelShape { layers: vec![] };
        let asked = Asked { ids: vec!["a", "b", "c"], shape: &shape };
        let file = |path: &str| StoredFile { path: path.into(), blob: BlobRef::to(b"x") };
        let good = SaeSummary {
            steps: 10,
            tokens: 90,
            l0: 8.0,
            explained_variance: 0.9,
            dead: 3,
            clean: 1.0,
            grafted: 1.1,
            zero: 6.0,
            mean: 5.0,
        };
        let answer = |summary| Outcome::Sae { files: vec![file("cfg.json")], summary };
        assert_eq!(job().check(&asked, &answer(good)), Ok(()));
        for bad in [
            SaeSummary { grafted: f32::NAN, ..good },
            SaeSummary { zero: -1.0, ..good },
            SaeSummary { l0: 1e9, ..good },
            SaeSummary { dead: 1025, ..good },
            SaeSummary { explained_variance: 1.5, ..good },
            SaeSummary { explained_variance: f32::NAN, ..good },
        ] {
            let refused = job().check(&asked, &answer(bad));
            assert!(matches!(refused, Err(Refusal::Value(_))), "{bad:?}");
        }
        let outside = Outcome::Sae { files: vec![file("../x")], summary: good };
        assert_eq!(job().check(&asked, &outside), Err(Refusal::Path));
        let other = job().check(&asked, &Outcome::Losses(vec![]));
        assert_eq!(other, Err(Refusal::Kind("sae")));
    }
}
