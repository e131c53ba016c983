//! Directus without Directus: its collections, a marshal who edits flags without a pause, and the hook that relays them.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use odograph::store::{DatabaseUrl, MigrateOptions, migrate};
use odograph_fleet::{Plan, test_imei};
use odograph_testkit::TestDatabase;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::moments::connect;
use crate::setup::{START_MS, number, until_true};

/// Creates the tables as Directus does, with some of the fleet's trackers as devices, and odograph's triggers on them.
pub(crate) async fn install(database: &TestDatabase, plan: &Plan) {
    database.execute(COLLECTIONS).await;
    for place in 0..DEVICES {
        let imei = test_imei(plan.first_device + place);
        database.execute(&format!("INSERT INTO devices VALUES ('{}', '{imei}')", device(place))).await;
    }
    let options = MigrateOptions { directus: true, chunk_interval: None, index_time: false, standalone_devices: false };
    migrate(&DatabaseUrl::parse(&database.url()).unwrap(), &options).await.unwrap();
}

/// A person who edits flags until stopped.
pub(crate) struct Marshal {
    stop: Rc<Cell<bool>>,
    task: JoinHandle<fastrand::Rng>,
}

impl Marshal {
    pub(crate) async fn start(database: &TestDatabase, mut random: fastrand::Rng) -> Self {
        let client = connect(&database.url()).await;
        let stop = Rc::new(Cell::new(false));
        let stopped = Rc::clone(&stop);
        let task = tokio::task::spawn_local(async move {
            while !stopped.get() {
                edit(&client, &mut random).await;
                tokio::time::sleep(Duration::from_millis(random.u64(1..20))).await;
            }
            random
        });
        Self { stop, task }
    }

    pub(crate) async fn stop(self) -> fastrand::Rng {
        self.stop.set(true);
        self.task.await.unwrap()
    }
}

async fn edit(client: &Client, random: &mut fastrand::Rng) {
    let some = "(SELECT id FROM position_flags ORDER BY md5(id::text || $1::text) LIMIT 1)";
    let salt = random.u32(..).to_string();
    let seconds = i64::from(random.u32(0..600));
    match random.u32(0..10) {
        0..5 => {
            let from = i64::try_from(START_MS).unwrap() + seconds * 1_000;
            let to = from + i64::from(random.u32(0..90_000));
            let id = uuid::Uuid::from_u128(random.u128(..));
            let time = |at: i64| format!("'epoch'::timestamptz + {at} * interval '1 millisecond'");
            let insert = format!(
                "INSERT INTO position_flags (id, device, ts_from, ts_to, reason) VALUES ('{id}', '{}', {}, {}, 'tunnel')",
                device(random.u32(0..DEVICES)),
                time(from),
                time(to)
            );
            client.batch_execute(&insert).await.unwrap();
        }
        5..7 => {
            let shift = "ts_from = ts_from + interval '7 seconds', ts_to = ts_to + interval '31 seconds'";
            client.execute(&format!("UPDATE position_flags SET {shift} WHERE id = {some}"), &[&salt]).await.unwrap();
        }
        7 => {
            let toggle = format!("UPDATE position_flags SET faulty = NOT faulty WHERE id = {some}");
            client.execute(&toggle, &[&salt]).await.unwrap();
        }
        _ => {
            client.execute(&format!("DELETE FROM position_flags WHERE id = {some}"), &[&salt]).await.unwrap();
        }
    }
}

/// Adds the outbox to the stream, as the Directus hook does. While Redis is down it waits.
pub(crate) struct Hook {
    task: JoinHandle<()>,
    pub(crate) stream: String,
}

impl Hook {
    pub(crate) async fn start(database: &TestDatabase, redis_url: &str) -> Self {
        let client = connect(&database.url()).await;
        let redis = redis::Client::open(redis_url).unwrap();
        let stream = "odograph:position-flags".to_owned();
        let name = stream.clone();
        let task = tokio::task::spawn_local(async move {
            loop {
                if relay(&client, &redis, &name).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        Self { task, stream }
    }

    pub(crate) async fn length(&self, redis_url: &str) -> u64 {
        let redis = redis::Client::open(redis_url).unwrap();
        let mut redis = redis.get_multiplexed_async_connection().await.unwrap();
        redis::cmd("XLEN").arg(&self.stream).query_async(&mut redis).await.unwrap()
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(client: &Client, redis: &redis::Client, stream: &str) -> redis::RedisResult<()> {
    let outbox = "SELECT id, op, flag_id::text, seq, coalesce(old::text, ''), coalesce(new::text, '') \
        FROM flag_outbox ORDER BY id LIMIT 100";
    let rows = client.query(outbox, &[]).await.unwrap();
    if rows.is_empty() {
        return Ok(());
    }
    let mut redis = redis.get_multiplexed_async_connection().await?;
    for row in rows {
        let text = |at: usize| row.get::<_, String>(at);
        let mut add = redis::cmd("XADD");
        add.arg(stream).arg("*").arg("v").arg(1).arg("seq").arg(row.get::<_, i64>(3)).arg("op").arg(text(1));
        add.arg("flag_id").arg(text(2)).arg("old").arg(text(4)).arg("new").arg(text(5));
        add.query_async::<String>(&mut redis).await?;
        client.execute("DELETE FROM flag_outbox WHERE id = $1", &[&row.get::<_, i64>(0)]).await.unwrap();
    }
    Ok(())
}

/// Waits until every flag in Directus is in the ledger and applied.
pub(crate) async fn until_applied(database: &TestDatabase) {
    until_true(database, "the hook", "NOT EXISTS (SELECT FROM flag_outbox)").await;
    let behind = "SELECT FROM position_flag_state s FULL JOIN position_flag_ledger l USING (flag_id) \
        WHERE s.seq > coalesce(l.seq, 0) OR l.applied_seq < l.seq";
    until_true(database, "every flag to be applied", &format!("NOT EXISTS ({behind})")).await;
}

/// Asserts that a position is faulty exactly if a live flag of this table covers it. Returns how many are faulty.
pub(crate) async fn faulty_as_declared(database: &TestDatabase, flags: &str) -> u64 {
    let covered = format!(
        "EXISTS (SELECT FROM {flags} f WHERE NOT f.deleted AND f.faulty AND f.imei = p.imei \
         AND p.ts BETWEEN f.ts_from AND f.ts_to)"
    );
    let misflagged =
        number(database, &format!("SELECT count(*) AS n FROM positions p WHERE faulty <> {covered}")).await;
    assert_eq!(misflagged, 0, "positions whose faulty mark does not match {flags}");
    number(database, "SELECT count(*) AS n FROM positions WHERE faulty").await
}

/// The marshals withdraw everything, so that the audit can compare every column with what was sent.
pub(crate) async fn withdraw_all(database: &TestDatabase) {
    database.execute("DELETE FROM position_flags").await;
    until_applied(database).await;
    until_true(database, "every position to be in order", "NOT EXISTS (SELECT FROM positions WHERE faulty)").await;
}

fn device(place: u32) -> uuid::Uuid {
    uuid::Uuid::from_u128(u128::from(place) + 1)
}

const DEVICES: u32 = 30;
const COLLECTIONS: &str = "
    CREATE TABLE devices (id uuid NOT NULL, imei varchar(255), model varchar(255),
        CONSTRAINT devices_pkey PRIMARY KEY (id), CONSTRAINT devices_imei_unique UNIQUE (imei));
    CREATE TABLE position_flags (id uuid NOT NULL, user_created uuid, date_created timestamptz, user_updated uuid,
        date_updated timestamptz, event integer, device uuid, ts_from timestamptz, ts_to timestamptz,
        faulty boolean DEFAULT true, reason varchar(255), CONSTRAINT position_flags_pkey PRIMARY KEY (id),
        CONSTRAINT position_flags_device_foreign FOREIGN KEY (device) REFERENCES devices (id) ON DELETE SET NULL)";
