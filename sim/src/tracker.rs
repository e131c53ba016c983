//! A tracker. It logs in, sends unacknowledged records again in other packets, and believes only whole answers.

use std::collections::{BTreeSet, VecDeque};

use fastrand::Rng;
use teltonika_codecs::{Imei, encode};

use crate::network::Wire;
use crate::sent::Sent;

pub struct Tracker {
    pub imei: Imei,
    base_ms: u64,
    /// Records that it will still make.
    pub left: usize,
    made: u64,
    latest: Option<usize>,
    /// What it holds until it is acknowledged.
    pub held: BTreeSet<usize>,
    done: Vec<usize>,
    pub link: Option<Link>,
    /// Frames that it sends without waiting for the answer.
    window: usize,
}

pub struct Link {
    pub connection: usize,
    /// Frames that wait for their answers.
    waiting: VecDeque<Vec<usize>>,
    received: Vec<u8>,
    accepted: bool,
}

/// What a tracker sent.
pub struct Packet {
    pub what: &'static str,
    pub bytes: Vec<u8>,
    pub items: Vec<usize>,
    /// The count that acknowledges it; `None` if it gets no answer.
    pub count: Option<u32>,
}

impl Tracker {
    pub fn new(rng: &mut Rng, number: u64, base_ms: u64) -> Self {
        let imei = Imei::try_from(1_000_000_000_000 + number).unwrap();
        let window = if rng.u8(..) < 60 { 3 } else { 1 };
        let left = rng.usize(3..14);
        Self { imei, base_ms, left, made: 0, latest: None, held: BTreeSet::new(), done: Vec::new(), link: None, window }
    }

    pub fn is_done(&self) -> bool {
        self.left == 0 && self.held.is_empty()
    }

    pub fn login(&self) -> Vec<u8> {
        encode::login(self.imei)
    }

    pub fn connected(&mut self, connection: usize) {
        self.link = Some(Link { connection, waiting: VecDeque::new(), received: Vec::new(), accepted: false });
    }

    /// Returns its next packet, if it does not wait for an answer. It sends only records while everything comes to
    /// rest.
    pub fn packet(&mut self, rng: &mut Rng, sent: &mut Sent, resting: bool) -> Option<Packet> {
        let window = self.window;
        let link = self.link.as_mut()?;
        if link.waiting.len() >= window || (!link.accepted && rng.u8(..) < 200) {
            return None;
        }
        let packet = match if resting { u8::MAX } else { rng.u8(..) } {
            0..8 => Packet { what: "ping", bytes: vec![0xFF], items: Vec::new(), count: None },
            8..14 => {
                let (bytes, item) = sent.message(rng, self.imei);
                return Some(Packet { what: "message", bytes, items: vec![item], count: None });
            }
            14..20 => {
                let (bytes, item) = sent.undecodable(rng, self.imei);
                Packet { what: "undecodable", bytes, items: vec![item], count: Some(1) }
            }
            20..24 => {
                let bytes = encode::frame(teltonika_codecs::AvlCodec::Codec8E, &[]).unwrap();
                Packet { what: "nothing", bytes, items: Vec::new(), count: Some(0) }
            }
            _ => self.records(rng, sent, resting)?,
        };
        if packet.count.is_some() {
            self.link.as_mut()?.waiting.push_back(packet.items.clone());
        }
        Some(packet)
    }

    fn records(&mut self, rng: &mut Rng, sent: &mut Sent, resting: bool) -> Option<Packet> {
        for _ in 0..rng.usize(0..5).min(self.left) {
            let same = self.latest.and_then(|latest| sent.time_of(latest));
            let item = sent.record(rng, self.imei, self.base_ms, self.made, same);
            (self.left, self.made, self.latest) = (self.left - 1, self.made + 1, Some(item));
            self.held.insert(item);
        }
        let waiting: BTreeSet<_> = self.link.iter().flat_map(|link| link.waiting.iter().flatten().copied()).collect();
        let mut items: Vec<_> = self.held.iter().copied().filter(|item| !waiting.contains(item)).collect();
        // A tracker whose memory was put back sends what was acknowledged long ago.
        if !resting && !self.done.is_empty() && rng.u8(..) < 20 {
            let again = self.done[rng.usize(..self.done.len())];
            items.extend(sent.time_of(again).map(|_| again));
        }
        if items.is_empty() {
            return None;
        }
        if rng.u8(..) < 60 {
            rng.shuffle(&mut items);
        } else {
            // Newest first is the default order.
            items.reverse();
        }
        items.truncate(rng.usize(1..7));
        let mut bytes = sent.frame(self.imei, &items);
        if rng.u8(..) < 3 {
            *bytes.last_mut()? ^= 1;
            return Some(Packet { what: "broken", bytes, items: Vec::new(), count: None });
        }
        let count = u32::try_from(items.len()).unwrap();
        Some(Packet { what: "records", bytes, items, count: Some(count) })
    }

    /// Some bytes of answers reached it.
    pub fn receive(&mut self, bytes: &[u8]) {
        let Some(link) = &mut self.link else { return };
        link.received.extend(bytes);
        if !link.accepted && !link.received.is_empty() {
            link.received.remove(0);
            link.accepted = true;
        }
        while link.received.len() >= 4 && !link.waiting.is_empty() {
            link.received.drain(..4);
            for item in link.waiting.pop_front().into_iter().flatten() {
                self.held.remove(&item);
                self.done.push(item);
            }
        }
    }

    /// Loses the link. Unanswered records are sent again.
    pub fn hang_up(&mut self) -> Option<usize> {
        self.link.take().map(|link| link.connection)
    }
}

/// A connection as the harness sees it.
pub struct Connection {
    pub wire: Wire,
    pub process: usize,
    pub expected: VecDeque<Owed>,
    /// Answers written by the service and not yet understood.
    pub answers: Vec<u8>,
    pub accepted: bool,
}

/// An answer that the service may write: a frame with its count, once the frame was sent.
pub struct Owed {
    pub items: Vec<usize>,
    pub count: u32,
}
