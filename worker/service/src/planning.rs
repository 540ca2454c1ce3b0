//! What of this machine may be used, and how a model is placed on it: held or streamed, in which
//! type, and how many tokens run together. The command line and the colony's workers plan alike.

use candle_core::{DType, Device};
use std::path::Path;
use uspx_distill::recipe;
use uspx_domain::DistilRecipe;
use uspx_export::formats;
use uspx_model::budget::{Beside, Demands, Plan, Workload};
use uspx_model::config::ModelConfig;
use uspx_model::{Holding, ModelError, Placement, device_memory};
use uspx_runtime::memory;

/// Tokens of a batch where nothing is known of a model's demands.
const BATCH_TOKENS: usize = 4096;

/// What of a machine may be used.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Where to compute.
    pub device: Device,
    /// What to compute with; none: bf16 on CUDA where no unit's gradient is asked for, else f32.
    pub dtype: Option<DType>,
    /// Bytes of memory (the device's own, where it has some) to stay within; none: what is free.
    /// Whoever runs several workers in one process shares it out.
    pub memory: Option<u64>,
    /// Whether weights stay in their file whatever the memory.
    pub stream: bool,
    /// Tokens run together, as far as a `memory` that is given has room for them; none: as many as
    /// the memory takes and gain anything.
    pub batch_tokens: Option<usize>,
}

/// What a machine cannot be asked for.
#[derive(Debug, thiserror::Error)]
pub enum PlanningError {
    /// bf16 where it gains nothing.
    #[error("bf16 is for GPUs")]
    Bf16OnCpu,
    /// A student's 4-bit files are not streamed.
    #[error("--stream reads folders of safetensors, not 4-bit students")]
    Streamed4Bit,
    /// The model cannot be read, or does not fit.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl PlanningError {
    /// What to do about it, where the words of the error do not say so.
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Bf16OnCpu => Some(
                "leave out --dtype: on the CPU, bf16 weights are multiplied exactly, with sums in f32",
            ),
            Self::Streamed4Bit => Some("leave out --stream: a 4-bit student fits in memory"),
            Self::Model(_) => None,
        }
    }
}

/// How a model is to be opened and run.
#[derive(Debug, Clone)]
pub struct Placed {
    /// How it is opened.
    pub placement: Placement,
    /// Tokens run together.
    pub batch_tokens: usize,
    /// Tokens that there is memory for at once.
    pub room: usize,
    /// The plan that says so; none of 4-bit students, which are small and held.
    pub plan: Option<Plan>,
}

impl Machine {
    /// All of the CPU and of what memory is free.
    pub fn cpu() -> Self {
        Self { device: Device::Cpu, dtype: None, memory: None, stream: false, batch_tokens: None }
    }

    /// Bytes to stay within: those given, or what is free now. Of a GPU's, an eighth is left for
    /// what its libraries take as they run.
    pub fn budget(&self) -> u64 {
        let free = || match device_memory(&self.device) {
            Some(free) => free - free / 8,
            None => memory::of_machine().1,
        };
        self.memory.unwrap_or_else(free)
    }

    /// The type to compute with. Gradients of single units are small differences: bf16 only where
    /// it is asked for. What is trained or written is f32; the frozen layers that an adapter learns on in NF4 are
    /// multiplied in bf16 on a GPU.
    ///
    /// # Errors
    /// [`PlanningError::Bf16OnCpu`].
    pub fn dtype(&self, work: Workload) -> Result<DType, PlanningError> {
        match (self.dtype, work) {
            (Some(DType::BF16), _) if self.device.is_cpu() => Err(PlanningError::Bf16OnCpu),
            (
                Some(dtype),
                Workload::Forward | Workload::Backward | Workload::TrainingNf4 { .. },
            ) => Ok(dtype),
            (None, Workload::Forward | Workload::TrainingNf4 { .. }) if self.device.is_cuda() => {
                Ok(DType::BF16)
            }
            _ => Ok(DType::F32),
        }
    }

    /// What training the student in `folder` by `recipe` is: the adapters' rank follows from its width, and one
    /// held in NF4 takes what the type computed with asks.
    ///
    /// # Errors
    /// A folder whose configuration cannot be read; as [`Machine::dtype`].
    pub fn training(
        &self,
        folder: &Path,
        recipe: &DistilRecipe,
    ) -> Result<Workload, PlanningError> {
        let hidden = ModelConfig::open(folder)?.hidden;
        let batch_tokens = recipe.batch_tokens as usize;
        let rank = recipe::resolved(recipe, hidden).rank as usize;
        if !recipe.nf4 {
            return Ok(Workload::Training { batch_tokens, rank });
        }
        let work = |width| Workload::TrainingNf4 { batch_tokens, rank, width };
        Ok(work(self.dtype(work(0))?.size_in_bytes()))
    }

    /// The plan for a model with these demands within `budget` bytes.
    ///
    /// # Errors
    /// [`ModelError::Budget`]: it does not fit.
    pub fn plan(&self, demands: &Demands, work: Workload, budget: u64) -> Result<Plan, ModelError> {
        let plan = demands.plan(budget, work, self.stream, &self.device)?;
        let room = if self.memory.is_some() { plan.room } else { usize::MAX };
        let batch_tokens = self.batch_tokens.map_or(plan.batch_tokens, |asked| asked.min(room));
        Ok(Plan { batch_tokens, ..plan })
    }

    /// How a model is opened by a plan.
    ///
    /// # Errors
    /// As [`Machine::dtype`].
    pub fn placement(&self, plan: &Plan, work: Workload) -> Result<Placement, PlanningError> {
        let placement = Placement::new(plan.holding, self.dtype(work)?, &self.device);
        Ok(Placement { boundaries: plan.boundaries, ..placement })
    }

    /// How the model at `path` is opened and run with something else beside it: a folder of floats or
    /// MXFP4 by plan, a 4-bit student in memory.
    ///
    /// # Errors
    /// What the machine cannot be asked for, a model that cannot be read or does not fit.
    pub fn place(
        &self,
        path: &Path,
        work: Workload,
        beside: Beside,
    ) -> Result<Placed, PlanningError> {
        if formats::at(path).is_some() {
            return self.hold(work);
        }
        // Before the folder is read: what is wrong with the flags comes first.
        self.dtype(work)?;
        let plan = self.plan(&Demands::of_folder(path)?.with(beside), work, self.budget())?;
        Ok(Placed {
            placement: self.placement(&plan, work)?,
            batch_tokens: plan.batch_tokens,
            room: plan.room,
            plan: Some(plan),
        })
    }

    fn hold(&self, work: Workload) -> Result<Placed, PlanningError> {
        if self.stream {
            return Err(PlanningError::Streamed4Bit);
        }
        let batch_tokens = self.batch_tokens.unwrap_or(BATCH_TOKENS);
        let placement = Placement::new(Holding::Stored, self.dtype(work)?, &self.device);
        Ok(Placed { placement, batch_tokens, room: usize::MAX, plan: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    const NONE: Beside = Beside::NOTHING;

    fn nano(which: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/nano").join(which)
    }

    #[test]
    fn a_model_is_placed_as_the_machine_may() {
        let machine = Machine { memory: Some(1 << 30), ..Machine::cpu() };
        let placed = machine.place(&nano("teacher"), Workload::Forward, NONE).unwrap();
        assert_eq!(placed.placement.holding, Holding::Stored);
        let streaming = Machine { stream: true, batch_tokens: Some(99), ..machine };
        let placed = streaming.place(&nano("teacher"), Workload::Backward, NONE).unwrap();
        assert_eq!((placed.placement.holding, placed.batch_tokens), (Holding::Streamed, 99));
        assert_eq!(placed.placement.boundaries, placed.plan.unwrap().boundaries);
        let narrow = Machine { memory: Some(180 << 20), batch_tokens: Some(9999), ..streaming };
        let placed = narrow.place(&nano("teacher"), Workload::Backward, NONE).unwrap();
        let promised = placed.plan.unwrap().room;
        assert!(promised < 9999, "not narrow: {promised}");
        assert_eq!(placed.batch_tokens, promised, "memory is a promise");
    }

    #[test]
    fn what_a_machine_cannot_do_is_said() {
        let bf16 = Machine { dtype: Some(DType::BF16), ..Machine::cpu() };
        let refused = bf16.place(&nano("teacher"), Workload::Forward, NONE);
        assert!(matches!(refused, Err(PlanningError::Bf16OnCpu)));
        let file = nano("teacher").join("config.json");
        let streaming = Machine { stream: true, ..Machine::cpu() };
        let refused = streaming.place(&file, Workload::Forward, NONE);
        assert!(matches!(refused, Err(PlanningError::Streamed4Bit)));
        let small = Machine { memory: Some(1 << 20), ..Machine::cpu() };
        let refused = small.place(&nano("teacher"), Workload::Forward, NONE);
        assert!(matches!(refused, Err(PlanningError::Model(ModelError::Budget { .. }))));
    }

    #[test]
    fn what_is_trained_or_written_is_f32() {
        let machine = Machine { dtype: Some(DType::F32), ..Machine::cpu() };
        for work in [Workload::Forward, Workload::Training { batch_tokens: 1, rank: 1 }] {
            assert_eq!(machine.dtype(work).unwrap(), DType::F32);
        }
    }
}
