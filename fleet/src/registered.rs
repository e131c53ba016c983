//! Finds trackers of a plan that are registered as real devices: their rows must not mix with simulated ones.

use sqlx::Row as _;

use crate::database::{Database, DatabaseError, OpenDatabase};
use crate::imei::test_imei;
use crate::plan::Plan;

/// Number of the plan's trackers in the table `devices`. Zero if there is no such table.
///
/// # Errors
/// When the database cannot be reached or read.
pub async fn registered(target: &impl OpenDatabase, plan: &Plan) -> Result<u64, DatabaseError> {
    let last = plan.first_device.saturating_add(plan.devices.saturating_sub(1));
    let (first, last) = (test_imei(plan.first_device).to_string(), test_imei(last).to_string());
    let found: i64 = match target.connect("connecting to the database to look for registered devices").await? {
        Database::Postgres(client) => {
            let table = "SELECT to_regclass('devices') IS NOT NULL";
            if !client.query_one(table, &[]).await?.try_get::<_, bool>(0)? {
                return Ok(0);
            }
            // Directus owns the column; it is text by default. 15 digits sort like the numbers they are.
            let count = "SELECT count(*) FROM devices WHERE length(imei::text) = 15 \
                         AND imei::text COLLATE \"C\" BETWEEN $1 AND $2";
            client.query_one(count, &[&first, &last]).await?.try_get(0)?
        }
        Database::Sqlite(mut database) => {
            let table = sqlx::query("SELECT 1 FROM sqlite_schema WHERE name = 'devices'");
            if table.fetch_optional(&mut database).await?.is_none() {
                return Ok(0);
            }
            let count = "SELECT count(*) FROM devices WHERE length(imei) = 15 AND CAST(imei AS TEXT) BETWEEN ? AND ?";
            sqlx::query(count).bind(first).bind(last).fetch_one(&mut database).await?.try_get(0)?
        }
    };
    Ok(u64::try_from(found).unwrap_or(0))
}
