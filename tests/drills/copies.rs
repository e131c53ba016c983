//! Copies: a database restored from an older backup under a running service, a cloned data directory, a journal of format 1.

use std::path::Path;
use std::process::Command;

use odograph_fleet::Plan;
use odograph_testkit::{PrivateServer, StopMode, TestDatabase, eventually};

use crate::SETTLE;
use crate::load::Load;
use crate::report::Outcome;
use crate::setup::{DrillSetup, number, until_true};

crate::drills! {
    "pg-older-backup", long, older_backup, "the server's directory is replaced by an older copy while the service uses it";
    "clone", short, clone, "a copy of the data directory runs next to the original, each with its own trackers";
    "journal-sample", long, sample, "the journal in fixtures/journal-v1 is found, drained, and written on";
}

async fn older_backup(mut setup: DrillSetup) -> Outcome {
    let server = PrivateServer::new("drill-backup");
    let database = TestDatabase::postgres_in(&server.url).await;
    let (data, backup) = (server.directory().join("data"), setup.directory.join("backup"));
    let serve = setup.launch(&database.url()).start(&setup.next_log()).await;
    let load = setup.load(serve.trackers);
    load.goes_on(3_000).await;
    let (mut restores, mut went) = (0, 0);
    for _ in 0..setup.times(1, 3) {
        server.stop(StopMode::Fast);
        copy(&data, &backup);
        server.start();
        let kept = database.positions().await;
        load.goes_on(setup.random.u64(5_000..15_000)).await;
        serve.is_ready().await;
        // The rows about to be lost are committed, and the journal has released them.
        eventually("commits", async || (database.positions().await >= kept + 4_000).then_some(())).await;
        let lost = database.positions().await - kept;
        server.stop(StopMode::Immediate);
        copy(&backup, &data);
        server.start();
        (restores, went) = (restores + 1, went + lost);
        load.goes_on(2_000).await;
        serve.is_ready().await;
    }
    let again = async || (serve.count("odograph_records_recovered_total").await >= went).then_some(());
    eventually("all lost rows to be drained again", again).await;
    assert_eq!(serve.count("odograph_journal_gap_bytes_total").await, 0);
    let findings = setup.end(serve, load, &database).await;
    Outcome { findings, faults: vec![("restores", restores), ("committed rows that were gone", went)] }
}

async fn clone(mut setup: DrillSetup) -> Outcome {
    let database = setup.database().await;
    let launch = setup.launch(&database.url());
    let first = launch.start(&setup.next_log()).await;
    let at = first.trackers;
    let load = setup.load(at);
    load.goes_on(1_000).await;
    // Like cloning a machine that lost power: the copy has whatever the directory holds at that moment.
    first.kill();
    let copied = setup.directory.join("clone");
    copy(&setup.data(), &copied);
    let first = launch.clone().listen(&at.to_string()).start(&setup.next_log()).await;
    load.goes_on(500).await;
    until_true(&database, "the first one's commits", "SELECT count(*) > 1000 FROM positions").await;
    let second = launch.data(&copied).start(&setup.next_log()).await;
    let first_device = load.plan.first_device + 100_000_000;
    let other = Load::start(Plan { first_device, target: second.trackers, ..load.plan });
    other.goes_on(setup.times(1_000, 5_000)).await;
    load.goes_on(1_000).await;
    let held = second.count("odograph_records_waiting").await;
    // The first one ends. Now the second one may write, under another journal ID.
    let mut reports = load.stop().await;
    first.settled_within(SETTLE).await;
    first.terminate_in_order().await;
    // The second one needs a moment to notice, its trackers do not.
    other.goes_on(1_000).await;
    reports.append(&mut other.stop().await);
    second.settled_within(SETTLE).await;
    second.terminate_in_order().await;
    let findings = setup.audit(&database, &reports).await;
    let journals = number(&database, "SELECT count(DISTINCT journal_id) AS n FROM ingest_checkpoints").await;
    assert_eq!(journals, 2, "each has its own journal ID");
    Outcome { findings, faults: vec![("records that the clone held back", held)] }
}

async fn sample(mut setup: DrillSetup) -> Outcome {
    let database = setup.database().await;
    std::fs::create_dir_all(setup.data()).unwrap();
    copy(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/journal-v1")), &setup.data().join("journal"));
    let serve = setup.launch(&database.url()).start(&setup.next_log()).await;
    let load = setup.load(serve.trackers);
    load.goes_on(1_000).await;
    // Two records, a message, and a frame whose counts differ.
    let fleet = load.plan.first_device;
    let ours = format!("imei NOT BETWEEN {0} AND {0} + 99", 1_000_000_000_000 + u64::from(fleet));
    for (table, expected) in [("quarantined_records", 1), ("device_messages", 1), ("positions", 2)] {
        let there = format!("SELECT count(*) = {expected} FROM {table} WHERE {ours}");
        until_true(&database, &format!("the sample's {table}"), &there).await;
    }
    let values =
        "imei = 356307042441013 AND ts = '2019-06-10 11:36:32+00' AND total_odometer_m = 22949000 AND codec = 142";
    let value = "imei = 42 AND ts = '2019-06-10 10:05:36+00' AND gsm_signal = 3 AND digital_input_1 AND codec = 8";
    let recovered = serve.count("odograph_records_recovered_total").await;
    assert_eq!(recovered, 3, "records found in the sample");
    let right = number(&database, &format!("SELECT count(*) AS n FROM positions WHERE ({values}) OR ({value})")).await;
    assert_eq!(
        right,
        2,
        "values of the sample: {:?}",
        database.rows(&format!("SELECT * FROM positions WHERE {ours}")).await
    );
    // The fleet did not send these rows.
    database.execute(&format!("DELETE FROM positions WHERE {ours}; DELETE FROM latest_positions WHERE {ours}")).await;
    let findings = setup.end(serve, load, &database).await;
    Outcome { findings, faults: vec![("records recovered from the sample", recovered)] }
}

/// Replaces a directory with a copy of another.
fn copy(from: &Path, to: &Path) {
    if to.exists() {
        std::fs::remove_dir_all(to).unwrap();
    }
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success(), "cp {} {}", from.display(), to.display());
}
