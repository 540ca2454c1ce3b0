//! Teachers with tokenizers of other families: every prompt gets its labels, and a student of yet
//! another family learns from them. The shipped teacher's weights under the tokenizers of
//! tests/data/tokens (what they say is noise, the bytes are not).

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use candle_core::{DType, Device};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use uspx_distill::labels::vocabulary;
use uspx_distill::losses::{Hybrid, lesson};
use uspx_distill::{Keeping, Labels, make_labels};
use uspx_domain::Prompt;
use uspx_model::chat::{Bounds, Chat};
use uspx_model::{LoadedModel, NoProgress, Placement};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn copy(from: &Path, to: &Path, wanted: impl Fn(&str) -> bool) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if wanted(&entry.file_name().to_string_lossy()) {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// The shipped teacher, talking through the tokenizer and template of `family`.
fn teacher(family: &str) -> (LoadedModel, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    copy(&root().join("cli/assets/nano/teacher"), folder.path(), |f| {
        f.starts_with("model") || f == "config.json"
    });
    let talks = |f: &str| {
        f.starts_with("tokenizer") || f.starts_with("chat_template") || f.starts_with("generation")
    };
    let family = root().join("tests/data/tokens").join(family);
    copy(&family, folder.path(), talks);
    // Where only the family's config.json names its end tokens: here it is the weights' one.
    if !folder.path().join("generation_config.json").exists() {
        std::fs::copy(family.join("config.json"), folder.path().join("generation_config.json"))
            .unwrap();
    }
    let model =
        LoadedModel::open(folder.path(), Placement::floats(DType::F32, &Device::Cpu)).unwrap();
    (model, folder)
}

fn prompts() -> Vec<Prompt> {
    let answers =
        ["ls", "x", "für", "grep -r 'naïve' ./dir | wc -l", "a\nb", "日本", "café [ok]", "👩‍👩‍👧 fin"];
    let each = |(at, answer): (usize, &&str)| Prompt {
        id: format!("p{at}"),
        prompt: "Say it".into(),
        reference: Some((*answer).into()),
        ..Prompt::default()
    };
    answers.iter().enumerate().map(each).collect()
}

#[test]
fn every_prompt_is_labelled_byte_for_byte_and_teaches_a_student_of_another_family() {
    let student = Chat::open(&root().join("cli/assets/nano/student")).unwrap();
    let spm = Chat::open(&root().join("tests/data/tokens/spm-prefix-mistral")).unwrap();
    for family in [
        "spm-prefix-mistral",
        "spm-first-chatml",
        "spm-plain-no-system",
        "unigram-gpt-oss",
        "bytes-qwen2-qwen3",
    ] {
        let (model, _folder) = teacher(family);
        let (labels, skipped) = make_labels(
            &model,
            &prompts(),
            None,
            Keeping::Likeliest(32),
            (Bounds::answer(8), usize::MAX),
            &NoProgress,
        )
        .unwrap();
        assert!(skipped.is_empty(), "{family}: {skipped:?}");
        let labels = Labels::from_bytes(&labels.to_bytes().unwrap()).unwrap();
        for prompt in &labels.prompts {
            let (end, last) =
                (prompt.answer.len() as u32, prompt.tokens.last().map(|t| (t.start, t.end)));
            assert_eq!(
                last,
                Some((end, end)),
                "{family}: {:?} is not labelled to its end",
                prompt.answer
            );
            for other in [&student, &spm] {
                let example = lesson(&Hybrid, &labels, prompt, other, vocabulary(other)).unwrap();
                // Of a teacher that knows only what it kept, something is known at the first place
                // at least.
                let mass: f32 = example.said[0].iter().map(|(_, p)| p).sum();
                assert!(
                    mass > 0.0 && mass < 1.0 + 1e-4,
                    "{family}: {:?} teaches {mass}",
                    prompt.answer
                );
            }
        }
    }
}
