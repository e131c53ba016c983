//! The ledger of flags over a session of its own.

use std::time::Duration;

use uuid::Uuid;

use super::changes::{latest_of_each, outcomes};
use super::script::{FLAG_ORDER, FlagOrder, apply, record};
use crate::store::error::store_error::StoreError;
use crate::store::model::flag::{Applied, Correction, FlagChange};
use crate::store::port::{Ledger, OUTBOX_MAX};
use crate::store::session_slot::{SessionSlot, bounded, within};
use crate::store::statements::{Connect, FlagSession};

/// Writes the ledger of flags, and makes positions follow.
pub struct FlagLedger<C: Connect> {
    sessions: SessionSlot<C>,
    order: FlagOrder,
}

impl<C: Connect> FlagLedger<C> {
    /// Creates the ledger. It connects with its first operation.
    pub const fn over(connect: C) -> Self {
        Self { sessions: SessionSlot::new(connect), order: FLAG_ORDER }
    }

    /// Replaces the orders of the steps. The simulation breaks an order on purpose, to prove that it finds every wrong
    /// one. The product never calls this: it works in [`FLAG_ORDER`].
    #[doc(hidden)]
    #[must_use]
    pub fn in_order(self, order: FlagOrder) -> Self {
        Self { order, ..self }
    }
}

impl<C: Connect + Send> Ledger for FlagLedger<C>
where
    C::Session: FlagSession,
{
    async fn apply(&mut self, changes: &[FlagChange]) -> Result<Vec<Applied>, StoreError> {
        let latest = latest_of_each(changes);
        if latest.is_empty() {
            return Ok(Vec::new());
        }
        let (mut open, order) = (self.sessions.take().await?, self.order);
        let applying = async {
            record(&mut open.session, &latest, order.record).await?;
            let flags: Vec<_> = latest.iter().map(|change| change.flag).collect();
            apply(&mut open.session, &flags, order.apply).await.map_err(StoreError::after_recording)
        };
        let applied = within(PATIENCE, "applying flags", applying).await?;
        self.sessions.put(open);
        Ok(outcomes(changes, &applied))
    }

    async fn unapplied(&mut self, most: usize, except: &[(Uuid, i64)]) -> Result<Vec<(Uuid, i64)>, StoreError> {
        let mut open = self.sessions.take().await?;
        let unapplied = bounded("reading unapplied flags", open.session.unapplied_flags(most, except)).await?;
        self.sessions.put(open);
        Ok(unapplied)
    }

    async fn follow(&mut self, flags: &[Uuid]) -> Result<(), StoreError> {
        let (mut open, order) = (self.sessions.take().await?, self.order);
        within(PATIENCE, "finishing flags", apply(&mut open.session, flags, order.apply)).await?;
        self.sessions.put(open);
        Ok(())
    }

    async fn behind(&mut self, most: usize, except: &[(Uuid, i64)]) -> Result<Vec<FlagChange>, StoreError> {
        let mut open = self.sessions.take().await?;
        let comparing = open.session.changes_behind(most, except);
        let changes = bounded("comparing the ledger with Directus' side", comparing).await?;
        self.sessions.put(open);
        Ok(changes)
    }

    async fn corrections(&mut self, most: usize) -> Result<Option<Vec<Correction>>, StoreError> {
        let mut open = self.sessions.take().await?;
        let reading = async {
            if open.claim_publisher().await? { open.session.corrections(most).await.map(Some) } else { Ok(None) }
        };
        let corrections = bounded("reading corrections", reading).await?;
        self.sessions.put(open);
        Ok(corrections)
    }

    async fn remove_corrections(&mut self, ids: &[i64]) -> Result<(), StoreError> {
        let mut open = self.sessions.take().await?;
        bounded("removing published corrections", open.session.forget_corrections(ids)).await?;
        self.sessions.put(open);
        Ok(())
    }

    async fn trim_corrections(&mut self) -> Result<u64, StoreError> {
        let mut open = self.sessions.take().await?;
        let removed = bounded("trimming corrections", open.session.trim_corrections(OUTBOX_MAX)).await?;
        self.sessions.put(open);
        Ok(removed)
    }

    async fn close(&mut self) {
        self.sessions.close();
    }
}

/// A group of changes takes milliseconds, a flag over a season of one device some seconds.
const PATIENCE: Duration = Duration::from_mins(10);
