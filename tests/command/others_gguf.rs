//! GGUF files as others make them, in llama.cpp: small random Llamas, Qwen 2s and Qwen 3s, with
//! what sets each apart (biases, norms of heads, heads of another width, tied and own heads,
//! stretched rotations) and in several block types.
//!
//! On weights in F32 llama.cpp multiplies floats as we do: there the worst logit is bound tightly,
//! which proves names, rows, rotation and metadata. On blocks it rounds the inputs of products to 8
//! bits, where we keep 16: there our products in blocks are bound tightly against our own floats,
//! and loosely against llama.cpp.

mod made;

use crate::llama_cpp::{apart, need, ours, theirs};
use candle_core::quantized::gguf_file::Value;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use libtest_mimic::Trial;
pub use made::random_llama;
use made::{CASES, Case, FIVE, Files, HIDDEN, LAYERS, LLAMA, pairs, tensors, write};
use std::collections::BTreeMap;
use uspx_export::gguf::{FromGguf, read_gguf, read_quantised};
use uspx_export::{ExportError, open_gguf};
use uspx_model::{Holding, Placement};
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    let mut trials = trials![
        products_in_blocks_are_those_in_floats,
        matrices_stay_in_their_blocks,
        damaged_files_are_refused_with_what_is_wrong,
    ];
    trials.extend(
        need().of_all(trials![files_of_every_architecture_mean_what_llama_cpp_takes_them_for]),
    );
    trials
}

/// Some lists of tokens: short ones and one of a hundred.
fn asked() -> Vec<Vec<u32>> {
    let list = |length: u32, step: u32| (0..length).map(|i| (i * step + 17) % 2000).collect();
    vec![list(1, 1), list(5, 311), list(40, 97), list(100, 53)]
}

/// Worst distance relative to the largest value.
fn relative(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let (a, b) = (a.concat(), b.concat());
    let gap = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    gap / a.iter().map(|a| a.abs()).fold(0.0, f32::max)
}

fn name(case: Case) -> String {
    format!("{} {:?}", case.architecture, case.blocks)
}

fn products_in_blocks_are_those_in_floats() {
    let folder = tempfile::tempdir().unwrap();
    for case in CASES {
        let files = Files::new(folder.path(), case);
        let [own, expanded] = [Holding::Stored, Holding::Floats]
            .map(|holding| ours(&files.stored, &asked(), holding));
        let (what, gap) = (name(case), relative(&expanded, &own));
        println!("{what}: in blocks {gap:.2e} from our floats");
        assert!(gap < 2e-4, "{what}: products in blocks are {gap} from those in floats");
        assert!(
            relative(&expanded, &ours(&files.floats, &asked(), Holding::Stored)) < 1e-5,
            "{what}"
        );
    }
}

fn files_of_every_architecture_mean_what_llama_cpp_takes_them_for() {
    let folder = tempfile::tempdir().unwrap();
    let ids = folder.path().join("ids.json");
    std::fs::write(&ids, serde_json::to_string(&asked()).unwrap()).unwrap();
    for case in CASES {
        let (what, files) = (name(case), Files::new(folder.path(), case));
        let expanded = ours(&files.stored, &asked(), Holding::Floats);
        let (worst, rms) = apart(&expanded, &theirs(&files.floats, &ids));
        println!("{what}: weights as F32: worst {worst:.2e}, rms {rms:.2e} of the largest logit");
        assert!(worst < 1e-4, "{what}: on the same weights as floats llama.cpp is {worst} away");
        let own = ours(&files.stored, &asked(), Holding::Stored);
        let (worst, rms) = apart(&own, &theirs(&files.stored, &ids));
        println!("{what}: as stored: worst {worst:.2e}, rms {rms:.2e} of the largest logit");
        assert!(rms < 2e-2, "{what}: on the file as stored llama.cpp is {rms} away");
    }
}

fn matrices_stay_in_their_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    write(&path, &pairs(LLAMA), &tensors(LLAMA, false));
    let FromGguf { tensors: floats, blocks, .. } = read_quantised(&path).unwrap();
    assert_eq!((floats.len(), blocks.len()), (2 * LAYERS + 1, 7 * LAYERS + 2));
    let expanded = read_gguf(&path).unwrap().tensors;
    for (name, matrix) in &blocks {
        // candle's own reading of the blocks.
        let want: Vec<f32> = expanded[name].flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(matrix.expand(), want, "{name}");
    }
    let bytes: usize = blocks.values().map(|b| b.bytes()).sum();
    assert!(bytes < std::fs::metadata(&path).unwrap().len() as usize);
}

fn damaged_files_are_refused_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    let refused = |pairs: &BTreeMap<String, Value>,
                   tensors: &BTreeMap<String, QTensor>,
                   words: &[&str]| {
        write(&path, pairs, tensors);
        let error = [Holding::Stored, Holding::Floats].map(|holding| {
            let placement = Placement::new(holding, DType::F32, &Device::Cpu);
            open_gguf(&path, placement).err().unwrap_or_else(|| panic!("{words:?} was accepted"))
        });
        for error in error {
            let said = error.to_string();
            assert!(words.iter().all(|w| said.contains(w)), "{said:?} lacks one of {words:?}");
        }
    };
    let (good, all) = (pairs(LLAMA), || tensors(LLAMA, false));
    let mut changed = all();
    let odd = Tensor::ones((HIDDEN, 2 * HIDDEN), DType::F32, &Device::Cpu).unwrap();
    changed.insert(
        "blk.0.attn_output.weight".into(),
        QTensor::quantize(&odd, GgmlDType::Q4K).unwrap(),
    );
    refused(&good, &changed, &["o_proj", "[256, 512]", "[256, 256]"]);
    let mut changed = all();
    let nan = Tensor::full(f32::NAN, HIDDEN, &Device::Cpu).unwrap();
    changed
        .insert("blk.1.ffn_norm.weight".into(), QTensor::quantize(&nan, GgmlDType::F32).unwrap());
    refused(&good, &changed, &["ffn_norm", "not a number"]);
    let mut changed = all();
    changed.remove("blk.1.attn_v.weight");
    refused(&good, &changed, &["v_proj", "not in the checkpoint"]);
    let mut changed = all();
    changed.insert(
        "blk.1.attn_q_norm.weight".into(),
        QTensor::quantize(&nan, GgmlDType::F32).unwrap(),
    );
    refused(&good, &changed, &["attn_q_norm", "not known"]);
    let mut stretched = pairs(FIVE);
    stretched.insert("llama.rope.scaling.type".into(), Value::String("linear".into()));
    stretched.insert("llama.rope.scaling.factor".into(), Value::F32(2.0));
    refused(&stretched, &tensors(FIVE, false), &["linear"]);
    let mut unsplit = pairs(FIVE);
    unsplit.insert("tokenizer.ggml.pre".into(), Value::String("tekken".into()));
    refused(&unsplit, &tensors(FIVE, false), &["tekken", "qwen2"]);

    // A scale that is infinite, in the middle of the blocks of the first matrix.
    write(&path, &good, &all());
    let whole = std::fs::read(&path).unwrap();
    for cut in [10, 5000, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let error = open_gguf(&path, Placement::new(Holding::Stored, DType::F32, &Device::Cpu))
            .err()
            .unwrap();
        assert!(
            matches!(error, ExportError::Format { .. }) && error.to_string().contains("truncated"),
            "{error}"
        );
    }
    let at = whole.len() - 144 * 100;
    let mut spoilt = whole;
    // The last tensor is the head, in Q6_K: some f16 of its blocks' ends, whichever lie here.
    spoilt[at..at + 420].fill(0x7c);
    std::fs::write(&path, &spoilt).unwrap();
    let error = open_gguf(&path, Placement::new(Holding::Stored, DType::F32, &Device::Cpu))
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("not a finite number"), "{error}");
}
