//! The statements of a flag's transactions in the simulated database.

use odograph::store::{Correction, FlagChange, FlagSession, FlagState, FlagWindow, StoreError, UnappliedFlags};
use uuid::Uuid;

use super::flaw::Flaw;
use super::locks::Lock;
use super::server::Server;
use super::session::SimSession;
use super::tables::{Flagged, Replaced};

impl FlagSession for SimSession {
    async fn lock_ledger(&mut self) -> Result<(), StoreError> {
        self.statement(RECORDING, |server, backend| {
            server.belongs_in_transaction(backend, "the ledger locked");
            server.alone(backend, Lock::Ledger)
        })
        .await
    }

    async fn record(&mut self, changes: &[FlagChange]) -> Result<(), StoreError> {
        self.statement(RECORDING, |server, backend| {
            server.belongs_in_transaction(backend, "flags recorded");
            for change in changes {
                if server.tables.ledger.contains_key(&change.flag) {
                    server.alone(backend, Lock::Flag(change.flag))?;
                }
            }
            for change in changes {
                record(server, backend, change);
            }
            Ok(())
        })
        .await
    }

    async fn unapplied(&mut self, flags: &[Uuid]) -> Result<UnappliedFlags, StoreError> {
        self.statement(APPLYING, |server, backend| {
            // Batches wait for it, and flags may take minutes.
            if server.locks.holds(backend, Lock::Ledger) {
                server.breach.get_or_insert("flags applied under the lock of the ledger".to_owned());
            }
            Ok(unapplied(server, flags))
        })
        .await
    }

    async fn lock_devices(&mut self, imeis: &[u64]) -> Result<(), StoreError> {
        self.statement(APPLYING, |server, backend| {
            server.belongs_in_transaction(backend, "devices locked");
            imeis.iter().try_for_each(|imei| server.alone(backend, Lock::Device(*imei)))
        })
        .await
    }

    async fn write_corrections(&mut self, windows: &[(FlagWindow, i64)]) -> Result<(), StoreError> {
        self.statement(APPLYING, |server, backend| {
            for (FlagWindow { flag, seq, window, .. }, positions) in windows {
                server.corrections += 1;
                let (id, window, positions, flag, seq) = (server.corrections, *window, *positions, *flag, *seq);
                let correction = Correction { id, window, positions, flag, seq };
                server.writes_of(backend).corrections.push(correction);
            }
            Ok(())
        })
        .await
    }

    async fn mark_applied(&mut self, changes: &[(Uuid, i64)]) -> Result<(), StoreError> {
        self.statement(APPLYING, |server, backend| {
            server.belongs_in_transaction(backend, "flags noted as applied");
            for (flag, _) in changes {
                server.alone(backend, Lock::Flag(*flag))?;
            }
            server.writes_of(backend).applied.extend(changes.iter().copied());
            Ok(())
        })
        .await
    }

    async fn forget_windows(&mut self, windows: &[(Uuid, i64)]) -> Result<(), StoreError> {
        self.statement(APPLYING, |server, backend| {
            server.belongs_in_transaction(backend, "windows forgotten");
            server.writes_of(backend).followed.extend(windows.iter().copied());
            Ok(())
        })
        .await
    }

    async fn unapplied_flags(&mut self, most: usize, except: &[(Uuid, i64)]) -> Result<Vec<(Uuid, i64)>, StoreError> {
        self.statement("reading unapplied flags", |server, _| {
            let unapplied = server.tables.ledger.iter().filter(|(_, flagged)| flagged.applied_seq < flagged.seq);
            let changes = unapplied.map(|(flag, flagged)| (*flag, flagged.seq));
            Ok(changes.filter(|change| !except.contains(change)).take(most).collect())
        })
        .await
    }

    async fn changes_behind(&mut self, most: usize, except: &[(Uuid, i64)]) -> Result<Vec<FlagChange>, StoreError> {
        self.statement("comparing the ledger with Directus' side", |server, _| {
            let ledger = &server.tables.ledger;
            let behind = |change: &&FlagChange| ledger.get(&change.flag).is_none_or(|held| held.seq < change.seq);
            let is_left_out = |change: &&FlagChange| except.contains(&(change.flag, change.seq));
            let changes = server.tables.directus.values().filter(behind);
            let mut behind: Vec<_> = changes.filter(|change| !is_left_out(change)).cloned().collect();
            behind.sort_by_key(|change| change.seq);
            behind.truncate(most);
            Ok(behind)
        })
        .await
    }

    async fn claim_publisher(&mut self) -> Result<bool, StoreError> {
        // The simulation has no publisher.
        Ok(false)
    }

    async fn corrections(&mut self, _: usize) -> Result<Vec<Correction>, StoreError> {
        Ok(Vec::new())
    }

    async fn forget_corrections(&mut self, _: &[i64]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn trim_corrections(&mut self, _: i64) -> Result<u64, StoreError> {
        Ok(0)
    }
}

fn record(server: &mut Server, backend: u64, change: &FlagChange) {
    let known = server.tables.ledger.get(&change.flag).cloned();
    if known.as_ref().is_some_and(|known| known.seq >= change.seq) && server.flaw != Some(Flaw::NoSeq) {
        return;
    }
    let was = known.as_ref().map_or(change.old, |known| known.window);
    let (window, live) = match &change.state {
        FlagState::Set { window, faulty, .. } => (Some(*window), *faulty),
        FlagState::Deleted => (was, false),
    };
    server.version += 1;
    let (version, seq, flag) = (server.version, change.seq, change.flag);
    let applied_seq = known.map_or(0, |known| known.applied_seq).min(seq - 1);
    let writes = server.writes_of(backend);
    let replaced = was.filter(|was| change.state != FlagState::Deleted && Some(*was) != window);
    writes.replaced.extend(replaced.map(|window| Replaced { flag, seq, window }));
    writes.ledger.insert(flag, Flagged { seq, version, window, live, applied_seq });
}

fn unapplied(server: &Server, flags: &[Uuid]) -> UnappliedFlags {
    let mut unapplied = UnappliedFlags::default();
    for flag in flags {
        let Some(flagged) = server.tables.ledger.get(flag).filter(|flagged| flagged.applied_seq < flagged.seq) else {
            continue;
        };
        let (flag, seq) = (*flag, flagged.seq);
        unapplied.seqs.insert(flag, seq);
        let held = |replaced_by, window| FlagWindow { flag, seq, replaced_by, window };
        unapplied.windows.extend(flagged.window.map(|window| held(None, window)));
        let replaced = server.tables.windows.iter().filter(|replaced| replaced.flag == flag && replaced.seq <= seq);
        unapplied.windows.extend(replaced.map(|replaced| held(Some(replaced.seq), replaced.window)));
    }
    unapplied
}

const RECORDING: &str = "recording flags";
const APPLYING: &str = "making positions follow flags";
