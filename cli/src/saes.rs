//! Sparse autoencoders that `--sae` names: read before the model is opened, which plans memory for
//! them, and attached to it, so that their features are units of its layers.

use crate::args::SaeFolderArgs;
use crate::error::{CliError, Exit, Result};
use uspx_domain::UnitKind;
use uspx_model::LoadedModel;
use uspx_model::budget::Beside;
use uspx_sae::saelens::{self, About};
use uspx_sae::{Place, Sae, attach, memory};

/// Sparse autoencoders that wait for their model.
#[derive(Default)]
pub struct Saes(Vec<(Sae<f32>, About, Place)>);

impl Saes {
    /// Reads the folders.
    pub fn read(args: &SaeFolderArgs) -> Result<Self> {
        let each = args.folders.iter().map(|folder| {
            let (sae, about) = saelens::read(folder)?;
            let place = about.place.ok_or_else(|| no_place(&about))?;
            Ok((sae, about, place))
        });
        each.collect::<Result<_>>().map(Self)
    }

    /// What they take beside the model.
    pub fn beside(&self) -> Beside {
        self.0.iter().map(|(sae, ..)| memory::of_units(sae)).sum()
    }

    /// Makes their features units of the model.
    pub fn attach(self, model: &mut LoadedModel) -> Result<()> {
        for (sae, about, place) in self.0 {
            about.check(model.fingerprint)?;
            attach(model, sae, (place, about.skip))?;
        }
        Ok(())
    }
}

/// Files that do not say where in a model their SAE sits.
pub fn no_place(about: &About) -> CliError {
    let hook = about.hook_name.as_deref().unwrap_or("no hook_name");
    CliError::new(Exit::BadInput, format!("its cfg.json names {hook}, which is no site here"))
}

/// A model that has no units of a kind.
pub fn no_units(kind: UnitKind) -> CliError {
    let error = CliError::new(Exit::BadInput, format!("the model has no {kind}s"));
    match kind {
        UnitKind::Feature => {
            error.help("features are those of a sparse autoencoder: give its folder, --sae DIR")
        }
        _ => error,
    }
}
