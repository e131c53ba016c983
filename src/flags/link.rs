//! A connection to Redis: opened within a time limit, every answer bounded, and given up after any error.

use std::fmt;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionInfo, IntoConnectionInfo, Pipeline, Value};

use super::reply::Malformed;

/// Where the streams are.
#[derive(Clone)]
pub struct RedisUrl {
    info: ConnectionInfo,
    shown: String,
}

/// A URL that is none of Redis. Repeats nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no URL such as redis://host:6379 or rediss://user:password@host:6379/0")]
pub struct InvalidRedisUrl;

impl RedisUrl {
    /// Reads `redis://…` or, for TLS, `rediss://…`.
    pub fn parse(text: &str) -> Result<Self, InvalidRedisUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidRedisUrl)?;
        // Without certificates nobody knows whom the password is told.
        if !matches!(scheme, "redis" | "rediss") || rest.ends_with("#insecure") {
            return Err(InvalidRedisUrl);
        }
        let info = text.into_connection_info().map_err(|_| InvalidRedisUrl)?;
        let shown = match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://_@{host}"),
            None => format!("{scheme}://{rest}"),
        };
        let shown = shown.split(['?', '#']).next().unwrap_or_default().to_owned();
        Ok(Self { info, shown })
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

/// What went wrong on a connection. After any of them it is dropped.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// The server, or the way there.
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
    /// An answer that cannot be understood.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl LinkError {
    /// The server's error code, such as `NOGROUP`. Nobody looks at the text.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Redis(error) => error.code(),
            Self::Malformed(_) => None,
        }
    }
}

/// One connection, with one user.
pub(super) struct Link(MultiplexedConnection);

impl Link {
    /// `patience` has to be longer than the server may take for any answer, the time of a BLOCK included: whoever gives up
    /// earlier loses an answer that the server has sent.
    pub(super) async fn open(url: &RedisUrl, patience: Duration) -> Result<Self, LinkError> {
        let client = Client::open(url.info.clone())?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_PATIENCE))
            .set_response_timeout(Some(patience));
        Ok(Self(client.get_multiplexed_async_connection_with_config(&config).await?))
    }

    pub(super) async fn ask(&mut self, command: &Cmd) -> Result<Value, LinkError> {
        Ok(self.0.send_packed_command(command).await?.extract_error()?)
    }

    /// Several commands in one go; as a transaction if the pipeline says so. An error of one of them is the error.
    pub(super) async fn together(&mut self, commands: &Pipeline) -> Result<(), LinkError> {
        Ok(commands.exec_async(&mut self.0).await?)
    }
}

const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

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
        for wrong in ["", "localhost:6379", "http://h", "redis+unix:///tmp/s", "rediss://h/#insecure", "redis://h/x"] {
            assert!(RedisUrl::parse(wrong).is_err(), "{wrong}");
        }
    }
}
