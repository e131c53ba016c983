//! The statements of a batch, for the columns that it fills.

use tokio_postgres::{Client, Error, Statement};

use crate::store::sql::{ColumnSet, NEWEST_AHEAD_MINUTES, newest_wins};

/// The statements of one column set, prepared on one connection.
pub(super) struct Statements {
    pub(super) copy: Statement,
    pub(super) insert: Statement,
    pub(super) newest: Statement,
}

impl Statements {
    /// Needs the table `incoming`.
    pub(super) async fn prepare(client: &Client, columns: ColumnSet) -> Result<Self, Error> {
        let names = columns.names();
        // Sorted, so that two writers with the same rows meet them in the same order and cannot deadlock. The same record
        // twice in a batch differs at most in its receive time: the earlier one is kept.
        let insert = format!(
            "INSERT INTO positions ({names}) SELECT {names} FROM incoming \
             ORDER BY imei, ts, fingerprint, received_at ON CONFLICT DO NOTHING"
        );
        let newest = format!(
            "INSERT INTO latest_positions ({names}) SELECT DISTINCT ON (imei) {names} FROM incoming \
             WHERE valid AND NOT faulty AND ts <= received_at + interval '{NEWEST_AHEAD_MINUTES} minutes' \
             ORDER BY imei, ts DESC, fingerprint DESC, received_at {}",
            newest_wins()
        );
        Ok(Self {
            copy: client.prepare(&format!("COPY incoming ({names}) FROM STDIN (FORMAT binary)")).await?,
            insert: client.prepare(&insert).await?,
            newest: client.prepare(&newest).await?,
        })
    }
}

/// Where a batch lands before the keys decide, as COPY itself cannot skip a row. One for each connection.
pub(super) const CREATE_INCOMING: &str = "CREATE TEMPORARY TABLE incoming (LIKE positions) ON COMMIT DELETE ROWS";
