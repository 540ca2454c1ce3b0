//! The models of a colony of one machine, looked at once: large ones take a while to hash.

use crate::error::{CliError, Exit, Result};
use crate::progress::bar;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uspx_coordinator::CampaignPlan;
use uspx_wire::HeldModel;
use uspx_worker::holdings::Holdings;

/// A teacher, and a base student where one is wanted.
pub struct Models {
    /// The teacher's folder.
    pub teacher: PathBuf,
    /// The base student's folder.
    pub student: Option<PathBuf>,
    /// What is in them.
    pub holdings: Holdings,
}

impl Models {
    /// Looks at the folders.
    ///
    /// # Errors
    /// One that is not there, or holds no model.
    pub fn look(teacher: PathBuf, student: Option<PathBuf>) -> Result<Self> {
        let folders: Vec<PathBuf> = std::iter::once(&teacher).chain(&student).cloned().collect();
        if let Some(missing) = folders.iter().find(|folder| !folder.exists()) {
            let message = format!("there is no model at {}", missing.display());
            return Err(CliError::new(Exit::NotFound, message));
        }
        let bar = bar("reading the models");
        bar.enable_steady_tick(Duration::from_millis(500));
        let holdings = Holdings::scan(&folders)?;
        bar.finish_and_clear();
        Ok(Self { teacher, student, holdings })
    }

    /// Their folders.
    pub fn folders(&self) -> Vec<PathBuf> {
        std::iter::once(&self.teacher).chain(&self.student).cloned().collect()
    }

    /// Names them in the campaign.
    pub fn name_in(&self, plan: &mut CampaignPlan) {
        let of = |folder: &Path| self.holdings.at(folder).map(|held| held.fingerprint);
        let named = [Some(self.teacher.as_path()), self.student.as_deref()].map(|f| f.and_then(of));
        [plan.teacher, plan.student] = named;
        plan.stop_at_mask = self.student.is_none();
    }

    /// The teacher.
    pub fn teacher(&self) -> Option<&HeldModel> {
        self.holdings.at(&self.teacher)
    }
}
