//! Changes of flags, and their effect on positions.

use odograph::store::{FlagChange, FlagState, Window};
use uuid::Uuid;

use crate::one_lane::NOON;
use crate::rows::Cell;
use crate::store_fixture::StoreFixture;

/// A flag's id by its number.
#[must_use]
pub fn flag(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// A window. Its bounds are milliseconds after [`NOON`].
#[must_use]
pub fn window(imei: &str, from: i64, to: i64) -> Window {
    Window::new(imei.parse().unwrap(), NOON + from, NOON + to).unwrap()
}

/// A flag that marks positions as faulty.
#[must_use]
pub fn set(number: u128, seq: i64, window: Window) -> FlagChange {
    FlagChange { flag: flag(number), seq, old: None, state: FlagState::Set { window, faulty: true, reason: None } }
}

/// A flag that exists and marks nothing: the marshal withdrew it.
#[must_use]
pub fn shifted(number: u128, seq: i64, window: Window) -> FlagChange {
    FlagChange { flag: flag(number), seq, old: None, state: FlagState::Set { window, faulty: false, reason: None } }
}

/// A flag that was deleted.
#[must_use]
pub fn deleted(number: u128, seq: i64) -> FlagChange {
    FlagChange { flag: flag(number), seq, old: None, state: FlagState::Deleted }
}

/// Device and time, in milliseconds after [`NOON`], of every faulty position, in order.
pub async fn faulty_times(database: &impl StoreFixture) -> Vec<(i64, i64)> {
    let faulty = database.rows("positions").await.into_iter().filter(|cells| cells[14] != Cell::Boolean(false));
    faulty.map(|cells| key(&cells)).collect()
}

/// The same of every latest position.
pub async fn latest_times(database: &impl StoreFixture) -> Vec<(i64, i64)> {
    database.rows("latest_positions").await.iter().map(|cells| key(cells)).collect()
}

fn key(cells: &[Cell]) -> (i64, i64) {
    match (&cells[0], &cells[1]) {
        (Cell::Integer(imei), Cell::Integer(ts_ms)) => (*imei, ts_ms - NOON),
        other => panic!("{other:?}"),
    }
}
