//! A connection to Redis. Opening and every answer have a time limit; after any error the connection is dropped.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Pipeline, TlsCertificates,
    Value,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::reply::Malformed;

/// The URL of the Redis server that holds the streams. It never shows its password.
#[derive(Clone)]
pub struct RedisUrl {
    info: ConnectionInfo,
    shown: String,
    authority: Option<RedisAuthority>,
}

/// Not a Redis URL. The error repeats none of it, because it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a URL such as redis://host:6379 or rediss://user:password@host:6379/0")]
pub struct InvalidRedisUrl;

impl RedisUrl {
    /// Parses `redis://…` or, for TLS, `rediss://…`.
    pub fn parse(text: &str) -> Result<Self, InvalidRedisUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidRedisUrl)?;
        // Without certificate checks, anyone could receive the password.
        if !matches!(scheme, "redis" | "rediss") || rest.ends_with("#insecure") {
            return Err(InvalidRedisUrl);
        }
        let info = text.into_connection_info().map_err(|_| InvalidRedisUrl)?;
        let shown = match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://_@{host}"),
            None => format!("{scheme}://{rest}"),
        };
        let shown = shown.split(['?', '#']).next().unwrap_or_default().to_owned();
        Ok(Self { info, shown, authority: None })
    }

    /// Accepts only servers whose certificate this authority signed, instead of those of the system. No effect without TLS.
    #[must_use]
    pub fn trusting(self, authority: RedisAuthority) -> Self {
        Self { authority: Some(authority), ..self }
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Certificates of authorities, as PEM.
#[derive(Clone)]
pub struct RedisAuthority(Arc<[u8]>);

impl RedisAuthority {
    /// Reads a file.
    ///
    /// # Errors
    /// In words: it cannot be read, or holds no certificate.
    pub fn read(file: &Path) -> Result<Self, String> {
        let pem = std::fs::read(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
        let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
        match found {
            Ok(found) if !found.is_empty() => Ok(Self(pem.into())),
            Ok(_) => Err(format!("{} holds no certificate in PEM format", file.display())),
            Err(error) => Err(format!("{} holds no certificates: {error}", file.display())),
        }
    }
}

/// An error on a connection, which is dropped then.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// The server or the network failed.
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
    /// An answer that cannot be understood.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl LinkError {
    /// The server's error code if it answers and the operator must act; `None` if it will pass by itself.
    pub(super) fn refusal(&self) -> Option<&str> {
        self.code().filter(|code| !PASSING.contains(code))
    }

    /// The server's error code, such as `NOGROUP`. No caller matches on the text.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Redis(error) => error.code(),
            Self::Malformed(_) => None,
        }
    }
}

/// One connection with one owner.
pub(super) struct Link(MultiplexedConnection);

impl Link {
    /// Opens a connection. `answer_timeout` must exceed the longest time that the server may take, BLOCK included: giving up
    /// earlier loses an answer that the server has sent.
    pub(super) async fn open(url: &RedisUrl, answer_timeout: Duration) -> Result<Self, LinkError> {
        let client = match &url.authority {
            Some(RedisAuthority(pem)) if matches!(url.info.addr(), ConnectionAddr::TcpTls { .. }) => {
                let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem.to_vec()) };
                Client::build_with_tls(url.info.clone(), certificates)?
            }
            _ => Client::open(url.info.clone())?,
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(answer_timeout));
        Ok(Self(client.get_multiplexed_async_connection_with_config(&config).await?))
    }

    /// Sends one command and returns its answer.
    pub(super) async fn query(&mut self, command: &Cmd) -> Result<Value, LinkError> {
        Ok(self.0.send_packed_command(command).await?.extract_error()?)
    }

    /// Sends several commands at once, as a transaction if the pipeline is atomic. Fails if one of them fails.
    pub(super) async fn query_all(&mut self, commands: &Pipeline) -> Result<(), LinkError> {
        Ok(commands.exec_async(&mut self.0).await?)
    }
}

/// Codes of a server that starts, fails over or is busy.
const PASSING: [&str; 6] = ["LOADING", "BUSY", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "NOGROUP"];
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_shows_the_password() {
        for (url, shown) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("rediss://marshal:s3cret@redis.example:6380/2", "rediss://_@redis.example:6380/2"),
            ("redis://:s3%40cret@host/0?protocol=resp3", "redis://_@host/0"),
        ] {
            let url = RedisUrl::parse(url).unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
        }
        for text in ["", "localhost:6379", "http://h", "redis+unix:///tmp/s", "rediss://h/#insecure", "redis://h/x"] {
            assert!(RedisUrl::parse(text).is_err(), "{text}");
        }
    }
}
