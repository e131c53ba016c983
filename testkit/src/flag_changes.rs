//! Changes of flags, and what came of them.

use odograph::store::{FlagChange, FlagState, Window};
use uuid::Uuid;

use super::TestDatabase;
use super::steps::NOON;

pub(crate) fn flag(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// Bounds are milliseconds after [`NOON`].
pub(crate) fn window(imei: &str, from: i64, to: i64) -> Window {
    Window::new(imei.parse().unwrap(), NOON + from, NOON + to).unwrap()
}

pub(crate) fn set(number: u128, seq: i64, window: Window) -> FlagChange {
    FlagChange { flag: flag(number), seq, old: None, state: FlagState::Set { window, faulty: true, reason: None } }
}

/// The marshal withdrew it, and it is still there.
pub(crate) fn shifted(number: u128, seq: i64, window: Window) -> FlagChange {
    FlagChange { flag: flag(number), seq, old: None, state: FlagState::Set { window, faulty: false, reason: None } }
}

pub(crate) fn deleted(number: u128, seq: i64) -> FlagChange {
    FlagChange { flag: flag(number), seq, old: None, state: FlagState::Deleted }
}

/// Device and time, in milliseconds after [`NOON`], of every faulty position, in order.
pub(crate) async fn faulty_times(database: &impl TestDatabase) -> Vec<(i64, i64)> {
    let faulty = database.rows("positions").await.into_iter().filter(|cells| cells[14] != super::Cell::Boolean(false));
    faulty.map(|cells| key(&cells)).collect()
}

/// The same of the newest positions.
pub(crate) async fn latest(database: &impl TestDatabase) -> Vec<(i64, i64)> {
    database.rows("latest_positions").await.iter().map(|cells| key(cells)).collect()
}

fn key(cells: &[super::Cell]) -> (i64, i64) {
    match (&cells[0], &cells[1]) {
        (super::Cell::Integer(imei), super::Cell::Integer(ts_ms)) => (*imei, ts_ms - NOON),
        other => panic!("{other:?}"),
    }
}
