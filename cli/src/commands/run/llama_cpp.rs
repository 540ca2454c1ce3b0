//! `uspx run` by an installed llama.cpp: its `llama-server` is started on the GGUF file and asked
//! over the loopback.
//!
//! The server takes token ids and gives token ids, so the prompt is ours (the file's own template,
//! as our engine would have it) and the answer is decoded by us; nothing of llama.cpp's output has
//! to be parsed out of a screen.

use crate::args::{ChatArgs, Engine};
use crate::error::{CliError, Exit, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::runtime::Runtime;
use uspx_model::chat::{Chat, Reader, Reply, Turn};
use uspx_runtime::Shutdown;

/// Names the program, or its folder, where it is not on PATH.
const VARIABLE: &str = "USPX_LLAMA_CPP";
const PROGRAM: &str = "llama-server";
/// How long the server may take to load the model.
const PATIENCE: Duration = Duration::from_secs(120);
/// The least context that is asked for, in tokens.
const CONTEXT: usize = 4096;

/// A running server with the model's tokenizer.
pub struct LlamaCpp {
    server: Child,
    client: reqwest::Client,
    address: String,
    runtime: Runtime,
    /// The file's tokenizer and template.
    pub chat: Chat,
}

/// What came of one turn.
pub struct ServerReply {
    /// What was written.
    pub answer: Reply,
    /// Tokens per second of decoding, as the server says.
    pub decoding: f64,
    /// Tokens per second of the prompt, likewise.
    pub prompt: f64,
}

/// The server program, if llama.cpp is to answer; says why on stderr.
///
/// `auto` takes our own engine where it was measured to be the quicker one: where this processor
/// has AVX-512 (VNNI) and all matrices of the file are of types that our kernels multiply as they
/// are stored.
pub fn chosen(args: &ChatArgs, path: &Path) -> Result<Option<PathBuf>> {
    let is_gguf = path.is_file();
    let refuse =
        |message: String, help: &str| Err(CliError::new(Exit::NotFound, message).help(help));
    match args.engine {
        Engine::Own => Ok(None),
        Engine::LlamaCpp if !is_gguf => {
            let message = format!("llama.cpp runs GGUF files, and {} is none", path.display());
            refuse(message, "give a .gguf file, or use --engine own")
        }
        Engine::LlamaCpp => match program() {
            Some(program) => Ok(Some(program)),
            None => refuse(
                format!("{PROGRAM} is not on PATH, nor where {VARIABLE} points"),
                "install llama.cpp, set the variable to its llama-server, or use --engine own",
            ),
        },
        Engine::Auto if !is_gguf || args.run.machine.device() != "cpu" => Ok(None),
        Engine::Auto => {
            let Some(program) = program() else { return Ok(None) };
            if let Some(reason) = uspx_export::slower_than_llama_cpp(path)? {
                eprintln!(
                    "engine: llama.cpp ({}), for {reason}; --engine own overrides",
                    program.display()
                );
                return Ok(Some(program));
            }
            eprintln!(
                "engine: own, as quick as the installed llama.cpp here; --engine llama.cpp overrides"
            );
            Ok(None)
        }
    }
}

/// Where the variable points, else the first on PATH.
fn program() -> Option<PathBuf> {
    let usable = |path: PathBuf| path.is_file().then_some(path);
    if let Some(named) = std::env::var_os(VARIABLE).filter(|v| !v.is_empty()) {
        let named = PathBuf::from(named);
        return if named.is_dir() { usable(named.join(PROGRAM)) } else { usable(named) };
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(PROGRAM)).find_map(usable)
}

fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::new(Exit::Failed, format!("llama.cpp: {error}"))
        .help("start llama-server on this file by hand to see more, or use --engine own")
}

fn interrupted() -> CliError {
    uspx_model::ModelError::Stopped.into()
}

impl LlamaCpp {
    /// Starts the server on a file and waits until it has loaded it.
    pub fn start(
        program: &Path,
        path: &Path,
        args: &ChatArgs,
        shutdown: &Shutdown,
    ) -> Result<Self> {
        let chat = uspx_export::gguf_chat(path)?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let port = free_port().map_err(failed)?;
        let mut command = Command::new(program);
        command.arg("-m").arg(path).args([
            "--host",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "-np",
            "1",
        ]);
        command.args([
            "-c",
            &CONTEXT.max(2 * (args.max_new_tokens + args.run.max_reasoning_tokens)).to_string(),
        ]);
        if let Some(threads) = args.run.machine.threads {
            command.args(["-t", &threads.to_string()]);
        }
        // Ctrl-C at the terminal stops an answer, not the server.
        #[cfg(unix)]
        command.process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let server = {
            let _inside = runtime.enter();
            command.spawn().map_err(|e| failed(format!("{}: {e}", program.display())))?
        };
        let client = reqwest::Client::builder().no_proxy().build().map_err(failed)?;
        let address = format!("http://127.0.0.1:{port}");
        let mut this = Self { server, client, address, runtime, chat };
        this.wait(shutdown)?;
        Ok(this)
    }

    /// Until the server is healthy.
    fn wait(&mut self, shutdown: &Shutdown) -> Result<()> {
        let Self { server, client, address, runtime, .. } = self;
        let url = format!("{address}/health");
        let healthy = async {
            loop {
                if client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        runtime.block_on(async {
            tokio::select! {
                () = healthy => Ok(()),
                ended = server.wait() => Err(match ended {
                    Ok(status) => failed(format!("the server ended with {status} before it had loaded the file")),
                    Err(error) => failed(error),
                }),
                () = tokio::time::sleep(PATIENCE) => {
                    Err(failed(format!("the server did not load the file in {} s", PATIENCE.as_secs())))
                }
                () = shutdown.cancelled() => Err(interrupted()),
            }
        })
    }

    /// Answers the conversation so far; none where it was stopped.
    pub fn answer(
        &mut self,
        turns: &[Turn],
        args: &ChatArgs,
        shutdown: &Shutdown,
    ) -> Result<Option<ServerReply>> {
        let (prompt, bounds) =
            (self.chat.conversation(turns)?.ids, args.run.bounds(args.max_new_tokens));
        let asked = json!({
            "prompt": prompt,
            "n_predict": bounds.total(self.chat.reasons()),
            "temperature": args.temperature,
            "seed": args.seed,
            // No other rule than the temperature, as in our own engine.
            "samplers": ["temperature"],
            "return_tokens": true,
            "cache_prompt": true,
        });
        let url = format!("{}/completion", self.address);
        let request = self
            .client
            .post(url)
            .header("Content-Type", "application/json")
            .body(asked.to_string());
        let exchange = async {
            let answer = request.send().await?;
            let status = answer.status();
            Ok::<_, reqwest::Error>((status, answer.text().await?))
        };
        let got = self.runtime.block_on(async {
            tokio::select! {
                got = exchange => Some(got.map_err(failed)),
                () = shutdown.cancelled() => None,
            }
        });
        let Some((status, text)) = got.transpose()? else { return Ok(None) };
        if !status.is_success() {
            return Err(failed(format!(
                "the server answered {status}: {}",
                text.chars().take(300).collect::<String>()
            )));
        }
        let value: Value = serde_json::from_str(&text).map_err(failed)?;
        read(&value, self.chat.reader(&prompt, bounds))
            .map(Some)
            .ok_or_else(|| failed("the server's answer has no `tokens`: it is too old"))
    }
}

impl Drop for LlamaCpp {
    fn drop(&mut self) {
        // Killed and waited for, so that nothing of it is left when this process ends.
        if let Err(error) = self.runtime.block_on(self.server.kill()) {
            tracing::debug!(%error, "llama-server had ended by itself");
        }
    }
}

/// An answer from the server's document.
fn read(value: &Value, mut reader: Reader<'_>) -> Option<ServerReply> {
    for token in value.get("tokens")?.as_array()? {
        reader.take(u32::try_from(token.as_u64()?).ok()?);
    }
    let mut answer = reader.finish();
    answer.ended |=
        !answer.unfinished && value.get("stop_type").and_then(Value::as_str) == Some("eos");
    let speed = |key: &str| {
        value.pointer(&format!("/timings/{key}")).and_then(Value::as_f64).unwrap_or(0.0)
    };
    Some(ServerReply {
        answer,
        decoding: speed("predicted_per_second"),
        prompt: speed("prompt_per_second"),
    })
}

/// A port that is free now.
fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_model::chat::Bounds;

    #[test]
    fn an_answer_ends_at_the_end_of_the_turn() {
        let chat =
            Chat::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/nano/student")).unwrap();
        let end = chat.ends()[0];
        let read = |value: Value| read(&value, chat.reader(&[], Bounds::answer(9)));
        let value = json!({"tokens": [5, 6, end, 7], "timings": {"predicted_per_second": 12.5}});
        let reply = read(value).unwrap();
        assert_eq!(
            (reply.answer.ids, reply.answer.ended, reply.decoding),
            (vec![5, 6], true, 12.5)
        );
        assert!(!read(json!({"tokens": [5], "stop_type": "limit"})).unwrap().answer.ended);
        assert!(read(json!({"tokens": [5], "stop_type": "eos"})).unwrap().answer.ended);
        assert!(read(json!({"content": "x"})).is_none());
    }
}
