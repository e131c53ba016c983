//! Waking many sessions of one runtime from another thread costs a system call each, and nearly nothing from their own thread.
//! The relay is a task of that runtime: the writer wakes only the relay, and the relay wakes the sessions.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::queue::Queue;

/// Runs on the runtime of the sessions until the journal has ended. Without one, receipts come all the same. Of several, the last
/// one polled does the work; dropping it gives the work back to the writer.
#[derive(Debug)]
#[must_use = "a future does nothing unless it is polled"]
pub struct Relay {
    queue: Arc<Queue>,
    wakers: Vec<Waker>,
}

impl Relay {
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        Self { queue, wakers: Vec::new() }
    }
}

impl Future for Relay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { queue, wakers } = &mut *self;
        let over = queue.relay(Some(context.waker()), wakers);
        wakers.drain(..).for_each(Waker::wake);
        if over { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.queue.relay(None, &mut self.wakers);
        self.wakers.drain(..).for_each(Waker::wake);
    }
}
