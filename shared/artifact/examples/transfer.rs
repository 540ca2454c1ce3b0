//! Measures publishing and pulling: `cargo run --release -p uspx-artifact --example transfer --
//! [MB] [STORE-URL]`.
//!
//! Random bytes in one large and a few small files, to a folder unless another store is named.
//! Prints MB/s and the peak of resident memory.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Instant;
use uspx_artifact::{Draft, PullOptions, Store, pull, silent, verify};
use uspx_domain::{Digest, Fingerprint};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let megabytes: usize = args.next().map_or(Ok(200), |text| text.parse())?;
    let scratch = tempfile::tempdir_in(".")?;
    let (student, dest) = (scratch.path().join("student"), scratch.path().join("pulled"));
    let folder = scratch.path().join("store").display().to_string();
    let store = Store::create(&args.next().unwrap_or(folder))?;
    write_student(&student, megabytes)?;
    let print = Fingerprint(Digest::of(b"measured"));
    let draft =
        |previous| Draft { colony: "measured".into(), teacher: print, base: print, previous };
    let before = store.latest().await?;

    let rate = |start: Instant| megabytes as f64 / start.elapsed().as_secs_f64();
    let start = Instant::now();
    let first = store.publish(&student, &draft(before), &silent).await?;
    println!("publish {:7.0} MB/s", rate(start));
    let start = Instant::now();
    store.publish(&student, &draft(Some(first.release)), &silent).await?;
    println!("again   {:7.0} MB/s (stored already: read back only)", rate(start));
    let start = Instant::now();
    let options = PullOptions { release: Some(first.release), ..PullOptions::default() };
    pull(&store, &dest, &options, &silent).await?;
    println!("pull    {:7.0} MB/s", rate(start));
    let start = Instant::now();
    let report = verify(&dest)?;
    println!("verify  {:7.0} MB/s ({} damaged)", rate(start), report.damaged.len());
    println!("peak    {:7} MiB resident", peak_mib()?);
    Ok(())
}

fn write_student(folder: &Path, megabytes: usize) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder.join("gptq"))?;
    let mut stream = blake3::Hasher::new().update(b"student").finalize_xof();
    let mut file = fs::File::create(folder.join("gptq/model.safetensors"))?;
    let mut megabyte = vec![0; 1_000_000];
    for _ in 0..megabytes {
        stream.fill(&mut megabyte);
        std::io::Write::write_all(&mut file, &megabyte)?;
    }
    for name in ["README.md", "report.json", "mask.json"] {
        fs::write(folder.join(name), name)?;
    }
    Ok(())
}

/// The kernel's own high-water mark; Linux only.
fn peak_mib() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024)
}
