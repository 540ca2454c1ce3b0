//! What a machine keeps of its part in a shared training, in a file: one that was restarted, or that opens the
//! student anew for every round, goes on as if it had not.

use super::machine::{DECAY, Machine};
use super::sparse::Feedback;
use crate::Result;
use crate::adapter_file::matrix;
use crate::learner::Learner;
use crate::losses::Loss;
use crate::state::named;
use candle_core::Tensor;
use safetensors::SafeTensors;
use std::path::Path;
use uspx_model::whole_file::{self, floats};

/// The header's key; its text is how many steps the machine took.
const KEY: &str = "uspx_machine_1";
/// The lists of moments.
const MOMENTS: [&str; 2] = ["first", "second"];
/// What was left unsaid.
const UNSAID: &str = "unsaid";

/// Writes it. Where that fails the machine begins the next round anew, which costs a little.
pub(super) fn write(file: &Path, machine: &Machine) {
    if let Err(error) = try_to_write(file, machine) {
        tracing::warn!(%error, "a machine's part in a training is not kept");
    }
}

fn try_to_write(
    file: &Path,
    machine: &Machine,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let Machine { first, second, feedback, steps } = machine;
    let mut all = Vec::new();
    for (name, list) in MOMENTS.into_iter().zip([first, second]) {
        all.extend(named(name, list)?);
    }
    all.push(floats(UNSAID, &[feedback.residual.len()], &feedback.residual));
    Ok(whole_file::tensors(file, &all, Some((KEY, steps.to_string())))?)
}

/// The machine as it was left, or a new one.
///
/// # Errors
/// Those of the tensor library.
pub(super) fn read<L: Loss>(file: Option<&Path>, learner: &Learner<'_, L>) -> Result<Machine> {
    match file.filter(|file| file.exists()).map(|file| try_to_read(file, learner)) {
        Some(Ok(machine)) => Ok(machine),
        Some(Err(error)) => {
            tracing::warn!(error, "a machine's part in a training begins anew");
            Machine::new(learner)
        }
        None => Machine::new(learner),
    }
}

/// Why it cannot is for people.
fn try_to_read<L: Loss>(
    file: &Path,
    learner: &Learner<'_, L>,
) -> std::result::Result<Machine, String> {
    let vars = learner.optimiser.vars();
    let count: usize = vars.iter().map(|v| v.elem_count()).sum();
    let length = std::fs::metadata(file).map_err(|e| e.to_string())?.len();
    // Three numbers for each of the adapters', and the header.
    if length > 12 * count as u64 + (1 << 20) {
        return Err(format!("it has {length} bytes, more than this student's"));
    }
    let bytes = std::fs::read(file).map_err(|e| e.to_string())?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| e.to_string())?;
    let steps = metadata.metadata().as_ref().and_then(|m| m.get(KEY)?.parse().ok());
    let steps = steps.ok_or("its header names no machine")?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| e.to_string())?;
    let list = |name: &str| -> std::result::Result<Vec<Tensor>, String> {
        let one = |(at, var): (usize, &candle_core::Var)| {
            let shape = var.dims2().map_err(|e| e.to_string())?;
            matrix(&tensors, &format!("{name}.{at}"), shape, var.device())
                .map_err(|e| e.to_string())
        };
        vars.iter().enumerate().map(one).collect()
    };
    let [first, second] = MOMENTS;
    let unsaid = tensors.tensor(UNSAID).map_err(|e| e.to_string())?;
    let residual: Vec<f32> =
        unsaid.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    if residual.len() != count || !residual.iter().all(|x| x.is_finite()) {
        return Err("what was left unsaid is not this student's".into());
    }
    let feedback = Feedback { residual, decay: DECAY };
    Ok(Machine { first: list(first)?, second: list(second)?, feedback, steps })
}
