//! gitleaks' rules as they ship: every pattern is read, real-looking secrets of many kinds are found,
//! and nothing is found in the command-line prompts.
//!
//! The samples are put together here, so that no scanner finds one in this repository.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;
use uspx_domain::parse_prompts;
use uspx_secrets::{Finding, Scanner};

const HEX: &str = "0123456789abcdef";
const DIGITS: &str = "0123456789";
const SMALL: &str = "abcdefghijklmnopqrstuvwxyz";
const BASE32: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const LETTERS: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// So many letters of an alphabet, no rule in them.
fn some(count: usize, alphabet: &str) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ count as u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        alphabet.as_bytes()[(state >> 33) as usize % alphabet.len()] as char
    };
    (0..count).map(|_| next()).collect()
}

/// (rule, secret, a text around it)
fn samples() -> Vec<(&'static str, String, String)> {
    let key = ["-----BEGIN RSA PRIVATE", " KEY-----"].concat();
    let body = some(180, LETTERS);
    let pem = format!("{key}\n{body}\n{}", key.replace("BEGIN", "END"));
    let jwt =
        ["ey", &some(30, LETTERS), ".ey", &some(40, LETTERS), ".", &some(43, LETTERS)].concat();
    let openai = ["sk-", &some(20, LETTERS), "T3Blbk", "FJ", &some(20, LETTERS)].concat();
    let slack = ["xo", "xb-", &some(12, DIGITS), "-", &some(12, DIGITS), "-", &some(24, LETTERS)];
    let bare = |rule, parts: &[&str]| (rule, parts.concat(), "{}");
    let all = vec![
        bare("github-pat", &["gh", "p_", &some(36, LETTERS)]),
        bare("gitlab-pat", &["glp", "at-", &some(20, LETTERS)]),
        bare("aws-access-token", &["AK", "IA", &some(16, BASE32)]),
        bare("anthropic-api-key", &["sk-a", "nt-api03-", &some(93, LETTERS), "AA"]),
        bare("openai-api-key", &[&openai]),
        bare("slack-bot-token", &slack.iter().map(|s| *s as &str).collect::<Vec<_>>()),
        bare("stripe-access-token", &["sk_", "live_", &some(32, LETTERS)]),
        bare("private-key", &[&pem]),
        bare("jwt", &[&jwt]),
        bare("npm-access-token", &["np", "m_", &some(36, LETTERS)]),
        bare("gcp-api-key", &["AI", "za", &some(35, LETTERS)]),
        bare("sendgrid-api-token", &["S", "G.", &some(66, LETTERS)]),
        bare("huggingface-access-token", &["h", "f_", &some(34, SMALL)]),
        bare("digitalocean-pat", &["dop", "_v1_", &some(64, HEX)]),
        ("generic-api-key", some(40, LETTERS), "export SERVICE_TOKEN='{}'"),
        (
            "curl-auth-header",
            some(40, LETTERS),
            "curl -H \"Authorization: Bearer {}\" https://x.org",
        ),
        ("curl-auth-user", format!("alice:{}", some(14, LETTERS)), "curl -u '{}x' https://x.org"),
    ];
    let each = |(rule, secret, around): (_, String, &str)| {
        let text = around.replace("{}", &secret);
        (rule, secret, text)
    };
    all.into_iter().map(each).collect()
}

#[test]
fn every_pattern_is_read() {
    let scanner = Scanner::shipped().unwrap();
    scanner.prepare().unwrap();
    let rules: BTreeSet<&str> = scanner.rules().collect();
    assert!(rules.len() >= 215, "{} rules", rules.len());
}

#[test]
fn real_looking_secrets_of_many_kinds_are_found_by_rule_and_line_and_never_said() {
    let scanner = Scanner::shipped().unwrap();
    let samples = samples();
    assert!(samples.iter().map(|(rule, ..)| rule).collect::<BTreeSet<_>>().len() >= 10);
    for (rule, secret, text) in samples {
        let text = format!("Why does this fail?\n\n{text}\nIt did yesterday.");
        let found = scanner.find(&text).unwrap();
        let this = Finding { rule: rule.to_owned(), line: 3 };
        assert!(found.contains(&this), "{rule}: {found:?}");
        assert!(!format!("{found:?}").contains(&secret), "{rule} is said");
    }
}

#[test]
fn placeholders_are_no_secrets() {
    let scanner = Scanner::shipped().unwrap();
    for text in [
        "curl -u user:password https://x.org",
        "curl -H \"Authorization: Bearer $TOKEN\" https://x.org",
        "export API_KEY=your-api-key-here",
        "how do I set a password?",
        &format!("AKIA{}EXAMPLE", some(9, BASE32)),
        "ssh-keygen -t ed25519 -f ~/.ssh/id_ed25519",
    ] {
        assert_eq!(scanner.find(text).unwrap(), [], "{text}");
    }
}

#[test]
fn the_shipped_command_line_prompts_hold_none_and_are_read_quickly() {
    let scanner = Scanner::shipped().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/prompts");
    let (mut texts, start) = (0, Instant::now());
    for file in ["cli-train.jsonl", "cli-heldout.jsonl", "math-heldout.jsonl"] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        let set = parse_prompts(&text, false).unwrap();
        for (prompt, line) in set.prompts.iter().zip(&set.lines) {
            for (what, text) in prompt.texts() {
                assert_eq!(scanner.find(text).unwrap(), [], "{file} line {line}: {what}");
                texts += 1;
            }
        }
    }
    assert!(texts >= 5400, "{texts} texts");
    // Some 10,000 texts a second in release form; a build without optimisation is far slower.
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}
