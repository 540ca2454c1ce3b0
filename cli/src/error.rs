//! What a person sees when something fails: what is wrong, where, what to do; and the exit code of
//! the contract.

use miette::Diagnostic;
use serde_json::json;
use std::fmt::Display;
use std::io::IsTerminal;
use std::process::ExitCode;
use thiserror::Error;
use uspx_model::ModelError;
use uspx_model::budget::TRAINED;

/// The documented exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Something failed that no other code describes.
    Failed = 1,
    /// The command line makes no sense (clap's own errors end so too).
    Usage = 2,
    /// A file or value given is not what it should be.
    BadInput = 3,
    /// A file or thing named does not exist.
    NotFound = 4,
    /// A server or store cannot be reached.
    Unreachable = 5,
    /// A check refused: a hash, a gate, a lock, a version.
    Refused = 6,
    /// Ctrl-C.
    Interrupted = 130,
}

/// An error on its way to the person.
#[derive(Debug, Error, Diagnostic)]
#[error("{message}")]
pub struct CliError {
    exit: Exit,
    message: String,
    #[help]
    help: Option<String>,
}

/// Lines wrapped for a screen cannot be searched or copied from a log: without a terminal they stay
/// whole.
pub fn plain_lines_without_a_terminal() {
    if std::io::stderr().is_terminal() {
        return;
    }
    let options = miette::MietteHandlerOpts::new().width(10_000).color(false);
    let installed = miette::set_hook(Box::new(move |_| Box::new(options.clone().build())));
    if installed.is_err() {
        tracing::debug!("an error handler was installed before");
    }
}

/// Results of commands.
pub type Result<T> = std::result::Result<T, CliError>;

impl CliError {
    /// An error that ends with `exit`.
    pub fn new(exit: Exit, message: impl Display) -> Self {
        Self { exit, message: message.to_string(), help: None }
    }

    /// A library's error, with the causes beneath it as far as its own words leave them out.
    pub fn caused(exit: Exit, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut message = error.to_string();
        for cause in std::iter::successors(error.source(), |cause| cause.source()) {
            let words = cause.to_string();
            if !message.contains(&words) {
                message = format!("{message}: {words}");
            }
        }
        Self::new(exit, message)
    }

    /// What the person can do about it.
    pub fn help(mut self, help: impl Display) -> Self {
        self.help = Some(help.to_string());
        self
    }

    /// Whether that is how it ends.
    pub fn ends_with(&self, exit: Exit) -> bool {
        self.exit == exit
    }

    /// A file that could not be read or written.
    pub fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::NotFound {
            return Self::new(Exit::NotFound, format!("{} does not exist", path.display()))
                .help("check the path; relative paths count from where uspx is started");
        }
        Self::new(Exit::BadInput, format!("{}: {error}", path.display()))
    }

    /// What clap says of a command line that makes no sense.
    pub fn of_usage(error: &clap::Error) -> Self {
        let whole = error.render().to_string();
        let (what, rest) = whole.split_once("\n\n").unwrap_or((&whole, ""));
        let message = what.strip_prefix("error: ").unwrap_or(what).trim_end();
        let help = rest.split("\n\n").find(|part| part.starts_with("Usage:")).map(str::trim);
        Self { help: help.map(str::to_owned), ..Self::new(Exit::Usage, message) }
    }

    /// Prints the error and gives its exit code: for people, or for scripts as
    /// `{"error": {"message", "help", "code"}}`.
    pub fn report(self, json: bool) -> ExitCode {
        let exit = self.exit;
        let text = match (json, exit) {
            (true, _) => self.json(),
            (false, Exit::Interrupted) => self.message,
            (false, _) => format!("{:?}", miette::Report::new(self)),
        };
        crate::output::note(&text);
        ExitCode::from(exit as u8)
    }

    fn json(&self) -> String {
        let Self { exit, message, help } = self;
        let error = json!({"message": message, "help": help, "code": *exit as u8});
        json!({ "error": error }).to_string()
    }
}

impl From<ModelError> for CliError {
    fn from(error: ModelError) -> Self {
        let exit = match &error {
            ModelError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Exit::NotFound
            }
            ModelError::Stopped => Exit::Interrupted,
            ModelError::Candle(_) => Exit::Failed,
            _ => Exit::BadInput,
        };
        let trained = matches!(error, ModelError::Budget { what: TRAINED, .. });
        let remedy = || "--nf4 holds the student in 4 bits while it learns".to_owned();
        Self { help: trained.then(remedy), ..Self::caused(exit, &error) }
    }
}

impl From<uspx_worker::planning::PlanningError> for CliError {
    fn from(error: uspx_worker::planning::PlanningError) -> Self {
        use uspx_worker::planning::PlanningError;
        match error {
            PlanningError::Model(inner) => inner.into(),
            other => {
                Self { help: other.remedy().map(str::to_owned), ..Self::new(Exit::Usage, other) }
            }
        }
    }
}

impl From<uspx_export::ExportError> for CliError {
    fn from(error: uspx_export::ExportError) -> Self {
        use uspx_export::ExportError;
        match error {
            ExportError::Model(inner) => inner.into(),
            error @ (ExportError::Refused(_) | ExportError::Room { .. }) => {
                Self::caused(Exit::Refused, &error)
            }
            other => Self::caused(Exit::BadInput, &other),
        }
    }
}

impl From<uspx_distill::DistillError> for CliError {
    fn from(error: uspx_distill::DistillError) -> Self {
        use uspx_distill::DistillError;
        match error {
            DistillError::Model(inner) => inner.into(),
            error @ DistillError::Recipe(_) => Self::caused(Exit::Usage, &error),
            error @ DistillError::OtherBase { .. } => Self::caused(Exit::Refused, &error),
            error => Self::caused(Exit::BadInput, &error),
        }
    }
}

impl From<uspx_sae::SaeError> for CliError {
    fn from(error: uspx_sae::SaeError) -> Self {
        use uspx_sae::SaeError;
        let exit = match error {
            SaeError::Model(inner) => return inner.into(),
            SaeError::File { path, source } => return Self::file(&path, &source),
            SaeError::Recipe(_) => Exit::Usage,
            SaeError::OtherTraining { .. } | SaeError::OtherModel { .. } => Exit::Refused,
            _ => Exit::BadInput,
        };
        Self::caused(exit, &error)
    }
}

impl From<uspx_artifact::ArtifactError> for CliError {
    fn from(error: uspx_artifact::ArtifactError) -> Self {
        use uspx_artifact::ErrorKind;
        let exit = match error.kind() {
            ErrorKind::Usage => Exit::Usage,
            ErrorKind::BadInput => Exit::BadInput,
            ErrorKind::NotFound => Exit::NotFound,
            ErrorKind::Unreachable => Exit::Unreachable,
            ErrorKind::Refused => Exit::Refused,
            ErrorKind::Failed => Exit::Failed,
        };
        Self::caused(exit, &error)
    }
}

impl From<uspx_bus::BusError> for CliError {
    fn from(error: uspx_bus::BusError) -> Self {
        use uspx_bus::BusError;
        let exit = match &error {
            BusError::ServerTooOld { .. } | BusError::Refused { .. } => Exit::Refused,
            other if other.is_retryable() => Exit::Unreachable,
            _ => Exit::Failed,
        };
        Self::caused(exit, &error)
    }
}

impl From<uspx_bus::server::ServerError> for CliError {
    fn from(error: uspx_bus::server::ServerError) -> Self {
        use uspx_bus::server::ServerError;
        let exit = match &error {
            ServerError::TooOld { .. } => Exit::Refused,
            ServerError::NotFound { .. } => Exit::NotFound,
            _ => Exit::Failed,
        };
        Self::caused(exit, &error)
    }
}

impl From<uspx_coordinator::ServiceError> for CliError {
    fn from(error: uspx_coordinator::ServiceError) -> Self {
        use uspx_coordinator::ServiceError;
        match error {
            ServiceError::Bus(inner) => inner.into(),
            ServiceError::Artifact(inner) => inner.into(),
            error @ (ServiceError::Locked(_)
            | ServiceError::Owned { .. }
            | ServiceError::Replaced { .. }
            | ServiceError::Damaged { .. }
            | ServiceError::OldLedger(_)
            | ServiceError::Occupied(_)
            | ServiceError::Stranger { .. }
            | ServiceError::OtherSnapshot { .. }
            | ServiceError::UnknownRecord { .. }) => Self::caused(Exit::Refused, &error),
            error @ (ServiceError::File { .. }
            | ServiceError::Encode(_)
            | ServiceError::Wire(_)) => Self::caused(Exit::Failed, &error),
            error => Self::caused(Exit::BadInput, &error),
        }
    }
}

impl From<uspx_worker::WorkerError> for CliError {
    fn from(error: uspx_worker::WorkerError) -> Self {
        use uspx_worker::WorkerError;
        match error {
            WorkerError::Bus(inner) => inner.into(),
            WorkerError::Machine(inner) => inner.into(),
            error @ WorkerError::Model { .. } => Self::caused(Exit::BadInput, &error),
            error @ (WorkerError::Busy(_) | WorkerError::Taken { .. }) => {
                Self::caused(Exit::Refused, &error)
            }
            error => Self::caused(Exit::Failed, &error),
        }
    }
}

impl From<uspx_runtime::config::ConfigError> for CliError {
    fn from(error: uspx_runtime::config::ConfigError) -> Self {
        let exit = match &error {
            uspx_runtime::config::ConfigError::NotFound(_) => Exit::NotFound,
            uspx_runtime::config::ConfigError::Value(_)
            | uspx_runtime::config::ConfigError::Unreadable { .. } => Exit::BadInput,
        };
        Self::caused(exit, &error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    /// A library's error that keeps its cause to itself.
    #[derive(Debug, Error)]
    #[error("cannot prepare student.gguf")]
    struct Silent(#[source] io::Error);

    #[derive(Debug, Error)]
    #[error("pulling failed: {0}")]
    struct Outer(#[source] Silent);

    #[test]
    fn for_scripts_an_error_is_one_line_of_json() {
        let error = CliError::new(Exit::NotFound, "no \"x\"\nhere").help("look there");
        let read: serde_json::Value = serde_json::from_str(&error.json()).unwrap();
        let wanted =
            json!({"error": {"message": "no \"x\"\nhere", "help": "look there", "code": 4}});
        assert_eq!((read, error.json().lines().count()), (wanted, 1));
    }

    #[test]
    fn every_cause_is_told_and_none_twice() {
        let full = || io::Error::from_raw_os_error(28);
        let told = CliError::caused(Exit::Failed, &Outer(Silent(full()))).to_string();
        assert_eq!(told, format!("pulling failed: cannot prepare student.gguf: {}", full()));
        assert!(told.contains("No space left on device"), "{told}");
    }
}
