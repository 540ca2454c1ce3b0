//! A model folder, opened whole: configuration, weights, tokenizer, template, fingerprint.

use crate::batch::{Batch, Sequence, pack};
use crate::chat::{Chat, ChatFiles};
use crate::checkpoint::{Checkpoint, INDEX, SINGLE};
use crate::config::ModelConfig;
use crate::cuts::{CutTaps, cut_by};
use crate::identity::{digests, fingerprint_of};
use crate::placement::Placement;
use crate::transformer::Transformer;
use crate::{Dictionaries, Dictionary, NoProgress, Result, inventory};
use std::path::Path;
use std::sync::Arc;
use uspx_domain::{Cut, Fingerprint, Mask, ModelShape};

/// A model ready to run.
pub struct LoadedModel {
    /// Its layers.
    pub transformer: Transformer,
    /// Its tokenizer and template.
    pub chat: Chat,
    /// Its identity.
    pub fingerprint: Fingerprint,
    /// What reads its layers' features.
    pub dictionaries: Dictionaries,
}

impl LoadedModel {
    /// Opens a Hugging Face folder.
    ///
    /// # Errors
    /// Whatever is wrong with the folder, by file.
    pub fn open(folder: &Path, placement: Placement) -> Result<Self> {
        let checkpoint = Checkpoint::open(folder)?;
        let weights = digests(folder, &NoProgress)?;
        let files = ChatFiles::read(folder)?;
        let fingerprint = fingerprint_of(&weights, &files)?;
        Self::of_parts(folder, checkpoint, placement, &files, fingerprint)
    }

    /// Opens a folder whose weights another reader has decoded (a 4-bit export, say).
    ///
    /// # Errors
    /// Whatever is wrong with the folder or the weights.
    pub fn with_weights(
        folder: &Path,
        checkpoint: Checkpoint,
        placement: Placement,
        fingerprint: Fingerprint,
    ) -> Result<Self> {
        Self::of_parts(folder, checkpoint, placement, &ChatFiles::read(folder)?, fingerprint)
    }

    fn of_parts(
        folder: &Path,
        checkpoint: Checkpoint,
        placement: Placement,
        files: &ChatFiles,
        fingerprint: Fingerprint,
    ) -> Result<Self> {
        let (config, unknown) = ModelConfig::open_with_remarks(folder)?;
        let place = folder.join("config.json");
        let fits = inventory::check_dimensions(&config, &checkpoint);
        fits.map_err(|e| e.located(&place))?;
        files.check_ids(config.vocab, &place)?;
        let chat = Chat::of(files)?;
        chat.explain_seams(folder);
        let (tied, unused) = (config.tied, inventory::unused(&config, &checkpoint));
        let transformer =
            Transformer::load(config, checkpoint, placement).map_err(|e| e.located(folder))?;
        let mut remarks = vec![
            named("config.json has keys that are not known here and not read", &unknown),
            named("the weights hold tensors that the model of config.json does not use", &unused),
        ];
        if tied != transformer.config().tied {
            remarks.push(Some(
                "the output head is used as it is stored, though config.json ties it".to_owned(),
            ));
        }
        if [SINGLE, INDEX].iter().all(|name| folder.join(name).exists()) {
            remarks.push(Some(format!("{SINGLE} is read, {INDEX} beside it is not")));
        }
        for remark in remarks.into_iter().flatten() {
            tracing::warn!("{}: {remark}", folder.display());
        }
        Ok(Self { transformer, chat, fingerprint, dictionaries: Dictionaries::default() })
    }

    /// From now on the layer has the dictionary's features.
    ///
    /// # Errors
    /// A layer that the model lacks or that has a dictionary, another width than the model's.
    pub fn attach(&mut self, layer: usize, dictionary: Arc<dyn Dictionary>) -> Result<()> {
        let size = (self.transformer.layers(), self.transformer.config().hidden);
        self.dictionaries.attach(size, layer, dictionary)
    }

    /// The dimensions that decisions need.
    pub fn shape(&self) -> ModelShape {
        self.dictionaries.shape(self.transformer.config().shape())
    }

    /// The taps of a cut.
    ///
    /// # Errors
    /// The cut does not fit the model, or is of features that it does not have.
    pub fn cut(&self, cut: &Cut) -> Result<CutTaps> {
        let (shape, device) = (self.shape(), self.transformer.device());
        match cut {
            Cut::Unit(unit) => CutTaps::with(&[*unit], &shape, (device, &self.dictionaries)),
            Cut::Mask(mask) => self.cut_of_mask(mask),
        }
    }

    /// The taps that leave only what a mask keeps.
    ///
    /// # Errors
    /// As [`Self::cut`].
    pub fn cut_of_mask(&self, mask: &Mask) -> Result<CutTaps> {
        self.dictionaries.check(mask)?;
        let (shape, device) = (self.shape(), self.transformer.device());
        CutTaps::with(&cut_by(mask, &shape)?, &shape, (device, &self.dictionaries))
    }
}

/// `what`, and the first few of `names`; nothing where there are none.
fn named(what: &str, names: &[String]) -> Option<String> {
    const SHOWN: usize = 8;
    let first = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => None,
        all if all > SHOWN => Some(format!("{what}: {first} and {} more", all - SHOWN)),
        _ => Some(format!("{what}: {first}")),
    }
}

/// Sequences in batches of at most `tokens` padded tokens, each with the indices it was made from.
///
/// # Errors
/// A sequence that cannot be packed.
pub fn batches(sequences: &[Sequence], tokens: usize) -> Result<Vec<(Vec<usize>, Batch)>> {
    let lengths: Vec<usize> = sequences.iter().map(|s| s.ids.len()).collect();
    let build = |group: Vec<usize>| {
        let members: Vec<&Sequence> = group.iter().filter_map(|i| sequences.get(*i)).collect();
        let batch = Batch::new(&members)?;
        Ok((group, batch))
    };
    pack(&lengths, tokens).into_iter().map(build).collect()
}
