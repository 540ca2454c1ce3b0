//! `uspx run` as a person chats with it, at a pseudo-terminal: commands, history, Ctrl-C; and from
//! a pipe.

use crate::students::student;
use crate::support::{model, uspx};
use libtest_mimic::Trial;
use rexpect::session::{PtySession, spawn_command};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::{TempDir, tempdir};
use uspx_model::chat::{Bounds, Turn};
use uspx_model::generate::{Choice, generate};
use uspx_model::taps::NoTaps;
use uspx_tests::{Need, trials};

pub fn trials() -> Vec<Trial> {
    let there = Path::new("/dev/ptmx").exists();
    let terminal = Need::new("pseudo-terminal", "USPX_REQUIRE_PTY", there);
    let mut trials = trials![a_pipe_s_lines_are_turns_of_one_conversation];
    trials.extend(terminal.of_all(trials![
        commands_are_heeded_and_the_nearest_is_named,
        lines_are_remembered_for_their_person_alone,
        ctrl_c_stops_the_answer_and_then_says_how_to_leave,
    ]));
    trials
}

/// The longest that a test waits for a word.
const PATIENCE: u64 = 60_000;

/// A person at a terminal.
struct Person {
    session: PtySession,
    state: TempDir,
}

impl Person {
    fn with(path: &Path, words: &[&str]) -> Self {
        Self::again(path, words, tempdir().unwrap())
    }

    /// The same person, back.
    fn again(path: &Path, words: &[&str], state: TempDir) -> Self {
        let mut command = Command::new(uspx_tests::uspx());
        command.env_clear().env("PATH", "/usr/bin:/bin").env("TERM", "xterm");
        command.env("XDG_STATE_HOME", state.path()).env("RAYON_NUM_THREADS", "1");
        command.args(["run", "--threads", "1", "--engine", "own", "--model"]).arg(path).args(words);
        let session = spawn_command(command, Some(PATIENCE)).unwrap();
        let mut person = Self { session, state };
        person.sees("ends the chat");
        person.sees("> ");
        person
    }

    fn sees(&mut self, words: &str) -> String {
        self.session.exp_string(words).unwrap_or_else(|e| panic!("no `{words}`: {e}"))
    }

    fn writes(&mut self, line: &str) {
        self.session.send(line).unwrap();
        self.session.send("\r").unwrap();
        self.session.flush().unwrap();
    }

    fn presses(&mut self, key: char) {
        self.session.send_control(key).unwrap();
    }

    /// Writes and sees the answer.
    fn asks(&mut self, line: &str, words: &str) {
        self.writes(line);
        self.sees(words);
        self.sees("> ");
    }

    fn leaves(mut self) -> TempDir {
        self.presses('d');
        self.ends();
        self.state
    }

    /// The program ends by itself, well.
    fn ends(&mut self) {
        self.session.exp_eof().unwrap();
        let status = self.session.process().wait().unwrap();
        assert!(matches!(status, rexpect::process::wait::WaitStatus::Exited(_, 0)), "{status:?}");
    }

    fn history(state: &TempDir) -> PathBuf {
        state.path().join("uspx/chat-history")
    }
}

fn commands_are_heeded_and_the_nearest_is_named() {
    let mut person = Person::with(&model("student"), &["--max-new-tokens", "8"]);
    person.asks("/help", "/stats");
    person.asks("/stats", "answers: 0");
    person.writes("List files");
    person.sees("\n");
    person.sees("> ");
    person.asks("/stats", "answers: 1");
    person.asks("/halp", "there is no /halp. Did you mean /help?");
    person.asks("/xyzzy", "there is no /xyzzy. /help");
    person.asks("/new", "forgotten");
    person.asks("/stats", "the conversation has 0 tokens");
    person.writes("/bye");
    person.ends();
}

fn lines_are_remembered_for_their_person_alone() {
    let mut first = Person::with(&model("student"), &[]);
    first.asks("/frobnicate", "there is no /frobnicate");
    let state = first.leaves();
    let path = Person::history(&state);
    assert!(fs::read_to_string(&path).unwrap().contains("/frobnicate"));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    let mut second = Person::again(&model("student"), &[], state);
    // The arrow up brings the last line back.
    second.asks("\u{1b}[A", "there is no /frobnicate");
    // Home, and a word before it.
    second.writes("nicate\u{1b}[H/frob");
    second.sees("there is no /frobnicate");
    second.leaves();
}

fn ctrl_c_stops_the_answer_and_then_says_how_to_leave() {
    // So hot that every token is as likely as another: hardly one in a thousand ends the answer.
    let words = ["--temperature", "1000", "--max-new-tokens", "1000000"];
    let mut person = Person::with(&model("teacher"), &words);
    person.asks("/stats", "answers: 0");
    person.writes("go on for ever");
    person.session.exp_regex(r"ever[^\n]*\n").unwrap();
    // A signal that comes before the work begins would end the chat.
    std::thread::sleep(std::time::Duration::from_millis(200));
    person.presses('c');
    person.sees("stopped");
    person.sees("> ");
    person.presses('c');
    person.sees("Ctrl-D or /bye ends the chat");
    person.sees("> ");
    person.leaves();
}

/// The second answer is what the model makes of the whole conversation.
fn a_pipe_s_lines_are_turns_of_one_conversation() {
    let mut command = uspx();
    command.args(["run", "--threads", "1", "--json", "--max-new-tokens", "12", "--model"]);
    command.arg(model("student")).write_stdin("List files\n\n/new\n");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut said = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>();
    let mut next = || said.next().unwrap().unwrap()["text"].as_str().unwrap().to_owned();
    let (first, second) = (next(), next());

    let student = student();
    let answer = |turns: &[Turn]| {
        let asked = student.chat.conversation(turns).unwrap();
        let bounds = Bounds::answer(12);
        let mut choice = Choice::Greedy;
        let made =
            generate(&student, &[&asked], bounds, &mut choice, &mut NoTaps, &mut |_, _, _| {});
        student.chat.answer_text(&made.unwrap()[0].ids)
    };
    let mut turns = vec![Turn::user("List files")];
    assert_eq!(first, answer(&turns));
    // In a pipe a slash is a prompt like any other.
    turns.extend([Turn::assistant(&first), Turn::user("/new")]);
    assert_eq!(second, answer(&turns));
    assert!(said.next().is_none());
}
