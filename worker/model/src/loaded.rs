//! A model folder, opened whole: configuration, weights, tokenizer, template, fingerprint.

use crate::batch::{Batch, Sequence, pack};
use crate::chat::{Chat, ChatFiles};
use crate::checkpoint::{Checkpoint, shard_paths};
use crate::config::ModelConfig;
use crate::load::Placement;
use crate::transformer::Transformer;
use crate::{ModelError, Result};
use std::path::Path;
use uspx_domain::{Digest, Fingerprint, ModelShape};

/// A model ready to run.
pub struct LoadedModel {
    /// Its layers.
    pub transformer: Transformer,
    /// Its tokenizer and template.
    pub chat: Chat,
    /// Its identity.
    pub fingerprint: Fingerprint,
}

impl LoadedModel {
    /// Opens a Hugging Face folder.
    ///
    /// # Errors
    /// Whatever is wrong with the folder, by file.
    pub fn open(folder: &Path, placement: Placement) -> Result<Self> {
        let checkpoint = Checkpoint::open(folder)?;
        Self::with_weights(folder, checkpoint, placement, fingerprint(folder)?)
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
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(ModelError::read(&path))?;
        let config = ModelConfig::from_json(&text).map_err(|e| match e {
            ModelError::Config(reason) => ModelError::malformed(&path, reason),
            other => other,
        })?;
        let chat = Chat::open(folder)?;
        if chat.tokens().len() > config.vocab {
            let reason = format!(
                "vocab_size is {}, but the tokenizer beside it knows {} tokens: they belong to different models",
                config.vocab,
                chat.tokens().len()
            );
            return Err(ModelError::malformed(&path, reason));
        }
        let transformer = Transformer::load(config, checkpoint, placement)?;
        Ok(Self { transformer, chat, fingerprint })
    }

    /// The dimensions that decisions need.
    pub fn shape(&self) -> ModelShape {
        self.transformer.config().shape()
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

/// The digest of a folder's weights, configuration and all that determines its tokens (tokenizer, template, special
/// tokens), whatever the folder is called.
///
/// # Errors
/// A file that cannot be read.
pub fn fingerprint(folder: &Path) -> Result<Fingerprint> {
    let mut files = shard_paths(folder)?;
    files.push(folder.join("config.json"));
    let mut whole = blake3::Hasher::new();
    for path in files {
        let mut hasher = blake3::Hasher::new();
        let file = std::fs::File::open(&path).map_err(ModelError::read(&path))?;
        hasher.update_reader(file).map_err(ModelError::read(&path))?;
        whole.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        whole.update(hasher.finalize().as_bytes());
    }
    whole.update(blake3::hash(&ChatFiles::read(folder)?.identity()).as_bytes());
    Ok(Fingerprint(Digest(*whole.finalize().as_bytes())))
}
