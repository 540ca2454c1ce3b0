//! Whatever the end of a campaign, its report lies in the state folder.

use crate::ground::{Ground, campaign};
use crate::world::{self, World};
use serde_json::Value;
use uspx_artifact::silent;
use uspx_colony::Ending;
use uspx_coordinator::{Finished, ReportPaths};
use uspx_domain::BlobRef;
use uspx_runtime::Shutdown;

/// Runs a coordinator to its end: how it ended, and its report.
async fn ended(ground: &Ground) -> (Finished, ReportPaths, Value) {
    let mut coordinator = ground.coordinator(&ground.store);
    assert_eq!(coordinator.report_paths(), None);
    let finished = coordinator.run(&Shutdown::new()).await.unwrap();
    let paths = coordinator.report_paths().expect("a report").clone();
    let json = serde_json::from_slice(&std::fs::read(&paths.json).unwrap()).unwrap();
    for path in [&paths.markdown, &paths.html] {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains("colony") && !text.contains("secret of"), "{text}");
    }
    (finished, paths, json)
}

#[tokio::test(start_paused = true)]
async fn a_release_leaves_a_report_and_a_restart_writes_a_lost_one_again() {
    let ground = Ground::new().await;
    let (finished, paths, report) = ended(&ground).await;
    assert_eq!(finished, Finished::Campaign(Ending::Published(1)));
    assert_eq!(
        (&report["ending"], &report["release"]),
        (&"done: published release 1".into(), &1.into())
    );
    assert_eq!(report["units"].as_array().unwrap().len(), 64);
    let two_runs = report["stability"]["two_runs"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&two_runs), "{two_runs}");
    for student in report["figures"]["students"].as_array().unwrap() {
        let [low, high] = [0, 1].map(|end| student["interval"][end].as_f64().unwrap());
        let bits = student["bits_per_byte"].as_f64().unwrap();
        assert!(low < bits && bits < high, "{student}");
    }
    std::fs::remove_file(&paths.html).unwrap();
    let (_, again, same) = ended(&ground).await;
    assert!(again.html.exists());
    assert_eq!(same, report);
    assert_is_kept(&paths, &report);
    assert_is_the_release_s(&ground, &report).await;
}

/// The same lies once where the next campaign's report does not take its place.
fn assert_is_kept(paths: &ReportPaths, report: &Value) {
    let kept: Vec<_> = std::fs::read_dir(paths.json.with_file_name("reports"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    let bytes = std::fs::read(kept[0].join("report.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), *report);
}

/// The release holds the same report.
async fn assert_is_the_release_s(ground: &Ground, report: &Value) {
    let manifest = ground.store.manifest(1).await.unwrap();
    let file = manifest.files.iter().find(|f| f.path == "report.json").unwrap();
    let mut bytes = Vec::new();
    for chunk in &file.chunks {
        let blob = BlobRef { digest: chunk.digest, bytes: chunk.bytes };
        bytes.extend(ground.store.get_blob(&blob, chunk.bytes, &silent).await.unwrap());
    }
    assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), *report);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_leaves_its_figures_and_what_would_help() {
    let world = World { gain: -0.2, ..World::new(campaign()) };
    let ground = Ground::ended(&world::run(&world).ledger);
    let (finished, _, report) = ended(&ground).await;
    assert!(matches!(finished, Finished::Campaign(Ending::Refused(_))), "{finished:?}");
    assert!(report["ending"].as_str().unwrap().starts_with("refused: not surely better"));
    let students = report["figures"]["students"].as_array().unwrap();
    assert!(students.iter().any(|s| s["contender"] == "gptq"), "{students:?}");
    assert!(report["advice"][0]["learn_more"]["difference"].as_f64().unwrap() > 0.0, "{report}");
    assert_eq!(report["release"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn a_failure_leaves_a_report_too() {
    let ground = Ground::with_adapter("no header".into()).await;
    let (finished, _, report) = ended(&ground).await;
    assert!(matches!(finished, Finished::Campaign(Ending::Failed(_))), "{finished:?}");
    assert!(report["ending"].as_str().unwrap().starts_with("failed: "), "{report}");
    assert_eq!(report["release"], Value::Null, "nothing was published");
}
