//! The ledger of flags over sessions of this database.

use std::time::Duration;

use tokio::time::timeout;

use super::FaultyDatabase;
use super::session::{Session, Shared};
use super::steps;
use crate::store::StoreError;
use crate::store::flags::changes::{newest_of_each, outcomes};
use crate::store::model::flag::{Applied, Correction, FlagChange};
use crate::store::port::Ledger;

/// Writes the ledger of flags in a [`FaultyDatabase`], and makes positions follow.
pub struct FaultyLedger {
    server: Shared,
    /// Taken out for each operation and put back only when all went well.
    session: Option<Session>,
}

impl FaultyLedger {
    /// Without connecting.
    #[must_use]
    pub fn new(database: &FaultyDatabase) -> Self {
        Self { server: database.shared(), session: None }
    }

    fn session(&mut self) -> Result<Session, StoreError> {
        self.session.take().map_or_else(|| Session::open(&self.server), Ok)
    }
}

impl Ledger for FaultyLedger {
    async fn apply(&mut self, changes: &[FlagChange]) -> Result<Vec<Applied>, StoreError> {
        let newest = newest_of_each(changes);
        if newest.is_empty() {
            return Ok(Vec::new());
        }
        let mut session = self.session()?;
        let applying = async {
            steps::record(&mut session, &newest).await?;
            let flags: Vec<_> = newest.iter().map(|change| change.flag).collect();
            steps::apply(&mut session, &flags).await
        };
        let applied =
            timeout(PATIENCE, applying).await.map_err(|_| StoreError::timed_out("applying flags", PATIENCE))??;
        self.session = Some(session);
        Ok(outcomes(changes, &applied))
    }

    async fn finish(&mut self, most: usize) -> Result<usize, StoreError> {
        let mut session = self.session()?;
        let finishing = session.statement("finishing flags", |server, _, _| {
            let unapplied = server.tables.ledger.iter().filter(|(_, flagged)| flagged.applied_seq < flagged.seq);
            Ok(unapplied.map(|(flag, _)| *flag).take(most).collect::<Vec<_>>())
        });
        let flags = finishing.await?;
        let finished = if flags.is_empty() { 0 } else { steps::apply(&mut session, &flags).await?.len() };
        self.session = Some(session);
        Ok(finished)
    }

    async fn behind(&mut self, most: usize) -> Result<Vec<FlagChange>, StoreError> {
        let mut session = self.session()?;
        let comparing = session.statement("comparing the ledger with Directus' side", |server, _, _| {
            let ledger = &server.tables.ledger;
            let behind = |change: &&FlagChange| ledger.get(&change.flag).is_none_or(|held| held.seq < change.seq);
            let mut behind: Vec<_> = server.tables.directus.values().filter(behind).cloned().collect();
            behind.sort_by_key(|change| change.seq);
            behind.truncate(most);
            Ok(behind)
        });
        let changes = comparing.await?;
        self.session = Some(session);
        Ok(changes)
    }

    async fn corrections(&mut self, _most: usize) -> Result<Option<Vec<Correction>>, StoreError> {
        // Nobody is told.
        Ok(None)
    }

    async fn told(&mut self, _ids: &[i64]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn trim_corrections(&mut self) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn close(&mut self) {
        self.session = None;
    }
}

/// As long as in reality.
const PATIENCE: Duration = Duration::from_mins(10);
