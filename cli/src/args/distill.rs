//! `uspx distill`: one training, made here.

use super::answers::{AnswerArgs, ServedArgs, share};
use super::model::RunArgs;
use super::positive;
use super::sae::SaeFolderArgs;
use crate::prompts::PromptSource;
use crate::rows;
use clap::Args;
use std::path::{Path, PathBuf};
use uspx_colony::campaign::StudentPlan;
use uspx_distill::on_policy::OnPolicy;
use uspx_distill::{Asking, Keeping, Sharing};
use uspx_domain::{Answering, DistilLoss, DistilRecipe};

/// `uspx distill`.
#[derive(Args, Debug)]
pub struct DistillArgs {
    /// The teacher's folder, or a GGUF file.
    #[arg(long, required_unless_present = "teacher_url")]
    pub teacher: Option<PathBuf>,
    /// A teacher elsewhere.
    #[command(flatten)]
    pub served: ServedArgs,
    /// The student's folder: a dense model, held in memory as 32-bit floats, or by --nf4 in 4 bits.
    #[arg(long)]
    pub student: PathBuf,
    /// Hold the student's layers in NF4 while its adapter learns (QLoRA): an eighth of the memory,
    /// slower. On the CPU or CUDA.
    #[arg(long)]
    pub nf4: bool,
    /// The prompts to learn: JSON lines with `prompt` (and `reference`, `system`) or `messages`. Those
    /// without a reference are answered by the teacher.
    #[arg(long)]
    pub prompts: PathBuf,
    /// The prompts to stop by [default: a tenth of --prompts, drawn by --seed].
    #[arg(long)]
    pub validation: Option<PathBuf>,
    /// A mask for the teacher.
    #[arg(long)]
    pub mask: Option<PathBuf>,
    /// Whose features the teacher's mask keeps.
    #[command(flatten)]
    pub saes: SaeFolderArgs,
    /// The folder to write the adapter to, as PEFT reads it; it must not be there yet.
    #[arg(long)]
    pub out: PathBuf,
    /// Keep the training's state in this file every two minutes and when it is stopped, and go on from
    /// what lies there; it is deleted in the end. Labels are made again.
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
    /// The student's own mask, of heads and channels (uspx mask build --model STUDENT --units
    /// head,channel): it learns to do without what this cuts, and is judged without. The adapter is the
    /// whole student's; uspx mask export --adapter writes the smaller one.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["machines", "on_policy"])]
    pub student_mask: Option<PathBuf>,
    /// Share of the planned steps over which what --student-mask cuts fades away, 0 to 1; at 0 it is gone from
    /// the first.
    #[arg(long, value_name = "SHARE", value_parser = share, default_value_t = 0.5, requires = "student_mask")]
    pub ramp: f32,
    /// The prompts are plain text, one a line.
    #[arg(long)]
    pub text: bool,
    /// Use the first N prompts only.
    #[arg(long, value_parser = positive)]
    pub limit: Option<usize>,
    /// Go on without lines that are not prompts.
    #[arg(long)]
    pub skip_bad: bool,
    /// What is learned of them.
    #[command(flatten)]
    pub answers: AnswerArgs,
    /// Bound on an answer that the teacher gives itself, in tokens.
    #[arg(long, default_value_t = plan().max_new_tokens as usize)]
    pub max_new_tokens: usize,
    /// Teacher's probabilities kept per token.
    #[arg(long, default_value_t = plan().top_k)]
    pub top_k: u32,
    /// Keep what so many draws from the teacher's distribution give at each token, instead of its likeliest
    /// tokens (Sparse Logit Sampling, arXiv 2503.16870): right in the mean, tail and all; 50, say. --loss gold
    /// and --on-policy need the likeliest.
    #[arg(long, value_name = "DRAWS", conflicts_with_all = ["top_k", "on_policy"])]
    pub sampled: Option<u32>,
    /// How often each prompt to learn gives rise to a new one that the teacher makes up and answers.
    #[arg(long, default_value_t = 0, value_name = "ROUNDS")]
    pub dreams: u32,
    /// Rounds after the training in which the student answers the prompts itself and learns what the
    /// teacher says of these answers. The best adapter on the prompts to stop by is kept.
    #[arg(long, default_value_t = 0, value_name = "ROUNDS")]
    pub on_policy: u32,
    /// Train as so many machines that share the work would, here one after another: to see what sharing
    /// costs.
    #[arg(long, value_parser = positive, value_name = "N", conflicts_with = "checkpoint")]
    pub machines: Option<usize>,
    /// Steps of each machine between two exchanges.
    #[arg(long, value_parser = positive, default_value_t = 30, value_name = "STEPS", requires = "machines")]
    pub exchange_every: usize,
    /// How to train.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// How to run.
    #[command(flatten)]
    pub run: RunArgs,
}

impl DistillArgs {
    /// How it is trained.
    pub fn recipe(&self) -> DistilRecipe {
        DistilRecipe { nf4: self.nf4, ..self.recipe.recipe() }
    }

    /// What is kept of the teacher's word on a token.
    pub fn keeping(&self) -> Keeping {
        let seed = self.recipe.seed;
        self.sampled
            .map_or(Keeping::Likeliest(self.top_k), |draws| Keeping::Sampled { draws, seed })
    }

    /// How the student learns from its own answers.
    pub fn on_policy(&self) -> OnPolicy {
        OnPolicy { rounds: self.on_policy, ..OnPolicy::default() }
    }

    /// How the training is shared, where it is.
    pub fn sharing(&self) -> Option<Sharing> {
        let steps = self.exchange_every;
        self.machines.map(|machines| Sharing { steps, ..Sharing::among(machines) })
    }

    /// How a teacher is asked for such answers, which has `room` for so many tokens at once.
    pub fn asking(&self, how: &Answering, room: usize) -> Asking {
        let bounds = self.run.bounds(self.max_new_tokens);
        Asking::of(how, self.recipe.seed, (bounds, room))
    }

    /// A prompt file of this command, and how it is to be read.
    pub fn source<'a>(&self, path: &'a Path) -> PromptSource<'a> {
        PromptSource::new(path, self.text, self.skip_bad)
    }
}

/// How a student is trained; what is not said is as in a colony's campaign.
#[derive(Args, Debug)]
pub struct RecipeArgs {
    /// Rank of the adapter's matrices; 0: what suits the student.
    #[arg(long, default_value_t = usual().rank)]
    pub rank: u32,
    /// LoRA's alpha; the adapter's product is scaled by alpha / rank; 0: the rank.
    #[arg(long, default_value_t = usual().alpha)]
    pub alpha: f32,
    /// Passes over the prompts, at most: two without a better loss end the training.
    #[arg(long, default_value_t = usual().epochs)]
    pub epochs: u32,
    /// Peak learning rate of AdamW; 0: what suits the student.
    #[arg(long, default_value_t = usual().learning_rate)]
    pub learning_rate: f32,
    /// Tokens of a training step.
    #[arg(long, default_value_t = usual().batch_tokens)]
    pub step_tokens: u32,
    /// Weight of what the teacher says against the answers' text, 0 to 1.
    #[arg(long, default_value_t = usual().teacher_weight)]
    pub teacher_weight: f32,
    /// What is learned of the teacher.
    #[arg(long, default_value_t = usual().loss, value_parser = rows::distil_loss())]
    pub loss: DistilLoss,
    /// Seed of everything that is drawn.
    #[arg(long, default_value_t = usual().seed)]
    pub seed: u64,
}

impl RecipeArgs {
    /// The recipe.
    pub fn recipe(&self) -> DistilRecipe {
        DistilRecipe {
            rank: self.rank,
            alpha: self.alpha,
            epochs: self.epochs,
            learning_rate: self.learning_rate,
            batch_tokens: self.step_tokens,
            teacher_weight: self.teacher_weight,
            seed: self.seed,
            loss: self.loss,
            nf4: false,
        }
    }
}

fn plan() -> StudentPlan {
    StudentPlan::default()
}

/// A campaign's last recipe: the one that listens to the teacher.
fn usual() -> DistilRecipe {
    plan().recipes.last().copied().unwrap_or_else(uspx_distill::recipe_teacher)
}
