//! Stands between the flags' tasks and Redis, and cuts a connection at the moment that matters.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

pub(crate) struct Cutter {
    pub(crate) port: u16,
    next: Arc<Mutex<Option<Cut>>>,
}

#[derive(Clone, Debug)]
enum Cut {
    /// When a client sends this; the server never gets it.
    Command(Vec<u8>),
    /// The server gets what holds this, and the client half of the answer.
    Answer(Vec<u8>),
}

impl Cutter {
    pub(crate) async fn new(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let next = Arc::new(Mutex::new(None));
        let cut = Arc::clone(&next);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A Redis that is away is a connection that ends.
                if let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await {
                    tokio::spawn(carry(client, server, Arc::clone(&cut)));
                }
            }
        });
        Self { port, next }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Cuts the next time that a client sends a command with these words in it; the server never gets it.
    pub(crate) fn cut_command(&self, words: &str) {
        *self.next.lock().unwrap() = Some(Cut::Command(words.as_bytes().to_vec()));
    }

    /// The next answer to a command with these words is cut in its middle.
    pub(crate) fn cut_answer(&self, words: &str) {
        *self.next.lock().unwrap() = Some(Cut::Answer(words.as_bytes().to_vec()));
    }

    pub(crate) fn has_cut(&self) -> bool {
        self.next.lock().unwrap().is_none()
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, next: Arc<Mutex<Option<Cut>>>) {
    let (mut sent, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut halve = false;
    loop {
        tokio::select! {
            got = client.read(&mut sent) => {
                let Ok(got @ 1..) = got else { return };
                let message = &sent[..got];
                {
                    let mut next = next.lock().unwrap();
                    match next.clone() {
                        Some(Cut::Command(words)) if holds(message, &words) => {
                            *next = None;
                            return;
                        }
                        Some(Cut::Answer(words)) if holds(message, &words) => {
                            *next = None;
                            halve = true;
                        }
                        _ => {}
                    }
                }
                if server.write_all(message).await.is_err() {
                    return;
                }
            }
            got = server.read(&mut answered) => {
                let Ok(got @ 1..) = got else { return };
                let end = if halve { got / 2 } else { got };
                if client.write_all(&answered[..end]).await.is_err() || halve {
                    return;
                }
            }
        }
    }
}

fn holds(message: &[u8], words: &[u8]) -> bool {
    message.windows(words.len()).any(|window| window == words)
}
