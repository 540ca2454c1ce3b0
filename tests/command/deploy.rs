//! What is deployed: the image, the services, their configuration, and what starts them again.

use crate::support::{root, uspx};
use libtest_mimic::Trial;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::{TempDir, tempdir};
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![
        the_configuration_is_right,
        every_service_runs_commands_that_there_are,
        the_image_has_what_services_need,
        only_what_another_start_may_mend_is_a_failure,
        a_service_that_is_stopped_stops_the_program,
    ]
}

fn file(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

fn the_configuration_is_right() {
    let output =
        uspx().args(["config", "check", "-c"]).arg(root().join("deploy/uspx.toml")).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(
        said.contains("campaign.mask.keep = 0.5") && said.contains("deploy/uspx.toml"),
        "{said}"
    );
}

/// The services of docker-compose.yml that run uspx, as their lines.
fn services() -> Vec<String> {
    let whole = file("docker-compose.yml");
    let (_, services) = whole.split_once("\nservices:\n").unwrap();
    let mut found: Vec<String> = Vec::new();
    for line in services.lines().take_while(|line| line.starts_with("  ") || line.is_empty()) {
        if line.starts_with("  ") && !line.starts_with("   ") {
            found.push(String::new());
        }
        found.last_mut().unwrap().extend([line.trim(), "\n"]);
    }
    found.into_iter().filter(|service| service.contains("image: uspx\n")).collect()
}

/// A list that a service's line holds.
fn list(service: &str, key: &str) -> Vec<String> {
    let line =
        service.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_else(|| panic!("no {key}"));
    serde_json::from_str(line.trim()).unwrap()
}

fn every_service_runs_commands_that_there_are() {
    let services = services();
    assert_eq!(services.len(), 3);
    for service in services {
        assert!(service.contains("restart: on-failure\n"), "{service}");
        assert_eq!(list(&service, "entrypoint:"), ["/usr/local/bin/uspx-service"]);
        let command = list(&service, "command:");
        let help = uspx().arg(&command[0]).arg("--help").output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        for flag in command.iter().filter(|word| word.starts_with('-')) {
            assert!(
                help.contains(&format!("{flag} ")) || help.contains(&format!("{flag},")),
                "{flag} of {service}"
            );
        }
    }
}

fn the_image_has_what_services_need() {
    let image = file("deploy/Dockerfile");
    let (_, last) = image.rsplit_once("\nFROM ").unwrap();
    for words in [
        "install -y --no-install-recommends ca-certificates",
        "/usr/local/bin/uspx\n",
        "--chmod=755 deploy/uspx-service.sh /usr/local/bin/uspx-service\n",
        "ENTRYPOINT [\"/usr/local/bin/uspx\"]\n",
    ] {
        assert!(last.contains(words), "the image lacks `{words}`");
    }
}

/// The service around a program that does what it is told.
fn service(program: &str) -> (TempDir, Command) {
    let folder = tempdir().unwrap();
    let uspx = folder.path().join("uspx");
    fs::write(&uspx, format!("#!/bin/sh\n{program}\n")).unwrap();
    fs::set_permissions(&uspx, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(root().join("deploy/uspx-service.sh"));
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    command.env("PATH", path);
    (folder, command)
}

fn only_what_another_start_may_mend_is_a_failure() {
    for (code, seen) in [(0, 0), (1, 1), (2, 0), (3, 0), (4, 4), (5, 5), (6, 0), (130, 130)] {
        let (_folder, mut command) = service(&format!("echo \"$@\"; exit {code}"));
        let Output { status, stdout, stderr } = command.args(["worker", "a b"]).output().unwrap();
        assert_eq!(status.code(), Some(seen), "exit code {code}");
        assert_eq!(String::from_utf8_lossy(&stdout), "worker a b\n");
        let said = String::from_utf8_lossy(&stderr).contains(&format!("exit code {code} "));
        assert_eq!(said, code != seen, "exit code {code}");
    }
}

fn a_service_that_is_stopped_stops_the_program() {
    let (folder, mut command) = service(
        "trap 'echo stopped > \"$0.end\"; exit 130' TERM\ntouch \"$0.up\"\nwhile :; do sleep 0.05; done",
    );
    let mut child = command.spawn().unwrap();
    let until = |name: &str| {
        for _ in 0..200 {
            if folder.path().join(name).exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("no {name}");
    };
    until("uspx.up");
    let kill = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(kill.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    until("uspx.end");
}
