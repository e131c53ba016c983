//! What the simulated fleet costs: CPU seconds of its thread for a million records sent to a sink that only answers, so that
//! other benchmarks measure the service and not their load. Prints one JSON line; `user` is what the program itself takes,
//! the rest is the system's for sockets. Variables: `BENCH_DEVICES` (2000),
//! `BENCH_PACKETS` (50), `BENCH_RECORDS` (10), `BENCH_RUNS` (3).

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use odograph::fleet::{self, Plan, Progress};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

fn main() {
    let number = |name: &str, default: u32| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (devices, packets) = (number("BENCH_DEVICES", 2_000), number("BENCH_PACKETS", 50));
    let records = u8::try_from(number("BENCH_RECORDS", 10)).unwrap();
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let target = sink();
    let (mut cpu, mut program, mut wall) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..number("BENCH_RUNS", 3) {
        let plan = Plan { devices, records, packets: Some(packets), ..Plan::new(target, 1_780_056_000_000) };
        let progress = Arc::new(Progress::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (begun, used, before) = (Instant::now(), cpu_s(), user_s());
        runtime.block_on(fleet::run(plan, Arc::clone(&progress), CancellationToken::new()));
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let millions = progress.sent.load(Ordering::Relaxed) as f64 / 1e6;
        cpu.push((cpu_s() - used) / millions);
        program.push((user_s() - before) / millions);
        wall.push(begun.elapsed().as_secs_f64() / millions);
    }
    println!(
        "{}",
        serde_json::json!({
            "devices": devices, "records_per_packet": records, "runs": cpu.len(),
            "cpu_s_per_million": median(&mut cpu), "user_s_per_million": median(&mut program),
            "wall_s_per_million": median(&mut wall),
        })
    );
}

/// Answers every login and every frame at once, on a thread of its own.
fn sink() -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let listener: TcpListener = socket.listen(4096).unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                tokio::spawn(answer(stream));
            }
        });
    });
    told.recv().unwrap()
}

async fn answer(mut stream: TcpStream) {
    let (mut buffer, mut filled, mut wanted) = (vec![0; 32 << 10], 0, LOGIN);
    while let Ok(count @ 1..) = stream.read(&mut buffer[filled..]).await {
        filled += count;
        if wanted != LOGIN && filled >= 8 {
            wanted = u32::from_be_bytes(buffer[4..8].try_into().unwrap()) as usize + ENVELOPE;
        }
        if filled >= wanted {
            // A tracker stops and waits, so nothing stands behind the frame.
            let answer: &[u8] = if wanted == LOGIN { &[1] } else { &[0, 0, 0, buffer[9]] };
            if stream.write_all(answer).await.is_err() {
                return;
            }
            (filled, wanted) = (0, ENVELOPE);
        }
    }
}

/// Time that this thread had a core, user and kernel; with a current-thread runtime that is the fleet's.
fn cpu_s() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// The part of it outside the system, counted in hundredths.
fn user_s() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    text.rsplit_once(") ").unwrap().1.split(' ').nth(11).unwrap().parse::<f64>().unwrap() / 100.0
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    (figures[figures.len() / 2] * 1000.0).round() / 1000.0
}

const LOGIN: usize = 17;
const ENVELOPE: usize = 12;
