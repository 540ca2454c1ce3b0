//! How this machine is shared out to a colony's workers.

use crate::args::MachineArgs;
use crate::error::Result;
use crate::models;
use uspx_model::budget::Workload;
use uspx_runtime::memory;
use uspx_worker::planning;

/// What is shared out.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Workers.
    pub workers: u16,
    /// Threads of each.
    pub threads: usize,
    /// The device's name.
    pub device: String,
    /// What each worker may use of it; memory is its share.
    pub each: planning::Machine,
}

impl Machine {
    /// Shares out what the flags name, or what is free.
    ///
    /// # Errors
    /// A device that is none, or cannot be asked for that type.
    pub fn of(flags: &MachineArgs, workers: u16, threads: usize) -> Result<Self> {
        let device = flags.device().to_owned();
        let whole = models::machine(flags)?;
        whole.dtype(Workload::Forward)?;
        let share = whole.budget() / u64::from(workers.max(1));
        let each = planning::Machine { memory: Some(share), ..whole };
        Ok(Self { workers, threads, device, each })
    }

    /// All of the CPU, with batches of so many tokens.
    pub fn cpu(workers: u16, threads: usize, batch_tokens: usize) -> Self {
        let share = memory::of_machine().1 / u64::from(workers.max(1));
        let (memory, batch_tokens) = (Some(share), Some(batch_tokens));
        let each = planning::Machine { memory, batch_tokens, ..planning::Machine::cpu() };
        Self { workers, threads, device: "cpu".to_owned(), each }
    }

    /// What each worker may use, as flags of `uspx worker`.
    pub fn flags(&self) -> Vec<String> {
        let mut flags = vec!["--device".to_owned(), self.device.clone()];
        let mut flag = |name: &str, value: String| flags.extend([format!("--{name}"), value]);
        flag("threads", self.threads.to_string());
        let dtype = self.each.dtype.map(|dtype| dtype.as_str().to_owned());
        dtype.into_iter().for_each(|dtype| flag("dtype", dtype));
        self.each.memory.into_iter().for_each(|bytes| flag("memory", bytes.to_string()));
        let tokens = self.each.batch_tokens.into_iter();
        tokens.for_each(|tokens| flag("batch-tokens", tokens.to_string()));
        if self.each.stream {
            flags.push("--stream".to_owned());
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_the_memory_and_processes_are_told() {
        let flags = MachineArgs {
            device: None,
            dtype: None,
            threads: None,
            batch_tokens: Some(512),
            memory: Some(bytesize::ByteSize::gib(4)),
            stream: true,
        };
        let machine = Machine::of(&flags, 2, 3).unwrap();
        assert_eq!(machine.each.memory, Some(2 << 30));
        let told = machine.flags().join(" ");
        let wanted = "--device cpu --threads 3 --memory 2147483648 --batch-tokens 512 --stream";
        assert_eq!(told, wanted);
    }
}
