//! A client of the admin listener: one request, one answer, with a bound on its size and on the wait for it.
//!
//! The commands `health` and `check` use it, and so do the tests and benchmarks.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Where to ask, and how long to wait.
#[derive(Clone, Debug)]
pub struct AdminClient {
    address: SocketAddr,
    host: String,
    timeout: Duration,
}

/// An answer, whatever its status: the body of an unready `/readyz` says why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminAnswer {
    /// HTTP status.
    pub status: u16,
    /// The page. Bytes that are not UTF-8 are replaced.
    pub body: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No connection. [`io::ErrorKind::ConnectionRefused`] means that nothing listens there.
    #[error(transparent)]
    Connect(io::Error),
    /// The path cannot be part of a request.
    #[error("no valid path: {0}")]
    Path(hyper::http::Error),
    /// The peer closed early or does not speak HTTP.
    #[error("no HTTP answer: {0}")]
    Http(hyper::Error),
    /// The answer exceeds [`MAX_ANSWER_BYTES`].
    #[error("the answer exceeds {MAX_ANSWER_BYTES} bytes")]
    TooLarge,
    /// The whole answer did not arrive in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

impl AdminClient {
    /// A client of the listener at `address`. A listener on every address is asked on loopback.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        let address = reachable(address);
        Self { address, host: address.to_string(), timeout: DEFAULT_TIMEOUT }
    }

    /// Sends another `Host` header than the address.
    #[must_use]
    pub fn with_host(self, host: impl Into<String>) -> Self {
        Self { host: host.into(), ..self }
    }

    /// Bounds the wait for the whole answer, connecting included. Without this call it is four seconds.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The `Host` header.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Requests a page and reads the whole answer.
    ///
    /// # Errors
    /// When there is no complete answer in time. A status other than 200 is an answer.
    pub async fn get(&self, path: &str) -> Result<AdminAnswer, AdminError> {
        let exchange = tokio::time::timeout(self.timeout, self.exchange(path));
        exchange.await.unwrap_or(Err(AdminError::Timeout(self.timeout)))
    }

    async fn exchange(&self, path: &str) -> Result<AdminAnswer, AdminError> {
        let request = Request::get(path).header(HOST, &self.host).header(CONNECTION, "close");
        let request = request.body(Empty::<Bytes>::new()).map_err(AdminError::Path)?;
        let stream = TcpStream::connect(self.address).await.map_err(AdminError::Connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(AdminError::Http)?;
        let answer = async { read(sender.send_request(request).await.map_err(AdminError::Http)?).await };
        tokio::pin!(answer);
        // The connection does the work; the answer is complete when its body is, or when the connection fails.
        tokio::select! {
            answer = &mut answer => answer,
            _ = connection => answer.await,
        }
    }
}

async fn read(response: Response<Incoming>) -> Result<AdminAnswer, AdminError> {
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await.map_err(|e| match e
        .downcast::<hyper::Error>()
    {
        Ok(e) => AdminError::Http(*e),
        Err(e) => {
            debug_assert!(e.is::<LengthLimitError>(), "{e}");
            AdminError::TooLarge
        }
    })?;
    Ok(AdminAnswer { status, body: String::from_utf8_lossy(&body.to_bytes()).into_owned() })
}

fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    (ip, listen.port()).into()
}

/// `/metrics`, the longest page, has some hundred lines.
pub const MAX_ANSWER_BYTES: usize = 1 << 20;
/// A healthy listener answers in milliseconds, also when the data path is stuck.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request with these bytes, then closes or hangs.
    async fn peer(answer: Vec<u8>, hangs: bool) -> AdminClient {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = AdminClient::new(listener.local_addr().unwrap()).with_timeout(Duration::from_millis(300));
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET /readyz HTTP/1.1\r\n"));
            // A client that has read enough hangs up.
            let _ = stream.write_all(&answer).await;
            if hangs {
                std::future::pending::<()>().await;
            }
        });
        client
    }

    #[tokio::test]
    async fn an_answer_arrives_whole_whatever_its_form() {
        for answer in [
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 503 Service Unavailable\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
            "HTTP/1.0 503 Service Unavailable\r\n\r\nhello",
        ] {
            let client = peer(answer.into(), false).await;
            assert_eq!(client.get("/readyz").await.unwrap(), AdminAnswer { status: 503, body: "hello".into() });
        }
    }

    #[tokio::test]
    async fn a_peer_that_is_silent_endless_or_no_service_is_an_error() {
        let error = async |answer: Vec<u8>, hangs| peer(answer, hangs).await.get("/readyz").await.unwrap_err();
        assert!(matches!(error(vec![], true).await, AdminError::Timeout(_)));
        assert!(matches!(error(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec(), false).await, AdminError::Http(_)));
        assert!(matches!(error(vec![], false).await, AdminError::Http(_)));
        let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel";
        assert!(matches!(error(cut.to_vec(), false).await, AdminError::Http(_)));
        let mut endless = b"HTTP/1.0 200 OK\r\n\r\n".to_vec();
        endless.resize(MAX_ANSWER_BYTES + 100, b'x');
        assert!(matches!(error(endless, true).await, AdminError::TooLarge));
    }

    #[tokio::test]
    async fn where_nothing_listens_the_error_says_so() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = AdminClient::new(listener.local_addr().unwrap());
        drop(listener);
        let error = client.get("/readyz").await.unwrap_err();
        assert!(matches!(error, AdminError::Connect(e) if e.kind() == io::ErrorKind::ConnectionRefused));
        assert!(matches!(client.get("/a b").await, Err(AdminError::Path(_))));
    }

    #[test]
    fn a_listener_on_every_address_is_asked_on_loopback() {
        for (listen, asked) in
            [("0.0.0.0:9464", "127.0.0.1:9464"), ("[::]:1", "[::1]:1"), ("192.0.2.7:80", "192.0.2.7:80")]
        {
            assert_eq!(AdminClient::new(listen.parse().unwrap()).address, asked.parse().unwrap());
        }
    }
}
