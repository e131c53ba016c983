//! Retention in a running service: it respects frames that wait in the journal, logs what it drops, and counts
//! refusals.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use odograph_journal::{EntryKind, Files, Journal, Limits, NewEntry, Options, RecoveryMode};
use odograph_testkit::service::AFTER_COMMIT;
use odograph_testkit::{Service, TestDatabase, count, eventually, frame, imei, readiness, record};

const DAY: Duration = Duration::from_hours(24);

/// A journal with one frame received at this time.
async fn journal(data_dir: &Path, received: SystemTime) {
    let files = Arc::new(Files::new(&data_dir.join("journal")).unwrap());
    let limits = Limits::new(64 << 20, DAY).unwrap();
    let options = Options { limits, recovery: RecoveryMode::Strict };
    let (journal, _) = Journal::open(files, options, Box::new(|_| {})).unwrap();
    let received = received.duration_since(UNIX_EPOCH).unwrap();
    let whole = frame(&[record(u64::try_from(received.as_millis()).unwrap(), 1)]);
    let bytes = &whole[8..whole.len() - 4];
    let received_at_us = i64::try_from(received.as_micros()).unwrap();
    let entry = NewEntry { kind: EntryKind::Frame, imei: imei(1), received_at_us, records: 1, bytes };
    journal.appender().append(entry).await.unwrap().await.unwrap();
    journal.close().unwrap();
}

/// The log lines of this thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let lines = self.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || lines.clone()).finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

const REFUSED: &str = "odograph_retention_refused_total";
const DROPPED: &str = r#"odograph_retention_expired_total{what="chunks"}"#;

#[tokio::test]
async fn what_may_belong_to_waiting_frames_stays_until_they_are_in_the_database() {
    let database = TestDatabase::postgres().await;
    // Positions ten days old and two and a half days old, and a database that takes nothing for now.
    database
        .execute(
            "INSERT INTO positions (imei, ts, fingerprint, valid, received_at) \
             SELECT 17, now() - n * interval '12 hours', 1, true, now() FROM unnest(ARRAY[20, 6]) AS n; \
             CREATE FUNCTION busy() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN RAISE SQLSTATE '40001'; END $$; \
             CREATE TRIGGER busy BEFORE INSERT ON positions FOR EACH ROW EXECUTE FUNCTION busy()",
        )
        .await;
    let directory = tempfile::tempdir().unwrap();
    journal(directory.path(), SystemTime::now() - 4 * DAY).await;
    let data_dir = ("ODOGRAPH_DATA_DIR", directory.path().to_str().unwrap());
    let service = Service::start(&database.url(), &[data_dir, ("ODOGRAPH_RETENTION", "1d")]).await;
    let admin = service.admin;
    assert_eq!(count(admin, REFUSED).await, 0);
    let lines = Lines::default();
    let listening = lines.listen();
    // Until the lanes have read their checkpoints nothing is known, and nothing is dropped.
    eventually("the first chunk to be dropped", async || {
        service.retainer.once().await;
        (count(admin, DROPPED).await == 1).then_some(())
    })
    .await;
    assert!(count(admin, REFUSED).await >= 1, "the other chunk is old enough too");
    assert_eq!(database.positions().await, 1);
    let text = lines.text();
    assert!(text.contains("_hyper_") && text.contains("from=20") && text.contains("to=20"), "{text}");
    assert!(text.contains("frames have been waiting in the journal since"), "{text}");

    database.execute("DROP TRIGGER busy ON positions").await;
    service.settled().await;
    // The frame's latest position is written a moment later. Until then the frame counts as waiting.
    eventually("everything to be dropped", async || {
        service.retainer.once().await;
        (database.positions().await == 0).then_some(())
    })
    .await;
    let refused = count(admin, REFUSED).await;
    service.retainer.once().await;
    assert_eq!((count(admin, DROPPED).await, count(admin, REFUSED).await), (3, refused), "nothing is left to refuse");
    drop(listening);
    service.stop().await;
}

#[tokio::test]
async fn nothing_is_dropped_while_the_lanes_do_not_know_where_the_database_stands() {
    let database = TestDatabase::postgres().await;
    let fill = "INSERT INTO positions (imei, ts, fingerprint, valid, received_at) \
                VALUES (17, now() - interval '10 days', 1, true, now())";
    database.execute(fill).await;
    // A checkpoint that another session holds keeps the lanes from starting.
    let holder = database.connect_postgres().await;
    holder.batch_execute("BEGIN; LOCK TABLE ingest_checkpoints").await.unwrap();
    let service = Service::start(&database.url(), &[("ODOGRAPH_RETENTION", "1d")]).await;
    service.retainer.once().await;
    assert_eq!(count(service.admin, REFUSED).await, 1);
    assert_eq!(database.positions().await, 1);
    drop(holder);
    eventually("the chunk to be dropped", async || {
        service.retainer.once().await;
        (database.positions().await == 0).then_some(())
    })
    .await;
    service.stop().await;
}

#[tokio::test]
async fn a_clock_that_cannot_be_right_drops_nothing() {
    // Without a server there is no other clock.
    let database = TestDatabase::sqlite();
    let directory = tempfile::tempdir().unwrap();
    // The journal shows that this machine's clock was a day ahead once.
    journal(directory.path(), SystemTime::now() + DAY).await;
    let data_dir = ("ODOGRAPH_DATA_DIR", directory.path().to_str().unwrap());
    let service = Service::start(&database.url(), &[data_dir, ("ODOGRAPH_RETENTION", "1d")]).await;
    eventually("the lanes to start", async || {
        let (_, _, reasons) = readiness(service.admin).await;
        reasons.iter().any(|reason| reason == "clock").then_some(())
    })
    .await;
    let fill = "INSERT INTO positions (imei, ts, fingerprint, valid, faulty, received_at) \
                VALUES (17, unixepoch() * 1000 - 10 * 86400000, 1, 1, 0, 0)";
    database.execute(fill).await;
    let lines = Lines::default();
    let listening = lines.listen();
    service.retainer.once().await;
    drop(listening);
    assert!(lines.text().contains("this machine's clock is implausible"), "{}", lines.text());
    assert_eq!((count(service.admin, REFUSED).await, database.positions().await), (1, 1));
    service.stop().await;
}

#[tokio::test]
async fn a_journal_from_the_future_drops_nothing_although_the_databases_clock_agrees() {
    let (database, directory) = (TestDatabase::postgres().await, tempfile::tempdir().unwrap());
    journal(directory.path(), SystemTime::now() + DAY).await;
    let data_dir = ("ODOGRAPH_DATA_DIR", directory.path().to_str().unwrap());
    let service = Service::start(&database.url(), &[data_dir, ("ODOGRAPH_RETENTION", "1d")]).await;
    // The two clocks agree, so the lanes do not wait.
    service.settled().await;
    let fill = "INSERT INTO positions (imei, ts, fingerprint, valid, received_at) \
                VALUES (17, now() - interval '10 days', 1, true, now())";
    database.execute(fill).await;
    let lines = Lines::default();
    let listening = lines.listen();
    service.retainer.once().await;
    drop(listening);
    assert!(lines.text().contains("this machine's clock is implausible"), "{}", lines.text());
    assert_eq!(count(service.admin, REFUSED).await, 1);
    let old = database.all_positions().await.into_iter().filter(|row| row["imei"] == 17).count();
    assert_eq!(old, 1, "receive times of the journal may be those of entries that wait");
    service.stop().await;
}

#[tokio::test]
async fn without_a_journal_nothing_waits() {
    let database = TestDatabase::sqlite();
    let service = Service::start(&database.url(), &[AFTER_COMMIT, ("ODOGRAPH_RETENTION", "1d")]).await;
    let fill = "INSERT INTO positions (imei, ts, fingerprint, valid, faulty, received_at) \
                VALUES (17, unixepoch() * 1000 - 10 * 86400000, 1, 1, 0, 0)";
    database.execute(fill).await;
    assert_eq!(database.positions().await, 1);
    service.retainer.once().await;
    assert_eq!(database.positions().await, 0);
    assert_eq!(count(service.admin, r#"odograph_retention_expired_total{what="positions"}"#).await, 1);
    service.stop().await;
}
