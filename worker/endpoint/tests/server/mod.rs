//! A little HTTP server that replies as it is told, and remembers what it was asked.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// One request.
#[derive(Debug, Clone)]
pub struct Asked {
    /// From 0.
    pub number: usize,
    pub path: String,
    /// Its headers.
    pub head: String,
    pub body: Value,
}

/// What the server does.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A status and a body.
    Answer(u16, String),
    /// It is busy, for so many seconds.
    Later(u64),
    /// It closes the connection within its answer.
    Drops,
    /// It closes the connection without a word.
    HangsUp,
}

/// The server.
pub struct Server {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    asked: Vec<Asked>,
    under_way: usize,
    most: usize,
}

impl Server {
    /// Replies to whatever comes. It ends with the process.
    pub fn start(reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, state) = (listener.local_addr().unwrap().port(), Arc::default());
        let (shared, reply) = (Arc::clone(&state), Arc::new(reply));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, reply) = (Arc::clone(&shared), Arc::clone(&reply));
                thread::spawn(move || answer(stream, &state, reply.as_ref()));
            }
        });
        Self { port, state }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.state.lock().unwrap().asked.clone()
    }

    /// How many requests were under way at a time.
    pub fn most_at_once(&self) -> usize {
        self.state.lock().unwrap().most
    }
}

fn answer(stream: TcpStream, state: &Mutex<State>, reply: &dyn Fn(&Asked) -> Reply) {
    let Some(mut asked) = read(&stream) else { return };
    {
        let mut state = state.lock().unwrap();
        asked.number = state.asked.len();
        state.asked.push(asked.clone());
        state.under_way += 1;
        state.most = state.most.max(state.under_way);
    }
    let reply = reply(&asked);
    // Before the client can ask again.
    state.lock().unwrap().under_way -= 1;
    write(stream, reply);
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    Some(Asked { number: 0, path, head, body: serde_json::from_slice(&body).unwrap() })
}

fn write(mut stream: TcpStream, reply: Reply) {
    let whole = |status: u16, extra: &str, body: &str, length: usize| {
        format!(
            "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n{extra}\r\n{body}"
        )
    };
    let text = match reply {
        Reply::Answer(status, body) => whole(status, "", &body, body.len()),
        Reply::Later(seconds) => whole(429, &format!("retry-after: {seconds}\r\n"), "", 0),
        Reply::Drops => whole(200, "", "{\"choices\"", 1000),
        Reply::HangsUp => return,
    };
    // The client may have gone.
    let _ = stream.write_all(text.as_bytes());
    let _ = stream.flush();
    thread::sleep(Duration::from_millis(5));
}
