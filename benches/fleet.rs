//! The cost of a load: CPU seconds per million records sent to a sink that only answers, of the simulated fleet and of the
//! benchmarks' own load. Prints one JSON line; `user` is what the program itself takes, the rest is the system's for
//! sockets. `floor` is one bare send of a frame and one receive of its answer, alternating over as many connections in one
//! thread, so no thread is ever woken. Variables: `BENCH_DEVICES` (2000), `BENCH_PACKETS` (50), `BENCH_RECORDS` (10),
//! `BENCH_RUNS` (3).

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts and figures of a run are far below 2^53"
)]

#[allow(dead_code, unused_imports, reason = "shared with other benchmarks")]
mod load;

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use load::{Load, Settings};
use odograph_fleet::{Plan, Progress};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

fn main() {
    load::run_if_asked();
    let number = |name: &str, default: u32| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (devices, packets) = (number("BENCH_DEVICES", 2_000), number("BENCH_PACKETS", 50));
    let records = u8::try_from(number("BENCH_RECORDS", 10)).unwrap();
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let target = sink();
    let (mut cpu, mut program, mut wall) = (Vec::new(), Vec::new(), Vec::new());
    let (mut load_cpu, mut load_user, mut load_wall, mut floor) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..number("BENCH_RUNS", 3) {
        let plan = Plan { devices, records, packets: Some(packets), ..Plan::new(target, 1_780_056_000_000) };
        let progress = Arc::new(Progress::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (begun, used, before) = (Instant::now(), cpu_s(), user_s());
        runtime.block_on(odograph_fleet::run(plan, Arc::clone(&progress), CancellationToken::new()));
        let millions = progress.sent.load(Ordering::Relaxed) as f64 / 1e6;
        cpu.push((cpu_s() - used) / millions);
        program.push((user_s() - before) / millions);
        wall.push(begun.elapsed().as_secs_f64() / millions);

        let settings = Settings { devices, records, packets: Some(packets), ..Settings::new(target) };
        let mut load = Load::prepare(&settings);
        load.go();
        let report = load.report();
        let millions = report.records as f64 / 1e6;
        load_cpu.push(report.cpu_s / millions);
        load_user.push(report.user_s / millions);
        load_wall.push(report.seconds() / millions);
        floor.push(pair_s(devices as usize, report.frame_bytes as usize) * 1e6 / f64::from(records));
    }
    println!(
        "{}",
        serde_json::json!({
            "devices": devices, "records_per_packet": records, "runs": cpu.len(),
            "cpu_s_per_million": median(&mut cpu), "user_s_per_million": median(&mut program),
            "wall_s_per_million": median(&mut wall),
            "load_cpu_s_per_million": median(&mut load_cpu), "load_user_s_per_million": median(&mut load_user),
            "load_wall_s_per_million": median(&mut load_wall), "floor_cpu_s_per_million": median(&mut floor),
        })
    );
}

/// Answers every login and every frame at once, on its own thread.
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
            // A tracker stops and waits, so nothing follows the frame.
            let answer: &[u8] = if wanted == LOGIN { &[1] } else { &[0, 0, 0, buffer[9]] };
            if stream.write_all(answer).await.is_err() {
                return;
            }
            (filled, wanted) = (0, ENVELOPE);
        }
    }
}

/// Seconds of processor time for one send of a frame and one receive of its answer. Nothing waits, no thread is woken.
fn pair_s(connections: usize, frame: usize) -> f64 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let pairs: Vec<_> = (0..connections.min(4_000))
        .map(|_| {
            let tracker = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (service, _) = listener.accept().unwrap();
            tracker.set_nodelay(true).unwrap();
            service.set_nodelay(true).unwrap();
            (tracker, service)
        })
        .collect();
    let (frame, mut buffer, rounds, mut used) = (vec![7; frame], vec![0; 4096], 20, 0.0);
    for _ in 0..rounds {
        let begun = cpu_s();
        for (tracker, _) in &pairs {
            (&*tracker).write_all(&frame).unwrap();
        }
        used += cpu_s() - begun;
        for (_, service) in &pairs {
            assert_eq!((&*service).read(&mut buffer).unwrap(), frame.len());
            (&*service).write_all(&[0, 0, 0, 10]).unwrap();
        }
        let begun = cpu_s();
        for (tracker, _) in &pairs {
            assert_eq!((&*tracker).read(&mut buffer).unwrap(), 4);
        }
        used += cpu_s() - begun;
    }
    used / (rounds * pairs.len()) as f64
}

/// Processor time of this thread, user and kernel. With a current-thread runtime that is the fleet's time.
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
