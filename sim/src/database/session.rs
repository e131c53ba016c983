//! The client's end of a session: one statement after the other. Each may meet every fault of a network and a server.

use std::future::poll_fn;
use std::sync::MutexGuard;
use std::task::Poll;
use std::time::Duration;

use odograph::store::{ErrorClass, Session, StoreError};
use tokio::time::timeout;

use super::fate::Fate;
use super::server::{Server, Shared, Stop, locked};

/// A connection that we own: dropping it leaves its backend behind, until the server notices.
pub struct SimSession {
    server: Shared,
    backend: u64,
}

impl SimSession {
    pub(super) const fn new(server: Shared, backend: u64) -> Self {
        Self { server, backend }
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        locked(&self.server)
    }

    /// Sends a statement, which does `run` on the server: again and again while that waits for a lock.
    pub(super) async fn statement<T>(
        &mut self,
        doing: &'static str,
        mut run: impl FnMut(&mut Server, u64) -> Result<T, Stop> + Send,
    ) -> Result<T, StoreError> {
        let fate = self.sent(doing).await;
        if let Fate::NotSent = fate {
            return Err(broken(doing));
        }
        if let Fate::Victim = fate {
            self.server().abort(self.backend);
            return Err(StoreError::answered(doing, "40P01", None));
        }
        let (server, backend) = (&self.server, self.backend);
        let ran = poll_fn(|context| {
            let mut server = locked(server);
            if !server.backends.contains_key(&backend) {
                return Poll::Ready(Err(broken(doing)));
            }
            match run(&mut server, backend) {
                Ok(done) => {
                    if !server.backend(backend).in_transaction {
                        server.commit(backend);
                    }
                    Poll::Ready(Ok(done))
                }
                Err(Stop::Wait(lock)) if server.locks.wait(backend, lock, context.waker().clone()) => Poll::Pending,
                Err(Stop::Wait(_)) => {
                    server.abort(backend);
                    Poll::Ready(Err(StoreError::answered(doing, "40P01", None)))
                }
                Err(Stop::Fail(code, constraint)) => {
                    // Within a savepoint the client goes back to it.
                    if !server.backend(backend).has_savepoint() {
                        server.abort(backend);
                    }
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

    async fn sent(&mut self, doing: &'static str) -> Fate {
        let statement = locked(&self.server).send(self.backend, doing);
        let sent = Sent { server: &self.server, statement };
        poll_fn(|context| locked(sent.server).fate(sent.statement, context)).await
    }
}

impl Session for SimSession {
    fn is_closed(&self) -> bool {
        false
    }

    async fn begin(&mut self, doing: &'static str) -> Result<(), StoreError> {
        self.statement(doing, |server, backend| {
            server.backend(backend).in_transaction = true;
            Ok(())
        })
        .await
    }

    async fn commit(&mut self, doing: &'static str) -> Result<(), StoreError> {
        self.server().sent_commit(self.backend);
        let fate = self.sent(doing).await;
        let mut server = locked(&self.server);
        if !server.backends.contains_key(&self.backend) {
            return Err(broken(doing));
        }
        match fate {
            Fate::Done => {
                server.commit(self.backend);
                Ok(())
            }
            Fate::Victim => {
                server.abort(self.backend);
                Err(StoreError::answered(doing, "40001", None))
            }
            // Whether it had arrived shows when the server notices.
            Fate::NotSent | Fate::NotAnswered => Err(broken(doing)),
        }
    }

    async fn rollback(&mut self) -> Result<(), StoreError> {
        self.statement("ending a transaction", |server, backend| {
            server.abort(backend);
            Ok(())
        })
        .await
    }
}

impl Drop for SimSession {
    fn drop(&mut self) {
        self.server().leave(self.backend);
    }
}

/// A statement under way. If it is dropped before it is served, it never runs. A commit may.
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
