//! States of jobs under way, on this machine's disk, one file a task: a job that was interrupted goes
//! on where its worker gets the task again. A task's name binds its content, so a state is never
//! another task's. Another machine finds them in the store (`sharing.rs`).

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;
use uspx_domain::TaskId;

/// States that are kept of tasks that have gone elsewhere, the youngest.
const KEPT: usize = 4;

/// The folder of states.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
}

impl Checkpoints {
    /// Opens the folder, and clears what was left over of tasks long gone.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with('.') {
                // Half written when its worker was killed.
                fs::remove_file(entry.path())?;
                continue;
            }
            found.push((entry.metadata()?.modified()?, entry.path()));
        }
        found.sort();
        let old = found.len().saturating_sub(KEPT);
        for (_, path) in found.into_iter().take(old) {
            fs::remove_file(path)?;
        }
        Ok(Self { folder })
    }

    /// The file of a task.
    pub fn place(&self, task: TaskId) -> PathBuf {
        self.folder.join(task.to_string())
    }

    /// The task is done. Whether it had a state.
    pub fn done(&self, task: TaskId) -> bool {
        fs::remove_file(self.place(task)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn states_outlive_a_restart_and_do_not_pile_up() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Checkpoints::open(dir.path().join("kept")).unwrap();
        let task = |n: u8| TaskId::derived(&[n]);
        let start = SystemTime::now() - Duration::from_secs(3600);
        for n in 0..7 {
            let file = fs::File::create(kept.place(task(n))).unwrap();
            file.set_modified(start + Duration::from_secs(u64::from(n))).unwrap();
        }
        fs::write(dir.path().join("kept/.tmpHalf"), b"half").unwrap();
        assert!(kept.done(task(6)) && !kept.done(task(99)));
        let again = Checkpoints::open(dir.path().join("kept")).unwrap();
        let there = (0..7).filter(|n| again.place(task(*n)).exists()).collect::<Vec<_>>();
        assert_eq!(there, [2, 3, 4, 5]);
        assert!(!dir.path().join("kept/.tmpHalf").exists());
    }
}
