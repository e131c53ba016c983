//! Retention in PostgreSQL.

use std::time::{Duration, SystemTime};

use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::features::of_client;
use super::operator_connection::{connect_to_primary, failed};
use super::url::PostgresUrl;
use crate::store::error::store_error::StoreError;
use crate::store::model::features::PositionsTable;
use crate::store::model::retention::{
    CLEARING_QUARANTINE, CONNECTING_FOR_RETENTION, DELETING_MESSAGES, DROPPING_POSITIONS, DroppedChunk,
    RETENTION_PAUSE, RETENTION_STEP_ROWS, Retention, RetentionReport,
};
use crate::store::model::retention_clock::{RetentionClock, RetentionRefusal};

pub(crate) async fn retain(
    url: &PostgresUrl,
    retention: &Retention,
    clock: &RetentionClock,
) -> Result<RetentionReport, StoreError> {
    let client = connect_to_primary(url, CONNECTING_FOR_RETENTION).await?;
    let server: SystemTime =
        client.query_one("SELECT now()", &[]).await.map_err(failed(CONNECTING_FOR_RETENTION))?.get(0);
    let clock = match clock.with_server(server) {
        Ok(clock) => clock,
        Err(refused) => return Ok(RetentionReport { refused: Some(refused), ..RetentionReport::default() }),
    };
    let mut report = RetentionReport::default();
    if let Some(age) = retention.positions {
        let refusal = match of_client(&client).await?.positions {
            PositionsTable::Hypertable { .. } => drop_chunks(&client, age, &clock, &mut report).await?,
            PositionsTable::Plain | PositionsTable::Embedded => {
                let bound = clock.bound(age);
                report.positions = by_device(&client, DROPPING_POSITIONS, POSITIONS, bound).await?;
                held_back(&client, age, &clock).await?
            }
        };
        report.refused = refusal;
        report.messages = by_device(&client, DELETING_MESSAGES, MESSAGES, clock.bound(age)).await?;
    }
    if let Some(age) = retention.quarantine {
        let delete = client.prepare(QUARANTINED).await.map_err(failed(CLEARING_QUARANTINE))?;
        report.quarantined =
            in_steps(&client, CLEARING_QUARANTINE, &delete, &[&clock.bound(age), &RETENTION_STEP_ROWS]).await?;
    }
    Ok(report)
}

/// Drops expired chunks, one per transaction: all at once would take the locks of all of them, and a server has a few
/// thousand locks. Needs the table's owner, as every statement about chunks does.
async fn drop_chunks(
    client: &Client,
    age: Duration,
    clock: &RetentionClock,
    report: &mut RetentionReport,
) -> Result<Option<RetentionRefusal>, StoreError> {
    const EXPIRED: &str = "SELECT format('%I.%I', chunk_schema, chunk_name), range_start, range_end
        FROM timescaledb_information.chunks
        WHERE hypertable_name = 'positions' AND range_end <= $1 AND hypertable_schema =
            (SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'positions'::regclass)
        ORDER BY range_end";
    const DROP: &str = "SELECT drop_chunks('positions', older_than => $2::timestamptz, newer_than => $1::timestamptz)";
    let bound = clock.bound(age);
    let expired = client.query(EXPIRED, &[&clock.wanted(age)]).await.map_err(failed(DROPPING_POSITIONS))?;
    let drop = client.prepare(DROP).await.map_err(failed(DROPPING_POSITIONS))?;
    for row in expired {
        let chunk = DroppedChunk { name: row.get(0), from: row.get(1), to: row.get(2) };
        if chunk.to > bound {
            return Ok(clock.waiting());
        }
        // Another gateway may have dropped it first.
        if !client.query(&drop, &[&chunk.from, &chunk.to]).await.map_err(failed(DROPPING_POSITIONS))?.is_empty() {
            report.chunks.push(chunk);
        }
    }
    Ok(None)
}

/// The reason why expired rows stay, if there are any. Looks only if frames wait.
async fn held_back(
    client: &Client,
    age: Duration,
    clock: &RetentionClock,
) -> Result<Option<RetentionRefusal>, StoreError> {
    const HELD: &str = "SELECT EXISTS (SELECT FROM positions WHERE ts < $1)";
    let Some(waiting) = clock.waiting() else { return Ok(None) };
    let held = client.query_one(HELD, &[&clock.wanted(age)]).await.map_err(failed(DROPPING_POSITIONS))?.get(0);
    Ok(if held { Some(waiting) } else { None })
}

/// Statements that go from device to device, because the keys begin with the device and an index on time is optional.
struct ByDevice {
    next: &'static str,
    delete: &'static str,
}

async fn by_device(
    client: &Client,
    doing: &'static str,
    statements: ByDevice,
    bound: SystemTime,
) -> Result<u64, StoreError> {
    let ByDevice { next, delete } = statements;
    let (next, delete) = tokio::try_join!(client.prepare(next), client.prepare(delete)).map_err(failed(doing))?;
    let (mut device, mut deleted) = (-1_i64, 0);
    while let Some(found) = client.query_one(&next, &[&device]).await.map_err(failed(doing))?.get(0) {
        device = found;
        deleted += in_steps(client, doing, &delete, &[&device, &bound, &RETENTION_STEP_ROWS]).await?;
    }
    Ok(deleted)
}

/// Deletes in small transactions until one finds nothing more.
async fn in_steps(
    client: &Client,
    doing: &'static str,
    delete: &tokio_postgres::Statement,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<u64, StoreError> {
    let mut deleted = 0;
    loop {
        let rows = client.execute(delete, parameters).await.map_err(failed(doing))?;
        deleted += rows;
        if rows == 0 {
            return Ok(deleted);
        }
        tokio::time::sleep(RETENTION_PAUSE).await;
    }
}

const POSITIONS: ByDevice = ByDevice {
    next: "SELECT min(imei) FROM positions WHERE imei > $1",
    delete: "DELETE FROM positions WHERE (imei, ts, fingerprint) IN (
        SELECT imei, ts, fingerprint FROM positions WHERE imei = $1 AND ts < $2 ORDER BY ts LIMIT $3)",
};
const MESSAGES: ByDevice = ByDevice {
    next: "SELECT min(imei) FROM device_messages WHERE imei > $1",
    delete: "DELETE FROM device_messages WHERE (journal_id, position) IN (
        SELECT journal_id, position FROM device_messages WHERE imei = $1 AND received_at < $2
        ORDER BY received_at LIMIT $3)",
};
const QUARANTINED: &str = "DELETE FROM quarantined_records WHERE (imei, digest) IN (
    SELECT imei, digest FROM quarantined_records WHERE received_at < $1 ORDER BY received_at LIMIT $2)";
