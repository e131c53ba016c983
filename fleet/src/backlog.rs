//! What a tracker still holds: which records go into the next packet, and which are acknowledged. No socket, no clock.
//!
//! A tracker sends newest first. Usually it holds the records of one packet. After a gap in coverage it holds several packets
//! and sends the newest first. Unanswered records go out again, together with newer ones and cut differently.

use std::ops::Range;

use crate::noise::noise;

/// The records of one tracker: those below `low` and from `top` to `end` are acknowledged, those between are not.
#[derive(Clone, Debug)]
pub(super) struct Backlog {
    number: u32,
    /// Records in a packet.
    packet: u64,
    /// Records in all.
    all: u64,
    low: u64,
    top: u64,
    end: u64,
    blocks: u64,
    resend: bool,
    sent_to: u64,
}

/// Records of one packet: newer ones can precede a part of the backlog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    newer: Range<u64>,
    older: Range<u64>,
}

impl Packet {
    /// Newest first, as trackers send by default (section 2.6).
    pub(super) fn records(&self) -> impl Iterator<Item = u64> + use<> {
        self.newer.clone().rev().chain(self.older.clone().rev())
    }

    pub(super) fn count(&self) -> u8 {
        let count = self.newer.end - self.newer.start + self.older.end - self.older.start;
        u8::try_from(count).expect("a packet's records and three more are below 255")
    }
}

impl Backlog {
    /// A tracker that has sent nothing; `all` is the number of its records.
    pub(super) fn new(number: u32, packet: u8, all: u64) -> Self {
        let packet = u64::from(packet.clamp(1, MAX_RECORDS));
        Self { number, packet, all, low: 0, top: 0, end: 0, blocks: 0, resend: false, sent_to: 0 }
    }

    /// The next packet, or `None` if everything is acknowledged.
    pub(super) fn next(&mut self) -> Option<Packet> {
        if self.top == self.low {
            if self.end == self.all {
                return None;
            }
            let noise = noise(self.number, self.blocks);
            let packets = if noise.is_multiple_of(GAP_EVERY) { 2 + noise / GAP_EVERY % 4 } else { 1 };
            self.blocks += 1;
            self.low = self.end;
            self.end = self.all.min(self.low + packets * self.packet);
            self.top = self.end;
        }
        let (newer, size) = if self.resend {
            let noise = noise(self.number, self.top);
            (1 + noise % 3, self.packet - noise / 3 % (self.packet / 2 + 1))
        } else {
            (0, self.packet)
        };
        let newer = self.end..self.all.min(self.end + newer);
        let older = self.low.max(self.top.saturating_sub(size))..self.top;
        self.sent_to = self.sent_to.max(newer.end);
        Some(Packet { newer, older })
    }

    /// The packet is acknowledged.
    pub(super) fn answered(&mut self, packet: &Packet) {
        (self.top, self.end, self.resend) = (packet.older.start, packet.newer.end, false);
    }

    /// The tracker did not get the answer to its packet.
    pub(super) fn lost(&mut self) {
        self.resend = true;
    }

    /// Whether the next packet is a second try.
    pub(super) fn resends(&self) -> bool {
        self.resend
    }

    pub(super) fn is_empty(&self) -> bool {
        self.top == self.low && self.end == self.all
    }

    /// The acknowledged records: those below the number, and those in the range.
    pub(super) fn acknowledged_records(&self) -> (u64, Range<u64>) {
        (self.low, self.top..self.end)
    }

    /// Records from this number on were never sent.
    pub(super) fn sent_to(&self) -> u64 {
        self.sent_to
    }
}

/// Together with three newer records this fits the one-byte count of a frame, with room to spare.
const MAX_RECORDS: u8 = 150;
/// One block of records in so many is the backlog of a gap in coverage.
const GAP_EVERY: u64 = 16;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_record_is_acknowledged_whatever_answers_get_lost() {
        let (mut mixed, mut older_later) = (0, 0);
        for number in 0..200 {
            let mut backlog = Backlog::new(number, 10, 1_000);
            let mut acknowledged = BTreeSet::new();
            let mut tries = 0;
            while let Some(packet) = backlog.next() {
                let records: Vec<_> = packet.records().collect();
                assert_eq!(records.len(), usize::from(packet.count()));
                assert!(records.windows(2).all(|pair| pair[0] > pair[1]), "newest first");
                assert!(records.iter().all(|n| !acknowledged.contains(n)), "nothing is sent again once acknowledged");
                mixed += u32::from(!packet.newer.is_empty() && packet.newer.start > packet.older.end);
                tries += 1;
                if tries % 3 == 0 {
                    backlog.lost();
                } else {
                    older_later += u32::from(acknowledged.last() > records.first());
                    acknowledged.extend(records);
                    backlog.answered(&packet);
                }
                let (low, late) = backlog.acknowledged_records();
                let reported: BTreeSet<_> = (0..low).chain(late).collect();
                assert_eq!(reported, acknowledged);
                assert!(acknowledged.last().is_none_or(|last| *last < backlog.sent_to()));
            }
            assert!(backlog.is_empty() && acknowledged.len() == 1_000);
        }
        assert!(mixed > 100, "resends take newer records along");
        assert!(older_later > 100, "after a gap older records come behind newer ones");
    }

    #[test]
    fn a_resend_is_cut_elsewhere() {
        let mut backlog = Backlog::new(1, 10, 1_000);
        let first = backlog.next().unwrap();
        backlog.lost();
        let again = backlog.next().unwrap();
        assert!(backlog.resends() && again != first && again.newer.start == first.older.end, "{first:?} {again:?}");
        backlog.answered(&again);
        assert!(!backlog.resends());
    }
}
