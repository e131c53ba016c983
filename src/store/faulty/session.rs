//! The client's end of a session: one statement after the other, each of which may meet whatever a network and a server do.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::time::timeout;

use super::Fate;
use super::server::{Server, Stop};
use crate::store::flags::cache::FlagCache;
use crate::store::{ErrorClass, StoreError};

/// The server, shared.
pub(super) type Shared = Arc<Mutex<Server>>;

pub(super) fn locked(server: &Shared) -> MutexGuard<'_, Server> {
    server.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection that we own: dropping it leaves its backend behind, until the server notices.
pub(super) struct Session {
    server: Shared,
    pub(super) backend: u64,
    pub(super) has_lane: bool,
    pub(super) flags: FlagCache,
}

impl Session {
    pub(super) fn open(server: &Shared) -> Result<Self, StoreError> {
        let backend = locked(server).connect()?;
        Ok(Self { server: Arc::clone(server), backend, has_lane: false, flags: FlagCache::default() })
    }

    pub(super) fn server(&self) -> MutexGuard<'_, Server> {
        locked(&self.server)
    }

    /// Sends a statement, which does `run` on the server: again and again while that waits for a lock.
    pub(super) async fn statement<T>(
        &mut self,
        doing: &'static str,
        mut run: impl FnMut(&mut Server, u64, &mut FlagCache) -> Result<T, Stop> + Send,
    ) -> Result<T, StoreError> {
        let fate = self.sent(doing).await;
        if let Fate::NotSent = fate {
            return Err(broken(doing));
        }
        if let Fate::Victim = fate {
            self.server().abort(self.backend);
            return Err(StoreError::answered(doing, "40P01", None));
        }
        let Self { server, backend, flags, .. } = self;
        let (server, backend) = (&*server, *backend);
        let ran = poll_fn(|context| {
            let mut server = locked(server);
            if !server.backends.contains_key(&backend) {
                return Poll::Ready(Err(broken(doing)));
            }
            match run(&mut server, backend, flags) {
                Ok(done) => Poll::Ready(Ok(done)),
                Err(Stop::Wait(lock)) if server.locks.wait(backend, lock, context.waker().clone()) => Poll::Pending,
                Err(Stop::Wait(_)) => {
                    server.abort(backend);
                    Poll::Ready(Err(StoreError::answered(doing, "40P01", None)))
                }
                Err(Stop::Fail(code, constraint)) => {
                    server.abort(backend);
                    Poll::Ready(Err(StoreError::answered(doing, code, constraint)))
                }
            }
        });
        let ran = timeout(LOCK_TIMEOUT, ran).await;
        let mut server = locked(server);
        server.locks.stop_waiting(backend);
        let Ok(ran) = ran else {
            server.abort(backend);
            return Err(StoreError::answered(doing, "55P03", None));
        };
        if let Fate::NotAnswered = fate { Err(broken(doing)) } else { ran }
    }

    /// Commits. An error says whether it is in doubt.
    pub(super) async fn commit(&mut self) -> Result<(), StoreError> {
        const COMMITTING: &str = "committing";
        self.server().sent_commit(self.backend);
        let fate = self.sent(COMMITTING).await;
        let mut server = locked(&self.server);
        if !server.backends.contains_key(&self.backend) {
            return Err(broken(COMMITTING).doubtful());
        }
        match fate {
            Fate::Done => {
                server.commit(self.backend);
                Ok(())
            }
            Fate::Victim => {
                server.abort(self.backend);
                Err(StoreError::answered(COMMITTING, "40001", None).doubtful())
            }
            // Whether it had arrived shows when the server notices.
            Fate::NotSent | Fate::NotAnswered => Err(broken(COMMITTING).doubtful()),
        }
    }

    /// Ends a transaction without effect.
    pub(super) async fn rollback(&mut self) -> Result<(), StoreError> {
        self.statement("ending a transaction", |server, backend, _| {
            server.abort(backend);
            Ok(())
        })
        .await
    }

    async fn sent(&mut self, doing: &'static str) -> Fate {
        let statement = locked(&self.server).send(self.backend, doing);
        let sent = Sent { server: &self.server, statement };
        poll_fn(|context| locked(sent.server).fate(sent.statement, context)).await
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.server().leave(self.backend);
    }
}

/// A statement under way. Dropped before it was looked at, it never runs; a commit may.
struct Sent<'a> {
    server: &'a Shared,
    statement: u64,
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        locked(self.server).forget(self.statement);
    }
}

fn broken(doing: &'static str) -> StoreError {
    StoreError::new(ErrorClass::Unavailable, doing, "the connection is broken")
}

const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
