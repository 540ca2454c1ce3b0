//! `uspx run --engine`: when a GGUF file is handed to llama.cpp, what it is asked, and how its
//! failures end. The llama.cpp is a script that speaks llama-server's protocol and notes what it
//! was asked.

use crate::others_gguf::random_llama;
use crate::support::{NOT_FOUND, json, refuses, uspx};
use assert_cmd::Command;
use libtest_mimic::Trial;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use uspx_tests::{Need, trials};

pub fn trials() -> Vec<Trial> {
    let mut trials = trials![a_llama_cpp_that_is_missing_or_fails_ends_as_the_contract_says];
    trials.extend(python().of_all(trials![
        llama_cpp_gets_our_tokens_and_its_tokens_are_the_answer,
        auto_says_what_it_chose_and_why,
    ]));
    trials
}

/// What runs the script.
fn python() -> Need {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|folder| folder.join("python3").is_file());
    Need::new("python3", "USPX_REQUIRE_PYTHON", there)
}

const FAILED: i32 = 1;

const SERVER: &str = r#"#!/usr/bin/env python3
import http.server, json, os, sys

notes = os.path.join(os.path.dirname(os.path.abspath(__file__)), "notes.json")
arguments = sys.argv[1:]

class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def reply(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.reply({"status": "ok"})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with open(notes, "w") as file:
            json.dump({"arguments": arguments, "path": self.path, "asked": asked, "process": os.getpid()}, file)
        # The prompt's last tokens come back.
        timings = {"predicted_per_second": 12.5, "prompt_per_second": 99.0}
        self.reply({"tokens": asked["prompt"][-3:], "stop_type": "limit", "timings": timings})

port = int(arguments[arguments.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"#;

/// A GGUF file, and a folder with a `llama-server` of this text.
struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new(server: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        random_llama(&folder.path().join("x.gguf"));
        let path = folder.path().join("llama-server");
        std::fs::write(&path, server).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `uspx run` on the file, the folder being first on PATH.
    fn run(&self, words: &[&str]) -> Command {
        let mut command = uspx();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders =
            std::iter::once(self.folder.path().to_owned()).chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(folders).unwrap());
        command
            .args(["run", "--threads", "1", "--max-new-tokens", "3", "--model"])
            .arg(self.path("x.gguf"));
        command.args(words);
        command
    }
}

fn is_running(process: u64) -> bool {
    Path::new(&format!("/proc/{process}")).exists()
}

fn llama_cpp_gets_our_tokens_and_its_tokens_are_the_answer() {
    let scene = Scene::new(SERVER);
    let answer =
        json(&mut scene.run(&["--engine", "llama.cpp", "--system", "Be brief.", "list files"]));
    assert_eq!((&answer["engine"], &answer["tokens"]), (&"llama.cpp".into(), &3.into()));
    assert_eq!((&answer["tokens_per_second"], &answer["ended"]), (&12.5.into(), &false.into()));
    let notes: Value =
        serde_json::from_slice(&std::fs::read(scene.path("notes.json")).unwrap()).unwrap();
    assert_eq!((&notes["path"], &notes["asked"]["n_predict"]), (&"/completion".into(), &3.into()));
    let arguments: Vec<&str> =
        notes["arguments"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    assert!(arguments.windows(2).any(|w| w == ["-t", "1"]), "{arguments:?}");
    assert!(arguments.contains(&scene.path("x.gguf").to_str().unwrap()), "{arguments:?}");
    // The whole conversation, as ids: it is longer than the answer's three tokens.
    assert!(notes["asked"]["prompt"].as_array().unwrap().len() > 10, "{notes}");
    // It went with the answer.
    assert!(!is_running(notes["process"].as_u64().unwrap()), "the server was left running");

    let own = json(&mut scene.run(&["--engine", "own", "list files"]));
    assert_eq!((&own["engine"], &own["tokens"]), (&"own".into(), &3.into()));
}

fn auto_says_what_it_chose_and_why() {
    let scene = Scene::new(SERVER);
    let said = |command: &mut Command| {
        let output = command.arg("list files").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stderr).unwrap()
    };
    let slow = said(scene.run(&[]).env("USPX_KERNEL", "portable"));
    assert!(slow.contains("engine: llama.cpp") && slow.contains("--engine own"), "{slow}");
    // Nothing is said where there is nothing to choose.
    let alone = said(scene.run(&[]).env("USPX_KERNEL", "portable").env("PATH", "/usr/bin:/bin"));
    assert!(!alone.contains("engine"), "{alone}");
}

fn a_llama_cpp_that_is_missing_or_fails_ends_as_the_contract_says() {
    let scene = Scene::new("#!/bin/sh\nexit 7\n");
    let ask = |words: &[&str]| scene.run(&[&["--engine", "llama.cpp", "hi"], words].concat());
    refuses(&mut ask(&[]), FAILED, &["llama.cpp", "exit status: 7", "--engine own"]);
    let nowhere = scene.path("nowhere");
    refuses(
        ask(&[]).env("USPX_LLAMA_CPP", &nowhere),
        NOT_FOUND,
        &["llama-server", "USPX_LLAMA_CPP", "--engine own"],
    );
    let folder = crate::support::model("student");
    let mut command = uspx();
    command.args(["run", "--engine", "llama.cpp", "hi", "--model"]).arg(folder);
    refuses(&mut command, NOT_FOUND, &["GGUF", "--engine own"]);
}
