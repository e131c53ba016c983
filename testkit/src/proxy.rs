//! Stands between a store and its server, and cuts the connection at the moment that matters.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What to do when the client sends COMMIT. Done once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The server never gets it.
    Before,
    /// The server gets it, the client never gets the answer. The server's end stays open until the server closes it or has
    /// answered.
    Answer,
    /// The server gets it, and the answer is held back for ever.
    Hold,
}

pub(crate) struct Proxy {
    pub(crate) port: u16,
    next: Arc<Mutex<Option<Cut>>>,
}

impl Proxy {
    /// In front of the server of this URL.
    pub(crate) async fn new(server_url: &str) -> Self {
        let (_, behind) = server_url.split_once('@').unwrap();
        let server = behind.split('/').next().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let next = Arc::new(Mutex::new(None));
        let cut = Arc::clone(&next);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(carry(client, server, Arc::clone(&cut)));
            }
        });
        Self { port, next }
    }

    /// Cuts the next COMMIT.
    pub(crate) fn cut(&self, how: Cut) {
        *self.next.lock().unwrap() = Some(how);
    }

    /// Whether it was cut.
    pub(crate) fn has_cut(&self) -> bool {
        self.next.lock().unwrap().is_none()
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, next: Arc<Mutex<Option<Cut>>>) {
    let (mut sent, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            got = client.read(&mut sent) => {
                let Ok(got @ 1..) = got else { return };
                let message = &sent[..got];
                let cut = if message.ends_with(COMMIT) { next.lock().unwrap().take() } else { None };
                match cut {
                    Some(Cut::Before) => return,
                    Some(Cut::Answer) => {
                        server.write_all(message).await.unwrap();
                        drop(client);
                        // Whatever it says, nobody hears it.
                        let _ = server.read(&mut answered).await;
                        return;
                    }
                    Some(Cut::Hold) => {
                        server.write_all(message).await.unwrap();
                        let _ = server.read(&mut answered).await;
                        // Until the client gives up.
                        let _ = client.read(&mut sent).await;
                        return;
                    }
                    None if server.write_all(message).await.is_err() => return,
                    None => {}
                }
            }
            got = server.read(&mut answered) => {
                let Ok(got @ 1..) = got else { return };
                if client.write_all(&answered[..got]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A simple query: its type, its length, the text and a zero.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";
