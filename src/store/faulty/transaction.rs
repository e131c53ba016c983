//! The transaction of a batch: the steps of the one for PostgreSQL, in its order.

use std::collections::BTreeMap;

use super::Flaw;
use super::locks::{Lock, Mode, Until};
use super::look::{self, Repair};
use super::server::{Server, Stop};
use super::session::Session;
use super::tables::{Place, StoredRow};
use crate::store::commit::write_strategy::WriteStrategy;
use crate::store::flags::intervals::FlagInterval;
use crate::store::model::batch::{Batch, QuarantineReason, Quarantined};
use crate::store::model::fence::{
    BatchSpan, CommitInDoubt, CommitOutcome, FenceDecision, Lane, StoredCheckpoint, decide,
};
use crate::store::model::row::Key;
use crate::store::model::rows::Rows;
use crate::store::{Committed, StoreError, Window, WritePath};

/// A session within a transaction. Any error ends both.
pub(super) struct Transaction<'a> {
    pub(super) session: &'a mut Session,
    pub(super) lane: Lane,
}

impl Transaction<'_> {
    /// Offers a batch, its rows sorted. From the moment that the commit is sent until it is answered, `doubt` says what is
    /// not known, also when this future is dropped.
    pub(super) async fn run(
        &mut self,
        strategy: WriteStrategy,
        batch: &Batch,
        step: &BatchSpan,
        doubt: &mut Option<CommitInDoubt>,
    ) -> Result<CommitOutcome, StoreError> {
        let place: Place = (self.lane.journal.to_bytes(), self.lane.number);
        let stored = self.session.statement("reading the checkpoint", |server, backend, _| {
            if server.flaw != Some(Flaw::PlainFence) && server.tables.checkpoints.contains_key(&place) {
                server.alone(backend, Lock::Fence(place))?;
            }
            Ok(server.tables.checkpoints.get(&place).copied())
        });
        let stored = stored.await?;
        if let FenceDecision::Settled(outcome) = decide(self.lane, step, doubt.as_ref(), stored) {
            if outcome == CommitOutcome::Fenced {
                self.session.server().fenced += 1;
            }
            self.session.rollback().await?;
            *doubt = None;
            return Ok(outcome);
        }
        // The one that was in doubt did not happen.
        *doubt = None;
        let committed = self.rows(strategy, batch).await?;
        let covered = self.look(batch).await?;
        self.newest(batch, committed.refused(), &covered).await?;
        let to = StoredCheckpoint { lanes: self.lane.lanes, checkpoint: step.to };
        let checkpoint = self.session.statement("writing the checkpoint", |server, backend, _| {
            server.alone(backend, Lock::Fence(place))?;
            server.writes(backend).checkpoints.insert(place, Some(to));
            Ok(())
        });
        checkpoint.await?;

        *doubt = Some(CommitInDoubt { to: step.to.mark, committed: committed.clone() });
        self.session.commit().await.inspect_err(|error| {
            if !error.in_doubt() {
                *doubt = None;
            }
        })?;
        *doubt = None;
        Ok(CommitOutcome::Committed(committed))
    }

    /// Rows, quarantine and messages.
    async fn rows(&mut self, strategy: WriteStrategy, batch: &Batch) -> Result<Committed, StoreError> {
        if batch.is_empty() {
            return Ok(Committed::new(0, 0, Vec::new(), WritePath::Copy));
        }
        let journal = self.lane.journal;
        let written = self.session.statement("writing rows", |server, backend, _| {
            let mut plan = Plan { strategy, ..Plan::default() };
            plan.rows(server, backend, &batch.new, strategy)?;
            plan.rows(
                server,
                backend,
                &batch.perhaps_stored,
                if strategy == WriteStrategy::Copy { WriteStrategy::Conflict } else { strategy },
            )?;
            let inserted = plan.fresh.values().map(|row| u64::from(row.copies)).sum();
            let writes = server.writes(backend);
            writes.rows = plan.fresh;
            writes.quarantine(&batch.quarantined);
            writes.quarantine(&plan.quarantined);
            writes.messages(journal, &batch.messages);
            Ok((inserted, plan.refused))
        });
        let (inserted, refused): (u64, Vec<Key>) = written.await?;
        let settled = inserted + refused.len() as u64;
        let strategy = if strategy == WriteStrategy::Copy { WritePath::Copy } else { WritePath::Conflict };
        Ok(Committed::new(inserted, batch.offered().saturating_sub(settled), refused, strategy))
    }

    /// Takes the ledger's lock, learns what is new in it, and mends the batch's rows. Gives what it covers of its latest positions.
    async fn look(&mut self, batch: &Batch) -> Result<Vec<Key>, StoreError> {
        const LOOKING: &str = "looking at the ledger of flags";
        if batch.new.is_empty() && batch.perhaps_stored.is_empty() && batch.latest.is_empty() {
            return Ok(Vec::new());
        }
        let share = self.session.statement("taking the lock of the ledger", |server, backend, _| match server.flaw {
            Some(Flaw::PlainLedger) => Ok(()),
            _ => server.lock(backend, Lock::Ledger, Mode::Shared, Until::EndOfTransaction),
        });
        share.await?;
        let learnt = self.session.statement(LOOKING, |server, _, known| {
            look::learn(server, known);
            let mut rows = known.covered(&batch.new);
            rows.extend(known.covered(&batch.perhaps_stored));
            Ok((rows, known.covered(&batch.latest)))
        });
        let (rows, newest) = learnt.await?;
        if !rows.is_empty() {
            let parts: Vec<_> =
                rows.iter().filter_map(|key| Some(FlagInterval { window: instant(key)?, faulty: true })).collect();
            let mut plan = None;
            let mend = self.session.statement("mending rows under a flag", |server, backend, _| {
                look::follow(server, backend, &parts, &mut plan, |_, _| ())
            });
            mend.await?;
        }
        Ok(newest)
    }

    async fn newest(&mut self, batch: &Batch, refused: &[Key], covered: &[Key]) -> Result<(), StoreError> {
        let rows = batch.latest.without(refused).without(covered);
        if rows.ordered().next().is_some() {
            let write = self.session.statement("writing the latest positions", |server, backend, _| {
                for row in rows.ordered() {
                    look::newest(server, backend, row.imei.get(), (row.ts_ms, row.fingerprint))?;
                }
                Ok(())
            });
            write.await?;
        }
        let devices = covered.chunk_by(|one, next| one.imei == next.imei);
        let repairs: Vec<_> = devices
            .filter_map(<[Key]>::last)
            .map(|key| Repair { imei: key.imei, until_ms: key.ts_ms, may_begin: true })
            .collect();
        look::repair(self.session, &repairs).await
    }
}

/// What a statement will write, once it has its locks.
struct Plan {
    strategy: WriteStrategy,
    fresh: BTreeMap<Key, StoredRow>,
    refused: Vec<Key>,
    quarantined: Vec<Quarantined>,
}

impl Default for Plan {
    fn default() -> Self {
        Self { strategy: WriteStrategy::Copy, fresh: BTreeMap::new(), refused: Vec::new(), quarantined: Vec::new() }
    }
}

impl Plan {
    fn rows(&mut self, server: &mut Server, backend: u64, rows: &Rows, strategy: WriteStrategy) -> Result<(), Stop> {
        for row in rows.ordered() {
            let key = row.key();
            if server.fastest.is_some_and(|fastest| row.speed_kmh > fastest) {
                if self.strategy != WriteStrategy::Bisect {
                    return Err(Stop::Fail("23514", Some(CHECK)));
                }
                self.refused.push(key);
                let detail = format!("23514 {CHECK}");
                self.quarantined.push(Quarantined::record(row, QuarantineReason::Refused, detail, rows.wire(row)));
                continue;
            }
            let wire = rows.wire(row).to_vec();
            if server.flaw == Some(Flaw::NoKey) {
                let fresh = StoredRow { row: row.clone(), wire, faulty: row.faulty, copies: 0 };
                self.fresh.entry(key).or_insert(fresh).copies += 1;
                continue;
            }
            if server.tables.positions.contains_key(&key) || self.fresh.contains_key(&key) {
                if strategy == WriteStrategy::Copy {
                    return Err(Stop::Fail("23505", Some("positions_pkey")));
                }
                continue;
            }
            // Another transaction may be inserting it.
            server.alone(backend, Lock::Row(key))?;
            self.fresh.insert(key, StoredRow { row: row.clone(), wire, faulty: row.faulty, copies: 1 });
        }
        Ok(())
    }
}

fn instant(key: &Key) -> Option<Window> {
    Window::new(teltonika_codecs::Imei::try_from(key.imei).ok()?, key.ts_ms, key.ts_ms).ok()
}

const CHECK: &str = "positions_speed_check";
