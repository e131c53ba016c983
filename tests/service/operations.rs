//! The operator's view: readiness, metrics and their conservation, settings and their mistakes, logs without secrets.

use std::process::{Command, Output};
use std::time::Duration;

use odograph::config::{Lookup, Settings};
use odograph::health::Reason;
use odograph_testkit::{
    Launch, PrivateServer, Service, StopMode, TestDatabase, Tracker, eventually, frame, get, imei, metric, readiness,
    record,
};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::ODOGRAPH;

const T: u64 = 1_780_000_000_000;

#[tokio::test]
async fn a_started_service_is_live_ready_and_counts_from_zero() {
    let database = TestDatabase::sqlite();
    let service = Service::start(&database.url(), &[]).await;
    assert_eq!(get(service.admin, "/livez").await.0, 200);
    assert_eq!(readiness(service.admin).await, (200, true, vec![]));
    assert_eq!(get(service.admin, "/nothing").await.0, 404);
    let (_, text) = get(service.admin, "/metrics").await;
    for name in [
        "odograph_build_info",
        "odograph_connections_open",
        "odograph_connections_opened_total",
        "odograph_logins_total",
        "odograph_received_bytes_total",
        "odograph_records_received_total",
        "odograph_records_recovered_total",
        "odograph_records_journaled_total",
        "odograph_records_acknowledged_total",
        "odograph_records_committed_total",
        "odograph_records_duplicate_total",
        "odograph_records_waiting",
        "odograph_store_retries_total",
        "odograph_store_up",
        "process_open_fds",
    ] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} is missing in\n{text}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_reason_is_in_readyz_the_metrics_and_the_log() {
    let server = PrivateServer::new("reasons");
    let database = TestDatabase::postgres_in(&server.url).await;
    let data = tempfile::tempdir().unwrap();
    let own = ("ODOGRAPH_DATA_DIR", data.path().to_str().unwrap());
    let process = ODOGRAPH.serve(&database.url(), "127.0.0.1:0", &[own]);
    let condition = async |reason: Reason| {
        metric(process.admin, &format!("odograph_condition{{reason=\"{}\"}}", reason.as_str())).await
    };
    process.is_ready().await;
    for reason in Reason::ALL {
        assert!(condition(reason).await.abs() < f64::EPSILON, "{reason:?}");
    }
    server.stop(StopMode::Immediate);
    process.names_reason("store_down").await;
    assert!(condition(Reason::StoreDown).await > 0.5);
    assert!(metric(process.admin, "odograph_ready").await > 0.5, "a fault behind the journal");
    server.start();
    process.is_ready().await;
    assert!(condition(Reason::StoreDown).await < 0.5);
    let lines = process.logs();
    let of_reason: Vec<_> = lines.iter().filter(|line| line.contains("\"reason\":\"store_down\"")).collect();
    assert_eq!(of_reason.len(), 2, "it begins and ends: {lines:?}");
    assert!(of_reason[0].contains("WARN") && of_reason[1].contains("INFO"), "{of_reason:?}");
    assert_eq!(process.terminate(), Some(0));
}

#[tokio::test]
async fn records_are_conserved_in_every_scrape_under_load() {
    let database = TestDatabase::sqlite();
    let service = Service::start(&database.url(), &[]).await;
    let (target, admin) = (service.trackers, service.admin);
    let load = tokio::spawn(async move {
        for device in 0..10 {
            let mut tracker = Tracker::login(target, &imei(device).to_string()).await;
            for n in 0..30 {
                let frame = frame(&[record(T + n * 1000, 1), record(T + n * 500, 0)]);
                assert_eq!(tracker.deliver(&frame).await, 2);
            }
        }
    });
    let mut scrapes = 0;
    while !load.is_finished() {
        let (_, text) = get(admin, "/metrics").await;
        let sum = |name: &str| -> u64 {
            let name = format!("odograph_records_{name}");
            let values = text.lines().filter_map(|line| line.strip_prefix(&name)?.rsplit_once(' '));
            values.map(|(_, value)| value.parse::<u64>().unwrap()).reduce(|sum, value| sum + value).expect("is there")
        };
        let sources = sum("recovered_total") + sum("journaled_total");
        let sinks = ["committed_total", "duplicate_total", "quarantined_total", "waiting"];
        let sinks: u64 = sinks.iter().map(|sink| sum(sink)).sum();
        assert_eq!(sources, sinks);
        scrapes += 1;
    }
    load.await.unwrap();
    assert!(scrapes > 3, "{scrapes} scrapes saw the load");
    service.settled().await;
    let counts = service.registry.tally().read();
    assert_eq!((counts.journaled, counts.acknowledged, counts.waiting), (600, 600, 0));
    assert_eq!(counts.committed, database.positions().await);
    service.stop().await;
}

#[tokio::test]
async fn logs_hold_no_coordinates_no_payload_and_an_imei_at_debug_only() {
    let database = TestDatabase::sqlite();
    for (level, holds_imei) in [("info", false), ("debug", true)] {
        let log = format!("odograph={level}");
        let process = ODOGRAPH.serve(&database.url(), "127.0.0.1:0", &[("ODOGRAPH_LOG", &log)]);
        let mut tracker = Tracker::login(process.trackers, "356307042441013").await;
        assert_eq!(tracker.deliver(&frame(&[record(T, 1)])).await, 1);
        let mut broken = frame(&[record(T, 1)]);
        broken[25] ^= 1;
        tracker.send(&broken).await;
        assert!(tracker.is_closed_unanswered().await);
        let refused = async || process.logs().iter().any(|line| line.contains("crc_mismatch")).then_some(());
        eventually("the refusal in the log", refused).await;
        let logs = process.logs().join("\n");
        assert_eq!(logs.contains("356307042441013"), holds_imei, "{logs}");
        for place in ["25.27", "252791234", "54.68", "546871234"] {
            assert!(!logs.contains(place), "{logs}");
        }
    }
}

fn odograph(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(ODOGRAPH.path());
    command.args(arguments).env_remove("DATABASE_URL").envs(variables.iter().copied()).output().unwrap()
}

#[test]
fn all_mistakes_are_reported_at_once_and_nothing_starts() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("odograph.toml");
    std::fs::write(&file, "listen = \"here\"\nnonsense = 1\nbatch_rows = 0\nidle_timeout = \"5m\"\n").unwrap();
    let variables = [
        ("DATABASE_URL", "mysql://user:hunter2@host/db"),
        ("ODOGRAPH_FRAME_TIMEOUT", "soon"),
        ("ODOGRAPH_INFLIGHT_MAX", "1TB"),
        ("ODOGRAPH_ACK_AFTER", "perhaps"),
        ("ODOGRAPH_ADMISSION", "strict"),
        ("ODOGRAPH_JOURNAL_MAX_SIZE", "1KiB"),
        ("ODOGRAPH_LANES", "0"),
    ];
    for command in [&["serve"][..], &["config", "check"]] {
        let output = odograph(&[command, &["--config", file.to_str().unwrap()]].concat(), &variables);
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr).unwrap();
        for setting in [
            "DATABASE_URL",
            "listen",
            "nonsense",
            "batch_rows",
            "ODOGRAPH_FRAME_TIMEOUT",
            "ODOGRAPH_INFLIGHT_MAX",
            "ODOGRAPH_ACK_AFTER",
            "ODOGRAPH_ADMISSION",
            "ODOGRAPH_JOURNAL_MAX_SIZE",
            "ODOGRAPH_LANES",
        ] {
            assert!(said.contains(&format!("  {setting}: ")), "{setting} is missing in\n{said}");
        }
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn the_environment_overrides_the_file_and_secrets_are_masked() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("odograph.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:6001\"\nlogin_timeout = \"9s\"\n").unwrap();
    let variables = [
        ("DATABASE_URL", "postgres://me:hunter2@db.example/rally"),
        ("ODOGRAPH_LISTEN", "127.0.0.1:6002"),
        ("ODOGRAPH_ADMISSION", "registered"),
    ];
    let output = odograph(&["config", "show", "--config", file.to_str().unwrap()], &variables);
    assert!(output.status.success());
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("listen = \"127.0.0.1:6002\"  # environment"), "{shown}");
    assert!(shown.contains("login_timeout = \"9s\"  # file"), "{shown}");
    assert!(shown.contains("admission = \"registered\"  # environment"), "{shown}");
    assert!(shown.contains("frame_timeout = \"60s\"  # default"), "{shown}");
    assert!(shown.contains("db.example") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn every_default_is_valid() {
    let settings = Settings::load(&Lookup::default()).unwrap();
    assert_eq!(settings.listen.port(), 5027);
    assert_eq!(settings.inflight_max, 256 << 20);
}

#[tokio::test]
async fn a_port_in_use_is_reported_plainly() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let variables = [("ODOGRAPH_LISTEN", listen.as_str()), ("ODOGRAPH_DATA_DIR", directory.path().to_str().unwrap())];
    let output = odograph(&["serve"], &variables);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("cannot listen on {listen}")) && said.contains("in use"), "{said}");
}

#[tokio::test]
async fn files_of_the_data_directory_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let data = tempfile::tempdir().unwrap();
    let directory = data.path().join("new");
    let url = format!("sqlite:{}", directory.join("odograph.sqlite").display());
    let own = ("ODOGRAPH_DATA_DIR", directory.to_str().unwrap());
    let process = ODOGRAPH.serve(&url, "127.0.0.1:0", &[own]);
    let mut tracker = Tracker::login(process.trackers, &imei(1).to_string()).await;
    assert_eq!(tracker.deliver(&frame(&[record(T, 1)])).await, 1);
    process.settled().await;
    assert_eq!(process.terminate(), Some(0));
    let (mut found, mut directories) = (0, vec![directory]);
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap().map(Result::unwrap) {
            let (path, metadata) = (entry.path(), entry.metadata().unwrap());
            assert_eq!(metadata.permissions().mode() & 0o077, 0, "{}", path.display());
            found += 1;
            if metadata.is_dir() {
                directories.push(path);
            }
        }
    }
    assert!(found > 4, "{found} files");
}

#[tokio::test]
async fn connections_leave_files_for_the_journal_whatever_the_setting_says() {
    let database = TestDatabase::sqlite();
    let data = tempfile::tempdir().unwrap();
    let limited = Launch::new(ODOGRAPH, &database.url(), data.path())
        .with("ODOGRAPH_MAX_CONNECTIONS", "1000")
        .under(&["prlimit", "--nofile=200:300", "--"]);
    let process = limited.start(&data.path().join("serve.log")).await;
    assert_eq!(process.count("odograph_connections_max").await, 108);
    // More sockets than that: the others wait, and the journal goes on.
    let mut trackers = Vec::new();
    for number in 0..108 {
        trackers.push(Tracker::login(process.trackers, &imei(number).to_string()).await);
    }
    let waiting: Vec<_> = (0..80).map(|_| std::net::TcpStream::connect(process.trackers).unwrap()).collect();
    process.names_reason("connection_limit").await;
    for number in 0..100 {
        let device = usize::try_from(number).unwrap();
        assert_eq!(trackers[device].deliver(&frame(&[record(T + number, 1)])).await, 1);
    }
    drop((waiting, trackers));
    process.settled().await;
    assert_eq!(process.terminate(), Some(0));
    assert_eq!(database.positions().await, 100);
}

#[tokio::test]
async fn idle_peers_of_the_admin_port_do_not_keep_it_from_answering() {
    let database = TestDatabase::sqlite();
    let service = Service::start(&database.url(), &[]).await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        let mut stream = tokio::net::TcpStream::connect(service.admin).await.unwrap();
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nX-Slow: ").await;
        idle.push(stream);
    }
    eventually("an answer once the first of them have had their time", async || {
        let mut stream = tokio::net::TcpStream::connect(service.admin).await.ok()?;
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
    for mut stream in idle {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "a peer that never ends its headers is closed");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_tracker_whose_clock_is_ahead_is_counted_and_its_records_are_stored() {
    let database = TestDatabase::sqlite();
    let service = Service::start(&database.url(), &[]).await;
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let ahead = u64::try_from((now + Duration::from_mins(10)).as_millis()).unwrap();
    let mut tracker = Tracker::login(service.trackers, &imei(1).to_string()).await;
    assert_eq!(tracker.deliver(&frame(&[record(ahead, 1), record(ahead + 1, 1)])).await, 2);
    let counted = "odograph_records_clock_ahead_total";
    eventually("the records to be counted", async || (metric(service.admin, counted).await >= 2.0).then_some(())).await;
    assert_eq!((database.positions().await, database.table("latest_positions").await.len()), (2, 0));
    service.stop().await;
}
