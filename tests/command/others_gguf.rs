//! GGUF files as others make them, in llama.cpp: small random Llamas, Qwen 2s and Qwen 3s, with what sets each apart
//! (biases, norms of heads, heads of another width, tied and own heads, stretched rotations) and in several block types.
//!
//! On weights in F32 llama.cpp multiplies floats as we do: there the worst logit is bound tightly, which proves names,
//! rows, rotation and metadata. On blocks it rounds the inputs of products to 8 bits, where we keep 16: there our
//! products in blocks are bound tightly against our own floats, and loosely against llama.cpp.

use crate::llama_cpp::{apart, need, ours, theirs};
use crate::support::model;
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use libtest_mimic::Trial;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use uspx_export::gguf::{FromGguf, read_gguf, read_quantised, special, tokenizer};
use uspx_export::{ExportError, open_gguf};
use uspx_model::chat::ChatFiles;
use uspx_model::{Holding, Placement};
use uspx_tests::trials;

const VOCAB: usize = 2048;
const HIDDEN: usize = 256;
const INNER: usize = 512;
const LAYERS: usize = 2;
const HEADS: usize = 4;
const KV: usize = 2;

/// What a file is to be like.
#[derive(Clone, Copy)]
struct Case {
    architecture: &'static str,
    head_dim: usize,
    tied: bool,
    /// Divisors as Llama 3.1 has them.
    stretched: bool,
    yarn: bool,
    /// The type of matrices; the embedding is Q6_K where they are Q4_K, as in usual files.
    blocks: GgmlDType,
}

const LLAMA: Case =
    Case { architecture: "llama", head_dim: 64, tied: false, stretched: true, yarn: false, blocks: GgmlDType::Q4K };
const QWEN2: Case =
    Case { architecture: "qwen2", tied: true, stretched: false, yarn: true, blocks: GgmlDType::Q8_0, ..LLAMA };
const QWEN3: Case = Case { architecture: "qwen3", head_dim: 128, yarn: false, blocks: GgmlDType::F16, ..QWEN2 };
const FIVE: Case = Case { stretched: false, tied: true, blocks: GgmlDType::Q5K, ..LLAMA };
const CASES: [Case; 4] = [LLAMA, QWEN2, QWEN3, FIVE];

pub fn trials() -> Vec<Trial> {
    let mut trials = trials![
        products_in_blocks_are_those_in_floats,
        matrices_stay_in_their_blocks,
        damaged_files_are_refused_with_what_is_wrong,
    ];
    trials.extend(need().of_all(trials![files_of_every_architecture_mean_what_llama_cpp_takes_them_for]));
    trials
}

/// Values between -1 and 1 times `scale`, the same for the same seed.
fn random(seed: &mut u64, shape: &[usize], scale: f32) -> Tensor {
    let mut next = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((*seed >> 40) as f32 / (1 << 23) as f32 - 1.0) * scale
    };
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Shapes by name; vectors are norms or biases.
fn shapes(case: Case) -> BTreeMap<String, Vec<usize>> {
    let (query, kv) = (HEADS * case.head_dim, KV * case.head_dim);
    let mut found = BTreeMap::from([
        ("token_embd.weight".to_owned(), vec![VOCAB, HIDDEN]),
        ("output_norm.weight".to_owned(), vec![HIDDEN]),
    ]);
    if !case.tied {
        found.insert("output.weight".into(), vec![VOCAB, HIDDEN]);
    }
    for layer in 0..LAYERS {
        let mut put = |name: &str, shape: &[usize]| found.insert(format!("blk.{layer}.{name}"), shape.to_vec());
        put("attn_norm.weight", &[HIDDEN]);
        put("ffn_norm.weight", &[HIDDEN]);
        put("attn_q.weight", &[query, HIDDEN]);
        put("attn_k.weight", &[kv, HIDDEN]);
        put("attn_v.weight", &[kv, HIDDEN]);
        put("attn_output.weight", &[HIDDEN, query]);
        put("ffn_gate.weight", &[INNER, HIDDEN]);
        put("ffn_up.weight", &[INNER, HIDDEN]);
        put("ffn_down.weight", &[HIDDEN, INNER]);
        match case.architecture {
            "qwen2" => {
                put("attn_q.bias", &[query]);
                put("attn_k.bias", &[kv]);
                put("attn_v.bias", &[kv]);
            }
            "qwen3" => {
                put("attn_q_norm.weight", &[case.head_dim]);
                put("attn_k_norm.weight", &[case.head_dim]);
            }
            _ => {}
        }
    }
    found
}

fn tensors(case: Case, floats: bool) -> BTreeMap<String, QTensor> {
    let mut seed = 7;
    let mut made = BTreeMap::new();
    for (name, shape) in shapes(case) {
        let (dtype, values) = match shape.as_slice() {
            [rows, columns] => {
                let of_blocks =
                    if *rows == VOCAB && case.blocks == GgmlDType::Q4K { GgmlDType::Q6K } else { case.blocks };
                // Rounded to blocks first: both files then hold the same weights.
                let values = random(&mut seed, &[*rows, *columns], 2.0 / (*columns as f32).sqrt());
                let rounded = QTensor::quantize(&values, of_blocks).unwrap().dequantize(&Device::Cpu).unwrap();
                (if floats { GgmlDType::F32 } else { of_blocks }, if floats { rounded } else { values })
            }
            width if name.ends_with(".bias") => (GgmlDType::F32, random(&mut seed, width, 0.5)),
            width => (GgmlDType::F32, (random(&mut seed, width, 0.3) + 1.0).unwrap()),
        };
        made.insert(name, QTensor::quantize(&values, dtype).unwrap());
    }
    if case.stretched {
        // theta 10,000, trained on 8192 tokens, 8 times as many: by the published rule.
        let divisor = |i: usize| {
            let turns = 8192.0 * 10_000f64.powf(-2.0 * i as f64 / case.head_dim as f64) / std::f64::consts::TAU;
            let smooth = ((turns - 1.0) / 3.0).clamp(0.0, 1.0);
            (1.0 / ((1.0 - smooth) / 8.0 + smooth)) as f32
        };
        let divisors: Vec<f32> = (0..case.head_dim / 2).map(divisor).collect();
        let divisors = Tensor::new(divisors, &Device::Cpu).unwrap();
        made.insert("rope_freqs.weight".into(), QTensor::quantize(&divisors, GgmlDType::F32).unwrap());
    }
    made
}

fn pairs(case: Case) -> BTreeMap<String, Value> {
    let chat = ChatFiles::read(&model("student")).unwrap();
    let mut pairs = tokenizer::to_gguf(&chat.tokenizer, VOCAB).unwrap();
    pairs.extend(special::to_gguf(&chat).unwrap());
    let a = case.architecture;
    let mut put = |key: &str, value: Value| pairs.insert(key.replace("ARCH", a), value);
    put("general.architecture", Value::String(a.into()));
    if a != "llama" {
        put("tokenizer.ggml.pre", Value::String("qwen2".into()));
    }
    put("tokenizer.chat_template", Value::String(chat.template.clone()));
    for (key, value) in [
        ("block_count", LAYERS),
        ("context_length", 65_536),
        ("embedding_length", HIDDEN),
        ("feed_forward_length", INNER),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", KV),
        ("attention.key_length", case.head_dim),
        ("attention.value_length", case.head_dim),
        ("rope.dimension_count", case.head_dim),
    ] {
        put(&format!("ARCH.{key}"), Value::U32(value as u32));
    }
    put("ARCH.attention.layer_norm_rms_epsilon", Value::F32(1e-6));
    put("ARCH.rope.freq_base", Value::F32(10_000.0));
    if case.yarn {
        put("ARCH.rope.scaling.type", Value::String("yarn".into()));
        put("ARCH.rope.scaling.factor", Value::F32(4.0));
        put("ARCH.rope.scaling.original_context_length", Value::U32(16_384));
    }
    pairs
}

fn write(path: &Path, pairs: &BTreeMap<String, Value>, tensors: &BTreeMap<String, QTensor>) {
    let pairs: Vec<(&str, &Value)> = pairs.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(k, v)| (k.as_str(), v)).collect();
    gguf_file::write(&mut std::fs::File::create(path).unwrap(), &pairs, &tensors).unwrap();
}

/// A small random Llama in Q4_K.
pub fn random_llama(path: &Path) {
    write(path, &pairs(LLAMA), &tensors(LLAMA, false));
}

/// One model in two files.
struct Files {
    stored: PathBuf,
    floats: PathBuf,
}

impl Files {
    fn new(folder: &Path, case: Case) -> Self {
        let [stored, floats] = ["stored.gguf", "floats.gguf"].map(|name| folder.join(name));
        write(&stored, &pairs(case), &tensors(case, false));
        write(&floats, &pairs(case), &tensors(case, true));
        Self { stored, floats }
    }
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
        let [own, expanded] = [Holding::Stored, Holding::Floats].map(|holding| ours(&files.stored, &asked(), holding));
        let (what, gap) = (name(case), relative(&expanded, &own));
        println!("{what}: in blocks {gap:.2e} from our floats");
        assert!(gap < 2e-4, "{what}: products in blocks are {gap} from those in floats");
        assert!(relative(&expanded, &ours(&files.floats, &asked(), Holding::Stored)) < 1e-5, "{what}");
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
    let refused = |pairs: &BTreeMap<String, Value>, tensors: &BTreeMap<String, QTensor>, words: &[&str]| {
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
    changed.insert("blk.0.attn_output.weight".into(), QTensor::quantize(&odd, GgmlDType::Q4K).unwrap());
    refused(&good, &changed, &["o_proj", "[256, 512]", "[256, 256]"]);
    let mut changed = all();
    let nan = Tensor::full(f32::NAN, HIDDEN, &Device::Cpu).unwrap();
    changed.insert("blk.1.ffn_norm.weight".into(), QTensor::quantize(&nan, GgmlDType::F32).unwrap());
    refused(&good, &changed, &["ffn_norm", "not a number"]);
    let mut changed = all();
    changed.remove("blk.1.attn_v.weight");
    refused(&good, &changed, &["v_proj", "not in the checkpoint"]);
    let mut changed = all();
    changed.insert("blk.1.attn_q_norm.weight".into(), QTensor::quantize(&nan, GgmlDType::F32).unwrap());
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
        let error = open_gguf(&path, Placement::new(Holding::Stored, DType::F32, &Device::Cpu)).err().unwrap();
        assert!(matches!(error, ExportError::Format { .. }) && error.to_string().contains("truncated"), "{error}");
    }
    let at = whole.len() - 144 * 100;
    let mut spoilt = whole;
    // The last tensor is the head, in Q6_K: some f16 of its blocks' ends, whichever lie here.
    spoilt[at..at + 420].fill(0x7c);
    std::fs::write(&path, &spoilt).unwrap();
    let error = open_gguf(&path, Placement::new(Holding::Stored, DType::F32, &Device::Cpu)).err().unwrap().to_string();
    assert!(error.contains("not a finite number"), "{error}");
}
