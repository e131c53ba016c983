//! A tracker's connection: connect, log in, send a frame, wait for its answer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use teltonika_codecs::{Imei, encode, reply};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

/// A connection that is logged in.
pub(super) struct TrackerConnection {
    stream: TcpStream,
    /// Ends a wait that takes too long. It is set again only when it fires: setting a timer for each answer would cost more
    /// than making the packet.
    watchdog: Pin<Box<Sleep>>,
}

impl TrackerConnection {
    /// Connects and logs in.
    pub(super) async fn open(target: SocketAddr, source: Option<Ipv4Addr>, imei: Imei) -> io::Result<Self> {
        let stream = timeout(ANSWER_TIMEOUT, connect(target, source)).await??;
        stream.set_nodelay(true)?;
        let mut connection = Self { stream, watchdog: Box::pin(sleep(ANSWER_TIMEOUT)) };
        connection.stream.write_all(&encode::login(imei)).await?;
        let (answer, _) = connection.answer::<1>(Instant::now()).await?;
        if answer == reply::LOGIN_ACCEPTED { Ok(connection) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }

    /// Sends a frame and waits for its acknowledgement. Returns how long that took.
    ///
    /// # Errors
    /// Also if the acknowledgement has another count than the frame: a tracker would send the records again (section 1.4).
    pub(super) async fn deliver(&mut self, frame: &[u8], records: u8) -> io::Result<Duration> {
        let sent = Instant::now();
        self.stream.write_all(frame).await?;
        let (answer, took) = self.answer::<4>(sent).await?;
        if answer == reply::tcp_ack(records) { Ok(took) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    async fn answer<const N: usize>(&mut self, asked: Instant) -> io::Result<([u8; N], Duration)> {
        // Larger than any answer: a read that does not fill it shows that nothing is left, which saves another read.
        let (mut buffer, mut filled) = ([0; 16], 0);
        while filled < N {
            tokio::select! {
                biased;
                read = self.stream.read(&mut buffer[filled..]) => match read? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => filled += count,
                },
                () = self.watchdog.as_mut() => {
                    let limit = asked + ANSWER_TIMEOUT;
                    if Instant::now() >= limit {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    self.watchdog.set(sleep_until(limit));
                }
            }
        }
        let answer = buffer[..filled].try_into().map_err(|_| io::ErrorKind::InvalidData)?;
        Ok((answer, asked.elapsed()))
    }
}

async fn connect(target: SocketAddr, source: Option<Ipv4Addr>) -> io::Result<TcpStream> {
    let Some(source) = source else { return TcpStream::connect(target).await };
    let socket = TcpSocket::new_v4()?;
    socket.bind((IpAddr::V4(source), 0).into())?;
    socket.connect(target).await
}

/// The vendor's newer default of the response timeout.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
