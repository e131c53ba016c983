//! The loop: sends what is due, waits for answers, reads them.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use super::clock::{cpu_s, monotonic_ns};
use super::latency::Latency;
use super::link::Link;
use super::{Report, Settings};

pub(super) struct Drive {
    settings: Settings,
    links: Vec<Option<Link>>,
    epoll: OwnedFd,
    latency: Latency,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    packets: u64,
    first: u64,
    /// Sent and not answered.
    under_way: usize,
    /// Trackers with packets left.
    busy: usize,
    unanswered: usize,
    lost: u32,
    last_ack_ns: u64,
    late_ns: u64,
    waits: u64,
}

impl Drive {
    /// Drives links that are logged in. Any byte on `orders`, or its end, stops the load.
    pub(super) fn new(settings: Settings, links: Vec<Link>) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, io::stdin(), EventData::new_u64(ORDERS), EventFlags::IN)?;
        for (place, link) in links.iter().enumerate() {
            // Registered once for both directions, edge-triggered: never registered again.
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
            epoll::add(&epoll, link.stream(), EventData::new_u64(place as u64), flags)?;
        }
        let counts = Counts { busy: links.len(), ..Counts::default() };
        let links = links.into_iter().map(Some).collect();
        Ok(Self { settings, links, epoll, latency: Latency::new(), counts })
    }

    pub(super) fn run(&mut self) -> io::Result<Report> {
        let (cpu, user) = cpu_s();
        let mut events: Vec<Event> = Vec::with_capacity(1024);
        let begun = monotonic_ns();
        self.counts.last_ack_ns = begun;
        let mut pace = self.settings.rate.map(|rate| Pace::new(&self.settings, rate, begun));
        if pace.is_none() {
            for place in 0..self.links.len() {
                self.send(place, monotonic_ns());
            }
        }
        let mut stopping = false;
        while self.counts.under_way > 0 || (!stopping && self.counts.busy > 0) {
            let now = monotonic_ns();
            if let Some(pace) = pace.as_mut().filter(|_| !stopping) {
                while let Some(place) = pace.due(now) {
                    if let Some(link) = &mut self.links[place] {
                        link.due += 1;
                    }
                    self.send(place, now);
                }
                self.counts.late_ns = self.counts.late_ns.max(self.owed(pace));
            }
            if self.counts.under_way > 0 && now.saturating_sub(self.counts.last_ack_ns) > PATIENCE_NS {
                break;
            }
            let wait = pace.as_ref().filter(|_| !stopping).map_or(1_000_000_000, |pace| pace.wait_ns(monotonic_ns()));
            let wait = Timespec::try_from(Duration::from_nanos(wait)).unwrap_or(SECOND);
            events.clear();
            self.counts.waits += 1;
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&wait)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                match event.data.u64() {
                    ORDERS => {
                        stopping = true;
                        self.links.iter_mut().flatten().for_each(|link| link.due = 0);
                        epoll::delete(&self.epoll, io::stdin())?;
                    }
                    tracker => self.answers(tracker as usize, begun),
                }
            }
            if pace.is_none() && self.settings.gather_us > 0 {
                std::thread::sleep(Duration::from_micros(self.settings.gather_us));
            }
        }
        Ok(self.report(begun, cpu, user))
    }

    fn answers(&mut self, place: usize, begun: u64) {
        let Self { settings, links, latency, counts, .. } = self;
        let Some(link) = &mut links[place] else { return };
        let now = monotonic_ns();
        let warm = now - begun >= settings.warm_up_ms * 1_000_000;
        let read = link.read(settings, |answered| {
            counts.packets += 1;
            counts.first += u64::from(answered.first);
            counts.under_way -= 1;
            counts.last_ack_ns = now;
            if warm {
                latency.record(now - answered.asked_ns);
            }
        });
        if read.is_err() {
            self.lose(place);
        } else {
            self.send(place, now);
        }
    }

    fn send(&mut self, place: usize, now: u64) {
        let Some(link) = &mut self.links[place] else { return };
        let (was_through, had) = (link.is_through(&self.settings), link.unanswered());
        let sent = link.send(&self.settings, now);
        self.counts.under_way += link.unanswered() - had;
        self.counts.busy -= usize::from(!was_through && link.is_through(&self.settings));
        if sent.is_err() {
            self.lose(place);
        }
    }

    fn lose(&mut self, place: usize) {
        let Some(link) = self.links[place].take() else { return };
        self.counts.lost += 1;
        self.counts.unanswered += link.unanswered();
        self.counts.under_way -= link.unanswered();
        self.counts.busy -= usize::from(!link.is_through(&self.settings));
    }

    /// How long the plan is ahead: packets that are due and wait for an answer of the one before. Looks now and then.
    fn owed(&self, pace: &Pace) -> u64 {
        if !self.counts.waits.is_multiple_of(256) {
            return 0;
        }
        let most = self.links.iter().flatten().map(|link| link.due).max().unwrap_or(0);
        (most as f64 * pace.interval_ns * self.links.len() as f64) as u64
    }

    fn report(&self, begun: u64, cpu: f64, user: f64) -> Report {
        let Self { settings, links, latency, counts, .. } = self;
        let (cpu_now, user_now) = cpu_s();
        let records = u64::from(settings.records);
        let lengths: Vec<f64> = links.iter().flatten().map(Link::mean_frame).collect();
        Report {
            packets: counts.packets,
            records: counts.packets * records,
            distinct: counts.first * records,
            unanswered: (counts.unanswered + counts.under_way) as u64,
            lost: counts.lost,
            first_byte_s: begun as f64 / 1e9,
            last_ack_s: counts.last_ack_ns as f64 / 1e9,
            ack_ms: latency.quantiles(),
            ack_shares: latency.shares(),
            late_ms: counts.late_ns as f64 / 1e6,
            cpu_s: cpu_now - cpu,
            user_s: user_now - user,
            waits: counts.waits,
            frame_bytes: lengths.iter().sum::<f64>() / lengths.len().max(1) as f64,
        }
    }
}

/// When packets are due: trackers take turns, evenly spread.
struct Pace {
    begun: u64,
    interval_ns: f64,
    trackers: u64,
    next: u64,
}

impl Pace {
    fn new(settings: &Settings, rate: f64, begun: u64) -> Self {
        let resent = 1.0 + settings.resend_percent as f64 / 100.0;
        let interval_ns = f64::from(settings.records) / (rate * resent) * 1e9;
        Self { begun, interval_ns, trackers: settings.devices.into(), next: 0 }
    }

    /// The tracker of the next packet that is due.
    fn due(&mut self, now: u64) -> Option<usize> {
        (self.next_ns() <= now).then(|| {
            let place = self.next % self.trackers;
            self.next += 1;
            place as usize
        })
    }

    fn wait_ns(&self, now: u64) -> u64 {
        self.next_ns().saturating_sub(now)
    }

    fn next_ns(&self) -> u64 {
        self.begun + (self.next as f64 * self.interval_ns) as u64
    }
}

const ORDERS: u64 = u64::MAX;
const SECOND: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// The longest time that a tracker waits.
const PATIENCE_NS: u64 = 300_000_000_000;
