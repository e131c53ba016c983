//! The statements of a batch's transaction in the simulated database.

use std::collections::BTreeMap;

use odograph::store::{
    BatchSession, CLAIMING_LANE, Checkpoint, Key, Lane, LedgerEntry, Message, PartTable, QuarantineCap,
    QuarantineInput, Row, RowSlice, Rows, Schema, StoreError, StoredCheckpoint,
};

use super::faulty_session::write_latest;
use super::flaw::Flaw;
use super::locks::{Lock, Mode, Until};
use super::server::{Server, Stop};
use super::session::SimSession;
use super::tables::{Place, StoredRow};

impl BatchSession for SimSession {
    async fn claim_lane(&mut self, lane: Lane) -> Result<(), StoreError> {
        self.statement(CLAIMING_LANE, |server, backend| match server.flaw {
            Some(Flaw::PlainFence) => Ok(()),
            _ => server.lock(backend, Lock::Lane(place(lane)), Mode::Alone, Until::EndOfSession),
        })
        .await
    }

    async fn schema(&mut self) -> Result<Schema, StoreError> {
        self.statement("looking at the schema", |_, _| Ok(Schema::Current)).await
    }

    async fn lock_checkpoint(&mut self, lane: Lane) -> Result<Option<StoredCheckpoint>, StoreError> {
        let place = place(lane);
        self.statement("reading the checkpoint", |server, backend| {
            server.belongs_in_transaction(backend, "the fence read");
            // A superseded session may still be running.
            if server.flaw != Some(Flaw::PlainFence) && !server.locks.holds(backend, Lock::Lane(place)) {
                server.breach.get_or_insert("the fence read before the lane was claimed".to_owned());
            }
            if server.flaw != Some(Flaw::PlainFence) && server.tables.checkpoints.contains_key(&place) {
                server.alone(backend, Lock::Fence(place))?;
            }
            if server.tables.checkpoints.contains_key(&place) {
                server.passes_fence(backend, place);
            }
            server.backend(backend).fence = Some(place);
            Ok(server.tables.checkpoints.get(&place).copied())
        })
        .await
    }

    async fn silent_loss(&mut self) -> Result<Option<String>, StoreError> {
        self.statement("inspecting the tables", |server, backend| {
            server.backend(backend).is_guarded = true;
            Ok(server.drops_rows.then(|| "a trigger drops rows".to_owned()))
        })
        .await
    }

    async fn copy_rows(&mut self, rows: &Rows) -> Result<u64, StoreError> {
        self.statement("copying rows", |server, backend| {
            server.writes_slowly(backend, "rows");
            let mut insert = Insert::default();
            for row in rows.ordered() {
                if insert.row(server, backend, row, rows.wire(row))? == Inserted::Stored {
                    return Err(Stop::Fail("23505", Some("positions_pkey")));
                }
            }
            let (sent, copied) = (rows.len() as u64, insert.write(server, backend)?);
            // A row that a trigger drops is missing in the count, which the client checks.
            if copied < sent && server.flaw != Some(Flaw::NoKey) { Err(Stop::Fail("P0001", None)) } else { Ok(copied) }
        })
        .await
    }

    async fn insert_rows(&mut self, rows: &[&Rows]) -> Result<u64, StoreError> {
        self.statement("inserting rows", |server, backend| {
            server.writes_slowly(backend, "rows");
            let mut insert = Insert::default();
            for rows in rows {
                for row in rows.ordered() {
                    insert.row(server, backend, row, rows.wire(row))?;
                }
            }
            insert.write(server, backend)
        })
        .await
    }

    async fn write_latest(&mut self, rows: &Rows) -> Result<(), StoreError> {
        self.statement("writing the latest positions", |server, backend| {
            server.writes(backend, "latest positions");
            rows.ordered().try_for_each(|row| write_latest(server, backend, row.imei.get(), at(row)))
        })
        .await
    }

    async fn savepoint(&mut self) -> Result<(), StoreError> {
        self.statement(DIVIDING, |server, backend| {
            server.backend(backend).set_savepoint();
            Ok(())
        })
        .await
    }

    async fn insert_part(&mut self, part: RowSlice<'_>, table: PartTable) -> Result<u64, StoreError> {
        let rows = || (0..part.len()).filter_map(|index| part.get(index));
        match table {
            PartTable::Positions => {
                self.statement("inserting rows", |server, backend| {
                    server.writes_slowly(backend, "rows");
                    let mut insert = Insert::default();
                    for row in rows() {
                        insert.row(server, backend, row, part.rows.wire(row))?;
                    }
                    insert.write(server, backend)
                })
                .await
            }
            PartTable::Latest => {
                self.statement("writing the latest positions", |server, backend| {
                    server.writes(backend, "latest positions");
                    for row in rows() {
                        write_latest(server, backend, row.imei.get(), at(row))?;
                    }
                    Ok(u64::try_from(part.len()).unwrap_or(u64::MAX))
                })
                .await
            }
        }
    }

    async fn keep_part(&mut self) -> Result<(), StoreError> {
        self.statement(DIVIDING, |server, backend| {
            server.backend(backend).drop_savepoint();
            Ok(())
        })
        .await
    }

    async fn undo_part(&mut self) -> Result<(), StoreError> {
        self.statement(DIVIDING, |server, backend| {
            server.backend(backend).undo_to_savepoint();
            Ok(())
        })
        .await
    }

    async fn write_quarantine(
        &mut self,
        _: Lane,
        records: &[QuarantineInput<'_>],
        _: QuarantineCap,
    ) -> Result<u64, StoreError> {
        self.statement("writing into quarantine", |server, backend| {
            server.writes_slowly(backend, "quarantine");
            let records = records.iter().map(|input| (input.record.imei.get(), input.digest));
            server.writes_of(backend).quarantined.extend(records);
            Ok(0)
        })
        .await
    }

    async fn write_messages(&mut self, messages: &[Message]) -> Result<u64, StoreError> {
        self.statement("writing messages", |server, backend| {
            server.writes_slowly(backend, "messages");
            server.writes_of(backend).messages(messages);
            Ok(u64::try_from(messages.len()).unwrap_or(u64::MAX))
        })
        .await
    }

    async fn share_ledger(&mut self) -> Result<(), StoreError> {
        self.statement("sharing the lock of the ledger", |server, backend| {
            server.belongs_in_transaction(backend, "the ledger locked");
            match server.flaw {
                Some(Flaw::PlainLedger) => Ok(()),
                _ => server.lock(backend, Lock::Ledger, Mode::Shared, Until::EndOfTransaction),
            }
        })
        .await
    }

    async fn ledger_version(&mut self) -> Result<i64, StoreError> {
        self.statement(LOOKING, |server, backend| {
            let version = server.tables.ledger.values().map(|flagged| flagged.version).max().unwrap_or_default();
            if server.flaw != Some(Flaw::NoVersion) || version == 0 {
                return Ok(version);
            }
            Ok(*server.backend(backend).first_version.get_or_insert(version))
        })
        .await
    }

    async fn newer_flags(&mut self, version: i64, most: usize) -> Result<Vec<LedgerEntry>, StoreError> {
        self.statement(LOOKING, |server, _| {
            let newer = server.tables.ledger.iter().filter(|(_, flagged)| flagged.version > version);
            let entry = |(flag, flagged): (&uuid::Uuid, &super::tables::Flagged)| LedgerEntry {
                flag: *flag,
                live: flagged.covers(),
            };
            Ok(newer.map(entry).filter(|entry| version > 0 || entry.live.is_some()).take(most).collect())
        })
        .await
    }

    async fn write_checkpoint(&mut self, lane: Lane, checkpoint: &Checkpoint) -> Result<u64, StoreError> {
        let (place, checkpoint) = (place(lane), *checkpoint);
        self.statement("writing the checkpoint", |server, backend| {
            server.writes(backend, "the checkpoint");
            if !server.tables.checkpoints.contains_key(&place) {
                return Ok(0);
            }
            server.alone(backend, Lock::Fence(place))?;
            let stored = StoredCheckpoint { lanes: lane.lanes, checkpoint };
            server.writes_of(backend).checkpoints.insert(place, Some(stored));
            Ok(1)
        })
        .await
    }

    async fn lock_lanes(&mut self, lane: Lane) -> Result<(), StoreError> {
        let journal = lane.journal.to_bytes();
        self.statement(OPENING, |server, backend| server.alone(backend, Lock::Lane((journal, u16::MAX)))).await
    }

    async fn read_lanes(&mut self, lane: Lane) -> Result<Vec<StoredCheckpoint>, StoreError> {
        let journal = lane.journal.to_bytes();
        self.statement(OPENING, |server, backend| {
            let rows = server.tables.checkpoints.range((journal, 0)..=(journal, u16::MAX));
            let (places, stored): (Vec<_>, Vec<_>) = rows.map(|(place, stored)| (*place, *stored)).unzip();
            let fenced = server.flaw != Some(Flaw::PlainFence);
            for place in places.iter().filter(|_| fenced) {
                // On the way to a lock nothing was changed, so all is read again once it is there.
                server.alone(backend, Lock::Fence(*place))?;
            }
            Ok(stored)
        })
        .await
    }

    async fn forget_lanes(&mut self, lane: Lane) -> Result<(), StoreError> {
        let journal = lane.journal.to_bytes();
        self.statement("forgetting a journal", |server, backend| {
            let rows = server.tables.checkpoints.range((journal, 0)..=(journal, u16::MAX));
            let places: Vec<_> = rows.map(|(place, _)| *place).collect();
            for place in &places {
                server.alone(backend, Lock::Fence(*place))?;
            }
            server.writes_of(backend).checkpoints.extend(places.into_iter().map(|place| (place, None)));
            Ok(())
        })
        .await
    }

    async fn make_lanes(&mut self, lane: Lane, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let (journal, stored) =
            (lane.journal.to_bytes(), StoredCheckpoint { lanes: lane.lanes, checkpoint: *checkpoint });
        self.statement(OPENING, |server, backend| {
            let lanes = (0..lane.lanes).map(|number| ((journal, number), Some(stored)));
            server.writes_of(backend).checkpoints.extend(lanes);
            Ok(())
        })
        .await
    }
}

/// The rows that a statement inserts, once it has their locks.
#[derive(Default)]
struct Insert {
    fresh: BTreeMap<Key, StoredRow>,
}

#[derive(PartialEq)]
enum Inserted {
    Fresh,
    Stored,
}

impl Insert {
    fn row(&mut self, server: &mut Server, backend: u64, row: &Row, wire: &[u8]) -> Result<Inserted, Stop> {
        let key = row.key();
        if server.fastest.is_some_and(|fastest| row.speed_kmh > fastest) {
            return Err(Stop::Fail("23514", Some("positions_speed_check")));
        }
        let fresh = || StoredRow { row: row.clone(), wire: wire.to_vec(), faulty: row.faulty, copies: 1 };
        if server.flaw == Some(Flaw::NoKey) {
            self.fresh.entry(key).and_modify(|stored| stored.copies += 1).or_insert_with(fresh);
            return Ok(Inserted::Fresh);
        }
        let own = self.fresh.contains_key(&key) || server.writes_of(backend).rows.contains_key(&key);
        if own || server.tables.positions.contains_key(&key) {
            return Ok(Inserted::Stored);
        }
        // Another transaction may be inserting it.
        server.alone(backend, Lock::Row(key))?;
        self.fresh.insert(key, fresh());
        Ok(Inserted::Fresh)
    }

    /// Writes them, unless a trigger drops them. Returns the number of rows written.
    fn write(self, server: &mut Server, backend: u64) -> Result<u64, Stop> {
        // CREATE TRIGGER waits for writers of the table, and they for it.
        server.lock(backend, Lock::Table, Mode::Shared, Until::EndOfTransaction)?;
        if server.drops_rows {
            return Ok(0);
        }
        let written = self.fresh.values().map(|row| u64::from(row.copies)).sum();
        for (key, row) in self.fresh {
            let rows = &mut server.writes_of(backend).rows;
            rows.entry(key).and_modify(|stored| stored.copies += row.copies).or_insert(row);
        }
        Ok(written)
    }
}

fn at(row: &Row) -> (i64, i32) {
    (row.ts_ms, row.fingerprint)
}

fn place(lane: Lane) -> Place {
    (lane.journal.to_bytes(), lane.number)
}

const DIVIDING: &str = "setting a savepoint";
const LOOKING: &str = "looking at the ledger of flags";
const OPENING: &str = "opening a lane";
