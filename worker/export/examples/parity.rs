//! What the parity scripts call: exports a student, and prints our own logits of a 4-bit student.
//!
//! ```text
//! parity export BASE PROMPTS COUNT gptq|rtn|gguf OUT    prints the report
//! parity ids BASE PROMPTS COUNT                         prints token ids: one list per prompt, without its answer
//! parity conversations BASE PROMPTS COUNT               prints the template, the ends, and conversations with their ids
//! parity sequences BASE PROMPTS COUNT                   prints the same with the answer: [ids, where the answer begins]
//! parity logits FOLDER|FILE.gguf IDS.json               prints the logits after each list
//! parity cut MODEL KEEP.json OUT                        the model with these units of each layer alone; prints the report
//! parity masked MODEL KEEP.json IDS.json                prints the whole model's logits under this mask
//! parity expand FILE.gguf BASE OUT.gguf                 the same weights as F32, which llama.cpp multiplies as floats
//! ```

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use serde_json::json;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use uspx_domain::{ExportFormat, Fingerprint, Mask, Prompt, parse_prompts};
use uspx_export::cut::{CutRequest, write_cut};
use uspx_export::{ExportRequest, ExportSettings, export, gguf, held_out, open_any};
use uspx_model::batch::{Batch, Sequence};
use uspx_model::chat::{Chat, TokenBytes};
use uspx_model::cuts::CutTaps;
use uspx_model::taps::{NoTaps, Taps};
use uspx_model::transformer::Transformer;
use uspx_model::{LoadedModel, NoProgress, Placement, StoredModel};

type Anything<T> = Result<T, Box<dyn Error>>;

fn main() -> Anything<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["export", base, prompts, count, format, out] => run_export(base, &read_prompts(prompts, count)?, format, out),
        ["conversations", base, prompts, count] => print_conversations(Path::new(base), read_prompts(prompts, count)?),
        ["sequences", base, prompts, count] => print_sequences(base, &read_prompts(prompts, count)?),
        ["ids", base, prompts, count] => print_ids(base, &read_prompts(prompts, count)?),
        ["logits", model, ids] => {
            print_logits(&open_any(Path::new(model), floats())?.transformer, &mut NoTaps, ids)
        },
        ["cut", model, keep, out] => run_cut(Path::new(model), keep, Path::new(out)),
        ["masked", model, keep, ids] => print_masked(Path::new(model), keep, ids),
        ["expand", model, base, out] => expand(Path::new(model), Path::new(base), Path::new(out)),
        _ => {
            Err("usage: parity export|ids|conversations|sequences|logits|cut|masked|expand …, see the head of examples/parity.rs"
                .into())
        }
    }
}

fn read_prompts(path: &str, count: &str) -> Anything<Vec<Prompt>> {
    let mut prompts = parse_prompts(&std::fs::read_to_string(path)?, false)?.prompts;
    prompts.truncate(count.parse()?);
    Ok(prompts)
}

fn open(base: &str) -> Anything<LoadedModel> {
    Ok(LoadedModel::open(Path::new(base), floats())?)
}

fn floats() -> Placement {
    Placement::floats(DType::F32, &Device::Cpu)
}

fn run_export(base: &str, prompts: &[Prompt], format: &str, out: &str) -> Anything<()> {
    let model = open(base)?;
    let format: ExportFormat = serde_json::from_value(format.into())?;
    // The peers that this is held against make no finish.
    let settings = ExportSettings { finish: 0, ..ExportSettings::shipped(format)? };
    let request = ExportRequest {
        student: &model,
        base: Path::new(base),
        name: "parity",
        calibration: &model.readable(prompts)?.sequences,
        batch_tokens: 2048,
        conversations: prompts,
        labels: &[],
        format,
        settings,
    };
    let report = export(&request, Path::new(out), &NoProgress)?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

fn print_ids(base: &str, prompts: &[Prompt]) -> Anything<()> {
    let model = open(base)?;
    let ids = prompts
        .iter()
        .map(|p| Ok(model.chat.sequence(p, None)?.ids))
        .collect::<Anything<Vec<_>>>()?;
    println!("{}", serde_json::to_string(&ids)?);
    Ok(())
}

fn print_conversations(base: &Path, prompts: Vec<Prompt>) -> Anything<()> {
    let chat = Chat::open(base)?;
    let tokenizer = serde_json::from_str(&std::fs::read_to_string(base.join("tokenizer.json"))?)?;
    let mut all = Vec::new();
    for prompt in held_out::conversations(&tokenizer).into_iter().chain(prompts) {
        let mut whole = chat.sequence(&prompt, prompt.reference.as_deref())?.ids;
        let opening = chat.sequence(&prompt, None)?.ids;
        let answer = whole.split_off(opening.len());
        all.push(json!({ "prompt": prompt, "ids": opening, "answer": answer }));
    }
    let special: Vec<usize> = chat
        .tokens()
        .iter()
        .enumerate()
        .filter(|(_, token)| **token == TokenBytes::Special)
        .map(|(id, _)| id)
        .collect();
    let (template, ends) = (chat.template(), chat.ends());
    let made =
        json!({ "template": template, "ends": ends, "special": special, "conversations": all });
    println!("{made}");
    Ok(())
}

fn print_sequences(base: &str, prompts: &[Prompt]) -> Anything<()> {
    let sequences = open(base)?.readable(prompts)?.sequences;
    let pairs: Vec<_> = sequences.iter().map(|s| (&s.ids, s.response_start)).collect();
    println!("{}", serde_json::to_string(&pairs)?);
    Ok(())
}

fn print_logits(model: &Transformer, taps: &mut dyn Taps, ids: &str) -> Anything<()> {
    let ids: Vec<Vec<u32>> = serde_json::from_str(&std::fs::read_to_string(ids)?)?;
    let mut all = Vec::new();
    for ids in ids {
        let response_start = ids.len();
        let batch = Batch::new(&[&Sequence { ids, response_start }])?;
        all.push(last_logits(model, batch, taps)?.flatten_all()?.to_vec1::<f32>()?);
    }
    println!("{}", serde_json::to_string(&all)?);
    Ok(())
}

fn last_logits(model: &Transformer, batch: Batch, taps: &mut dyn Taps) -> Anything<Tensor> {
    let frame = model.frame(&batch)?;
    let x = model.forward(&batch, &frame, taps)?;
    Ok(model.logits(&x, &batch.last_rows())?)
}

/// The mask that keeps what a file says: of each kind a list for each layer.
fn keeping(model: Fingerprint, keep: &str) -> Anything<Mask> {
    let keep = serde_json::from_str(&std::fs::read_to_string(keep)?)?;
    Ok(Mask { keep, ..Mask::everything(model) })
}

fn run_cut(folder: &Path, keep: &str, out: &Path) -> Anything<()> {
    let (source, fingerprint) = (StoredModel::open(folder)?, uspx_model::fingerprint(folder)?);
    let mask = keeping(fingerprint, keep)?;
    let request = CutRequest { folder, source: &source, fingerprint, mask: &mask, adapter: None };
    println!("{}", serde_json::to_string(&write_cut(&request, out, &NoProgress)?)?);
    Ok(())
}

/// The weights alone are opened: the committed checkpoints have no tokenizer of their own.
fn print_masked(folder: &Path, keep: &str, ids: &str) -> Anything<()> {
    let StoredModel { config, checkpoint } = StoredModel::open(folder)?;
    let (mask, shape) = (keeping(uspx_model::fingerprint(folder)?, keep)?, config.shape());
    let mut taps = CutTaps::of_mask(&mask, &shape, &Device::Cpu)?;
    print_logits(&Transformer::load(config, checkpoint, floats())?, &mut taps, ids)
}

fn expand(model: &Path, base: &Path, out: &Path) -> Anything<()> {
    let parts = gguf::read_gguf(model)?;
    let heads = gguf::metadata::head_counts(&parts.config_json)?;
    let mut tensors = BTreeMap::new();
    for (name, tensor) in parts.tensors {
        let tensor = gguf::in_gguf_order(&name, &tensor, heads)?;
        tensors.insert(name, QTensor::quantize(&tensor, GgmlDType::F32)?);
    }
    Ok(gguf::write_gguf(out, base, "expanded", &tensors)?)
}
