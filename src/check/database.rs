//! The database server: that it answers, and that what it answered is durable.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::types::{FromSql, ToSql};
use tokio_postgres::{Client, Row};

use super::finding::{Check, Finding, size, span};
use super::host::{database_clock, now_us};
use crate::store::remedy;
use crate::store::{PostgresUrl, connect};

/// A question that was answered, or why not.
pub(super) type QueryResult<T> = Result<T, String>;

/// Asks one server, until there is no time left. Nothing is changed: the session may only read.
pub(super) struct ServerClient {
    client: Client,
    until: Instant,
}

impl ServerClient {
    /// As `serve` connects.
    pub(super) async fn connect(url: &PostgresUrl, until: Instant) -> QueryResult<Self> {
        let connecting = timeout(CONNECTING, connect(url, "connecting to the database"));
        let client = match connecting.await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => return Err(error.source.to_string()),
            Err(_) => return Err(format!("no answer within {CONNECTING:?}")),
        };
        let client = Self { client, until };
        client.bounded(client.client.batch_execute(READ_ONLY)).await?;
        Ok(client)
    }

    pub(super) async fn rows(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> QueryResult<Vec<Row>> {
        self.bounded(self.client.query(sql, parameters)).await
    }

    pub(super) async fn row(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> QueryResult<Row> {
        self.bounded(self.client.query_one(sql, parameters)).await
    }

    async fn bounded<T>(&self, asking: impl Future<Output = Result<T, tokio_postgres::Error>>) -> QueryResult<T> {
        match timeout_at(self.until, asking).await {
            Ok(answer) => answer.map_err(|error| said(&error)),
            Err(_) => Err("the server takes too long to answer".to_owned()),
        }
    }
}

/// An error of the server with its remedy. The code comes first: it is what judgements go by.
fn said(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        None => std::error::Error::source(error).map_or(error.to_string(), |cause| format!("{error}: {cause}")),
        Some(db) => {
            let code = db.code().code();
            let cure = remedy(code).map(|cure| format!("; {cure}")).unwrap_or_default();
            format!("{code}: {}{cure}", db.message())
        }
    }
}

/// A column; another type than asked for is an answer that cannot be used.
pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> QueryResult<T> {
    row.try_get(column).map_err(|error| format!("the server answers with something else: {error}"))
}

/// What the server says of itself.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "settings of the server, each by its name")]
pub(super) struct Server {
    version: String,
    number: i32,
    standby: bool,
    fsync: bool,
    full_page_writes: bool,
    autovacuum: bool,
    /// In our own session.
    session_commit: String,
    most_connections: i32,
    reserved: i32,
    used: i64,
    pub(super) shared_buffers: i64,
    tls: Option<String>,
    local: bool,
    clock_us: i64,
    asked_at_us: i64,
}

pub(super) async fn read(client: &ServerClient) -> QueryResult<Server> {
    let row = client.row(SERVER, &[]).await?;
    Ok(Server {
        version: get(&row, 0)?,
        number: get(&row, 1)?,
        standby: get(&row, 2)?,
        fsync: get(&row, 3)?,
        full_page_writes: get(&row, 4)?,
        autovacuum: get(&row, 5)?,
        session_commit: get(&row, 6)?,
        most_connections: get(&row, 7)?,
        reserved: get(&row, 8)?,
        used: get(&row, 9)?,
        shared_buffers: get(&row, 10)?,
        tls: get(&row, 11)?,
        local: get(&row, 12)?,
        clock_us: get(&row, 13)?,
        asked_at_us: now_us(),
    })
}

/// What other clients of the same role and database get for `synchronous_commit`: our own sessions set it.
pub(super) async fn default_commit(url: &PostgresUrl, until: Instant) -> QueryResult<String> {
    let mut config = url.maintenance_config();
    config.options("");
    let asking = async {
        let tls = url.tls().map_err(|error| error.source.to_string())?;
        let (client, connection) = config.connect(tls).await.map_err(|error| said(&error))?;
        tokio::spawn(connection);
        let row = client.query_one("SHOW synchronous_commit", &[]).await.map_err(|error| said(&error))?;
        get(&row, 0)
    };
    timeout_at(until, asking).await.unwrap_or_else(|_| Err("the server takes too long to answer".to_owned()))
}

pub(super) async fn database_size(client: &ServerClient) -> QueryResult<u64> {
    let row = client.row("SELECT pg_database_size(current_database())", &[]).await?;
    Ok(u64::try_from(get::<i64>(&row, 0)?).unwrap_or(0))
}

/// `shown` is the URL without its password; `needed` is how many connections `serve` takes.
pub(super) fn findings(
    shown: &str,
    server: &Server,
    commit: &QueryResult<String>,
    bytes: &QueryResult<u64>,
    needed: i64,
) -> Vec<Finding> {
    vec![
        reached(shown, server),
        database_clock(server.clock_us, server.asked_at_us),
        tls(server),
        on(
            Check::Fsync,
            server.fsync,
            "fsync",
            "a power cut at the server may lose or break everything that it had committed",
        ),
        on(
            Check::FullPageWrites,
            server.full_page_writes,
            "full_page_writes",
            "a power cut at the server may break pages beyond repair",
        ),
        synchronous_commit(&server.session_commit, commit),
        on(
            Check::Autovacuum,
            server.autovacuum,
            "autovacuum",
            "checkpoint rows change several times a second, and dead ones would pile up",
        ),
        connections(server, needed),
        disk(bytes),
    ]
}

fn reached(shown: &str, server: &Server) -> Finding {
    let check = Check::Database;
    let found = format!("PostgreSQL {} at {shown}", server.version);
    if server.standby {
        return check.wrong(format!("{found} is a standby and takes no writes"), "name the primary in DATABASE_URL");
    }
    if server.number < OLDEST {
        return check.wrong(found, "PostgreSQL 14 or later is needed");
    }
    check.ok(found)
}

fn tls(server: &Server) -> Finding {
    match &server.tls {
        Some(version) => Check::DatabaseTls.ok(version),
        None if server.local => Check::DatabaseTls.ok("none, on this machine"),
        None => Check::DatabaseTls.note(
            "none: password and positions cross the network in clear text",
            "?sslmode=verify-full&sslrootcert=… in DATABASE_URL, unless the network is private; see docs/database.md",
        ),
    }
}

fn on(check: Check, is_on: bool, setting: &str, cost: &str) -> Finding {
    if is_on {
        return check.ok(format!("{setting} is on"));
    }
    check.wrong(
        format!("{setting} is off: {cost}"),
        format!("ALTER SYSTEM SET {setting} = on; SELECT pg_reload_conf(); and look into postgresql.conf and the server's command line"),
    )
}

fn synchronous_commit(session: &str, default: &QueryResult<String>) -> Finding {
    let check = Check::SynchronousCommit;
    if !matches!(session, "on" | "remote_apply") {
        return check.wrong(
            format!("{session}, although the connection asks for on: something between here and the server drops what clients ask for"),
            "name the server itself in DATABASE_URL, or have the pooler keep startup parameters",
        );
    }
    match default.as_deref() {
        Err(error) => check.unknown(error),
        Ok("off") => check.wrong(
            "on for odograph, which asks for it; off for everybody else: a marshal's flag that was answered \"saved\" can be lost",
            "ALTER SYSTEM, ALTER DATABASE … or ALTER ROLE … RESET synchronous_commit: whichever switched it off",
        ),
        Ok(default @ ("local" | "remote_write")) => check.note(
            format!("on for odograph, {default} for everybody else"),
            "with a standby that may take over, on keeps what others commit too",
        ),
        Ok(_) => check.ok("on, for everybody"),
    }
}

fn connections(server: &Server, needed: i64) -> Finding {
    let check = Check::Connections;
    let free = i64::from(server.most_connections) - i64::from(server.reserved) - server.used;
    let found = format!("{} of {} are used; `serve` takes up to {needed}", server.used, server.most_connections);
    let remedy = "raise max_connections, or end idle clients (pg_stat_activity)";
    match free {
        ..=0 => check.wrong(found, remedy),
        free if free < needed => check.note(found, remedy),
        _ => check.ok(found),
    }
}

fn disk(bytes: &QueryResult<u64>) -> Finding {
    match bytes {
        Err(error) => Check::DatabaseDisk.unknown(error),
        Ok(bytes) => Check::DatabaseDisk.note(
            format!(
                "this database takes {}; what is free on the server's disk cannot be asked from here",
                size(*bytes)
            ),
            "have the server's disk watched: when it is full frames wait in the journal, and then in the trackers",
        ),
    }
}

/// The database does not answer.
pub(super) fn away(shown: &str, error: &str) -> Finding {
    let remedy = "see that the server runs and that DATABASE_URL is right (`odograph config show`); docs/database.md lists errors \
                  and remedies. Meanwhile frames wait in the journal";
    Check::Database.wrong(format!("{shown}: {error}"), remedy)
}

/// How long ago, by the server's clock.
pub(super) fn ago(seconds: f64) -> String {
    span(Duration::from_secs_f64(seconds.clamp(0.0, 1e9)))
}

const CONNECTING: Duration = Duration::from_secs(4);
const READ_ONLY: &str = "SET statement_timeout = '4s'; SET lock_timeout = '1s'; SET default_transaction_read_only = on";
const OLDEST: i32 = 140_000;
const SERVER: &str = "SELECT current_setting('server_version'), current_setting('server_version_num')::int4,
    pg_is_in_recovery(), current_setting('fsync')::bool, current_setting('full_page_writes')::bool,
    current_setting('autovacuum')::bool, current_setting('synchronous_commit'),
    current_setting('max_connections')::int4, current_setting('superuser_reserved_connections')::int4,
    (SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL AND pid <> pg_backend_pid()),
    pg_size_bytes(current_setting('shared_buffers')),
    (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl),
    coalesce(inet_server_addr() << '127.0.0.0/8' OR inet_server_addr() = '::1', true),
    (extract(epoch FROM clock_timestamp()) * 1000000)::int8";

#[cfg(test)]
mod tests {
    use super::super::CheckStatus::{Note, Ok as Fine, Unknown, Wrong};
    use super::*;

    fn server() -> Server {
        Server {
            version: "17.2".into(),
            number: 170_002,
            standby: false,
            fsync: true,
            full_page_writes: true,
            autovacuum: true,
            session_commit: "on".into(),
            most_connections: 100,
            reserved: 3,
            used: 10,
            shared_buffers: 1 << 27,
            tls: None,
            local: true,
            clock_us: 0,
            asked_at_us: 0,
        }
    }

    #[test]
    fn a_server_has_to_take_writes_and_be_new_enough() {
        assert_eq!(reached("x", &server()).status, Fine);
        assert_eq!(reached("x", &Server { standby: true, ..server() }).status, Wrong);
        assert_eq!(reached("x", &Server { number: 130_009, ..server() }).status, Wrong);
    }

    #[test]
    fn what_makes_a_commit_durable_has_to_be_on() {
        assert_eq!(on(Check::Fsync, true, "fsync", "").status, Fine);
        let off = on(Check::Fsync, false, "fsync", "lost");
        assert!(off.status == Wrong && off.remedy.unwrap().contains("ALTER SYSTEM SET fsync = on"));
        for (session, default, status) in [
            ("on", Ok("on"), Fine),
            ("on", Ok("off"), Wrong),
            ("on", Ok("local"), Note),
            ("off", Ok("on"), Wrong),
            ("on", Err("x".to_owned()), Unknown),
        ] {
            assert_eq!(synchronous_commit(session, &default.map(str::to_owned)).status, status, "{session}");
        }
    }

    #[test]
    fn clear_text_is_fine_on_this_machine_only() {
        assert_eq!(tls(&server()).status, Fine);
        assert_eq!(tls(&Server { local: false, ..server() }).status, Note);
        assert_eq!(tls(&Server { local: false, tls: Some("TLSv1.3".into()), ..server() }).status, Fine);
    }

    #[test]
    fn connections_have_to_be_left() {
        for (used, status) in [(10, Fine), (93, Note), (97, Wrong), (100, Wrong)] {
            assert_eq!(connections(&Server { used, ..server() }, 6).status, status, "{used}");
        }
        assert_eq!((disk(&Ok(1)).status, disk(&Err("x".into())).status), (Note, Unknown));
        assert_eq!(ago(-1.0), "0s");
    }
}
