//! A moto server: an S3 API in a process of its own, on this machine, gone when the test is.

use crate::Need;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The server, with a bucket named `colony`.
pub struct Moto {
    child: Child,
    address: SocketAddr,
}

impl Moto {
    /// Starts it.
    ///
    /// # Panics
    /// It is not installed, or does not answer.
    pub fn start() -> Self {
        let program = program().expect("there is no moto_server: run tests/tools/venv.sh");
        // Another program may take the free port before moto does.
        let started = (0..3).find_map(|_| Self::try_start(&program));
        started.unwrap_or_else(|| panic!("{} does not answer", program.display()))
    }

    /// What tests with it need.
    pub fn need() -> Need {
        Need::new("moto_server", "USPX_REQUIRE_S3", program().is_some())
    }

    fn try_start(program: &PathBuf) -> Option<Self> {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &address.port().to_string()]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut moto = Self { child, address };
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end && moto.child.try_wait().unwrap().is_none() {
            if moto.make_bucket("colony").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                return Some(moto);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    }

    fn make_bucket(&self, name: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        write!(
            stream,
            "PUT /{name} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            self.address
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Makes another bucket.
    ///
    /// # Panics
    /// It is refused.
    pub fn bucket(&self, name: &str) {
        let answer = self.make_bucket(name).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// The environment that a client of it needs.
    pub fn env(&self) -> Vec<(String, String)> {
        env_for(&format!("http://{}", self.address))
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// An environment with made-up credentials for an endpoint.
pub fn env_for(endpoint: &str) -> Vec<(String, String)> {
    [
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_ENDPOINT_URL", endpoint),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// `USPX_MOTO_SERVER`, or the one of the venv in a folder above.
fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("USPX_MOTO_SERVER") {
        return Some(named.into());
    }
    let here = std::env::current_dir().ok()?;
    here.ancestors()
        .map(|folder| folder.join(".tools/venv-test/bin/moto_server"))
        .find(|program| program.is_file())
}
