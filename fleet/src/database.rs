//! The database that the audit reads. The caller opens the connection, so this crate knows neither URLs nor TLS.

use std::error::Error;

use sqlx::SqliteConnection;
use tokio_postgres::Client;

/// An open connection.
pub enum Database {
    /// To PostgreSQL.
    Postgres(Client),
    /// To a SQLite file.
    Sqlite(SqliteConnection),
}

/// Opens connections to one database.
pub trait OpenDatabase {
    /// Opens a connection. `doing` names the purpose in an error.
    ///
    /// # Errors
    /// When the database cannot be reached.
    fn connect(&self, doing: &'static str) -> impl Future<Output = Result<Database, DatabaseError>> + Send;
}

/// Any failure to reach or to read the database.
pub type DatabaseError = Box<dyn Error + Send + Sync>;
