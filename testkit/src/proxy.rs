//! A proxy between the service and a server that cuts a connection at the message that matters.

use std::fmt;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What happens at a message of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The server never gets the message.
    Request,
    /// The server gets the message; the client never gets the answer. The connection to the server stays open until the
    /// server has answered or closed it.
    Answer,
    /// The server gets the message; the client gets half of the answer.
    HalfAnswer,
    /// The server gets the message; the answer is held back until the client gives up.
    Hold,
}

/// Forwards bytes both ways, and cuts once for each requested cut.
#[derive(Debug)]
pub struct CuttingProxy {
    /// Where it listens, on loopback.
    pub port: u16,
    next: Arc<Mutex<Option<Plan>>>,
}

struct Plan {
    cut: Cut,
    matches: Box<Predicate>,
}

type Predicate = dyn Fn(&[u8]) -> bool + Send;

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cut.fmt(f)
    }
}

impl CuttingProxy {
    /// A proxy in front of a server, `host:port`.
    pub async fn new(server: &str) -> Self {
        let server = server.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let next = Arc::new(Mutex::new(None));
        let shared = Arc::clone(&next);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // If the server is down, the client sees its connection end.
                if let Ok(server) = TcpStream::connect(&server).await {
                    tokio::spawn(carry(client, server, Arc::clone(&shared)));
                }
            }
        });
        Self { port, next }
    }

    /// A proxy in front of the PostgreSQL of a URL.
    pub async fn of_database(url: &str) -> Self {
        let (_, rest) = url.split_once('@').unwrap();
        Self::new(rest.split('/').next().unwrap()).await
    }

    /// A proxy in front of the Redis of a URL.
    pub async fn of_redis(url: &str) -> Self {
        Self::new(url.strip_prefix("redis://").unwrap()).await
    }

    /// The URL of a Redis behind this proxy.
    #[must_use]
    pub fn redis_url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Cuts at the next message of a client that matches.
    pub fn cut(&self, cut: Cut, matches: impl Fn(&[u8]) -> bool + Send + 'static) {
        *self.next.lock().unwrap() = Some(Plan { cut, matches: Box::new(matches) });
    }

    /// Cuts at the next COMMIT of a PostgreSQL session.
    pub fn cut_commit(&self, cut: Cut) {
        self.cut(cut, |message| message.ends_with(COMMIT));
    }

    /// Cuts at the next message that contains these words.
    pub fn cut_words(&self, cut: Cut, words: &str) {
        let words = words.as_bytes().to_vec();
        self.cut(cut, move |message| message.windows(words.len()).any(|window| window == words));
    }

    /// Whether the cut was made.
    #[must_use]
    pub fn has_cut(&self) -> bool {
        self.next.lock().unwrap().is_none()
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, next: Arc<Mutex<Option<Plan>>>) {
    let (mut sent, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut halve = false;
    loop {
        tokio::select! {
            read = client.read(&mut sent) => {
                let Ok(read @ 1..) = read else { return };
                let message = &sent[..read];
                let plan = next.lock().unwrap().take_if(|plan| (plan.matches)(message));
                let cut = plan.map(|plan| plan.cut);
                if cut == Some(Cut::Request) || server.write_all(message).await.is_err() {
                    return;
                }
                match cut {
                    Some(Cut::Answer) => {
                        drop(client);
                        let _ = server.read(&mut answered).await;
                        return;
                    }
                    Some(Cut::Hold) => {
                        let _ = server.read(&mut answered).await;
                        let _ = client.read(&mut sent).await;
                        return;
                    }
                    Some(Cut::HalfAnswer) => halve = true,
                    Some(Cut::Request) | None => {}
                }
            }
            read = server.read(&mut answered) => {
                let Ok(read @ 1..) = read else { return };
                let end = if halve { read / 2 } else { read };
                if client.write_all(&answered[..end]).await.is_err() || halve {
                    return;
                }
            }
        }
    }
}

/// A simple query: its type, its length, the text and a zero.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";
