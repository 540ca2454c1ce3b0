//! The files: random weights in the names, pairs and block types of llama.cpp's own converters.

use crate::support::model;
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use uspx_export::gguf::{special, tokenizer};
use uspx_model::chat::ChatFiles;

pub const VOCAB: usize = 2048;
pub const HIDDEN: usize = 256;
pub const INNER: usize = 512;
pub const LAYERS: usize = 2;
pub const HEADS: usize = 4;
pub const KV: usize = 2;

/// What a file is to be like.
#[derive(Clone, Copy)]
pub struct Case {
    pub architecture: &'static str,
    pub head_dim: usize,
    pub tied: bool,
    /// Divisors as Llama 3.1 has them.
    pub stretched: bool,
    pub yarn: bool,
    /// The type of matrices; the embedding is Q6_K where they are Q4_K, as in usual files.
    pub blocks: GgmlDType,
}

pub const LLAMA: Case = Case {
    architecture: "llama",
    head_dim: 64,
    tied: false,
    stretched: true,
    yarn: false,
    blocks: GgmlDType::Q4K,
};
pub const QWEN2: Case = Case {
    architecture: "qwen2",
    tied: true,
    stretched: false,
    yarn: true,
    blocks: GgmlDType::Q8_0,
    ..LLAMA
};
pub const QWEN3: Case =
    Case { architecture: "qwen3", head_dim: 128, yarn: false, blocks: GgmlDType::F16, ..QWEN2 };
pub const FIVE: Case = Case { stretched: false, tied: true, blocks: GgmlDType::Q5K, ..LLAMA };
pub const CASES: [Case; 4] = [LLAMA, QWEN2, QWEN3, FIVE];

/// Values between -1 and 1 times `scale`, the same for the same seed.
pub fn random(seed: &mut u64, shape: &[usize], scale: f32) -> Tensor {
    let mut next = || {
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((*seed >> 40) as f32 / (1 << 23) as f32 - 1.0) * scale
    };
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Shapes by name; vectors are norms or biases.
pub fn shapes(case: Case) -> BTreeMap<String, Vec<usize>> {
    let (query, kv) = (HEADS * case.head_dim, KV * case.head_dim);
    let mut found = BTreeMap::from([
        ("token_embd.weight".to_owned(), vec![VOCAB, HIDDEN]),
        ("output_norm.weight".to_owned(), vec![HIDDEN]),
    ]);
    if !case.tied {
        found.insert("output.weight".into(), vec![VOCAB, HIDDEN]);
    }
    for layer in 0..LAYERS {
        let mut put = |name: &str, shape: &[usize]| {
            found.insert(format!("blk.{layer}.{name}"), shape.to_vec())
        };
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

pub fn tensors(case: Case, floats: bool) -> BTreeMap<String, QTensor> {
    let mut seed = 7;
    let mut made = BTreeMap::new();
    for (name, shape) in shapes(case) {
        let (dtype, values) = match shape.as_slice() {
            [rows, columns] => {
                let of_blocks = if *rows == VOCAB && case.blocks == GgmlDType::Q4K {
                    GgmlDType::Q6K
                } else {
                    case.blocks
                };
                // Rounded to blocks first: both files then hold the same weights.
                let values = random(&mut seed, &[*rows, *columns], 2.0 / (*columns as f32).sqrt());
                let rounded = QTensor::quantize(&values, of_blocks)
                    .unwrap()
                    .dequantize(&Device::Cpu)
                    .unwrap();
                (
                    if floats { GgmlDType::F32 } else { of_blocks },
                    if floats { rounded } else { values },
                )
            }
            width if name.ends_with(".bias") => (GgmlDType::F32, random(&mut seed, width, 0.5)),
            width => (GgmlDType::F32, (random(&mut seed, width, 0.3) + 1.0).unwrap()),
        };
        made.insert(name, QTensor::quantize(&values, dtype).unwrap());
    }
    if case.stretched {
        // theta 10,000, trained on 8192 tokens, 8 times as many: by the published rule.
        let divisor = |i: usize| {
            let turns = 8192.0 * 10_000f64.powf(-2.0 * i as f64 / case.head_dim as f64)
                / std::f64::consts::TAU;
            let smooth = ((turns - 1.0) / 3.0).clamp(0.0, 1.0);
            (1.0 / ((1.0 - smooth) / 8.0 + smooth)) as f32
        };
        let divisors: Vec<f32> = (0..case.head_dim / 2).map(divisor).collect();
        let divisors = Tensor::new(divisors, &Device::Cpu).unwrap();
        made.insert(
            "rope_freqs.weight".into(),
            QTensor::quantize(&divisors, GgmlDType::F32).unwrap(),
        );
    }
    made
}

pub fn pairs(case: Case) -> BTreeMap<String, Value> {
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

pub fn write(path: &Path, pairs: &BTreeMap<String, Value>, tensors: &BTreeMap<String, QTensor>) {
    let pairs: Vec<(&str, &Value)> = pairs.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(k, v)| (k.as_str(), v)).collect();
    gguf_file::write(&mut std::fs::File::create(path).unwrap(), &pairs, &tensors).unwrap();
}

/// A small random Llama in Q4_K.
pub fn random_llama(path: &Path) {
    write(path, &pairs(LLAMA), &tensors(LLAMA, false));
}

/// One model in two files.
pub struct Files {
    pub stored: PathBuf,
    pub floats: PathBuf,
}

impl Files {
    pub fn new(folder: &Path, case: Case) -> Self {
        let [stored, floats] = ["stored.gguf", "floats.gguf"].map(|name| folder.join(name));
        write(&stored, &pairs(case), &tensors(case, false));
        write(&floats, &pairs(case), &tensors(case, true));
        Self { stored, floats }
    }
}
