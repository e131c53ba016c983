//! A connection. Bytes in either direction arrive when the scheduler decides, in pieces, or never.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Both directions. Clones are the same connection.
#[derive(Clone, Default)]
pub struct Wire(Arc<Mutex<State>>);

#[derive(Default)]
pub struct State {
    /// Sent by the tracker, on its way.
    pub up: VecDeque<u8>,
    arrived: VecDeque<u8>,
    /// Written by the service, on its way.
    pub down: VecDeque<u8>,
    /// Written by the service since the oracle last read it.
    pub written: Vec<u8>,
    /// The tracker sends nothing more, once all has arrived.
    pub ends: bool,
    /// Both directions are gone.
    pub broken: bool,
    /// The service has closed it.
    pub closed: bool,
    /// Bytes that the socket takes before the tracker reads.
    pub room: usize,
    waker: Option<Waker>,
}

impl Wire {
    pub fn new(room: usize) -> Self {
        Self(Arc::new(Mutex::new(State { room, ..State::default() })))
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The service's end.
    pub fn end(&self) -> End {
        End(self.clone())
    }

    /// Some bytes arrive at the service.
    pub fn arrive(&self, bytes: usize) {
        let mut state = self.state();
        let arriving: Vec<u8> = state.up.drain(..bytes).collect();
        state.arrived.extend(arriving);
        state.wake();
    }

    /// Some bytes reach the tracker.
    pub fn reach(&self, bytes: usize) -> Vec<u8> {
        let mut state = self.state();
        let reached = state.down.drain(..bytes).collect();
        state.wake();
        reached
    }

    /// The tracker closes: what is on its way still arrives.
    pub fn finish(&self) {
        self.state().ends = true;
        self.state().wake();
    }

    /// The link is gone, and what was on its way with it.
    pub fn cut(&self) {
        let mut state = self.state();
        state.broken = true;
        state.up.clear();
        state.down.clear();
        state.wake();
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// What a session reads and writes.
pub struct End(Wire);

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.state();
        if state.broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let length = state.arrived.len().min(into.remaining());
        if length > 0 {
            let bytes: Vec<u8> = state.arrived.drain(..length).collect();
            into.put_slice(&bytes);
            return Poll::Ready(Ok(()));
        }
        if state.ends && state.up.is_empty() {
            return Poll::Ready(Ok(()));
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.0.state();
        if state.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let length = bytes.len().min(state.room.saturating_sub(state.down.len()));
        if length == 0 {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        state.down.extend(&bytes[..length]);
        state.written.extend(&bytes[..length]);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.state().closed = true;
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.0.state().closed = true;
    }
}
