//! How the fleet's audit reaches the database: by the URL of the service, with its TLS and its hosts.

use odograph_fleet::{Connect, Database, DatabaseError};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, SqliteConnection};

use crate::store::{DatabaseUrl, connect};

impl Connect for DatabaseUrl {
    async fn connect(&self, doing: &'static str) -> Result<Database, DatabaseError> {
        Ok(match self {
            Self::Postgres(url) => Database::Postgres(connect(url, doing).await?),
            Self::Sqlite(file) => {
                let options = SqliteConnectOptions::new().filename(file).read_only(true);
                Database::Sqlite(SqliteConnection::connect_with(&options).await?)
            }
        })
    }
}
