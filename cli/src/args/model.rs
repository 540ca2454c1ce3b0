//! How a model is run: flags of every command that runs one.

use super::positive;
use bytesize::ByteSize;
use candle_core::DType;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize, Serializer};
use uspx_model::chat::{Bounds, OpenedReasoning};

/// What of the machine is used, and how: flags of everything that runs models, workers too. A
/// worker's configuration has keys of the same names.
#[derive(Args, Debug, Clone, Serialize)]
pub struct MachineArgs {
    /// Where to run: cpu, cuda:0, metal [default: cpu].
    #[arg(long, env = "USPX_DEVICE")]
    pub device: Option<String>,
    /// What to compute with: f32, or bf16 on a GPU [default: bf16 on CUDA where no gradient is
    /// asked for, else f32; of a worker f32].
    #[arg(long, env = "USPX_DTYPE")]
    pub dtype: Option<Precision>,
    /// Threads for the mathematics [default: the physical cores].
    #[arg(long, env = "USPX_THREADS", value_parser = positive)]
    pub threads: Option<usize>,
    /// Tokens run together [default: as many as the memory takes, 4096 where that is enough].
    #[arg(long, env = "USPX_BATCH_TOKENS", value_parser = positive)]
    pub batch_tokens: Option<usize>,
    /// Memory to stay within, `4GiB` say [default: what is free]. It decides whether a model is
    /// streamed.
    #[arg(long, env = "USPX_MEMORY")]
    #[serde(serialize_with = "in_bytes")]
    pub memory: Option<ByteSize>,
    /// Leave the weights in their file and read one layer at a time, whatever the memory.
    #[arg(long)]
    pub stream: bool,
}

fn in_bytes<S: Serializer>(memory: &Option<ByteSize>, to: S) -> Result<S::Ok, S::Error> {
    memory.map(|memory| memory.as_u64()).serialize(to)
}

impl MachineArgs {
    /// The device's name.
    pub fn device(&self) -> &str {
        self.device.as_deref().unwrap_or("cpu")
    }
}

/// Flags of everything that runs a model.
#[derive(Args, Debug, Clone)]
pub struct RunArgs {
    /// Where, in what, within how much memory.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Bound on what a model that reasons writes before its answer; one that meets it has given no
    /// answer.
    #[arg(long, env = "USPX_MAX_REASONING_TOKENS", default_value_t = Bounds::REASONING)]
    pub max_reasoning_tokens: usize,
    /// What becomes of reasoning that the generation prompt opens, where a given answer is scored:
    /// an empty think block (closed), or none (open: the answer stands in the reasoning's place).
    #[arg(long, env = "USPX_REASONING", value_enum, default_value = "closed")]
    pub reasoning: Opened,
    /// Print one JSON document on stdout.
    #[arg(long)]
    pub json: bool,
}

impl RunArgs {
    /// Bounds on a reply whose answer has at most `answer` tokens.
    pub fn bounds(&self, answer: usize) -> Bounds {
        Bounds { answer, reasoning: self.max_reasoning_tokens }
    }
}

/// See [`OpenedReasoning`].
#[derive(ValueEnum, Debug, Clone, Copy)]
pub enum Opened {
    /// Closed empty.
    Closed,
    /// Left open.
    Open,
}

impl From<Opened> for OpenedReasoning {
    fn from(opened: Opened) -> Self {
        match opened {
            Opened::Closed => Self::Closed,
            Opened::Open => Self::Open,
        }
    }
}

/// What is computed with.
#[derive(ValueEnum, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// 16-bit floats with the exponent of 32-bit ones; sums and norms in 32 bits.
    Bf16,
}

impl From<Precision> for DType {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::BF16,
        }
    }
}
