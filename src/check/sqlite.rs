//! The embedded store: the part of the questions that applies to a file. Opened for reading only, and never made.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Row as _, SqliteConnection};

use super::database::QueryResult;
use super::finding::{Check, Finding, size};
use super::ingest::{JournalCheckpoint, QuarantineCounts};
use odograph_journal::JournalId;

/// What is in the file.
#[derive(Debug, Default)]
pub(super) struct SqliteFacts {
    bytes: u64,
    migrations: i64,
    pub(super) checkpoints: Vec<JournalCheckpoint>,
    pub(super) quarantined: QuarantineCounts,
    unapplied: i64,
    corrections: i64,
}

/// `None` where there is no file yet.
pub(super) async fn read(path: &Path) -> QueryResult<Option<SqliteFacts>> {
    let Ok(file) = std::fs::metadata(path) else { return Ok(None) };
    let options =
        SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY).disable_statement_logging();
    let mut connection = options.connect().await.map_err(|error| error.to_string())?;
    let facts = read_tables(&mut connection).await.map_err(|error| error.to_string())?;
    Ok(Some(SqliteFacts { bytes: file.len(), ..facts }))
}

async fn read_tables(connection: &mut SqliteConnection) -> Result<SqliteFacts, sqlx::Error> {
    let one = |sql: &'static str| sqlx::query_scalar::<_, i64>(sql);
    let migrations = one("SELECT count(*) FROM _sqlx_migrations WHERE success").fetch_one(&mut *connection).await?;
    let unapplied = "SELECT count(*) FROM position_flag_ledger WHERE applied_seq < seq";
    let mut facts = SqliteFacts {
        migrations,
        unapplied: one(unapplied).fetch_one(&mut *connection).await?,
        corrections: one("SELECT count(*) FROM position_corrections").fetch_one(&mut *connection).await?,
        ..SqliteFacts::default()
    };
    for row in sqlx::query(CHECKPOINTS).fetch_all(&mut *connection).await? {
        let id = <[u8; 16]>::try_from(row.try_get::<&[u8], _>(0)?).unwrap_or_default();
        let position = u64::try_from(row.try_get::<i64, _>(1)?).unwrap_or(0);
        facts.checkpoints.push(JournalCheckpoint {
            journal: JournalId::from_bytes(id),
            position,
            age: row.try_get(2)?,
        });
    }
    for row in sqlx::query(QUARANTINED).fetch_all(&mut *connection).await? {
        facts.quarantined.push((row.try_get(0)?, row.try_get(1)?));
    }
    Ok(facts)
}

/// The findings that belong to the file alone.
pub(super) fn findings(path: &Path, facts: &QueryResult<Option<SqliteFacts>>) -> Vec<Finding> {
    let shown = path.display();
    let database = match facts {
        Ok(Some(facts)) => {
            let SqliteFacts { bytes, migrations, unapplied, corrections, .. } = facts;
            let found = format!("SQLite file {shown}, {}, {migrations} migrations", size(*bytes));
            if unapplied + corrections > 0 {
                let remedy = "a moment after a start of `odograph serve` it should be none";
                Check::Database.note(format!("{found}; {unapplied} flags and {corrections} corrections wait"), remedy)
            } else {
                Check::Database.ok(found)
            }
        }
        Ok(None) => Check::Database.ok(format!("SQLite file {shown}, which the first start makes")),
        Err(error) => Check::Database.wrong(
            format!("SQLite file {shown}: {error}"),
            "see that it is odograph's own and whole (PRAGMA integrity_check), and that this user may read it",
        ),
    };
    let note =
        "one machine only, and a file does not shrink; `docs/database.md` has a server from nothing to the first row";
    vec![database, Check::Licence.note("SQLite: no chunks, no columnstore, no Directus", note)]
}

const BUSY: Duration = Duration::from_secs(2);
const CHECKPOINTS: &str = "SELECT journal_id, min(position), max(0.0, unixepoch() - max(updated_at) / 1000000.0)
    FROM ingest_checkpoints GROUP BY journal_id ORDER BY max(updated_at) DESC LIMIT 1000";
const QUARANTINED: &str = "SELECT reason, count(*) FROM quarantined_records
    WHERE received_at > (unixepoch() - 86400) * 1000000 GROUP BY reason ORDER BY count(*) DESC LIMIT 20";

#[cfg(test)]
mod tests {
    use super::super::CheckStatus::{Note, Ok as Fine, Wrong};
    use super::*;

    #[test]
    fn a_file_is_there_made_later_or_broken() {
        let status_of = |facts| findings(Path::new("x.sqlite"), &facts)[0].status;
        assert_eq!(
            (status_of(Ok(None)), status_of(Ok(Some(SqliteFacts::default()))), status_of(Err("no".into()))),
            (Fine, Fine, Wrong)
        );
        assert_eq!(status_of(Ok(Some(SqliteFacts { unapplied: 1, ..SqliteFacts::default() }))), Note);
    }
}
