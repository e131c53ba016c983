//! The settings of a session on which correctness rests. A role, a database or a server may set others, and a pooler in
//! between may drop those that we ask for at the start, so each new session is checked.

use tokio_postgres::Client;

use crate::store::error::class::ErrorClass;
use crate::store::error::store_error::StoreError;

/// Ends the server's limit of a whole transaction, where it has one (PostgreSQL 17): each statement has a limit already, and
/// a batch or a flag takes as long as it needs. Then checks the session.
///
/// # Errors
/// It names each unexpected setting and where it may come from.
pub(super) async fn verify(client: &Client) -> Result<(), StoreError> {
    let failed = |error| StoreError::postgres(VERIFYING, error);
    let rows = client.query(SETTINGS, &[]).await.map_err(failed)?;
    let mut unexpected = Vec::new();
    for row in rows {
        let (name, value): (&str, Option<&str>) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
        if let Some(problem) = problem(name, value.unwrap_or_default()) {
            unexpected.push(problem);
        }
    }
    if unexpected.is_empty() {
        Ok(())
    } else {
        Err(StoreError::new(ErrorClass::Refuses, VERIFYING, unexpected.join("; ")))
    }
}

/// What is unexpected with a value, if anything.
fn problem(name: &str, value: &str) -> Option<String> {
    let (is_right, right) = match name {
        "transaction_isolation" => (value == "read committed", "read committed"),
        "session_replication_role" => (value == "origin", "origin"),
        "row_security" => (value == "off", "off"),
        "synchronous_commit" => (matches!(value, "on" | "remote_apply"), "on"),
        "server_encoding" => {
            let remedy =
                "create the database with ENCODING 'UTF8', because texts of trackers and marshals may hold any letter";
            return (value != "UTF8").then(|| format!("the encoding of this database is {value}: {remedy}"));
        }
        _ => return None,
    };
    (!is_right).then(|| {
        format!(
            "this session has {name} = {value} and needs {right}: a setting of the role, of the database, of `options` in \
             DATABASE_URL, or a pooler that drops startup options is the cause; RESET it, or connect to the server itself"
        )
    })
}

const VERIFYING: &str = "checking the settings of the session";
const SETTINGS: &str = "SELECT name, CASE name WHEN 'transaction_timeout' THEN set_config(name, '0', false)
         ELSE current_setting(name) END
     FROM pg_settings WHERE name IN ('transaction_isolation', 'session_replication_role', 'row_security',
         'synchronous_commit', 'server_encoding', 'transaction_timeout')";

#[cfg(test)]
mod tests {
    use super::problem;

    #[test]
    fn each_wrong_setting_is_named_with_the_right_one() {
        for (name, right, unexpected) in [
            ("transaction_isolation", "read committed", "repeatable read"),
            ("session_replication_role", "origin", "replica"),
            ("row_security", "off", "on"),
            ("synchronous_commit", "remote_apply", "off"),
            ("server_encoding", "UTF8", "LATIN1"),
        ] {
            assert_eq!(problem(name, right), None);
            assert!(problem(name, unexpected).is_some_and(|text| text.contains(unexpected)), "{name}");
        }
        assert_eq!(problem("transaction_timeout", "5s"), None);
    }
}
