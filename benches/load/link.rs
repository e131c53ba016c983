//! One tracker's connection: the packets that it sends next, and the answers for which it waits.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;

use socket2::{Domain, Socket, Type};
use teltonika_codecs::reply;

use super::Settings;
use super::packets::Packets;

pub(super) struct Link {
    stream: TcpStream,
    packets: Packets,
    number: u64,
    /// The packet to be sent next.
    next: u64,
    /// Whether that is the second time.
    again: bool,
    /// Part of a frame that did not fit the socket's buffer.
    unsent: Range<usize>,
    /// When each unanswered packet was sent, and whether for the first time.
    asked: VecDeque<(u64, bool)>,
    answer: [u8; 4],
    answered: usize,
    /// Packets that are due; without a pace all of them.
    pub(super) due: u64,
}

/// An answered packet.
pub(super) struct Answered {
    pub(super) asked_ns: u64,
    /// Its records were not acknowledged before.
    pub(super) first: bool,
}

impl Link {
    /// Connects and sends the login; [`Link::logged_in`] takes its answer.
    pub(super) fn open(settings: &Settings, place: u32) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if settings.sources > 1 {
            let source = Ipv4Addr::LOCALHOST.to_bits() + place % u32::from(settings.sources);
            socket.bind(&SocketAddr::from((Ipv4Addr::from_bits(source), 0)).into())?;
        }
        socket.connect(&settings.target.into())?;
        socket.set_tcp_nodelay(true)?;
        let mut stream = TcpStream::from(socket);
        let packets = Packets::new(settings, place);
        stream.write_all(&packets.login())?;
        let number = u64::from(settings.first_device + place);
        let due = if settings.rate.is_some() { 0 } else { u64::MAX };
        let asked = VecDeque::with_capacity(settings.window);
        Ok(Self {
            stream,
            packets,
            number,
            next: 0,
            again: false,
            unsent: 0..0,
            asked,
            answer: [0; 4],
            answered: 0,
            due,
        })
    }

    pub(super) fn logged_in(&mut self) -> io::Result<()> {
        let mut answer = [0];
        self.stream.read_exact(&mut answer)?;
        if answer != reply::LOGIN_ACCEPTED {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.stream.set_nonblocking(true)
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(super) fn mean_frame(&self) -> f64 {
        self.packets.mean_len()
    }

    pub(super) fn unanswered(&self) -> usize {
        self.asked.len()
    }

    /// Whether all its packets were sent.
    pub(super) fn is_through(&self, settings: &Settings) -> bool {
        settings.packets.is_some_and(|packets| self.next >= u64::from(packets))
    }

    /// Sends what is due and fits the window.
    pub(super) fn send(&mut self, settings: &Settings, now_ns: u64) -> io::Result<()> {
        self.flush()?;
        while self.due > 0 && self.asked.len() < settings.window && self.unsent.is_empty() && !self.is_through(settings)
        {
            self.unsent = self.packets.frame(self.next);
            self.asked.push_back((now_ns, !self.again));
            self.again = !self.again && chance(self.number, self.next) < settings.resend_percent;
            self.next += u64::from(!self.again);
            // Without a pace it never ends.
            self.due -= u64::from(self.due != u64::MAX);
            self.flush()?;
        }
        Ok(())
    }

    /// Reads answers, as many as there are.
    ///
    /// # Errors
    /// If the service closed the connection, or acknowledged another number than that of the packet's records.
    pub(super) fn read(&mut self, settings: &Settings, mut answered: impl FnMut(Answered)) -> io::Result<()> {
        let mut buffer = [0; 512];
        loop {
            let count = match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            for byte in &buffer[..count] {
                self.answer[self.answered] = *byte;
                self.answered += 1;
                if self.answered == self.answer.len() {
                    self.answered = 0;
                    let right = self.answer == reply::tcp_ack(settings.records);
                    let oldest = if right { self.asked.pop_front() } else { None };
                    let (asked_ns, first) = oldest.ok_or(io::ErrorKind::InvalidData)?;
                    answered(Answered { asked_ns, first });
                }
            }
            // Not filled: nothing is left, and later bytes are a new event. That saves another read.
            if count < buffer.len() {
                return Ok(());
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(self.packets.bytes(self.unsent.clone())) {
                Ok(count) => self.unsent.start += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A number below 100 that looks random and is the same in each run.
fn chance(number: u64, packet: u64) -> u64 {
    let mixed = (number << 32 ^ packet).wrapping_add(0x9E37_79B9_7F4A_7C15).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (mixed ^ mixed >> 31) % 100
}
