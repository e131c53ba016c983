//! Replay while others write, while it is killed, and while the database ends its sessions or takes less at once.

use odograph_testkit::{TestDatabase, Tracker, eventually, frame, imei};

use crate::ODOGRAPH;
use crate::replay_setup::{Setup, T, counts, result, rich, seconds, stderr};

#[tokio::test]
async fn what_still_waits_is_left_to_serve() {
    let setup = Setup::start(TestDatabase::postgres().await, &[("ODOGRAPH_LANES", "1")]);
    setup.send(1, &[rich(T)]).await;
    let blocker = setup.database.connect_postgres().await;
    blocker.batch_execute("BEGIN; SELECT * FROM ingest_checkpoints FOR UPDATE").await.unwrap();
    let mut tracker = Tracker::login(setup.process.trackers, &imei(1).to_string()).await;
    assert_eq!(tracker.deliver(&frame(&[rich(T + 1000)])).await, 1);
    assert_eq!(tracker.deliver(&frame(&[rich(T + 2000)])).await, 1);
    let output = setup.replay(&[]);
    assert_eq!((counts(&output), result(&output)["left_to_serve"].as_u64()), ([0, 0, 1, 0], Some(2)));
    drop(blocker);
    setup.process.settled().await;
    assert_eq!(counts(&setup.replay(&[])), [0, 0, 3, 0]);
    setup.process.kill();
}

/// Imitates a limit of the columnstore, because the tests also run on builds without one.
#[tokio::test]
async fn a_replay_too_large_for_one_transaction_is_written_in_parts() {
    let limit = "CREATE OR REPLACE FUNCTION unpacked() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE n int := coalesce(nullif(current_setting('test.n', true), ''), '0')::int + 1;
        BEGIN
            PERFORM set_config('test.n', n::text, true);
            IF n > MOST THEN RAISE EXCEPTION 'tuple decompression limit exceeded' USING ERRCODE = '53400'; END IF;
            RETURN NULL;
        END $$";
    let setup = Setup::start(TestDatabase::postgres().await, &[]);
    setup.send(1, &(0..700).map(|n| rich(T + n * 1000)).collect::<Vec<_>>()).await;
    let before = setup.database.all_positions().await;
    setup.database.execute("DELETE FROM positions").await;
    setup.database.execute(&limit.replace("MOST", "0")).await;
    setup.database.execute("CREATE TRIGGER t AFTER INSERT ON positions FOR EACH ROW EXECUTE FUNCTION unpacked()").await;
    let output = setup.replay(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("max_tuples_decompressed_per_dml_transaction"), "{}", stderr(&output));
    assert_eq!(setup.database.positions().await, 0, "no part is committed");
    setup.database.execute(&limit.replace("MOST", "100")).await;
    assert_eq!(counts(&setup.replay(&[])), [700, 0, 0, 0]);
    assert_eq!(setup.database.all_positions().await, before);
    setup.process.kill();
}

#[tokio::test]
async fn live_traffic_goes_on_while_everything_is_replayed() {
    let setup = Setup::start(TestDatabase::postgres().await, &[]);
    for device in 0..4 {
        setup.send(device, &(0..2000).map(|n| rich(T + n * 1000)).collect::<Vec<_>>()).await;
    }
    setup.database.execute("UPDATE positions SET ignition = NULL WHERE altitude_m = 120").await;
    let trackers = setup.process.trackers;
    let load = tokio::spawn(async move {
        let mut sent = 0;
        let mut connections = Vec::new();
        for device in 0..4 {
            connections.push(Tracker::login(trackers, &imei(device).to_string()).await);
        }
        // Half of the records are new, half are being replayed.
        for n in 0..150 {
            for tracker in &mut connections {
                let records = [rich(T + (2000 + n) * 1000), rich(T + n * 7000)];
                assert_eq!(tracker.deliver(&frame(&records)).await, 2);
                sent += 1;
            }
        }
        sent
    });
    let setup = std::sync::Arc::new(setup);
    let replaying = std::sync::Arc::clone(&setup);
    let output = tokio::task::spawn_blocking(move || replaying.replay(&[])).await.unwrap();
    let [inserted, updated, unchanged, refused] = counts(&output);
    let sent: u64 = load.await.unwrap();
    setup.process.settled().await;
    assert_eq!((inserted, updated, refused), (0, 8000, 0), "{unchanged} unchanged");
    assert_eq!(setup.database.positions().await, 8000 + sent);
    assert_eq!(setup.database.rows("SELECT 1 AS n FROM positions WHERE ignition IS NULL").await.len(), 0);
    let newest = async || {
        let latest = setup.database.table("latest_positions").await;
        (seconds(&latest) == [2149; 4]).then_some(())
    };
    eventually("the latest positions", newest).await;
}

#[tokio::test]
async fn a_killed_and_an_interrupted_replay_are_finished_by_the_next() {
    let setup = Setup::start(TestDatabase::postgres().await, &[]);
    for device in 0..3 {
        setup.send(device, &(0..4000).map(|n| rich(T + n * 1000)).collect::<Vec<_>>()).await;
    }
    let before = setup.database.all_positions().await;
    for signal in ["-KILL", "-INT"] {
        setup.database.execute("TRUNCATE positions").await;
        let url = setup.database.url();
        let own = [("DATABASE_URL", url.as_str()), ("ODOGRAPH_DATA_DIR", setup.directory.path().to_str().unwrap())];
        let mut child = ODOGRAPH.command(&["replay"], &own).stdout(std::process::Stdio::piped()).spawn().unwrap();
        eventually("the first rows", async || (setup.database.positions().await > 0).then_some(())).await;
        let pid = child.id().to_string();
        assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
        child.wait().unwrap();
        let done = setup.database.positions().await;
        assert!(done > 0 && done < 12_000, "{signal} in the middle, at {done}");
        assert_eq!(counts(&setup.replay(&[])), [12_000 - done, 0, done, 0]);
        assert_eq!(setup.database.all_positions().await, before);
    }
    setup.process.kill();
}

#[tokio::test]
async fn a_replay_outlives_the_end_of_its_connections() {
    let setup = Setup::start(TestDatabase::postgres().await, &[]);
    for device in 0..3 {
        setup.send(device, &(0..4000).map(|n| rich(T + n * 1000)).collect::<Vec<_>>()).await;
    }
    let before = setup.database.all_positions().await;
    setup.database.execute("TRUNCATE positions").await;
    let setup = std::sync::Arc::new(setup);
    let replaying = std::sync::Arc::clone(&setup);
    let replay = tokio::task::spawn_blocking(move || replaying.replay(&[]));
    for rows in [0, 5000] {
        eventually("more rows", async || (setup.database.positions().await > rows).then_some(())).await;
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE datname = current_database() AND application_name = 'odograph'";
        setup.database.execute(end).await;
    }
    // Rows of a commit whose answer was lost count as unchanged.
    let [inserted, updated, unchanged, refused] = counts(&replay.await.unwrap());
    assert_eq!((inserted + unchanged, updated, refused), (12_000, 0, 0));
    assert_eq!(setup.database.all_positions().await, before);
}
