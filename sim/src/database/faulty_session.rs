//! The statements that batches and flags share in the simulated database: live flags, marks, and latest positions.

use std::collections::{HashMap, HashSet};

use odograph::store::{FaultySession, FlagInterval, Key, LedgerEntry, StoreError, Window};

use super::flaw::Flaw;
use super::locks::Lock;
use super::server::{Server, Stop};
use super::session::SimSession;
use super::tables::StoredRow;

impl FaultySession for SimSession {
    async fn live_flags(&mut self, ranges: &[Window]) -> Result<Vec<LedgerEntry>, StoreError> {
        self.statement("looking at the ledger of flags", |server, _| {
            let entries = server.tables.ledger.iter().filter_map(|(flag, flagged)| {
                let window = flagged.covers()?;
                let reaches = |range: &Window| {
                    range.imei() == window.imei()
                        && window.to_ms() >= range.from_ms()
                        && window.from_ms() <= range.to_ms()
                };
                ranges.iter().any(reaches).then_some(LedgerEntry { flag: *flag, live: Some(window) })
            });
            Ok(entries.collect())
        })
        .await
    }

    async fn mark(
        &mut self,
        intervals: &[FlagInterval],
        mut changed: impl FnMut(u64, i64) + Send,
    ) -> Result<(), StoreError> {
        // What the statement saw when it began: waiting for locks shows it nothing new.
        let mut seen: Option<Vec<(Key, bool)>> = None;
        self.statement("marking positions", |server, backend| {
            let differing = seen.get_or_insert_with(|| differing(server, backend, intervals));
            for (key, _) in differing.iter() {
                server.alone(backend, Lock::Row(*key))?;
            }
            for (key, faulty) in differing.iter() {
                server.writes_of(backend).marks.insert(*key, *faulty);
                changed(key.imei, key.ts_ms);
            }
            Ok(())
        })
        .await
    }

    async fn lock_latest(&mut self, imeis: &[u64]) -> Result<HashMap<u64, i64>, StoreError> {
        self.statement(REPAIRING, |server, backend| {
            let mut stored = HashMap::new();
            for imei in imeis {
                // A row that is not there cannot be locked.
                if latest_of(server, backend, *imei).is_some() {
                    server.alone(backend, Lock::Latest(*imei))?;
                    stored.extend(latest_of(server, backend, *imei).map(|(ts_ms, _)| (*imei, ts_ms)));
                }
            }
            Ok(stored)
        })
        .await
    }

    async fn drop_flagged_latest(&mut self, imeis: &[u64]) -> Result<HashSet<u64>, StoreError> {
        self.statement(REPAIRING, |server, backend| {
            let mut dropped = HashSet::new();
            for imei in imeis {
                let Some((ts_ms, _)) = latest_of(server, backend, *imei) else { continue };
                if server.tables.live().any(|window| window.covers(*imei, ts_ms)) {
                    server.alone(backend, Lock::Latest(*imei))?;
                    dropped.insert(*imei);
                }
            }
            server.writes_of(backend).latest.extend(dropped.iter().map(|imei| (*imei, None)));
            Ok(dropped)
        })
        .await
    }

    async fn find_latest(&mut self, imei: u64, after_ms: i64) -> Result<bool, StoreError> {
        self.statement(REPAIRING, |server, backend| match find(server, backend, imei, after_ms) {
            Some(at) => write_latest(server, backend, imei, at).map(|()| true),
            None => Ok(false),
        })
        .await
    }
}

/// Writes a latest position, if it is one.
pub(super) fn write_latest(server: &mut Server, backend: u64, imei: u64, at: (i64, i32)) -> Result<(), Stop> {
    server.alone(backend, Lock::Latest(imei))?;
    if latest_of(server, backend, imei) < Some(at) || server.flaw == Some(Flaw::LatestByArrival) {
        server.writes_of(backend).latest.insert(imei, Some(at));
    }
    Ok(())
}

fn latest_of(server: &mut Server, backend: u64, imei: u64) -> Option<(i64, i32)> {
    let own = server.writes_of(backend).latest.get(&imei).copied();
    own.unwrap_or_else(|| server.tables.latest.get(&imei).copied())
}

/// Whether a row is marked, as the transaction sees it.
fn is_faulty(server: &mut Server, backend: u64, key: Key) -> bool {
    let writes = server.writes_of(backend);
    let own = writes.marks.get(&key).copied().or_else(|| writes.rows.get(&key).map(|row| row.faulty));
    own.unwrap_or_else(|| server.tables.positions.get(&key).is_some_and(|row| row.faulty))
}

/// Keys of a device's rows from an instant to another one, as the transaction sees them.
fn keys(server: &mut Server, backend: u64, imei: u64, from_ms: i64, to_ms: i64) -> Vec<Key> {
    let key = |ts_ms, fingerprint| Key { imei, ts_ms, fingerprint };
    let range = key(from_ms, i32::MIN)..=key(to_ms, i32::MAX);
    let mut keys: Vec<_> = server.writes_of(backend).rows.range(range.clone()).map(|(key, _)| *key).collect();
    keys.extend(server.tables.positions.range(range).map(|(key, _)| *key));
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The rows in the intervals that are not marked as their interval says.
fn differing(server: &mut Server, backend: u64, intervals: &[FlagInterval]) -> Vec<(Key, bool)> {
    let mut differing = Vec::new();
    for FlagInterval { window, faulty } in intervals {
        for key in keys(server, backend, window.imei().get(), window.from_ms(), window.to_ms()) {
            if is_faulty(server, backend, key) != *faulty {
                differing.push((key, *faulty));
            }
        }
    }
    differing
}

/// The last position after an instant that counts.
fn find(server: &mut Server, backend: u64, imei: u64, after_ms: i64) -> Option<(i64, i32)> {
    let mut found = None;
    for key in keys(server, backend, imei, after_ms.saturating_add(1), i64::MAX) {
        let covered = server.tables.live().any(|window| window.covers(imei, key.ts_ms));
        if covered || is_faulty(server, backend, key) {
            continue;
        }
        let stored = server.tables.positions.get(&key).cloned();
        let stored = stored.or_else(|| server.writes_of(backend).rows.get(&key).cloned());
        let counts = |StoredRow { row, .. }: &StoredRow| {
            row.valid && row.ts_ms.saturating_mul(1000) <= row.received_at_us.saturating_add(AHEAD_MAX_US)
        };
        if stored.as_ref().is_some_and(counts) {
            found = found.max(Some((key.ts_ms, key.fingerprint)));
        }
    }
    found
}

const REPAIRING: &str = "repairing the latest positions";
/// A latest position is at most so far ahead of its receive time.
const AHEAD_MAX_US: i64 = 300_000_000;
