//! Requests to a served teacher, tried again where that may help.

use crate::message::{Request, Response};
use crate::settings::{Patience, Settings};
use crate::{EndpointError, Result};
use backon::{ExponentialBuilder, Retryable};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{StatusCode, Url};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// No answer is longer, in bytes: a server gone wrong does not fill the memory.
const LONGEST: usize = 64 << 20;

/// A connection to the server.
pub(crate) struct Client {
    http: reqwest::Client,
    url: Url,
    model: String,
    patience: Patience,
    /// The server refuses to tell probabilities.
    silent: AtomicBool,
}

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    Said(Response),
    /// The server will not answer this prompt.
    Refused,
}

/// Why a try has no answer.
enum Trouble {
    /// Another may.
    Again {
        cause: String,
        after: Option<Duration>,
    },
    /// The server refuses what was asked.
    Refused,
    Final(EndpointError),
}

impl Client {
    pub fn new(settings: &Settings) -> Result<Self> {
        let url = address(&settings.url)?;
        // The client takes whichever the process has; it may have one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut headers =
            HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        if let Some(key) = &settings.key {
            let value = HeaderValue::try_from(format!("Bearer {key}"));
            let mut value = value.map_err(|_| EndpointError::KeyCharacters)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let builder =
            reqwest::Client::builder().default_headers(headers).timeout(settings.patience.timeout);
        // A proxy cannot reach this machine's own loopback.
        let builder = if is_loopback(&url) { builder.no_proxy() } else { builder };
        let http = builder.build().map_err(|e| EndpointError::Client(e.to_string()))?;
        let (model, patience) = (settings.model.clone(), settings.patience);
        Ok(Self { http, url, model, patience, silent: AtomicBool::new(false) })
    }

    /// Asks. A server that refuses a request with probabilities and takes it without is asked for none
    /// from then on.
    pub async fn chat(&self, request: &Request<'_>) -> Result<Answer> {
        let without = Request { logprobs: None, top_logprobs: None, ..request.clone() };
        if self.silent.load(Ordering::Relaxed) {
            return self.tried(&without).await;
        }
        let answer = self.tried(request).await?;
        if !matches!(answer, Answer::Refused) || request.logprobs.is_none() {
            return Ok(answer);
        }
        let answer = self.tried(&without).await?;
        if matches!(answer, Answer::Said(_)) && !self.silent.swap(true, Ordering::Relaxed) {
            tracing::warn!(url = %self.url, "the teacher's server tells no probabilities: its text alone is learned");
        }
        Ok(answer)
    }

    async fn tried(&self, request: &Request<'_>) -> Result<Answer> {
        let Patience { tries, wait, longest, .. } = self.patience;
        let backoff = ExponentialBuilder::default()
            .with_min_delay(wait)
            .with_max_delay(longest)
            .with_max_times(tries.saturating_sub(1))
            .with_jitter();
        let answer = (|| self.once(request))
            .retry(backoff)
            .when(|trouble| matches!(trouble, Trouble::Again { .. }))
            .adjust(|trouble, wait| match (trouble, wait) {
                (Trouble::Again { after: Some(after), .. }, Some(_)) => Some((*after).min(longest)),
                (_, wait) => wait,
            })
            .await;
        match answer {
            Ok(response) => Ok(Answer::Said(response)),
            Err(Trouble::Refused) => Ok(Answer::Refused),
            Err(Trouble::Final(error)) => Err(error),
            Err(Trouble::Again { cause, .. }) => {
                Err(EndpointError::Unreachable { url: self.url(), tries, cause })
            }
        }
    }

    /// One try.
    async fn once(&self, request: &Request<'_>) -> std::result::Result<Response, Trouble> {
        let body = serde_json::to_string(request).map_err(|e| self.malformed(e.to_string()))?;
        let asked = self.http.post(self.url.clone()).body(body);
        let mut answer = asked.send().await.map_err(|e| again(&e))?;
        let status = answer.status();
        if !status.is_success() {
            return Err(self.refusal(status, answer.headers()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|e| again(&e))? {
            if bytes.len() + chunk.len() > LONGEST {
                return Err(self.malformed(format!("more than {LONGEST} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        // What serde says of another document's place and type quotes none of it.
        serde_json::from_slice(&bytes)
            .map_err(|e| self.malformed(format!("line {}, column {}", e.line(), e.column())))
    }

    /// What a status other than success means.
    fn refusal(&self, status: StatusCode, headers: &HeaderMap) -> Trouble {
        let (url, code) = (self.url(), status.as_u16());
        match code {
            400 | 413 | 422 => Trouble::Refused,
            401 | 403 => Trouble::Final(EndpointError::Key { url, status: code }),
            404 => Trouble::Final(EndpointError::NotThere { url, model: self.model.clone() }),
            408 | 425 | 429 | 500.. => {
                Trouble::Again { cause: format!("HTTP {code}"), after: asked_for(headers) }
            }
            _ => self.malformed(format!("HTTP {code}")),
        }
    }

    fn malformed(&self, why: String) -> Trouble {
        Trouble::Final(EndpointError::Malformed { url: self.url(), why })
    }

    fn url(&self) -> String {
        self.url.to_string()
    }
}

/// The connection failed, or took too long.
fn again(error: &reqwest::Error) -> Trouble {
    let cause = if error.is_timeout() {
        "it took too long".to_owned()
    } else {
        let causes = std::iter::successors(std::error::Error::source(error), |e| e.source());
        causes.last().map_or_else(|| "the connection failed".to_owned(), ToString::to_string)
    };
    Trouble::Again { cause, after: None }
}

/// How long a server asks to be left alone.
fn asked_for(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Where chat completions are asked for.
fn address(text: &str) -> Result<Url> {
    let wrong = |why: &str| EndpointError::Address(why.to_owned());
    let url = Url::parse(&format!("{}/chat/completions", text.trim_end_matches('/')));
    // Neither is repeated: an address may hold a password.
    let url = url.map_err(|e| wrong(&e.to_string()))?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err(wrong("it does not begin with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("it holds a name or password: a key goes into the environment"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("nothing may follow its path"));
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_server_s_and_holds_no_secret() {
        for text in ["http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1/"] {
            let url = address(text).unwrap();
            assert_eq!(url.as_str(), "http://127.0.0.1:8080/v1/chat/completions");
            assert!(is_loopback(&url));
        }
        assert!(is_loopback(&address("http://[::1]:1/v1").unwrap()));
        assert!(!is_loopback(&address("https://example.invalid/v1").unwrap()));
        for text in [
            "",
            "127.0.0.1:8080/v1",
            "ftp://host/v1",
            "http://me:secret@host/v1",
            "http://host/v1?key=secret",
        ] {
            let error = address(text).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
