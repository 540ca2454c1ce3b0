//! Which training a state is of: only the same one goes on from it.

use crate::fade::Fading;
use crate::labels::Labels;
use crate::{DistilRequest, DistillError, Result};
use serde::{Deserialize, Serialize};
use uspx_domain::{Digest, DistilRecipe, Fingerprint};

/// All that a training's bits follow from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    recipe: DistilRecipe,
    student: Fingerprint,
    /// Digest of all labels.
    labels: Digest,
    /// Digest of the student's mask, and its ramp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mask: Option<(Digest, f32)>,
}

impl Identity {
    /// Of a training of this student.
    pub fn of(request: &DistilRequest<'_>, student: Fingerprint) -> Result<Self> {
        let labels = digest(request.train.iter().chain(request.validation))?;
        let mask = request.fading.map(faded).transpose()?;
        Ok(Self { recipe: *request.recipe, student, labels, mask })
    }

    /// Refuses another training's, naming what differs.
    pub fn check(&self, found: &Self) -> std::result::Result<(), String> {
        let parts = [
            ("recipe", self.recipe != found.recipe),
            ("student", self.student != found.student),
            ("labels", self.labels != found.labels),
            ("student's mask", self.mask != found.mask),
        ];
        let what: Vec<&str> = parts.iter().filter(|(_, differs)| *differs).map(|p| p.0).collect();
        if what.is_empty() {
            return Ok(());
        }
        Err(format!("it is of another training: its {} differ", what.join(" and ")))
    }
}

/// One digest of all labels.
fn digest<'a>(all: impl Iterator<Item = &'a Labels>) -> Result<Digest> {
    let of = |labels: &Labels| Ok(Digest::of(&labels.to_bytes()?).hex());
    Ok(Digest::of(all.map(of).collect::<Result<String>>()?.as_bytes()))
}

/// What a mask is, and how it ramps in.
fn faded(Fading { mask, ramp }: Fading<'_>) -> Result<(Digest, f32)> {
    let bytes = serde_json::to_vec(mask).map_err(|e| DistillError::Recipe(e.to_string()))?;
    Ok((Digest::of(&bytes), ramp))
}
