//! How the fleet's audit reaches the database: by the URL of the service, with its TLS and its hosts.

use std::path::Path;

use odograph_fleet::{Database, DatabaseError, OpenDatabase};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, SqliteConnection};

use crate::store::{DatabaseUrl, PostgresUrl, connect, inspect};

impl OpenDatabase for DatabaseUrl {
    async fn connect(&self, doing: &'static str) -> Result<Database, DatabaseError> {
        let server = async |url: &PostgresUrl| Ok(Database::Postgres(connect(url, doing).await?));
        let file = async |path: &Path| {
            let options = SqliteConnectOptions::new().filename(path).read_only(true);
            Ok(Database::Sqlite(SqliteConnection::connect_with(&options).await?))
        };
        inspect(self, server, file).await
    }
}
