//! `odograph health`: asks a running service whether it is well, for containers that have no other program to ask with.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use super::{Failure, lookup, settings};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Page to ask, such as <http://127.0.0.1:9464/readyz>; by default /readyz of the service that the settings describe
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Ask /livez, whether the process can make progress, instead of /readyz
    #[arg(long, conflicts_with = "url")]
    live: bool,
    /// TOML file with settings; the environment overrides it. Also `ODOGRAPH_CONFIG`
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    config: Option<PathBuf>,
    /// Longest wait for each part of the answer
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (address, host, path) = if let Some(url) = &arguments.url {
        named(url)?
    } else {
        let address = reachable(settings(&lookup(arguments.config.as_ref()))?.admin_listen);
        (address, address.to_string(), if arguments.live { "/livez" } else { "/readyz" })
    };
    let (status, body) =
        ask(address, &host, path, arguments.timeout).map_err(|wrong| Failure::Failed(format!("{host}: {wrong}")))?;
    if status == 200 {
        println!("{}", body.trim_end());
        Ok(())
    } else {
        Err(Failure::Failed(format!("{host}{path} answers {status}: {}", body.trim_end())))
    }
}

/// A service that listens on every address is asked on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    (ip, listen.port()).into()
}

fn named(url: &str) -> Result<(SocketAddr, String, &str), Failure> {
    let wrong = |what: String| Failure::Usage(format!("odograph: --url {url}: {what}"));
    let rest =
        url.strip_prefix("http://").ok_or_else(|| wrong("begins with http://, the only scheme there is".into()))?;
    let (host, path) = rest.find('/').map_or((rest, "/readyz"), |at| rest.split_at(at));
    // A request is text, and this one has to stay one request.
    if url.bytes().any(|byte| byte <= b' ' || byte == 0x7F) {
        return Err(wrong("holds a space or a control character".into()));
    }
    let with_port = |host: &str| if has_port(host) { host.to_owned() } else { format!("{host}:80") };
    // A name that does not resolve is no wrong usage: the network may be what is ill.
    let mut addresses =
        with_port(host).to_socket_addrs().map_err(|wrong| Failure::Failed(format!("{host}: {wrong}")))?;
    let address = addresses.next().ok_or_else(|| Failure::Failed(format!("{host}: no address")))?;
    Ok((address, host.to_owned(), path))
}

fn has_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) && !host.ends_with(']')
}

/// Status and body.
fn ask(address: SocketAddr, host: &str, path: &str, patience: Duration) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MOST_BYTES).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let no_http = || std::io::Error::new(std::io::ErrorKind::InvalidData, "no HTTP answer");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(no_http)?;
    let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
    Ok((status.ok_or_else(no_http)?, body.to_owned()))
}

/// The pages are a line long.
const MOST_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_listens_everywhere_is_asked_on_loopback() {
        for (listen, asked) in
            [("0.0.0.0:9464", "127.0.0.1:9464"), ("[::]:1", "[::1]:1"), ("192.0.2.7:80", "192.0.2.7:80")]
        {
            assert_eq!(reachable(listen.parse().unwrap()), asked.parse().unwrap());
        }
    }

    #[test]
    fn a_url_names_host_port_and_page() {
        let named = |url| named(url).map(|(address, host, path)| (address.to_string(), host, path.to_owned()));
        let is = |address: &str, host: &str, path: &str| (address.to_owned(), host.to_owned(), path.to_owned());
        assert_eq!(named("http://127.0.0.1:9/livez").unwrap(), is("127.0.0.1:9", "127.0.0.1:9", "/livez"));
        assert_eq!(named("http://127.0.0.1").unwrap(), is("127.0.0.1:80", "127.0.0.1", "/readyz"));
        assert_eq!(named("http://[::1]/x").unwrap(), is("[::1]:80", "[::1]", "/x"));
        for wrong in ["https://127.0.0.1/", "127.0.0.1:9", "http://127.0.0.1:9/a b", "http://127.0.0.1:9/a\r\nX: y"] {
            assert!(matches!(named(wrong), Err(Failure::Usage(_))), "{wrong}");
        }
    }
}
