//! Accepted answers whose evidence has not acted yet, in little room: of thousands of answers the units that they speak of
//! are the same, and so are the prompts of one answer's rows. In a snapshot they stand as they came.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::sync::Arc;
use uspx_domain::{Answer, Column, LossRow, Outcome, PromptTokens, Statistic, TaskId, Unit};

/// Lists of units that are looked through for one that is there already.
const LISTS: usize = 16;

/// What columns are about, and how many values each has.
type Units = Vec<(Statistic, Unit, usize)>;

/// Answers by their tasks.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Pending {
    answers: BTreeMap<TaskId, Packed>,
    /// Of the latest deposits.
    lists: Vec<Arc<Units>>,
}

/// An answer without what others say as well.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Packed {
    /// Its columns are empty, and its rows after the first have no prompts where they are the first one's.
    answer: Answer,
    units: Arc<Units>,
    values: Box<[f32]>,
}

impl Pending {
    /// Takes an answer in, in the place of what there was to its task.
    pub fn insert(&mut self, mut answer: Answer) {
        let mut columns = Vec::new();
        match &mut answer.outcome {
            Outcome::Scores(deposit) => columns = std::mem::take(&mut deposit.columns),
            Outcome::Losses(rows) => share_prompts(rows),
            _ => {}
        }
        let units = columns.iter().map(|c| (c.statistic, c.unit, c.values.len())).collect();
        let values = columns.into_iter().flat_map(|c| c.values).collect();
        let units = self.listed(units);
        self.answers.insert(answer.task, Packed { answer, units, values });
    }

    fn listed(&mut self, units: Units) -> Arc<Units> {
        if let Some(known) = self.lists.iter().find(|known| ***known == units) {
            return known.clone();
        }
        if self.lists.len() >= LISTS {
            self.lists.remove(0);
        }
        let new = Arc::new(units);
        self.lists.push(new.clone());
        new
    }

    /// The answer to a task, as it came.
    pub fn get(&self, task: &TaskId) -> Option<Answer> {
        self.answers.get(task).map(Packed::answer)
    }

    /// Whether a task was answered.
    pub fn contains(&self, task: &TaskId) -> bool {
        self.answers.contains_key(task)
    }

    /// Forgets the answer to a task.
    pub fn remove(&mut self, task: &TaskId) {
        self.answers.remove(task);
    }

    /// All, in the order of their tasks' names.
    pub fn iter(&self) -> impl Iterator<Item = (TaskId, &Packed)> {
        self.answers.iter().map(|(task, packed)| (*task, packed))
    }
}

impl Packed {
    /// The answer without numbers of single units.
    pub fn bare(&self) -> &Answer {
        &self.answer
    }

    /// The answer as it came.
    pub fn answer(&self) -> Answer {
        let mut answer = self.answer.clone();
        match &mut answer.outcome {
            Outcome::Scores(deposit) => deposit.columns = self.columns(),
            Outcome::Losses(rows) => give_prompts(rows),
            _ => {}
        }
        answer
    }

    fn columns(&self) -> Vec<Column> {
        let mut values = self.values.iter().copied();
        let column = |(statistic, unit, count): &(Statistic, Unit, usize)| Column {
            unit: *unit,
            statistic: *statistic,
            values: values.by_ref().take(*count).collect(),
        };
        self.units.iter().map(column).collect()
    }
}

/// Leaves the prompts out of every row that has the first one's. Rows without any are not such.
fn share_prompts(rows: &mut [LossRow]) {
    let Some((first, others)) = rows.split_first_mut() else { return };
    if others.iter().all(|row| row.prompts == first.prompts) {
        others.iter_mut().for_each(|row| row.prompts = Vec::new());
    }
}

/// The reverse: where rows after the first have none, they have the first one's.
fn give_prompts(rows: &mut [LossRow]) {
    let Some((first, others)) = rows.split_first_mut() else { return };
    if others.iter().all(|row| row.prompts.is_empty()) {
        let prompts: &Vec<PromptTokens> = &first.prompts;
        others.iter_mut().for_each(|row| row.prompts.clone_from(prompts));
    }
}

impl Serialize for Pending {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.answers.iter().map(|(task, packed)| (task, packed.answer())))
    }
}

impl<'de> Deserialize<'de> for Pending {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut pending = Self::default();
        let answers = BTreeMap::<TaskId, Answer>::deserialize(deserializer)?;
        answers.into_values().for_each(|answer| pending.insert(answer));
        Ok(pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_domain::{Deposit, UnitKind};

    fn answer(name: &str, outcome: Outcome) -> Answer {
        let (task, worker) = (TaskId::derived(name.as_bytes()), "w".parse().unwrap());
        Answer { task, worker, outcome, millis: 1, skipped: vec![], seams: 0 }
    }

    fn prompts(ids: &[&str]) -> Vec<PromptTokens> {
        ids.iter().map(|id| PromptTokens { id: (*id).to_owned(), tokens: 3 }).collect()
    }

    fn row(ids: &[&str], nats: &[f32]) -> LossRow {
        LossRow { prompts: prompts(ids), nats: nats.to_vec(), ..LossRow::default() }
    }

    #[test]
    fn answers_come_out_as_they_went_in() {
        let column = |index, values: &[f32]| Column {
            unit: Unit { kind: UnitKind::Expert, layer: 1, index },
            statistic: Statistic::EASY_EP,
            values: values.to_vec(),
        };
        let scores = |columns| {
            Outcome::Scores(Deposit { prompts: prompts(&["a", "b"]), columns, moments: vec![] })
        };
        let all = [
            answer("scores", scores(vec![column(0, &[1.0, 2.0]), column(1, &[])])),
            answer("like them", scores(vec![column(0, &[3.0, 4.0]), column(1, &[])])),
            answer("no scores", scores(vec![])),
            answer("rows", Outcome::Losses(vec![row(&["a"], &[1.0]), row(&["a"], &[2.0])])),
            answer("unlike", Outcome::Losses(vec![row(&["a"], &[1.0]), row(&["b"], &[2.0])])),
            answer("bare", Outcome::Losses(vec![row(&[], &[]), row(&[], &[])])),
            answer("none", Outcome::Losses(vec![])),
        ];
        let mut pending = Pending::default();
        all.iter().for_each(|answer| pending.insert(answer.clone()));
        for answer in &all {
            assert_eq!(pending.get(&answer.task).as_ref(), Some(answer));
        }
        let shared = |name: &str| pending.answers[&TaskId::derived(name.as_bytes())].units.clone();
        assert!(Arc::ptr_eq(&shared("scores"), &shared("like them")));

        let plain: BTreeMap<TaskId, Answer> = all.into_iter().map(|a| (a.task, a)).collect();
        let bytes = rmp_serde::to_vec_named(&pending).unwrap();
        assert!(
            bytes == rmp_serde::to_vec_named(&plain).unwrap(),
            "a snapshot has them as they came"
        );
        assert!(rmp_serde::from_slice::<Pending>(&bytes).unwrap().answers == pending.answers);
    }
}
