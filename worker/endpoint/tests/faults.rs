//! A served teacher against a server of this process that has every fault in turn.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod server;

use serde_json::{Value, json};
use server::{Asked, Reply, Server};
use std::time::{Duration, Instant};
use uspx_distill::answers::Answers;
use uspx_distill::{Asking, Piece, PromptLabels, Sampling, Target};
use uspx_domain::{Exchange, Prompt, SkipReason, Skipped};
use uspx_endpoint::{Endpoint, EndpointError, Patience, Said, Settings};
use uspx_model::chat::Bounds;
use uspx_model::{ModelError, NoProgress, Progress};

const KEY: &str = "sk-very-secret";

fn prompt(id: &str, text: &str, reference: Option<&str>) -> Prompt {
    let reference = reference.map(str::to_owned);
    Prompt { id: id.into(), prompt: text.into(), reference, ..Prompt::default() }
}

fn settings(url: &str) -> Settings {
    let patience = Patience {
        timeout: Duration::from_secs(5),
        tries: 3,
        wait: Duration::from_millis(10),
        longest: Duration::from_millis(50),
    };
    Settings {
        url: url.into(),
        model: "m".into(),
        key: Some(KEY.into()),
        at_once: 1,
        top_k: 3,
        patience,
    }
}

fn asking(target: Target, samples: u32) -> Asking {
    let sampling = Sampling { samples, temperature: 0.5, seed: 40 };
    Asking { target, sampling, bounds: Bounds { answer: 8, reasoning: 16 }, room: 1 }
}

fn ask(
    settings: Settings,
    prompts: &[Prompt],
    how: &Asking,
    progress: &dyn Progress,
) -> Result<Said, EndpointError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Endpoint::new(settings)?.answers(prompts, how, progress))
}

/// One prompt, asked of a server that replies so.
fn one(
    reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
) -> (Result<Said, EndpointError>, Vec<Asked>) {
    let server = Server::start(reply);
    let prompts = [prompt("a", "list", None)];
    let said = ask(settings(&server.url()), &prompts, &asking(Target::Teacher, 0), &NoProgress);
    (said, server.asked())
}

/// A completion that says `text` in one token, its end told.
fn completion(text: &str) -> Value {
    let token = |text: &str, top: Value| json!({"token": text, "logprob": -0.5, "bytes": text.as_bytes(), "top_logprobs": top});
    let top = json!([{"token": text, "logprob": -0.5, "bytes": text.as_bytes()}]);
    let content = [token(text, top.clone()), token("<|im_end|>", json!([]))];
    json!({"choices": [{
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
        "logprobs": {"content": content},
    }]})
}

fn said(text: &str) -> Reply {
    Reply::Answer(200, completion(text).to_string())
}

/// What is learned, by id.
fn lessons(answers: Vec<Answers>) -> Vec<PromptLabels> {
    answers.into_iter().flat_map(Answers::lessons).collect()
}

#[test]
fn answers_come_with_their_labels_and_the_request_says_what_is_wanted() {
    let server = Server::start(|_| said("ls -l"));
    let said_before = Exchange { user: "hi".into(), assistant: "yes".into() };
    let whole = Prompt {
        system: Some("be brief".into()),
        earlier: vec![said_before],
        ..prompt("a", "list", None)
    };
    let said = ask(settings(&server.url()), &[whole], &asking(Target::Reference, 0), &NoProgress);
    let said = said.unwrap();
    let labels = said.labels(lessons(said.answers.clone()));
    assert_eq!(labels.prompts[0].answer, "ls -l");
    let tokens = &labels.prompts[0].tokens;
    assert_eq!((tokens[0].start, tokens[0].end, tokens[1].start, tokens[1].end), (0, 5, 5, 5));
    let pieces = [tokens[0].piece, tokens[1].piece].map(|at| labels.piece(at).unwrap().clone());
    assert_eq!(pieces, [Piece::Text(b"ls -l".to_vec()), Piece::End]);
    // They are labels like any others.
    let bytes = labels.to_bytes().unwrap();
    assert_eq!(uspx_distill::Labels::from_bytes(&bytes).unwrap().prompts.len(), 1);

    let asked = server.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].path, "/v1/chat/completions");
    assert!(asked[0].head.to_lowercase().contains(&format!("authorization: bearer {KEY}")));
    let role = |role: &str, content: &str| json!({"role": role, "content": content});
    let wanted = json!({
        "model": "m",
        "messages": [role("system", "be brief"), role("user", "hi"), role("assistant", "yes"), role("user", "list")],
        "max_tokens": 24, "temperature": 0.0, "top_p": 1.0, "logprobs": true, "top_logprobs": 3,
    });
    assert_eq!(asked[0].body, wanted);
}

#[test]
fn references_are_text_alone_and_samples_have_seeds_of_their_own() {
    let server = Server::start(|asked| {
        said(asked.body["seed"].as_u64().map_or("own", |seed| if seed == 42 { "b" } else { "a" }))
    });
    let prompts = [prompt("a", "list", Some("ls")), prompt("b", "where", None)];
    let how = asking(Target::Reference, 2);
    let found = ask(settings(&server.url()), &prompts, &how, &NoProgress).unwrap();
    let found: Vec<(String, String, usize)> = lessons(found.answers)
        .into_iter()
        .map(|l| (l.prompt.id, l.answer, l.tokens.len()))
        .collect();
    let row = |id: &str, answer: &str, tokens| (id.to_owned(), answer.to_owned(), tokens);
    let wanted = [
        row("a", "ls", 0),
        row("sample-1-a", "a", 2),
        row("sample-2-a", "b", 2),
        row("b", "own", 2),
        row("sample-1-b", "a", 2),
        row("sample-2-b", "b", 2),
    ];
    assert_eq!(found, wanted);
    let asked = server.asked();
    let told: Vec<(f64, Option<u64>)> = asked
        .iter()
        .map(|a| (a.body["temperature"].as_f64().unwrap(), a.body["seed"].as_u64()))
        .collect();
    let (first, second) = ((0.5, Some(41)), (0.5, Some(42)));
    assert_eq!(told, [first, second, (0.0, None), first, second]);
}

#[test]
fn what_another_try_may_mend_is_tried_again() {
    for fault in [Reply::HangsUp, Reply::Drops] {
        let (said, asked) = one(move |a| if a.number < 2 { fault.clone() } else { said("ls") });
        assert_eq!((lessons(said.unwrap().answers).len(), asked.len()), (1, 3));
    }
    for status in [408, 429, 500, 502, 503] {
        let fault = Reply::Answer(status, "{}".into());
        let (said, asked) = one(move |a| if a.number < 2 { fault.clone() } else { said("ls") });
        assert_eq!((lessons(said.unwrap().answers).len(), asked.len()), (1, 3), "{status}");
    }
}

#[test]
fn tries_end_with_what_was_wrong_and_what_to_do() {
    let (said, asked) = one(|_| Reply::Answer(503, format!("{KEY} list")));
    let error = said.err().unwrap();
    assert_eq!(asked.len(), 3);
    assert!(
        matches!(&error, EndpointError::Unreachable { tries: 3, cause, .. } if cause == "HTTP 503")
    );
    assert!(error.to_string().contains("after 3 tries: HTTP 503. Is the server up"), "{error}");
    // Nobody listens.
    let nobody = "http://127.0.0.1:9/v1";
    let how = asking(Target::Teacher, 0);
    let error = ask(settings(nobody), &[prompt("a", "list", None)], &how, &NoProgress);
    assert!(matches!(error.err().unwrap(), EndpointError::Unreachable { .. }));
}

#[test]
fn a_server_that_asks_to_wait_is_not_asked_before() {
    let start = Instant::now();
    let server = Server::start(|a| if a.number == 0 { Reply::Later(1) } else { said("ls") });
    let mut patient = settings(&server.url());
    patient.patience.longest = Duration::from_secs(5);
    let how = asking(Target::Teacher, 0);
    let found = ask(patient, &[prompt("a", "list", None)], &how, &NoProgress).unwrap();
    assert!(found.skipped.is_empty() && start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn what_no_try_mends_ends_at_once_and_tells_no_secret() {
    let page = Reply::Answer(200, format!("<html>{KEY} list</html>"));
    let other = Reply::Answer(200, json!({"object": "list", "data": [KEY]}).to_string());
    let cases = [
        (Reply::Answer(401, KEY.into()), "wants an API key"),
        (Reply::Answer(403, KEY.into()), "wants an API key"),
        (Reply::Answer(404, KEY.into()), "the model's name, `m`"),
        (Reply::Answer(302, KEY.into()), "HTTP 302"),
        (page, "is it an OpenAI-compatible server"),
        (other, "is it an OpenAI-compatible server"),
    ];
    for (reply, words) in cases {
        let (said, asked) = one(move |_| reply.clone());
        let error = said.err().unwrap().to_string();
        assert!(error.contains(words) && !error.contains("secret"), "{error}");
        assert_eq!(asked.len(), 1, "{error}");
    }
    let how = asking(Target::Teacher, 0);
    let bad = Settings { key: Some("sk-secret\n".into()), ..settings("http://127.0.0.1:9/v1") };
    let error = ask(bad, &[prompt("a", "list", None)], &how, &NoProgress).err().unwrap();
    assert!(matches!(error, EndpointError::KeyCharacters) && !error.to_string().contains("sk-"));
}

#[test]
fn a_prompt_that_the_server_refuses_is_left_out_alone() {
    let refused = Reply::Answer(400, json!({"error": {"message": "too long"}}).to_string());
    let server = Server::start(move |asked| {
        if asked.body["messages"][0]["content"] == "long" { refused.clone() } else { said("ls") }
    });
    let prompts =
        [prompt("a", "list", None), prompt("long", "long", None), prompt("b", "list", None)];
    let how = asking(Target::Teacher, 0);
    let found = ask(settings(&server.url()), &prompts, &how, &NoProgress).unwrap();
    assert_eq!(found.skipped, [Skipped { id: "long".into(), reason: SkipReason::Refused }]);
    let all = lessons(found.answers);
    assert!(all.len() == 2 && all.iter().all(|lesson| lesson.tokens.len() == 2));
}

#[test]
fn a_server_without_probabilities_is_asked_for_text_alone() {
    let bare = || {
        let mut whole = completion("ls");
        whole["choices"][0].as_object_mut().unwrap().remove("logprobs");
        Reply::Answer(200, whole.to_string())
    };
    let (silent, deaf) = (
        Server::start(move |asked| match asked.body.get("logprobs") {
            Some(_) => Reply::Answer(400, "{}".into()),
            None => bare(),
        }),
        Server::start(move |_| bare()),
    );
    let prompts = [prompt("a", "list", None), prompt("b", "list", None)];
    let how = asking(Target::Teacher, 0);
    for (server, requests) in [(&deaf, 2), (&silent, 3)] {
        let mut quiet = settings(&server.url());
        if requests == 3 {
            quiet.key = None;
        }
        let found = ask(quiet, &prompts, &how, &NoProgress).unwrap();
        let texts = lessons(found.answers.clone());
        assert_eq!(
            texts.iter().map(|l| (l.answer.as_str(), l.tokens.len())).collect::<Vec<_>>(),
            [("ls", 0); 2]
        );
        assert_eq!(server.asked().len(), requests);
        assert!(uspx_distill::Labels::from_bytes(&found.labels(texts).to_bytes().unwrap()).is_ok());
    }
    assert!(!silent.asked()[0].head.to_lowercase().contains("authorization"));
}

#[test]
fn several_requests_are_under_way_and_answers_keep_their_order() {
    let server = Server::start(|asked| {
        let text = asked.body["messages"][0]["content"].as_str().unwrap().to_owned();
        // The first is the slowest.
        std::thread::sleep(Duration::from_millis(if text == "p0" { 300 } else { 100 }));
        said(&text)
    });
    let prompts: Vec<Prompt> =
        (0..8).map(|n| prompt(&format!("{n}"), &format!("p{n}"), None)).collect();
    let how = asking(Target::Teacher, 0);
    let many = Settings { at_once: 4, ..settings(&server.url()) };
    let found = ask(many, &prompts, &how, &NoProgress).unwrap();
    let texts: Vec<String> = lessons(found.answers).into_iter().map(|l| l.answer).collect();
    assert_eq!(texts, (0..8).map(|n| format!("p{n}")).collect::<Vec<_>>());
    assert_eq!(server.most_at_once(), 4);
}

#[test]
fn the_keeper_ends_it() {
    let server = Server::start(|_| said("ls"));
    let prompts = [prompt("a", "list", None), prompt("b", "list", None)];
    let how = asking(Target::Teacher, 0);
    let stop = |_: u64, total: u64| {
        assert_eq!(total, 2);
        false
    };
    let error = ask(settings(&server.url()), &prompts, &how, &stop).err().unwrap();
    assert!(matches!(error, EndpointError::Model(ModelError::Stopped)));
}
