//! Where the teacher is served, and how patient to be with it.

use std::time::Duration;

/// A served teacher. Not printable: it may hold a key.
#[derive(Clone)]
pub struct Settings {
    /// What the server's paths follow: `http://127.0.0.1:8080/v1`.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// The API key, where one is wanted.
    pub key: Option<String>,
    /// Requests under way at a time.
    pub at_once: usize,
    /// Likeliest tokens to ask for at each place. Most servers give at most 20.
    pub top_k: u32,
    /// With its faults.
    pub patience: Patience,
}

/// How faults are met that another try may mend.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until an answer is whole.
    pub timeout: Duration,
    /// Tries of a request in all.
    pub tries: usize,
    /// Before the second try; it doubles with each further one, and what a server asks for goes before.
    pub wait: Duration,
    /// The longest wait between two tries.
    pub longest: Duration,
}

impl Default for Patience {
    /// Some two minutes of waiting beside the requests themselves: a server that loads its model.
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(600),
            tries: 7,
            wait: Duration::from_secs(1),
            longest: Duration::from_secs(60),
        }
    }
}
