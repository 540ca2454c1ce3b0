//! Which prompts a model can run. One that it cannot is left out alone, with its reason; the others
//! of its batch go on.

use crate::batch::Sequence;
use crate::{LoadedModel, ModelError, Result};
use std::ops::Range;
use uspx_domain::{Prompt, SkipReason, Skipped};

/// Prompts as a model reads them: those that it can run, and those that it cannot.
#[derive(Debug, Default)]
pub struct Readable {
    /// The prompts that it can run, in the order given.
    pub prompts: Vec<Prompt>,
    /// Their tokens, one sequence each.
    pub sequences: Vec<Sequence>,
    /// How many of them the tokenizer reads otherwise as a whole than in use: see
    /// [`crate::chat::Seam`].
    pub seams: u32,
    /// The others, in the order given.
    pub skipped: Vec<Skipped>,
    /// What template or tokenizer said of the first that it refused. It may quote the prompt: it is
    /// for the person at this machine, and never leaves it.
    pub cause: Option<ModelError>,
}

impl Readable {
    /// Some of the prompts that can be run, by their places.
    #[must_use]
    pub fn part(&self, places: Range<usize>) -> Self {
        let (start, count) = (places.start, places.len());
        Self {
            prompts: self.prompts.iter().skip(start).take(count).cloned().collect(),
            sequences: self.sequences.iter().skip(start).take(count).cloned().collect(),
            ..Self::default()
        }
    }
}

/// The tokens of a prompt and whether the whole text has others, or why there are none.
type Tokens = std::result::Result<(Sequence, bool), SkipReason>;

impl LoadedModel {
    /// Tokens of every prompt with its reference.
    ///
    /// # Errors
    /// Those that are not prompt's fault.
    pub fn readable(&self, prompts: &[Prompt]) -> Result<Readable> {
        Readable::of(prompts, |prompt| match prompt.reference.as_deref() {
            None => Ok(Err(SkipReason::NoReference)),
            Some(answer) if answer.trim().is_empty() => Ok(Err(SkipReason::Empty)),
            Some(answer) => self.read(prompt, Some(answer)),
        })
    }

    /// Tokens of every prompt up to where its answer begins.
    ///
    /// # Errors
    /// Those that are not prompt's fault.
    pub fn askable(&self, prompts: &[Prompt]) -> Result<Readable> {
        Readable::of(prompts, |prompt| self.read(prompt, None))
    }

    /// Refuses a sequence longer than the model was made for.
    ///
    /// # Errors
    /// It is, by how much.
    pub fn check_context(&self, sequence: &Sequence) -> std::result::Result<(), SkipReason> {
        match self.transformer.config().context {
            Some(context) if sequence.ids.len() > context => Err(SkipReason::TooLong {
                tokens: sequence.ids.len() as u32,
                context: context as u32,
            }),
            _ => Ok(()),
        }
    }

    fn read(&self, prompt: &Prompt, answer: Option<&str>) -> Result<Tokens> {
        let (sequence, seam) = match answer {
            None => (self.chat.sequence(prompt, None)?, false),
            Some(answer) => {
                let answered = self.chat.answered(prompt, answer)?;
                (answered.sequence, answered.seam.is_some())
            }
        };
        Ok(self.check_context(&sequence).map(|()| (sequence, seam)))
    }
}

impl Readable {
    fn of(prompts: &[Prompt], read: impl Fn(&Prompt) -> Result<Tokens>) -> Result<Self> {
        let mut found = Self::default();
        for prompt in prompts {
            match read(prompt) {
                Ok(Ok((sequence, seam))) => {
                    found.prompts.push(prompt.clone());
                    found.sequences.push(sequence);
                    found.seams += u32::from(seam);
                }
                Ok(Err(reason)) => found.skip(prompt, reason),
                Err(error) => match error.skip_reason() {
                    Some(reason) => {
                        found.skip(prompt, reason);
                        found.cause.get_or_insert(error);
                    }
                    None => return Err(error),
                },
            }
        }
        Ok(found)
    }

    fn skip(&mut self, prompt: &Prompt, reason: SkipReason) {
        self.skipped.push(Skipped { id: prompt.id.clone(), reason });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Holding, Placement};
    use candle_core::{DType, Device};
    use std::path::Path;

    /// The shipped student with another context and another template.
    fn model(context: &str, template: &str) -> LoadedModel {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/nano/student");
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(&shipped).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        let config = folder.path().join("config.json");
        let mut value: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
        value["max_position_embeddings"] = context.parse::<u64>().unwrap().into();
        std::fs::write(&config, value.to_string()).unwrap();
        if !template.is_empty() {
            std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
        }
        LoadedModel::open(folder.path(), Placement::new(Holding::Stored, DType::F32, &Device::Cpu))
            .unwrap()
    }

    fn prompt(id: &str, text: &str, reference: Option<&str>) -> Prompt {
        Prompt {
            id: id.into(),
            prompt: text.into(),
            reference: reference.map(str::to_owned),
            ..Prompt::default()
        }
    }

    fn ids(prompts: &[Prompt]) -> Vec<&str> {
        prompts.iter().map(|p| p.id.as_str()).collect()
    }

    #[test]
    fn what_cannot_be_run_is_left_out_alone_with_its_reason() {
        let model = model("64", "");
        let long = "list ".repeat(200);
        let prompts = [
            prompt("a", "List files", Some("ls")),
            prompt("long", &long, Some("ls")),
            prompt("bare", "List files", None),
            prompt("blank", "List files", Some(" \n")),
            prompt("b", "Who am I", Some("whoami")),
        ];
        let found = model.readable(&prompts).unwrap();
        assert_eq!(ids(&found.prompts), ["a", "b"]);
        assert_eq!(found.sequences[1], model.chat.sequence(&prompts[4], Some("whoami")).unwrap());
        let tokens = model.chat.sequence(&prompts[1], Some("ls")).unwrap().ids.len() as u32;
        let skipped = |id: &str, reason| Skipped { id: id.into(), reason };
        let wanted = [
            skipped("long", SkipReason::TooLong { tokens, context: 64 }),
            skipped("bare", SkipReason::NoReference),
            skipped("blank", SkipReason::Empty),
        ];
        assert_eq!(found.skipped, wanted);
        assert!(found.cause.is_none() && tokens > 200);
        assert_eq!(ids(&model.askable(&prompts).unwrap().prompts), ["a", "bare", "blank", "b"]);
    }

    #[test]
    fn what_the_template_refuses_is_named_by_id_and_the_words_stay_here() {
        let template = "{% for m in messages %}{% if 'forbidden' in m.content %}{{ raise_exception('no: ' ~ m.content) }}\
             {% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
             {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
        let model = model("2048", template);
        let prompts = [
            prompt("bad", "a forbidden secret", Some("x")),
            prompt("good", "List files", Some("ls")),
        ];
        let found = model.readable(&prompts).unwrap();
        assert_eq!(ids(&found.prompts), ["good"]);
        assert_eq!(found.skipped, [Skipped { id: "bad".into(), reason: SkipReason::Template }]);
        assert!(!serde_json::to_string(&found.skipped).unwrap().contains("secret"));
        assert!(found.cause.unwrap().to_string().contains("forbidden"));
    }
}
