//! A written student makes the tokens that the student was trained on, wherever its template and
//! tokens stood; and an export that would not is refused.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // Clippy knows test functions, not their helpers.

use candle_core::{DType, Device};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use uspx_domain::{ExportFormat, Prompt, parse_prompts};
use uspx_export::{
    ExportError, ExportRequest, ExportSettings, GGUF_FILE, Part, export, gguf_chat, open_gptq,
};
use uspx_model::chat::Chat;
use uspx_model::{LoadedModel, NoProgress, Placement};

/// A template that would be a wrong one.
const OTHER: &str = "{% for m in messages %}OLD {{ m['role'] }}: {{ m['content'] }}\n{% endfor %}\
                     {% if add_generation_prompt %}OLD assistant: {% endif %}";

fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets")
}

/// The shipped student, its folder changed before it is opened.
struct Student {
    folder: TempDir,
    model: LoadedModel,
}

impl Student {
    fn with(change: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(assets().join("nano/student")).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        change(folder.path());
        let model = LoadedModel::open(folder.path(), placement()).unwrap();
        Self { folder, model }
    }

    fn export(&self, format: ExportFormat) -> Result<(TempDir, usize), ExportError> {
        let (out, some) = (tempfile::tempdir().unwrap(), prompts(4));
        let calibration = self.model.readable(&some).unwrap().sequences;
        let request = ExportRequest {
            student: &self.model,
            base: self.folder.path(),
            name: "a student",
            calibration: &calibration,
            batch_tokens: 2048,
            conversations: &some,
            labels: &[],
            format,
            settings: ExportSettings::shipped(format)?,
        };
        let report = export(&request, out.path(), &NoProgress)?;
        Ok((out, report.conversations))
    }

    /// Both formats' own chats.
    fn exported(&self) -> [Chat; 2] {
        let (folder, compared) = self.export(ExportFormat::RTN).unwrap();
        let (file, _) = self.export(ExportFormat::GGUF).unwrap();
        assert!(compared > 4, "the built-in conversations are compared too");
        assert!(!folder.path().join("chat_template.jinja").exists());
        assert_eq!(
            read(folder.path(), "tokenizer_config.json")["chat_template"],
            self.model.chat.template()
        );
        open_gptq(folder.path(), placement()).unwrap();
        [Chat::open(folder.path()).unwrap(), gguf_chat(&file.path().join(GGUF_FILE)).unwrap()]
    }

    /// Both written students render, encode and end like this one.
    fn is_written_whole(&self) {
        for chat in self.exported() {
            assert_eq!(chat.template(), self.model.chat.template());
            assert_eq!(chat.ends(), self.model.chat.ends());
            for prompt in prompts(20) {
                let ids = |c: &Chat| c.sequence(&prompt, prompt.reference.as_deref()).unwrap();
                assert_eq!(ids(&chat), ids(&self.model.chat));
            }
        }
    }
}

fn placement() -> Placement {
    Placement::floats(DType::F32, &Device::Cpu)
}

fn prompts(count: usize) -> Vec<Prompt> {
    let text = std::fs::read_to_string(assets().join("prompts/cli-heldout.jsonl")).unwrap();
    let mut all = parse_prompts(&text, false).unwrap().prompts;
    all.truncate(count);
    all
}

fn read(folder: &Path, name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder.join(name)).unwrap()).unwrap()
}

/// Changes a JSON file.
fn edit(folder: &Path, name: &str, change: impl FnOnce(&mut Value)) {
    let mut value = read(folder, name);
    change(&mut value);
    std::fs::write(folder.join(name), value.to_string()).unwrap();
}

#[test]
fn invariant_11_a_template_in_a_list_is_exported() {
    let student = Student::with(|folder| {
        edit(folder, "tokenizer_config.json", |config| {
            let default = config["chat_template"].clone();
            config["chat_template"] = json!([{"name": "tool_use", "template": OTHER}, {"name": "default", "template": default}]);
        });
    });
    student.is_written_whole();
}

#[test]
fn a_template_in_a_file_of_its_own_is_exported_and_not_the_one_beside_it() {
    let student = Student::with(|folder| {
        let own = read(folder, "tokenizer_config.json")["chat_template"].take();
        std::fs::write(folder.join("chat_template.jinja"), own.as_str().unwrap()).unwrap();
        edit(folder, "tokenizer_config.json", |config| config["chat_template"] = OTHER.into());
    });
    assert_ne!(student.model.chat.template(), OTHER);
    student.is_written_whole();
}

#[test]
fn invariant_11_ends_wherever_they_stand_are_exported() {
    let student = Student::with(|folder| {
        edit(folder, "generation_config.json", |c| c["eos_token_id"] = json!([2045, 2043]));
    });
    assert_eq!(student.model.chat.ends(), [2043, 2045, 2046]);
    student.is_written_whole();
    let (folder, _) = student.export(ExportFormat::RTN).unwrap();
    assert_eq!(
        read(folder.path(), "generation_config.json")["eos_token_id"],
        json!([2043, 2045, 2046])
    );
}

#[test]
fn more_ends_than_gguf_has_room_for_are_refused_by_name() {
    let student = Student::with(|folder| {
        edit(folder, "generation_config.json", |c| {
            c["eos_token_id"] = json!([2042, 2044, 2045, 2047])
        });
    });
    student.export(ExportFormat::RTN).unwrap();
    let error = student.export(ExportFormat::GGUF).err().unwrap().to_string();
    assert!(error.contains("<|end_header_id|>") && error.contains("eos_token_id"), "{error}");
}

/// No BOS is written by this template, so none was trained on and none may be added.
#[test]
fn invariant_11_no_bos_is_added_where_the_template_writes_none() {
    let student = Student::with(|folder| {
        edit(folder, "tokenizer_config.json", |config| {
            let template =
                config["chat_template"].as_str().unwrap().replace("{{ '<|begin_of_text|>' }}", "");
            config["chat_template"] = template.into();
        });
    });
    assert!(!student.model.chat.sequence(&prompts(1)[0], None).unwrap().ids.contains(&2042));
    student.is_written_whole();
    let (file, _) = student.export(ExportFormat::GGUF).unwrap();
    let file = uspx_export::gguf::file::GgufFile::open(&file.path().join(GGUF_FILE)).unwrap();
    assert!(!file.metadata()["tokenizer.ggml.add_bos_token"].to_bool().unwrap());
}

/// Some templates know no system message. That is not a difference, unless only one of the two
/// refuses it.
#[test]
fn what_the_template_refuses_is_refused_alike() {
    let refusing = |folder: &Path| {
        edit(folder, "tokenizer_config.json", |config| {
            let template = config["chat_template"].as_str().unwrap();
            config["chat_template"] = format!(
                "{{% if messages[0]['role'] == 'system' %}}{{{{ raise_exception('no') }}}}{{% endif %}}{template}"
            )
            .into();
        });
    };
    let (plain, strict) = (Student::with(|_| {}), Student::with(refusing));
    let compared = |student: &Student| student.export(ExportFormat::GGUF).unwrap().1;
    assert_eq!(compared(&plain) - compared(&strict), 3);
    strict.is_written_whole();
    refusing(plain.folder.path());
    let error = plain.export(ExportFormat::GGUF).err().unwrap().to_string();
    assert!(
        error.contains("`built-in 2` at token 0")
            && error.contains("refused by the template as written"),
        "{error}"
    );
}

/// What befalls a base's folder.
type Change = fn(&Path);

/// What lies in the base's folder is not always what was opened.
#[test]
fn invariant_11_an_export_with_other_tokens_is_refused_with_the_first_difference() {
    let changes: [(Part, Change); 4] = [
        (Part::Template, |folder| {
            edit(folder, "tokenizer_config.json", |c| c["chat_template"] = OTHER.into());
        }),
        (Part::Ends, |folder| {
            edit(folder, "generation_config.json", |c| c["eos_token_id"] = json!([2043, 2046]));
        }),
        (Part::Tokenizer, |folder| {
            edit(folder, "tokenizer.json", |t| {
                t["model"]["merges"].as_array_mut().unwrap().truncate(200);
            });
        }),
        (Part::Tokenizer, |folder| {
            edit(folder, "tokenizer.json", |t| t["added_tokens"][3]["special"] = false.into());
        }),
    ];
    for (part, change) in changes {
        for format in [ExportFormat::RTN, ExportFormat::GGUF] {
            let student = Student::with(|_| {});
            change(student.folder.path());
            let error = student.export(format).err().unwrap();
            let said = error.to_string();
            assert!(said.contains(&part.to_string()) && said.contains("restore it"), "{said}");
            let ExportError::OtherTokens { difference, .. } = error else { panic!("{said}") };
            assert_eq!(difference.parts, [part], "{said}");
            if part == Part::Template {
                let place = difference.place.unwrap();
                // The first token already differs: no BOS.
                assert_eq!((place.conversation.as_str(), place.position), ("built-in 1", 0));
                assert_eq!(place.trained.unwrap()[0], 2042);
            }
        }
    }
}
