//! Waiting for room in the journal.

use std::pin::Pin;
use std::task::{Context, Poll};

use super::queue::Queue;

/// See [`Appender::room`](super::Appender::room).
#[derive(Debug)]
#[must_use = "a future does nothing unless it is polled"]
pub struct Room<'a> {
    queue: &'a Queue,
    stored_len: usize,
    /// The round of waiting, and where the waker stands in its list.
    slot: Option<(u64, usize)>,
}

impl<'a> Room<'a> {
    pub(super) fn new(queue: &'a Queue, stored_len: usize) -> Self {
        Self { queue, stored_len, slot: None }
    }
}

impl Future for Room<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { queue, stored_len, slot } = &mut *self;
        queue.poll_room(*stored_len, slot, context)
    }
}
