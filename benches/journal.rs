//! The journal beside a plain write + fdatasync loop, on the same disk in the same run; and both again beside a running COPY.
//!
//! Sessions are tasks of one current-thread runtime, as in the service: each appends a frame and waits for its receipt, again and
//! again. The plain loop writes 1 KiB into a zero-filled file and syncs it, one at a time, for half a second before each row.
//! Prints a table, and one JSON line at the end. Variables: `BENCH_DIR` (`target/bench-journal`), `BENCH_SECONDS` (2),
//! `BENCH_SESSIONS` (1,10,100,1000,5000), `BENCH_SEGMENT_MIB`, `DATABASE_URL` (from `scripts/services env`; without it nothing runs beside).

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(clippy::cast_precision_loss, reason = "figures are floats")]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::SinkExt as _;
use odograph_journal::{EntryKind, Files, Journal, Limits, NewEntry, Options, RecoveryMode};
use teltonika_codecs::Imei;

fn main() {
    let directory = std::env::var("BENCH_DIR").unwrap_or_else(|_| "target/bench-journal".to_owned());
    let directory = Path::new(&directory);
    let seconds: f64 = std::env::var("BENCH_SECONDS").map_or(2.0, |text| text.parse().unwrap());
    let time = Duration::from_secs_f64(seconds);
    let mut lines = Vec::new();
    println!(
        "| beside | waiting | bytes | frames/s | MB/s | receipt p50, p99 ms | plain sync p50, p99 ms | p99 ratio |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let sessions: Vec<usize> = std::env::var("BENCH_SESSIONS").map_or_else(
        |_| vec![1, 10, 100, 1_000, 5_000],
        |text| text.split(',').map(|number| number.parse().unwrap()).collect(),
    );
    for sessions in sessions.iter().copied() {
        for bytes in [110, 1024] {
            lines.push(row(directory, "nothing", sessions, bytes, time));
        }
    }
    match std::env::var("DATABASE_URL") {
        Err(_) => eprintln!("DATABASE_URL is not set: nothing was measured beside a running COPY"),
        Ok(url) => {
            let stop = Arc::new(AtomicBool::new(false));
            let copy = std::thread::spawn({
                let stop = Arc::clone(&stop);
                move || copy_until(&url, &stop)
            });
            std::thread::sleep(Duration::from_secs(1));
            for sessions in sessions.iter().copied() {
                for bytes in [110, 1024] {
                    lines.push(row(directory, "COPY", sessions, bytes, time));
                }
            }
            stop.store(true, Ordering::Relaxed);
            copy.join().unwrap();
        }
    }
    println!("{}", serde_json::Value::Array(lines));
}

/// Measures one line: the plain loop, then the journal.
fn row(directory: &Path, beside: &str, sessions: usize, bytes: usize, time: Duration) -> serde_json::Value {
    let _ = std::fs::remove_dir_all(directory);
    std::fs::create_dir_all(directory).unwrap();
    let (plain_p50, plain_p99) = plain(&directory.join("plain"), Duration::from_millis(500));
    let (frames, p50, p99) = journal(&directory.join("journal"), sessions, bytes, time);
    let _ = std::fs::remove_dir_all(directory);
    let megabytes = frames * bytes as f64 / 1e6;
    let ratio = p99 / plain_p99;
    println!(
        "| {beside} | {sessions} | {bytes} | {frames:.0} | {megabytes:.0} | {p50:.2}, {p99:.2} | {plain_p50:.3}, {plain_p99:.3} | {ratio:.1} |"
    );
    serde_json::json!({
        "beside": beside, "sessions": sessions, "bytes": bytes, "frames_per_s": frames.round(),
        "receipt_ms_p50": p50, "receipt_ms_p99": p99, "sync_ms_p50": plain_p50, "sync_ms_p99": plain_p99,
    })
}

/// Write and fdatasync of 1 KiB, one after the other, into space that was written before: p50 and p99 in ms.
fn plain(path: &Path, time: Duration) -> (f64, f64) {
    let file = File::create(path).unwrap();
    let length = 16_usize << 20;
    file.write_all_at(&vec![0; length], 0).unwrap();
    file.sync_all().unwrap();
    let (mut took, mut at, begun) = (Vec::new(), 0, Instant::now());
    while begun.elapsed() < time {
        let one = Instant::now();
        file.write_all_at(&[7; 1024], at % length as u64).unwrap();
        file.sync_data().unwrap();
        took.push(one.elapsed());
        at += 1024;
    }
    percentiles(&mut took)
}

/// Frames a second, p50 and p99 of the time from append to receipt in ms.
fn journal(directory: &Path, sessions: usize, bytes: usize, time: Duration) -> (f64, f64, f64) {
    let mut limits = Limits::new(2 << 30, Duration::ZERO).unwrap();
    if let Ok(mib) = std::env::var("BENCH_SEGMENT_MIB") {
        limits = Limits::with_pieces(2 << 30, mib.parse::<u64>().unwrap() << 20, limits.group_bytes(), Duration::ZERO)
            .unwrap();
    }
    let options = Options { limits, recovery: RecoveryMode::Strict };
    let (journal, _) = Journal::open(Arc::new(Files::new(directory).unwrap()), options, Box::new(|_| {})).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    // Stands for a drain that keeps up: segments are used again.
    let drain = std::thread::spawn({
        let (contents, stop) = (Arc::clone(journal.catalog()), Arc::clone(&stop));
        move || {
            while !stop.load(Ordering::Relaxed) {
                contents.release(contents.status().end).unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (counting, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let frame: Arc<[u8]> = (0..bytes).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let (mut took, elapsed) = runtime.block_on(async {
        let mut tasks = Vec::new();
        let relay = tokio::spawn(journal.appender().relay());
        for number in 0..sessions {
            let (appender, frame) = (journal.appender(), Arc::clone(&frame));
            let (counting, over) = (Arc::clone(&counting), Arc::clone(&over));
            let imei = Imei::try_from(number as u64).unwrap();
            tasks.push(tokio::spawn(async move {
                let mut took = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let entry =
                        NewEntry { kind: EntryKind::Frame, imei, received_at_us: 1, records: 10, bytes: &frame };
                    let receipt = appender.append(entry).await.unwrap().await.unwrap();
                    assert_eq!(receipt.into_records(), 10);
                    if counting.load(Ordering::Relaxed) {
                        took.push(begun.elapsed());
                    }
                }
                took
            }));
        }
        tokio::time::sleep(time / 4).await;
        counting.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        tokio::time::sleep(time).await;
        counting.store(false, Ordering::Relaxed);
        let elapsed = begun.elapsed();
        over.store(true, Ordering::Relaxed);
        let mut took = Vec::new();
        for task in tasks {
            took.append(&mut task.await.unwrap());
        }
        relay.abort();
        (took, elapsed)
    });
    stop.store(true, Ordering::Relaxed);
    drain.join().unwrap();
    journal.close().unwrap();
    let frames = took.len() as f64 / elapsed.as_secs_f64();
    let (p50, p99) = percentiles(&mut took);
    (frames, p50, p99)
}

fn percentiles(took: &mut [Duration]) -> (f64, f64) {
    took.sort_unstable();
    let at = |part: usize| took[(took.len() * part / 100).min(took.len() - 1)].as_secs_f64() * 1e3;
    (at(50), at(99))
}

/// COPY of 20,000 rows a transaction, into a table with a key, until told to stop.
fn copy_until(url: &str, stop: &AtomicBool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let table = format!("bench_journal_{}", std::process::id());
        client
            .batch_execute(&format!(
                "CREATE TABLE {table} (imei bigint, ts bigint, a int, b int, c text, PRIMARY KEY (imei, ts))"
            ))
            .await
            .unwrap();
        let mut time = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            let mut rows = String::new();
            for imei in 0..20_000 {
                use std::fmt::Write as _;
                writeln!(rows, "{imei}\t{time}\t1\t2\tsome text that makes the row as long as a position").unwrap();
            }
            time += 1;
            let sink = client.copy_in(&format!("COPY {table} FROM STDIN")).await.unwrap();
            let mut sink = std::pin::pin!(sink);
            sink.send(bytes::Bytes::from(rows)).await.unwrap();
            sink.finish().await.unwrap();
            if time.is_multiple_of(200) {
                client.batch_execute(&format!("TRUNCATE {table}")).await.unwrap();
            }
        }
        client.batch_execute(&format!("DROP TABLE {table}")).await.unwrap();
    });
}
