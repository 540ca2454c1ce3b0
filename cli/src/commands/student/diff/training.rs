//! How the student of a release was trained, as far as it tells: the recipe that was chosen, its
//! training, and the adapter's form.

use super::Headings;
use crate::commands::student::published::{Published, json_file};
use crate::error::Result;
use crate::output;
use serde::{Deserialize, Serialize};
use uspx_artifact::Store;
use uspx_domain::ADAPTER_CONFIG;

/// Of one release.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Training {
    /// The recipe's place in the campaign's list, from 1.
    pub recipe: Option<u32>,
    pub rank: Option<u64>,
    pub alpha: Option<f64>,
    pub steps: Option<u32>,
    pub best_epoch: Option<u32>,
    /// Validation loss, nats per response token.
    pub loss_before: Option<f32>,
    pub loss_after: Option<f32>,
    /// Prompts that the teacher made up.
    pub dreams: Option<u64>,
}

/// The part of PEFT's file that tells of the recipe.
#[derive(Debug, Deserialize)]
struct Adapter {
    r: Option<u64>,
    lora_alpha: Option<f64>,
}

impl Training {
    /// What a release tells of it.
    pub async fn of(store: &Store, release: &Published) -> Result<Self> {
        let path = format!("adapter/{ADAPTER_CONFIG}");
        let adapter: Option<Adapter> = json_file(store, &release.manifest, &path).await?;
        let figures = release.report.figures.as_ref();
        let chosen = figures.and_then(|f| f.chosen_recipe);
        let summary = figures.zip(chosen).and_then(|(f, recipe)| f.trainings.get(&recipe));
        Ok(Self {
            recipe: chosen.map(|place| place.saturating_add(1)),
            rank: adapter.as_ref().and_then(|a| a.r),
            alpha: adapter.as_ref().and_then(|a| a.lora_alpha),
            steps: summary.map(|s| s.steps),
            best_epoch: summary.map(|s| s.best_epoch),
            loss_before: summary.map(|s| s.before),
            loss_after: summary.map(|s| s.after),
            dreams: figures.map(|f| f.dreams),
        })
    }

    fn cells(&self) -> [(&'static str, String); 8] {
        fn cell<T: ToString>(value: Option<T>) -> String {
            value.map_or_else(|| "-".to_owned(), |value| value.to_string())
        }
        let loss = |loss: Option<f32>| cell(loss.map(|loss| format!("{loss:.3}")));
        [
            ("recipe", cell(self.recipe)),
            ("rank", cell(self.rank)),
            ("alpha", cell(self.alpha)),
            ("steps", cell(self.steps)),
            ("best pass", cell(self.best_epoch)),
            ("validation loss before", loss(self.loss_before)),
            ("validation loss after", loss(self.loss_after)),
            ("prompts made up by the teacher", cell(self.dreams)),
        ]
    }
}

/// Both, for a person.
pub fn show((first, second): &(Training, Training), headings: &Headings) -> Result<()> {
    let mut table = output::table(&["training", &headings.first, &headings.second]);
    for ((name, first), (_, second)) in first.cells().into_iter().zip(second.cells()) {
        table.add_row([name.to_owned(), first, second]);
    }
    output::line(&table.to_string())
}
