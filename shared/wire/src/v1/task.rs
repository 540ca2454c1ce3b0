//! A task on its way to a worker.

use super::jobs::{Ablate, Distil, Estimate, Export, Judge, Sae};
use super::label::Label;
use super::part::Part;
use crate::Unread;
use serde::{Deserialize, Serialize};
use uspx_domain::{self as domain, Fingerprint, TaskId};

#[derive(Serialize, Deserialize)]
pub(crate) struct Task {
    id: TaskId,
    epoch: u32,
    model: Fingerprint,
    work: Work,
}

one_of! {
    /// The kinds of job, under the names that [`uspx_domain::Work::kind`] has.
    Work {
        Estimate(Estimate) = "estimate",
        Ablate(Ablate) = "ablate",
        Label(Label) = "label",
        Distil(Distil) = "distil",
        Export(Export) = "export",
        Judge(Judge) = "judge",
        Sae(Sae) = "sae",
        Part(Part) = "part",
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Prompt {
    id: String,
    prompt: String,
    reference: Option<String>,
    system: Option<String>,
    tags: Vec<String>,
    /// A worker that does not know of it is not asked ([`crate::HeartbeatMessage::may_be_asked`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    earlier: Vec<Exchange>,
}

#[derive(Serialize, Deserialize)]
struct Exchange {
    user: String,
    assistant: String,
}

impl From<&domain::Task> for Task {
    fn from(task: &domain::Task) -> Self {
        Self { id: task.id, epoch: task.epoch, model: task.model, work: (&task.work).into() }
    }
}

impl TryFrom<Task> for domain::Task {
    type Error = Unread;
    fn try_from(task: Task) -> Result<Self, Unread> {
        Ok(Self { id: task.id, epoch: task.epoch, model: task.model, work: task.work.try_into()? })
    }
}

impl From<&domain::Work<domain::Prompt>> for Work {
    fn from(work: &domain::Work<domain::Prompt>) -> Self {
        match work {
            domain::Work::Estimate(job) => Self::Estimate(job.into()),
            domain::Work::Ablate(job) => Self::Ablate(job.into()),
            domain::Work::Label(job) => Self::Label(job.into()),
            domain::Work::Distil(job) => Self::Distil(job.into()),
            domain::Work::Export(job) => Self::Export(job.into()),
            domain::Work::Judge(job) => Self::Judge(job.into()),
            domain::Work::Sae(job) => Self::Sae(job.into()),
            domain::Work::Part(job) => Self::Part(job.into()),
        }
    }
}

impl TryFrom<Work> for domain::Work<domain::Prompt> {
    type Error = Unread;
    fn try_from(work: Work) -> Result<Self, Unread> {
        Ok(match work {
            Work::Estimate(job) => Self::Estimate(job.try_into()?),
            Work::Ablate(job) => Self::Ablate(job.try_into()?),
            Work::Label(job) => Self::Label(job.try_into()?),
            Work::Distil(job) => Self::Distil(job.try_into()?),
            Work::Export(job) => Self::Export(job.try_into()?),
            Work::Judge(job) => Self::Judge(job.try_into()?),
            Work::Sae(job) => Self::Sae(job.try_into()?),
            Work::Part(job) => Self::Part(job.try_into()?),
            Work::Unknown => return Err(Unread::Unknown("a kind of job")),
        })
    }
}

impl From<&domain::Prompt> for Prompt {
    fn from(prompt: &domain::Prompt) -> Self {
        let domain::Prompt { id, prompt, reference, system, tags, earlier } = prompt.clone();
        let earlier =
            earlier.into_iter().map(|e| Exchange { user: e.user, assistant: e.assistant });
        Self { id, prompt, reference, system, tags, earlier: earlier.collect() }
    }
}

impl From<Prompt> for domain::Prompt {
    fn from(prompt: Prompt) -> Self {
        let Prompt { id, prompt, reference, system, tags, earlier } = prompt;
        let exchange = |e: Exchange| domain::Exchange { user: e.user, assistant: e.assistant };
        let earlier = earlier.into_iter().map(exchange).collect();
        Self { id, prompt, reference, system, tags, earlier }
    }
}
