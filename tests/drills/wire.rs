//! A proxy between the service and PostgreSQL that knows where each protocol message ends, and cuts or holds there.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::load::run_in_background;

/// Pending cuts and holds, and counts of those that happened.
#[derive(Default)]
struct Plan {
    /// Boundaries still to be cut, each as a number of messages of a connection.
    boundaries: VecDeque<u64>,
    hold: Option<Hold>,
    held: u64,
    cuts: u64,
    /// Sender and type of the messages after which a connection was cut.
    kinds: BTreeSet<(Side, u8)>,
}

/// The message to hold back, once. The connection stays open until either side closes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// The next COMMIT: the session is idle in its transaction.
    Commit,
    /// The answer to the next COMMIT: the commit happened, and the service does not know.
    Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Service,
    Server,
}

pub(crate) struct Wire {
    port: u16,
    plan: Arc<Mutex<Plan>>,
}

impl Wire {
    /// Starts a proxy in front of the server of this URL.
    pub(crate) fn new(server_url: &str) -> Self {
        let (_, behind) = server_url.split_once('@').unwrap();
        let server = behind.split('/').next().unwrap().to_owned();
        let plan = Arc::new(Mutex::new(Plan::default()));
        let shared = Arc::clone(&plan);
        let port = run_in_background(|say| async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            say.send(listener.local_addr().unwrap().port()).unwrap();
            while let Ok((client, _)) = listener.accept().await {
                // While the server is down, the connection ends.
                if let Ok(server) = TcpStream::connect(&server).await {
                    tokio::spawn(carry(client, server, Arc::clone(&shared)));
                }
            }
        });
        Self { port, plan }
    }

    /// Returns the same URL through this proxy.
    pub(crate) fn url(&self, database_url: &str) -> String {
        let (front, behind) = database_url.split_once('@').unwrap();
        let (_, database) = behind.split_once('/').unwrap();
        format!("{front}@127.0.0.1:{}/{database}", self.port)
    }

    pub(crate) fn cut_behind(&self, boundaries: impl Iterator<Item = u64>) {
        self.plan.lock().unwrap().boundaries.extend(boundaries);
    }

    /// Returns the boundaries still to be cut, the cuts made, and the kinds of messages after which they were made.
    pub(crate) fn cut(&self) -> (usize, u64, usize) {
        let plan = self.plan.lock().unwrap();
        (plan.boundaries.len(), plan.cuts, plan.kinds.len())
    }

    pub(crate) fn hold(&self, what: Hold) {
        self.plan.lock().unwrap().hold = Some(what);
    }

    /// Returns how often a message was held back.
    pub(crate) fn held(&self) -> u64 {
        self.plan.lock().unwrap().held
    }
}

/// One connection, and the boundary at which to cut it.
struct Turn {
    plan: Arc<Mutex<Plan>>,
    boundary: Option<u64>,
    messages: u64,
    /// The service's COMMIT is on its way.
    committing: bool,
}

enum Next {
    Go,
    Cut,
    Hold,
}

impl Turn {
    fn next(&mut self, side: Side, message: &[u8]) -> Next {
        let mut plan = self.plan.lock().unwrap();
        if side == Side::Service && message == COMMIT {
            self.committing = true;
            if plan.hold.take_if(|hold| *hold == Hold::Commit).is_some() {
                plan.held += 1;
                return Next::Hold;
            }
        }
        if side == Side::Server && self.committing && message == COMMITTED {
            self.committing = false;
            if plan.hold.take_if(|hold| *hold == Hold::Answer).is_some() {
                plan.held += 1;
                return Next::Hold;
            }
        }
        self.messages += 1;
        if self.boundary == Some(self.messages) {
            self.boundary = None;
            plan.cuts += 1;
            plan.kinds.insert((side, message[0]));
            return Next::Cut;
        }
        Next::Go
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // The connection ended before its boundary: another connection takes it.
        if let Some(boundary) = self.boundary {
            self.plan.lock().unwrap().boundaries.push_front(boundary);
        }
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, plan: Arc<Mutex<Plan>>) {
    let boundary = plan.lock().unwrap().boundaries.pop_front();
    let mut turn = Turn { plan, boundary, messages: 0, committing: false };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut sent, mut answered) = (Buffer::new(Side::Service), Buffer::new(Side::Server));
    loop {
        let one = async {
            tokio::select! {
                read = sent.read(&mut client) => read.map(|()| Side::Service),
                read = answered.read(&mut server) => read.map(|()| Side::Server),
            }
        };
        let side = match timeout(IDLE, one).await {
            Ok(Ok(side)) => side,
            Ok(Err(_)) => return,
            Err(_) => {
                // An idle connection must not keep its boundary from others.
                if let Some(boundary) = turn.boundary.take() {
                    turn.plan.lock().unwrap().boundaries.push_front(boundary);
                }
                continue;
            }
        };
        let (buffer, to) = match side {
            Side::Service => (&mut sent, &mut server),
            Side::Server => (&mut answered, &mut client),
        };
        while let Some(message) = buffer.message() {
            if side == Side::Service && message.len() == 8 && message[4..] == SSL_REQUEST {
                answered.plain_answer = true;
                let whole = to.write_all(&message).await;
                if whole.is_err() {
                    return;
                }
                break;
            }
            let next = turn.next(side, &message);
            if matches!(next, Next::Hold) {
                // Wait until one side closes. Returning then closes the other side.
                let (mut rest, mut more) = ([0; 1], [0; 1]);
                tokio::select! {
                    _ = client.read(&mut rest) => {}
                    _ = server.read(&mut more) => {}
                }
                return;
            }
            if to.write_all(&message).await.is_err() || matches!(next, Next::Cut) {
                return;
            }
        }
    }
}

/// Bytes of one side until they form a message.
struct Buffer {
    side: Side,
    bytes: Vec<u8>,
    /// The first message of a service has no type.
    begun: bool,
    /// The server's next answer is one byte.
    plain_answer: bool,
}

impl Buffer {
    fn new(side: Side) -> Self {
        Self { side, bytes: Vec::new(), begun: side == Side::Server, plain_answer: false }
    }

    async fn read(&mut self, from: &mut TcpStream) -> io::Result<()> {
        match from.read_buf(&mut self.bytes).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn message(&mut self) -> Option<Vec<u8>> {
        if self.plain_answer {
            self.plain_answer = self.bytes.is_empty();
            return (!self.bytes.is_empty()).then(|| self.bytes.drain(..1).collect());
        }
        let kind = usize::from(self.begun);
        let length: [u8; 4] = self.bytes.get(kind..kind + 4)?.try_into().unwrap();
        let end = kind + usize::try_from(u32::from_be_bytes(length)).unwrap();
        if self.bytes.len() < end {
            return None;
        }
        let message: Vec<u8> = self.bytes.drain(..end).collect();
        if self.side == Side::Service && !self.begun {
            self.begun = message[4..8] != SSL_REQUEST;
        }
        Some(message)
    }
}

/// A simple query: its type, its length, the text and a zero.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";
/// The server's "command complete" for it.
const COMMITTED: &[u8] = b"C\0\0\0\x0bCOMMIT\0";
const SSL_REQUEST: [u8; 4] = [0x04, 0xd2, 0x16, 0x2f];
const IDLE: Duration = Duration::from_secs(2);
