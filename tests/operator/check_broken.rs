//! `odograph check` on broken installations: it names each problem with its remedy.

use std::os::unix::fs::FileExt as _;

use odograph::store::{DatabaseUrl, MigrateOptions, migrate};
use odograph_testkit::{
    PrivateServer, RedisServer, SmallDisk, StopMode, TestDatabase, Tracker, eventually, frame, record, server_url,
};

use crate::ODOGRAPH;
use crate::check_report::{Report, SMALL, at, command, directory, flag, redis_asks, wrong_here};

const T: u64 = 1_780_000_000_000;

#[tokio::test]
async fn a_server_that_does_not_sync_is_named() {
    let server = PrivateServer::new("check");
    let database = TestDatabase::postgres_in(&server.url).await;
    database.execute("ALTER SYSTEM SET fsync = off").await;
    database.execute("ALTER SYSTEM SET autovacuum = off").await;
    database.execute("ALTER ROLE odograph SET synchronous_commit = off; SELECT pg_reload_conf()").await;
    let (directory, url) = (directory(), database.url());
    let settings = [at(&directory), SMALL, ("DATABASE_URL", &*url)];
    let report = eventually("the server to read its files", async || {
        let report = Report::new(&settings);
        (report.verdict("fsync") == "wrong").then_some(report)
    })
    .await;
    report.names("fsync", "fsync is off", "ALTER SYSTEM SET fsync = on");
    report.names("synchronous-commit", "off for everybody else", "RESET synchronous_commit");
    report.names("autovacuum", "autovacuum is off", "autovacuum = on");
    // An outbox that the Directus hook does not empty.
    database
        .execute(
            "CREATE TABLE position_flags (id uuid PRIMARY KEY); \
             CREATE TABLE position_flag_state (flag_id uuid PRIMARY KEY); \
             CREATE TABLE flag_outbox (id bigint, at timestamptz); \
             INSERT INTO flag_outbox VALUES (1, now() - interval '1 hour'); \
             CREATE TABLE devices (imei text); INSERT INTO devices VALUES ('356307042441013'), ('356307'), (NULL)",
        )
        .await;
    let report = Report::new(&settings);
    report.names("flag-tables", "triggers", "odograph migrate --directus");
    report.names("flag-outbox", "1 edits wait for the relay, the oldest for 1h", "hook");
    report.names("devices", "3 devices, 1 of them without an IMEI; 1 rows have no IMEI of 15 digits", "Directus");
    // At last the server is stopped.
    server.stop(StopMode::Immediate);
    let report = Report::new(&settings);
    report.names("database", "127.0.0.1", "see that the server runs");
    assert_eq!(report.verdict("schema"), "unknown");
}

#[tokio::test]
async fn a_database_without_tables_or_privileges_is_named() {
    let (empty, directory) = (TestDatabase::postgres_empty(&server_url()).await, directory());
    let url = empty.url();
    let report = Report::new(&[at(&directory), SMALL, ("DATABASE_URL", &*url)]);
    report.names("schema", "lacks migrations", "odograph migrate");

    migrate(&DatabaseUrl::parse(&url).unwrap(), &MigrateOptions::default()).await.unwrap();
    let role = format!("role_of_check_{}", std::process::id());
    let name = url.rsplit('/').next().unwrap();
    // As in docs/database.md.
    let grants = format!(
        "CREATE ROLE {role} LOGIN; \
         GRANT CONNECT, TEMPORARY ON DATABASE {name} TO {role}; GRANT USAGE ON SCHEMA public TO {role}; \
         GRANT SELECT ON _sqlx_migrations TO {role}; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON positions, latest_positions, ingest_checkpoints, quarantined_records, \
             device_messages, position_flag_ledger, position_flag_windows, position_corrections TO {role}; \
         GRANT USAGE ON SEQUENCE position_flag_versions TO {role}"
    );
    empty.execute(&grants).await;
    let (_, host) = url.split_once('@').unwrap();
    let as_role = format!("postgres://{role}@{host}");
    let settings = [at(&directory), SMALL, ("DATABASE_URL", &*as_role)];
    let enough = Report::new(&settings);
    let drops = Report::new(&[&settings[..], &[("ODOGRAPH_RETENTION", "500d")]].concat());
    empty
        .execute(&format!(
            "REVOKE DELETE ON positions FROM {role}; REVOKE USAGE ON SEQUENCE position_flag_versions FROM {role}"
        ))
        .await;
    let lacking = Report::new(&settings);
    empty.execute(&format!("REVOKE SELECT ON _sqlx_migrations FROM {role}")).await;
    let blind = Report::new(&settings);
    empty.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    assert_eq!(enough.wrong(), wrong_here(directory.path()), "{}", enough.text);
    drops.names("privileges", "does not own positions", "ODOGRAPH_RETENTION");
    lacking.names("privileges", "DELETE on positions, USAGE on position_flag_versions", "Roles");
    blind.names("schema", "42501", "Roles");
}

#[test]
fn a_file_limit_too_low_for_the_connections_is_named() {
    let directory = directory();
    let limited = |limit: u32, more: &[(&str, &str)]| {
        let settings = [&[at(&directory), SMALL], more].concat();
        let script = format!("ulimit -n {limit} && exec {} check --json", ODOGRAPH.path());
        Report::of(&command("sh", &settings).args(["-c", &script]).output().unwrap())
    };
    limited(256, &[]).names("file-limit", "256 open files", "LimitNOFILE");
    limited(1_500, &[("ODOGRAPH_MAX_CONNECTIONS", "2000")]).names(
        "file-limit",
        "ODOGRAPH_MAX_CONNECTIONS is 2000",
        "2192",
    );
}

#[test]
fn a_data_directory_in_memory_or_on_a_small_disk_is_named() {
    let Some(disk) = SmallDisk::new(2 << 20) else { return };
    // Every user may write to the root of such a file system.
    let path = disk.path().join("data");
    std::fs::create_dir(&path).unwrap();
    let settings = [("ODOGRAPH_DATA_DIR", path.to_str().unwrap())];
    let report = Report::new(&settings);
    report.names("file-system", "tmpfs", "ODOGRAPH_ACK_AFTER=commit");
    report.names("disk-room", "may still grow by 4.0 GiB", "ODOGRAPH_JOURNAL_MAX_SIZE");
    // Without a journal neither matters, unless the embedded store is in the directory.
    let without = Report::new(&[&settings[..], &[("ODOGRAPH_ACK_AFTER", "commit")]].concat());
    assert_eq!(without.wrong(), ["file-system"], "{}", without.text);
    let url = server_url();
    let without = Report::new(&[&settings[..], &[("ODOGRAPH_ACK_AFTER", "commit"), ("DATABASE_URL", &*url)]].concat());
    assert_eq!((without.verdict("file-system"), without.verdict("disk-room")), ("ok", "ok"), "{}", without.text);
    let root = disk.path();
    let open_to_all = Report::new(&[("ODOGRAPH_DATA_DIR", root.to_str().unwrap())]);
    open_to_all.names("data-dir", "everybody may write", "chmod 700");
}

#[tokio::test]
async fn a_redis_that_gives_streams_away_and_a_stream_that_nobody_writes_are_named() {
    let (redis, directory) = (RedisServer::started().await, directory());
    redis_asks(&redis, redis::cmd("XADD").arg("rally:flags").arg("*").arg(&flag())).await;
    redis_asks(&redis, redis::cmd("CONFIG").arg("SET").arg("maxmemory-policy").arg("allkeys-lru")).await;
    let url = redis.url();
    let settings = [at(&directory), SMALL, ("REDIS_URL", &*url)];
    let report = Report::new(&settings);
    report.names("redis-memory", "allkeys-lru", "noeviction");
    report.names(
        "flag-stream",
        "odograph:position-flags is not there, and there are flags in rally:flags",
        "ODOGRAPH_FLAGS_STREAM=rally:flags",
    );
    // The group that `serve` creates also creates an empty stream: the finding stays.
    let mut make = redis::cmd("XGROUP");
    make.arg("CREATE").arg("odograph:position-flags").arg("odograph").arg("0").arg("MKSTREAM");
    redis_asks(&redis, &mut make).await;
    Report::new(&settings).names("flag-stream", "never had an entry", "rally:flags");
    let right = Report::new(&[&settings[..], &[("ODOGRAPH_FLAGS_STREAM", "rally:flags")]].concat());
    assert_eq!((right.verdict("flag-stream"), right.verdict("flag-group")), ("ok", "note"), "{}", right.text);
    // An ID is a time: this entry has been waiting for long.
    redis_asks(&redis, redis::cmd("DEL").arg("odograph:position-flags")).await;
    redis_asks(&redis, redis::cmd("XADD").arg("odograph:position-flags").arg("1000-0").arg(&flag())).await;
    redis_asks(&redis, &mut make).await;
    Report::new(&settings).names("flag-group", "1 entries unread", "ODOGRAPH_FLAGS_GROUP");
}

#[tokio::test]
async fn flags_of_directus_that_never_reach_the_stream_are_named() {
    let (database, redis, directory) = (TestDatabase::postgres().await, RedisServer::started().await, directory());
    let (url, redis_url) = (database.url(), redis.url());
    let settings = [at(&directory), SMALL, ("DATABASE_URL", &*url), ("REDIS_URL", &*redis_url)];
    database
        .execute(
            "CREATE TABLE devices (id uuid PRIMARY KEY, imei varchar(255) UNIQUE); \
             CREATE TABLE position_flags (id uuid PRIMARY KEY, user_created uuid, date_created timestamptz, user_updated uuid, \
                 date_updated timestamptz, device uuid REFERENCES devices (id), ts_from timestamptz, ts_to timestamptz, \
                 faulty boolean DEFAULT true, reason varchar(255)); \
             INSERT INTO devices VALUES ('6f1c1c0e-4a53-4bb4-9a3e-3f4c9d0f7b11', '356307042441013')",
        )
        .await;
    Report::new(&settings).names("flag-tables", "missing", "odograph migrate --directus");
    let options = MigrateOptions { directus: true, ..MigrateOptions::default() };
    migrate(&DatabaseUrl::parse(&url).unwrap(), &options).await.unwrap();
    let installed = Report::new(&settings);
    assert_eq!(installed.wrong(), wrong_here(directory.path()), "{}", installed.text);
    assert_eq!(installed.finding("flag-tables")["found"], "installed; 0 flags");
    assert_eq!(installed.finding("devices")["found"], "1 devices");
    database
        .execute(
            "INSERT INTO position_flags (id, device, ts_from, ts_to) VALUES ('6f1c1c0e-4a53-4bb4-9a3e-3f4c9d0f7b12', \
             '6f1c1c0e-4a53-4bb4-9a3e-3f4c9d0f7b11', now(), now())",
        )
        .await;
    let report = Report::new(&settings);
    report.names("flag-stream", "is not there, though Directus has 1 flags", "hook");
    assert_eq!(report.verdict("flag-outbox"), "ok", "the relay has a minute");
    database.execute("ALTER TABLE position_flags DISABLE TRIGGER odograph_flag_changed").await;
    Report::new(&settings).names("flag-tables", "triggers", "odograph migrate --directus");
    migrate(&DatabaseUrl::parse(&url).unwrap(), &options).await.unwrap();
    database.execute("ALTER TABLE position_flags ENABLE TRIGGER odograph_flag_changed").await;
    assert_eq!(Report::new(&settings).verdict("flag-tables"), "ok");
    // As earlier versions installed it.
    for weakened in [
        "GRANT EXECUTE ON FUNCTION odograph_flag_changed() TO public",
        "ALTER FUNCTION odograph_flag_changed() SET search_path = \"$user\", public",
    ] {
        database.execute(weakened).await;
        Report::new(&settings).names("flag-tables", "older version", "odograph migrate --directus");
        migrate(&DatabaseUrl::parse(&url).unwrap(), &options).await.unwrap();
    }
}

#[tokio::test]
async fn damage_in_the_journal_is_named() {
    let (database, directory) = (TestDatabase::sqlite(), directory());
    let url = database.url();
    let service = ODOGRAPH.serve(&url, "127.0.0.1:0", &[at(&directory), SMALL]);
    let mut tracker = Tracker::login(service.trackers, "356307042441013").await;
    // One group for each frame, because each waits for its answer.
    for n in 0..3 {
        assert_eq!(tracker.deliver(&frame(&[record(T + n, 1)])).await, 1);
    }
    service.settled().await;
    service.kill();
    let settings = [at(&directory), SMALL, ("DATABASE_URL", &*url)];
    let whole = Report::new(&settings);
    assert_eq!((whole.verdict("journal"), whole.verdict("last-commit")), ("ok", "ok"), "{}", whole.text);
    let segment = directory.path().join("journal/00000000000000000001.seg");
    let file = std::fs::OpenOptions::new().write(true).open(segment).unwrap();
    file.write_all_at(b"?", 512 + 20).unwrap();
    Report::new(&settings).names("journal", "1 damaged places", "--journal-recovery skip-damage");
}
