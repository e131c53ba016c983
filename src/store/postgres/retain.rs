//! Retention in PostgreSQL.

use std::time::{Duration, SystemTime};

use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use crate::store::model::retention_clock::{RetentionClock, RetentionRefusal};
use crate::store::postgres::features::Features;
use crate::store::postgres::session::{connect_to_primary, failed};
use crate::store::retain::{
    CLEARING, CONNECTING, DROPPING, DroppedChunk, FORGETTING, PAUSE, Retention, RetentionReport, STEP,
};
use crate::store::{PositionsTable, PostgresUrl, StoreError};

pub(crate) async fn retain(
    url: &PostgresUrl,
    retention: &Retention,
    present: &RetentionClock,
) -> Result<RetentionReport, StoreError> {
    let client = connect_to_primary(url, CONNECTING).await?;
    let server: SystemTime = client.query_one("SELECT now()", &[]).await.map_err(failed(CONNECTING))?.get(0);
    let present = match present.with_server(server) {
        Ok(present) => present,
        Err(refused) => return Ok(RetentionReport { refused: Some(refused), ..RetentionReport::default() }),
    };
    let mut retained = RetentionReport::default();
    if let Some(age) = retention.positions {
        let table = match Features::of(&client).await?.positions {
            PositionsTable::Hypertable { .. } => drop_chunks(&client, age, &present, &mut retained).await?,
            PositionsTable::Plain | PositionsTable::Embedded => {
                let bound = present.bound(age);
                retained.positions = by_device(&client, DROPPING, POSITIONS, bound).await?;
                held_back(&client, age, &present).await?
            }
        };
        retained.refused = table;
        retained.messages = by_device(&client, FORGETTING, MESSAGES, present.bound(age)).await?;
    }
    if let Some(age) = retention.quarantine {
        let delete = client.prepare(QUARANTINED).await.map_err(failed(CLEARING))?;
        retained.quarantined = in_steps(&client, CLEARING, &delete, &[&present.bound(age), &STEP]).await?;
    }
    Ok(retained)
}

/// Needs the table's owner, as every statement about chunks does. One chunk a transaction: all at once would take the locks of
/// all of them, and a server has a few thousand.
async fn drop_chunks(
    client: &Client,
    age: Duration,
    present: &RetentionClock,
    retained: &mut RetentionReport,
) -> Result<Option<RetentionRefusal>, StoreError> {
    const OLD: &str = "SELECT format('%I.%I', chunk_schema, chunk_name), range_start, range_end
        FROM timescaledb_information.chunks
        WHERE hypertable_name = 'positions' AND range_end <= $1 AND hypertable_schema =
            (SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'positions'::regclass)
        ORDER BY range_end";
    const DROP: &str = "SELECT drop_chunks('positions', older_than => $2::timestamptz, newer_than => $1::timestamptz)";
    let bound = present.bound(age);
    let old = client.query(OLD, &[&present.wanted(age)]).await.map_err(failed(DROPPING))?;
    let drop = client.prepare(DROP).await.map_err(failed(DROPPING))?;
    for row in old {
        let chunk = DroppedChunk { name: row.get(0), from: row.get(1), to: row.get(2) };
        if chunk.to > bound {
            return Ok(present.waiting());
        }
        // Another gateway may have been faster.
        if !client.query(&drop, &[&chunk.from, &chunk.to]).await.map_err(failed(DROPPING))?.is_empty() {
            retained.chunks.push(chunk);
        }
    }
    Ok(None)
}

/// Whether rows stay that are old enough. Looked for only where something waits.
async fn held_back(
    client: &Client,
    age: Duration,
    present: &RetentionClock,
) -> Result<Option<RetentionRefusal>, StoreError> {
    const HELD: &str = "SELECT EXISTS (SELECT FROM positions WHERE ts < $1)";
    let Some(waiting) = present.waiting() else { return Ok(None) };
    let held = client.query_one(HELD, &[&present.wanted(age)]).await.map_err(failed(DROPPING))?.get(0);
    Ok(if held { Some(waiting) } else { None })
}

/// Statements that go from device to device, because the keys begin with the device: there need not be an index on time.
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
        deleted += in_steps(client, doing, &delete, &[&device, &bound, &STEP]).await?;
    }
    Ok(deleted)
}

/// Until a step finds nothing more.
async fn in_steps(
    client: &Client,
    doing: &'static str,
    delete: &tokio_postgres::Statement,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<u64, StoreError> {
    let mut deleted = 0;
    loop {
        let gone = client.execute(delete, parameters).await.map_err(failed(doing))?;
        deleted += gone;
        if gone == 0 {
            return Ok(deleted);
        }
        tokio::time::sleep(PAUSE).await;
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
