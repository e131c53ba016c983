//! What drains and flags do to rows that are there: learning what the ledger says, marking, and the latest positions.

use std::collections::BTreeMap;

use super::Flaw;
use super::locks::Lock;
use super::server::{Server, Stop};
use super::session::Session;
use crate::store::StoreError;
use crate::store::flags::cache::{FlagCache, LedgerEntry};
use crate::store::flags::intervals::FlagInterval;
use crate::store::model::row::Key;

/// Learns what is new in the ledger.
pub(super) fn learn(server: &Server, known: &mut FlagCache) {
    let ledger = &server.tables.ledger;
    let version = ledger.values().map(|flagged| flagged.version).max().unwrap_or_default();
    let never_again = server.flaw == Some(Flaw::NoVersion) && known.version() > 0;
    if version == known.version() || never_again {
        return;
    }
    if version < known.version() {
        // Somebody emptied it, or put an older one in its place.
        *known = FlagCache::default();
    }
    let newer = ledger.iter().filter(|(_, flagged)| flagged.version > known.version());
    let entries = newer.map(|(flag, flagged)| LedgerEntry { flag: *flag, live: flagged.covers() }).collect();
    known.learn(version, entries);
}

/// A row as the transaction sees it: whether it is marked.
fn is_faulty(server: &mut Server, backend: u64, key: Key) -> bool {
    let writes = server.writes(backend);
    let own = writes.marks.get(&key).copied().or_else(|| writes.rows.get(&key).map(|row| row.faulty));
    own.unwrap_or_else(|| server.tables.positions.get(&key).is_some_and(|row| row.faulty))
}

/// Keys of a device's rows from an instant to another one, as the transaction sees them.
fn keys(server: &mut Server, backend: u64, imei: u64, from_ms: i64, to_ms: i64) -> Vec<Key> {
    let key = |ts_ms, fingerprint| Key { imei, ts_ms, fingerprint };
    let range = key(from_ms, i32::MIN)..=key(to_ms, i32::MAX);
    let mut keys: Vec<_> = server.writes(backend).rows.range(range.clone()).map(|(key, _)| *key).collect();
    keys.extend(server.tables.positions.range(range).map(|(key, _)| *key));
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Marks rows where they differ. `plan` is what the statement saw when it began; calls `changed` once it has all locks.
pub(super) fn follow(
    server: &mut Server,
    backend: u64,
    parts: &[FlagInterval],
    plan: &mut Option<Vec<(Key, bool)>>,
    mut changed: impl FnMut(u64, i64),
) -> Result<(), Stop> {
    if plan.is_none() {
        let mut differ = Vec::new();
        for FlagInterval { window, faulty } in parts {
            for key in keys(server, backend, window.imei().get(), window.from_ms(), window.to_ms()) {
                if is_faulty(server, backend, key) != *faulty {
                    differ.push((key, *faulty));
                }
            }
        }
        *plan = Some(differ);
    }
    let differ = plan.clone().unwrap_or_default();
    for (key, _) in &differ {
        server.alone(backend, Lock::Row(*key))?;
    }
    for (key, faulty) in differ {
        server.writes(backend).marks.insert(key, faulty);
        changed(key.imei, key.ts_ms);
    }
    Ok(())
}

/// Writes a latest position, if it is one.
pub(super) fn newest(server: &mut Server, backend: u64, imei: u64, at: (i64, i32)) -> Result<(), Stop> {
    server.alone(backend, Lock::Newest(imei))?;
    let stands = newest_of(server, backend, imei);
    if stands < Some(at) || server.flaw == Some(Flaw::NewestByArrival) {
        server.writes(backend).newest.insert(imei, Some(at));
    }
    Ok(())
}

fn newest_of(server: &mut Server, backend: u64, imei: u64) -> Option<(i64, i32)> {
    let own = server.writes(backend).newest.get(&imei).copied();
    own.unwrap_or_else(|| server.tables.newest.get(&imei).copied())
}

/// A device whose latest position may have to be another one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repair {
    pub(super) imei: u64,
    pub(super) until_ms: i64,
    pub(super) may_begin: bool,
}

/// Makes each device's latest position the newest one that counts.
pub(super) async fn repair(session: &mut Session, repairs: &[Repair]) -> Result<(), StoreError> {
    const REPAIRING: &str = "repairing the latest positions";
    if repairs.is_empty() {
        return Ok(());
    }
    let stands = session.statement(REPAIRING, |server, backend, _| {
        let mut stands = BTreeMap::new();
        for Repair { imei, .. } in repairs {
            // A row that is not there cannot be locked.
            if newest_of(server, backend, *imei).is_some() {
                server.alone(backend, Lock::Newest(*imei))?;
                stands.extend(newest_of(server, backend, *imei).map(|(ts_ms, _)| (*imei, ts_ms)));
            }
        }
        Ok(stands)
    });
    let stands = stands.await?;
    let concerned = |repair: &&Repair| match stands.get(&repair.imei) {
        Some(ts_ms) => *ts_ms <= repair.until_ms,
        None => repair.may_begin,
    };
    for repair in repairs.iter().filter(concerned) {
        let stood = stands.get(&repair.imei).copied();
        let dropped = session.statement(REPAIRING, |server, backend, _| drop_faulty(server, backend, repair.imei));
        let dropped = dropped.await?;
        let after_ms = if dropped { i64::MIN } else { stood.map_or(i64::MIN, |ts_ms| ts_ms - 1) };
        let find = session.statement(REPAIRING, |server, backend, _| find(server, backend, repair.imei, after_ms));
        find.await?;
    }
    Ok(())
}

/// Removes the latest position where a live flag covers it.
fn drop_faulty(server: &mut Server, backend: u64, imei: u64) -> Result<bool, Stop> {
    let Some((ts_ms, _)) = newest_of(server, backend, imei) else { return Ok(false) };
    if !server.tables.live().any(|window| window.covers(imei, ts_ms)) {
        return Ok(false);
    }
    server.alone(backend, Lock::Newest(imei))?;
    server.writes(backend).newest.insert(imei, None);
    Ok(true)
}

/// Writes the latest position after an instant that counts.
fn find(server: &mut Server, backend: u64, imei: u64, after_ms: i64) -> Result<(), Stop> {
    let mut found = None;
    for key in keys(server, backend, imei, after_ms.saturating_add(1), i64::MAX) {
        let covered = server.tables.live().any(|window| window.covers(imei, key.ts_ms));
        if covered || is_faulty(server, backend, key) {
            continue;
        }
        let stored = server.tables.positions.get(&key).cloned();
        let stored = stored.or_else(|| server.writes(backend).rows.get(&key).cloned());
        let counts = |stored: &super::StoredRow| {
            let (row, limit) = (&stored.row, AHEAD_MAX_US);
            row.valid && row.ts_ms.saturating_mul(1000) <= row.received_at_us.saturating_add(limit)
        };
        if stored.as_ref().is_some_and(counts) {
            found = found.max(Some((key.ts_ms, key.fingerprint)));
        }
    }
    found.map_or(Ok(()), |at| newest(server, backend, imei, at))
}

const AHEAD_MAX_US: i64 = 300_000_000;
