//! Everything that the database says, read at once, and the findings from it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::database::{QueryResult, ServerClient};
use super::finding::{Check, Finding};
use super::{database, devices, flags, hypertable, ingest, schema, service, sqlite};
use crate::config::Settings;
use crate::store::{self, DatabaseUrl, PostgresUrl};

/// What the database said.
pub(super) enum DatabaseFacts {
    /// It cannot be reached.
    Away(String),
    Server(Box<ServerFacts>),
    File(PathBuf, QueryResult<Option<sqlite::SqliteFacts>>),
}

pub(super) struct ServerFacts {
    server: QueryResult<database::Server>,
    commit: QueryResult<String>,
    bytes: QueryResult<u64>,
    schema: schema::SchemaFacts,
    chunks: QueryResult<hypertable::ChunkFacts>,
    jobs: QueryResult<Vec<hypertable::Job>>,
    checkpoints: QueryResult<Vec<ingest::JournalCheckpoint>>,
    quarantined: QueryResult<ingest::QuarantineCounts>,
    flags: QueryResult<flags::FlagFacts>,
    devices: QueryResult<Option<devices::Table>>,
}

impl DatabaseFacts {
    pub(super) async fn read(url: &DatabaseUrl, until: Instant) -> Self {
        let server = async |postgres: &PostgresUrl| Self::read_server(url, postgres, until).await;
        let file = async |path: &Path| {
            let asked = timeout_at(until, sqlite::read(path)).await;
            Self::File(path.to_owned(), asked.unwrap_or_else(|_| Err("no answer in time".to_owned())))
        };
        store::inspect(url, server, file).await
    }

    async fn read_server(url: &DatabaseUrl, postgres: &PostgresUrl, until: Instant) -> Self {
        match ServerClient::connect(postgres, until).await {
            Err(error) => Self::Away(error),
            Ok(client) => match timeout_at(until, Box::pin(ServerFacts::read(&client, url, postgres, until))).await {
                Ok(server) => Self::Server(Box::new(server)),
                Err(_) => Self::Away("it takes connections and does not answer in time".to_owned()),
            },
        }
    }

    pub(super) fn checkpoints(&self) -> QueryResult<Vec<ingest::JournalCheckpoint>> {
        match self {
            Self::Away(_) => Err(AWAY.to_owned()),
            Self::Server(server) => server.checkpoints.clone(),
            Self::File(_, Ok(facts)) => Ok(facts.as_ref().map(|facts| facts.checkpoints.clone()).unwrap_or_default()),
            Self::File(_, Err(error)) => Err(error.clone()),
        }
    }

    pub(super) fn flags(&self) -> i64 {
        match self {
            Self::Server(server) => server.flags.as_ref().map_or(0, |facts| facts.flags),
            Self::Away(_) | Self::File(..) => 0,
        }
    }

    pub(super) fn findings(&self, settings: &Settings, service: &service::ServiceFacts) -> Vec<Finding> {
        let shown = settings.database_url.to_string();
        match self {
            Self::Away(error) => {
                let rest = OF_SERVER.iter().map(|check| check.unknown(AWAY));
                [database::away(&shown, error)].into_iter().chain(rest).collect()
            }
            Self::File(path, facts) => {
                let quarantined = match facts {
                    Ok(facts) => Ok(facts.as_ref().map(|facts| facts.quarantined.clone()).unwrap_or_default()),
                    Err(error) => Err(error.clone()),
                };
                let mut found = sqlite::findings(path, facts);
                found.push(ingest::quarantine(&quarantined));
                found
            }
            Self::Server(server) => server.findings(&shown, settings, service),
        }
    }

    pub(super) fn flag_findings(
        &self,
        settings: &Settings,
        service: &service::ServiceFacts,
        remembered: Option<Duration>,
    ) -> Vec<Finding> {
        match self {
            Self::File(..) => Vec::new(),
            Self::Away(_) => {
                let mut found = flags::findings(&Err(AWAY.to_owned()), settings.redis_url.is_some(), service.is_up());
                found.push(devices::findings(&Err(AWAY.to_owned()), remembered, settings.admission));
                found
            }
            Self::Server(server) => {
                let mut found = flags::findings(&server.flags, settings.redis_url.is_some(), service.is_up());
                found.push(devices::findings(&server.devices, remembered, settings.admission));
                found
            }
        }
    }
}

impl ServerFacts {
    async fn read(client: &ServerClient, url: &DatabaseUrl, postgres: &PostgresUrl, until: Instant) -> Self {
        let (server, commit, bytes, schema, chunks, jobs, checkpoints, quarantined, flags, devices) = tokio::join!(
            database::read(client),
            database::default_commit(postgres, until),
            database::database_size(client),
            schema::read(client, url),
            hypertable::read(client),
            hypertable::read_jobs(client),
            ingest::read_checkpoints(client),
            ingest::read_quarantined(client),
            flags::read(client),
            devices::read(client),
        );
        Self { server, commit, bytes, schema, chunks, jobs, checkpoints, quarantined, flags, devices }
    }

    fn findings(&self, shown: &str, settings: &Settings, service: &service::ServiceFacts) -> Vec<Finding> {
        // A lane each, flags and reconciliation, and retention now and then; a service that runs has them already.
        let needed = if service.is_up() { 1 } else { i64::from(settings.lanes) + 4 };
        let (mut found, buffers) = match &self.server {
            Ok(server) => (database::findings(shown, server, &self.commit, &self.bytes, needed), server.shared_buffers),
            Err(error) => {
                let rest = OF_SERVER.iter().take_while(|check| **check != Check::Schema);
                let rest = rest.map(|check| check.unknown("the server does not say"));
                ([database::away(shown, error)].into_iter().chain(rest).collect(), 0)
            }
        };
        found.extend(schema::findings(&self.schema, settings.retention.positions.is_some()));
        if self.schema.hypertable() {
            found.extend(hypertable::findings(&self.chunks, &self.jobs, buffers));
        } else {
            found.extend(hypertable::none());
        }
        found.push(ingest::quarantine(&self.quarantined));
        found
    }
}

const AWAY: &str = "the database does not answer";
/// What only a server that answers can say, beside flags and devices.
const OF_SERVER: [Check; 15] = [
    Check::DatabaseClock,
    Check::DatabaseTls,
    Check::Fsync,
    Check::FullPageWrites,
    Check::SynchronousCommit,
    Check::Autovacuum,
    Check::Connections,
    Check::DatabaseDisk,
    Check::Schema,
    Check::Privileges,
    Check::Licence,
    Check::Chunks,
    Check::ChunkInterval,
    Check::Jobs,
    Check::Quarantine,
];
