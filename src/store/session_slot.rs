//! The session of a script. It is opened when it is needed, because the database may be away at the start.
//!
//! A session is never used again after an error, a timeout or a cancelled operation: its state is unknown. So each
//! operation takes it out, and puts it back only after success.

use std::time::Duration;

use tokio::time::timeout;

use crate::lane::Lane;
use crate::store::error::store_error::StoreError;
use crate::store::flags::cache::FlagCache;
use crate::store::statements::{BatchSession, Connect, FlagSession, Session};

/// Holds the session between two operations.
pub(crate) struct SessionSlot<C: Connect> {
    connect: C,
    idle: Option<OpenSession<C::Session>>,
}

/// A session, and the state that ends with it.
pub(crate) struct OpenSession<S> {
    pub(crate) session: S,
    /// The flags that this session has read from the ledger.
    pub(crate) flags: FlagCache,
    owns_lane: bool,
    publishes: bool,
}

impl<C: Connect> SessionSlot<C> {
    pub(crate) const fn new(connect: C) -> Self {
        Self { connect, idle: None }
    }

    /// Takes the idle session if it is alive, or opens a new one. The caller puts it back after success.
    pub(crate) async fn take(&mut self) -> Result<OpenSession<C::Session>, StoreError> {
        match self.idle.take().filter(|open| !open.session.is_closed()) {
            Some(open) => Ok(open),
            None => Ok(OpenSession::new(self.connect.connect().await?)),
        }
    }

    pub(crate) fn put(&mut self, open: OpenSession<C::Session>) {
        self.idle = Some(open);
    }

    /// Ends the session, if there is one. No transaction is open between two operations.
    pub(crate) fn close(&mut self) {
        self.idle = None;
    }
}

impl<S> OpenSession<S> {
    fn new(session: S) -> Self {
        Self { session, flags: FlagCache::default(), owns_lane: false, publishes: false }
    }
}

impl<S: BatchSession> OpenSession<S> {
    /// Claims the lane once. A session that was cut off owns the lane until the server notices, so no other session
    /// writes while an earlier attempt may still be running.
    pub(crate) async fn claim_lane(&mut self, lane: Lane) -> Result<(), StoreError> {
        if !self.owns_lane {
            self.session.claim_lane(lane).await?;
            self.owns_lane = true;
        }
        Ok(())
    }
}

impl<S: FlagSession> OpenSession<S> {
    /// Claims the right to publish corrections. Returns whether this session has it.
    pub(crate) async fn claim_publisher(&mut self) -> Result<bool, StoreError> {
        if !self.publishes {
            self.publishes = self.session.claim_publisher().await?;
        }
        Ok(self.publishes)
    }
}

/// Limits work to the time of a few statements.
pub(crate) async fn bounded<T>(
    doing: &'static str,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    within(SHORT_PATIENCE, doing, work).await
}

/// Limits work to some time.
pub(crate) async fn within<T>(
    limit: Duration,
    doing: &'static str,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    timeout(limit, work).await.map_err(|_| StoreError::timed_out(doing, limit))?
}

/// Longer than the lock timeout, because the server's error says more than ours.
const SHORT_PATIENCE: Duration = Duration::from_secs(15);
