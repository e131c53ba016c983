//! Flags while positions arrive: Redis killed, Redis back empty, Directus' tables restored to an older state.

use odograph_testkit::{Launch, RedisServer, ServiceProcess, TestDatabase, eventually};

use crate::SETTLE;
use crate::directus::{Hook, Marshal, faulty_as_declared, install, until_applied, withdraw_all};
use crate::load::Load;
use crate::report::Outcome;
use crate::setup::{DrillSetup, number};

crate::drills! {
    "redis-lost", long, lost, "Redis is killed and comes back with its data, while marshals and trackers go on";
    "redis-empty", short, empty, "Redis comes back empty, and unread entries are lost";
    "directus-restored", long, restored, "Directus' tables are restored to an older state while positions arrive";
}

/// A service with a marshal who edits flags while positions arrive.
struct FlagRace {
    database: TestDatabase,
    redis: RedisServer,
    launch: Launch,
    serve: ServiceProcess,
    load: Load,
    hook: Hook,
    marshal: Marshal,
}

impl FlagRace {
    async fn start(setup: &mut DrillSetup) -> Self {
        let database = setup.database().await;
        let redis = RedisServer::started().await;
        let plan = setup.plan(([127, 0, 0, 1], 1).into());
        install(&database, &plan).await;
        let launch = setup.launch(&database.url()).with("REDIS_URL", &redis.url());
        let serve = launch.start(&setup.next_log()).await;
        let launch = launch.listen(&serve.trackers.to_string());
        // A tracker makes one record a second: a slower fleet spends more time in the flagged ranges.
        let plan = odograph_fleet::Plan { target: serve.trackers, rate: Some(2_000.0), ..plan };
        let load = Load::start(plan);
        let hook = Hook::start(&database, &redis.url()).await;
        let marshal = Marshal::start(&database, setup.random.fork()).await;
        load.goes_on(1_000).await;
        Self { database, redis, launch, serve, load, hook, marshal }
    }

    /// Returns the audit's findings, and how many positions were faulty before the marshals withdrew everything.
    async fn end(self, setup: &DrillSetup) -> (odograph_fleet::audit::Findings, u64) {
        let Self { database, redis: _redis, launch: _, serve, load, hook: _hook, marshal } = self;
        marshal.stop().await;
        let reports = load.stop().await;
        serve.settled_within(SETTLE).await;
        until_applied(&database).await;
        let faulty = faulty_as_declared(&database, "position_flag_state").await;
        withdraw_all(&database).await;
        (setup.finish(serve, &reports, &database).await, faulty)
    }
}

async fn lost(mut setup: DrillSetup) -> Outcome {
    let mut race = FlagRace::start(&mut setup).await;
    let mut kills = 0;
    for _ in 0..setup.times(1, 5) {
        race.load.goes_on(setup.random.u64(1_000..3_000)).await;
        race.redis.kill();
        race.serve.names_reason("redis_down").await;
        kills += 1;
        race.load.goes_on(setup.random.u64(1_000..3_000)).await;
        race.redis.start().await;
        race.serve.is_ready().await;
    }
    let (findings, covered) = race.end(&setup).await;
    Outcome { findings, faults: vec![("kills of Redis", kills), ("positions under flags", covered)] }
}

async fn empty(mut setup: DrillSetup) -> Outcome {
    let mut race = FlagRace::start(&mut setup).await;
    let mut lost = 0;
    for _ in 0..setup.times(1, 4) {
        race.load.goes_on(setup.random.u64(1_000..3_000)).await;
        let (url, before) = (race.redis.url(), race.hook.length(&race.redis.url()).await);
        // The frozen service does not read entries that are added now.
        race.serve.freeze();
        eventually("unread entries", async || (race.hook.length(&url).await >= before + 20).then_some(())).await;
        lost += race.hook.length(&url).await - before;
        race.redis.lose_everything();
        race.redis.start().await;
        race.serve.thaw();
        race.load.goes_on(1_000).await;
        race.serve.is_ready().await;
    }
    let brought = async || {
        let brought = race.serve.count("odograph_flag_reconciled_total").await;
        (brought > 0).then_some(brought)
    };
    let brought = eventually("reconciliation", brought).await;
    let (findings, covered) = race.end(&setup).await;
    let faults = vec![
        ("entries lost with Redis", lost),
        ("flags brought by reconciliation", brought),
        ("positions under flags", covered),
    ];
    Outcome { findings, faults }
}

async fn restored(mut setup: DrillSetup) -> Outcome {
    let mut race = FlagRace::start(&mut setup).await;
    let mut back = 0;
    for round in 0..setup.times(1, 3) {
        race.load.goes_on(setup.random.u64(2_000..4_000)).await;
        let random = race.marshal.stop().await;
        until_applied(&race.database).await;
        race.database.execute(BACKUP).await;
        race.marshal = Marshal::start(&race.database, random).await;
        race.load.goes_on(setup.random.u64(2_000..4_000)).await;
        let random = race.marshal.stop().await;
        until_applied(&race.database).await;
        race.database.execute(RESTORE).await;
        let gone_back = "SELECT count(*) AS n FROM position_flag_ledger l LEFT JOIN position_flag_state s USING (flag_id) \
            WHERE coalesce(s.seq, 0) < l.seq";
        back += number(&race.database, gone_back).await;
        // A start reconciles. The ledger is newer, and it infers nothing from missing flags.
        race.serve.kill();
        race.serve = race.launch.start(&setup.next_log()).await;
        race.load.goes_on(1_000).await;
        eventually("new positions to be marked", async || quiet(&race.database).await.then_some(())).await;
        // The marshals review their flags, and withdraw by id those that only the ledger knows.
        // An edit that changes nothing does not count.
        let looked_at = format!("UPDATE position_flags SET reason = 'looked at after restore {round}'");
        race.database.execute(&looked_at).await;
        race.database.execute(WITHDRAW_STRANGERS).await;
        until_applied(&race.database).await;
        race.marshal = Marshal::start(&race.database, random).await;
    }
    let (findings, covered) = race.end(&setup).await;
    Outcome { findings, faults: vec![("flags that went back in Directus", back), ("positions under flags", covered)] }
}

/// Whether positions match the ledger.
async fn quiet(database: &TestDatabase) -> bool {
    let pending = "SELECT count(*) AS n FROM position_flag_ledger WHERE applied_seq < seq";
    if number(database, pending).await > 0 {
        return false;
    }
    faulty_as_declared(database, "position_flag_ledger").await > 0
}

const BACKUP: &str = "DROP TABLE IF EXISTS kept_flags, kept_state; CREATE TABLE kept_flags AS TABLE position_flags; \
    CREATE TABLE kept_state AS TABLE position_flag_state";
/// Like a restore of dumped tables: without triggers.
const RESTORE: &str = "BEGIN; SET LOCAL session_replication_role = replica; DELETE FROM position_flags; \
    INSERT INTO position_flags SELECT * FROM kept_flags; DELETE FROM position_flag_state; \
    INSERT INTO position_flag_state SELECT * FROM kept_state; DELETE FROM flag_outbox; COMMIT";
/// Flags made after the backup: inserts them again under their ids and deletes them.
const WITHDRAW_STRANGERS: &str = "BEGIN; CREATE TEMP TABLE strangers AS SELECT flag_id FROM position_flag_ledger l \
    WHERE NOT deleted AND NOT EXISTS (SELECT FROM position_flag_state s WHERE s.flag_id = l.flag_id AND NOT s.deleted); \
    INSERT INTO position_flags (id, device, ts_from, ts_to) SELECT flag_id, (SELECT id FROM devices LIMIT 1), now(), now() \
    FROM strangers; DELETE FROM position_flags WHERE id IN (SELECT flag_id FROM strangers); DROP TABLE strangers; COMMIT";
