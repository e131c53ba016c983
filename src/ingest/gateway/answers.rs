//! The answers that a session owes its tracker. They leave in the order in which the frames came. A tracker that waits
//! for each answer costs no allocation.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::Instant;

use crate::ingest::intake::{IntakeClosed, PendingReceipt};

/// Answers that are not written yet, oldest first.
#[derive(Debug, Default)]
pub(super) struct AnswerQueue {
    first: Option<QueuedAnswer>,
    others: VecDeque<QueuedAnswer>,
}

#[derive(Debug)]
struct QueuedAnswer {
    source: AnswerSource,
    /// When the frame was complete.
    since: Instant,
}

/// Where the bytes of an answer come from.
#[derive(Debug)]
enum AnswerSource {
    /// A receipt, once it is there.
    Receipt(PendingReceipt),
    /// Nothing has to come first.
    Bytes(&'static [u8]),
}

/// Answers that can be written, in order.
#[derive(Debug)]
pub(super) struct ReadyAnswers {
    bytes: [u8; WINDOW * 4],
    len: usize,
    /// When each acknowledged frame was complete.
    since: [Option<Instant>; WINDOW],
    receipts: usize,
    /// How many records they acknowledge.
    pub(super) records: u64,
}

impl AnswerQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Whether the tracker has to wait before it may send more.
    pub(super) fn is_full(&self) -> bool {
        self.others.len() + 1 >= WINDOW
    }

    /// Since when the first answer is due.
    pub(super) fn since(&self) -> Option<Instant> {
        self.first.as_ref().map(|answer| answer.since)
    }

    /// Queues the acknowledgement of a frame that was complete at `since`.
    pub(super) fn push_receipt(&mut self, pending: PendingReceipt, since: Instant) {
        self.push(QueuedAnswer { source: AnswerSource::Receipt(pending), since });
    }

    /// Queues an answer that needs no receipt.
    pub(super) fn push_bytes(&mut self, bytes: &'static [u8], since: Instant) {
        self.push(QueuedAnswer { source: AnswerSource::Bytes(bytes), since });
    }

    fn push(&mut self, answer: QueuedAnswer) {
        if self.first.is_none() {
            self.first = Some(answer);
        } else {
            self.others.push_back(answer);
        }
    }

    /// Takes the answers that are ready, as far as no earlier one is missing.
    pub(super) fn ready(&mut self, context: &mut Context<'_>) -> Result<Option<ReadyAnswers>, IntakeClosed> {
        let mut answers = None;
        while let Some(answer) = &mut self.first {
            let since = answer.since;
            match &mut answer.source {
                AnswerSource::Bytes(bytes) => answers.get_or_insert_with(ReadyAnswers::default).push(bytes),
                AnswerSource::Receipt(pending) => {
                    let Poll::Ready(receipt) = Pin::new(pending).poll(context) else { break };
                    let (ack, records) = receipt?.into_ack();
                    let answers = answers.get_or_insert_with(ReadyAnswers::default);
                    answers.push(&ack);
                    answers.acknowledged(records, since);
                }
            }
            self.first = self.others.pop_front();
        }
        if self.is_empty() {
            // An idle tracker holds no memory.
            self.others = VecDeque::new();
        }
        Ok(answers)
    }
}

impl ReadyAnswers {
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// When the acknowledged frames were complete.
    pub(super) fn since(&self) -> impl Iterator<Item = Instant> {
        self.since.iter().take(self.receipts).flatten().copied()
    }

    fn push(&mut self, bytes: &[u8]) {
        // There is room: at most WINDOW answers of at most four bytes.
        if let Some(free) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            free.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    fn acknowledged(&mut self, records: u8, since: Instant) {
        self.records += u64::from(records);
        if let Some(free) = self.since.get_mut(self.receipts) {
            *free = Some(since);
            self.receipts += 1;
        }
    }
}

impl Default for ReadyAnswers {
    fn default() -> Self {
        Self { bytes: [0; WINDOW * 4], len: 0, since: [None; WINDOW], receipts: 0, records: 0 }
    }
}

/// How many frames of one connection may wait for their answers. Trackers send one at a time; a relay in front of them
/// may not.
pub(super) const WINDOW: usize = 64;
