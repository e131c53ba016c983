//! Retention in PostgreSQL.

use std::time::Duration;

use tokio_postgres::Client;

use super::{CLEARING, CONNECTING, DROPPING, PAUSE, Retained, Retention, STEP};
use crate::store::features::Features;
use crate::store::session::{connect_to_primary, failed};
use crate::store::{PositionsTable, PostgresUrl, StoreError};

pub(super) async fn retain(url: &PostgresUrl, retention: &Retention) -> Result<Retained, StoreError> {
    let client = connect_to_primary(url, CONNECTING).await?;
    let mut retained = Retained::default();
    if let Some(age) = retention.positions {
        match Features::of(&client).await?.positions {
            PositionsTable::Hypertable { .. } => retained.chunks = drop_chunks(&client, age).await?,
            PositionsTable::Plain | PositionsTable::Embedded => {
                retained.positions = delete_positions(&client, age).await?;
            }
        }
    }
    if let Some(age) = retention.quarantine {
        retained.quarantined = clear_quarantine(&client, age).await?;
    }
    Ok(retained)
}

/// Needs the table's owner, as every statement about chunks does.
async fn drop_chunks(client: &Client, age: Duration) -> Result<u64, StoreError> {
    const DROP: &str = "SELECT drop_chunks('positions', now() - make_interval(secs => $1))";
    let dropped = client.query(DROP, &[&age.as_secs_f64()]).await.map_err(failed(DROPPING))?;
    Ok(u64::try_from(dropped.len()).unwrap_or(u64::MAX))
}

/// Device by device, because the key begins with the device: there need not be an index on time.
async fn delete_positions(client: &Client, age: Duration) -> Result<u64, StoreError> {
    const NEXT: &str = "SELECT min(imei) FROM positions WHERE imei > $1";
    const DELETE: &str = "DELETE FROM positions WHERE (imei, ts, fingerprint) IN (
        SELECT imei, ts, fingerprint FROM positions
        WHERE imei = $1 AND ts < now() - make_interval(secs => $2) ORDER BY ts LIMIT $3)";
    let age = age.as_secs_f64();
    let (next, delete) = tokio::try_join!(client.prepare(NEXT), client.prepare(DELETE)).map_err(failed(DROPPING))?;
    let (mut device, mut deleted) = (-1_i64, 0);
    while let Some(found) = client.query_one(&next, &[&device]).await.map_err(failed(DROPPING))?.get(0) {
        device = found;
        loop {
            let gone = client.execute(&delete, &[&device, &age, &STEP]).await.map_err(failed(DROPPING))?;
            deleted += gone;
            if gone == 0 {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(deleted)
}

async fn clear_quarantine(client: &Client, age: Duration) -> Result<u64, StoreError> {
    const DELETE: &str = "DELETE FROM quarantined_records WHERE (imei, digest) IN (
        SELECT imei, digest FROM quarantined_records
        WHERE received_at < now() - make_interval(secs => $1) ORDER BY received_at LIMIT $2)";
    let delete = client.prepare(DELETE).await.map_err(failed(CLEARING))?;
    let mut deleted = 0;
    loop {
        let gone = client.execute(&delete, &[&age.as_secs_f64(), &STEP]).await.map_err(failed(CLEARING))?;
        deleted += gone;
        if gone == 0 {
            return Ok(deleted);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
