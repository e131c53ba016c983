//! A model of flags against both stores: rows, changes, crashes and reconciliations in any order and at the same time, from
//! two processes. In the end exactly those positions are faulty that a live flag covers, and latest positions fit.
//!
//! `FLAGS_SCHEDULES` sets how many schedules are tried, `FLAGS_SEED` the first one; a failure names its seed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use odograph::store::{FlagChange, FlagState, Ledger, Store, Window};
use odograph_testkit::{
    Cell, NOON, OneLane, PostgresFixture, Sample, SqliteFixture, StoreFixture, batch, row, some_lane, until_committed,
};
use uuid::Uuid;

/// Only a few times, so that flags overlap and their ends meet.
const TIMES: i64 = 24;

/// A schedule of changes and rows, and the expected result.
struct Schedule {
    imeis: [String; 2],
    rows: Vec<Sample>,
    /// All changes of all flags.
    changes: Vec<FlagChange>,
}

impl Schedule {
    fn new(rng: &mut Rng, number: u64) -> Self {
        let imeis = [0, 1].map(|device| format!("{:015}", 350_000_000_000_000 + number * 2 + device));
        let mut rows = Vec::new();
        for imei in &imeis {
            for at in 0..TIMES {
                if rng.u8(..) > 200 {
                    continue;
                }
                let mut sample = row(imei, NOON + at * 1000, rng.i32(..4));
                sample.row.valid = rng.u8(..) < 230;
                rows.push(sample);
            }
        }
        rng.shuffle(&mut rows);
        let mut changes = Vec::new();
        for _ in 0..rng.usize(1..6) {
            let flag = Uuid::from_u128(rng.u128(..));
            let mut old = None;
            let mut seq = rng.i64(1..1_000);
            for _ in 0..rng.usize(1..6) {
                let change = Self::change(rng, &imeis, flag, seq, old);
                old = match &change.state {
                    FlagState::Set { window, .. } => Some(*window),
                    FlagState::Deleted => None,
                };
                changes.push(change);
                seq += rng.i64(1..5);
            }
        }
        Self { imeis, rows, changes }
    }

    fn change(rng: &mut Rng, imeis: &[String; 2], flag: Uuid, seq: i64, old: Option<Window>) -> FlagChange {
        if rng.u8(..) < 50 {
            return FlagChange { flag, seq, old, state: FlagState::Deleted };
        }
        let imei = imeis[usize::from(rng.u8(..) < 80)].parse().unwrap();
        let from = rng.i64(-2..TIMES);
        let to = from + rng.i64(0..8);
        let window = Window::new(imei, NOON + from * 1000, NOON + to * 1000).unwrap();
        FlagChange { flag, seq, old, state: FlagState::Set { window, faulty: rng.u8(..) < 200, reason: None } }
    }

    /// The windows in force after all changes.
    fn live(&self) -> Vec<Window> {
        let mut latest: BTreeMap<Uuid, &FlagChange> = BTreeMap::new();
        for change in &self.changes {
            let held = latest.entry(change.flag).or_insert(change);
            if held.seq < change.seq {
                *held = change;
            }
        }
        let live = latest.values().filter_map(|change| match &change.state {
            FlagState::Set { window, faulty: true, .. } => Some(*window),
            _ => None,
        });
        live.collect()
    }

    fn faulty(&self) -> BTreeSet<(u64, i64, i32)> {
        let live = self.live();
        let keys = self.rows.iter().map(|sample| (sample.row.imei.get(), sample.row.ts_ms, sample.row.fingerprint));
        keys.filter(|(imei, ts_ms, _)| live.iter().any(|window| window.covers(*imei, *ts_ms))).collect()
    }

    fn latest(&self) -> BTreeMap<u64, (i64, i32)> {
        let faulty = self.faulty();
        let mut latest = BTreeMap::new();
        for sample in &self.rows {
            let (imei, at) = (sample.row.imei.get(), (sample.row.ts_ms, sample.row.fingerprint));
            if sample.row.valid && !faulty.contains(&(imei, at.0, at.1)) {
                let held = latest.entry(imei).or_insert(at);
                *held = at.max(*held);
            }
        }
        latest
    }

    fn is_of(&self, imei: i64) -> bool {
        self.imeis.iter().any(|own| own.parse::<i64>().unwrap() == imei)
    }
}

/// Commits rows in small batches, some of them twice, as after a restart.
async fn rows_arrive<S: Store>(mut rng: Rng, store: &mut OneLane<S>, rows: &[Sample]) {
    let mut at = 0;
    while at < rows.len() {
        let end = (at + rng.usize(1..8)).min(rows.len());
        let begin = at.saturating_sub(rng.usize(..2) * rng.usize(..4));
        until_committed(store, &batch(&rows[begin..end])).await;
        at = end;
        pause(&mut rng).await;
    }
}

/// Applies changes in groups. Some calls are abandoned in the middle, as when the process ends. Their changes follow.
async fn changes_come<L: Ledger + Send>(mut rng: Rng, ledger: &mut L, mut changes: Vec<FlagChange>) {
    while !changes.is_empty() {
        let group: Vec<_> = changes.drain(..rng.usize(1..5).min(changes.len())).collect();
        let applying = ledger.apply(&group);
        if rng.u8(..) < 90 {
            let killed_after = Duration::from_micros(rng.u64(..6_000));
            if !matches!(tokio::time::timeout(killed_after, applying).await, Ok(Ok(_))) {
                changes.extend(group);
            }
        } else if applying.await.is_err() {
            // A deadlock between two writers is ordinary: try again.
            changes.extend(group);
        }
        if rng.u8(..) < 30 {
            let _ = ledger.finish(rng.usize(1..4)).await;
        }
        pause(&mut rng).await;
    }
}

async fn pause(rng: &mut Rng) {
    if rng.bool() {
        tokio::time::sleep(Duration::from_micros(rng.u64(..3_000))).await;
    }
}

async fn try_schedules(database: impl StoreFixture, usual: u64) {
    let set = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = set("FLAGS_SEED").unwrap_or_else(|| fastrand::u64(..1 << 40));
    // Each lane and ledger lives through many schedules, so that their caches are tested as well.
    let mut stores = [database.another(some_lane()).await, database.another(some_lane()).await];
    let mut ledgers = [database.ledger(), database.ledger()];
    for number in 0..set("FLAGS_SCHEDULES").unwrap_or(usual) {
        let seed = first + number;
        let mut rng = Rng::with_seed(seed);
        let schedule = Schedule::new(&mut rng, number);
        let half = schedule.rows.len() / 2;
        // Every change to one of the processes, some to both, some twice, in any order.
        let mut shares = [Vec::new(), Vec::new()];
        for change in &schedule.changes {
            let share = rng.usize(..2);
            shares[share].push(change.clone());
            if rng.u8(..) < 60 {
                shares[rng.usize(..2)].push(change.clone());
            }
        }
        for share in &mut shares {
            rng.shuffle(share);
        }
        let [one_share, other_share] = shares;
        let ([one, other], [first_ledger, second_ledger]) = (&mut stores, &mut ledgers);
        tokio::join!(
            rows_arrive(rng.fork(), one, &schedule.rows[..half]),
            rows_arrive(rng.fork(), other, &schedule.rows[half..]),
            changes_come(rng.fork(), first_ledger, one_share),
            changes_come(rng.fork(), second_ledger, other_share),
        );
        while ledgers[0].finish(100).await.unwrap() > 0 {}
        check(&database, &schedule, seed).await;
    }
}

async fn check(database: &impl StoreFixture, schedule: &Schedule, seed: u64) {
    let key = |cells: &[Cell]| match cells {
        [Cell::Integer(imei), Cell::Integer(ts), Cell::Integer(print), ..] => {
            (*imei, *ts, i32::try_from(*print).unwrap())
        }
        other => panic!("{other:?}"),
    };
    let rows = database.rows("positions").await;
    let own: Vec<_> = rows.iter().filter(|cells| schedule.is_of(key(cells).0)).collect();
    assert_eq!(own.len(), schedule.rows.len(), "rows, seed {seed}");
    let faulty = own.iter().filter(|cells| cells[14] == Cell::Boolean(true));
    let faulty: BTreeSet<_> =
        faulty.map(|cells| key(cells)).map(|(imei, ts, print)| (imei.cast_unsigned(), ts, print)).collect();
    assert_eq!(faulty, schedule.faulty(), "faulty positions, seed {seed}: {:#?}", schedule.changes);
    let latest = database.rows("latest_positions").await;
    let latest = latest.iter().map(|cells| key(cells)).filter(|(imei, ..)| schedule.is_of(*imei));
    let latest: BTreeMap<_, _> = latest.map(|(imei, ts, print)| (imei.cast_unsigned(), (ts, print))).collect();
    assert_eq!(latest, schedule.latest(), "latest positions, seed {seed}: {:#?}", schedule.changes);
    // So that later schedules do not read more and more. The known flags stay.
    let [one, other] = &schedule.imeis;
    for table in ["positions", "latest_positions"] {
        database.execute(&format!("DELETE FROM {table} WHERE imei IN ({one}, {other})")).await;
    }
}

#[tokio::test]
async fn any_schedule_ends_as_the_model_says_in_timescale() {
    Box::pin(try_schedules(PostgresFixture::new().await, 60)).await;
}

#[tokio::test]
async fn any_schedule_ends_as_the_model_says_in_sqlite() {
    Box::pin(try_schedules(SqliteFixture::new().await, 60)).await;
}
