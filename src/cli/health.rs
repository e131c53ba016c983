//! `odograph health`: asks a running service whether it is ready. For containers that have no HTTP client.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use super::error::CommandError;
use super::setup::{lookup, runtime, settings};
use crate::admin_client::AdminClient;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Page to request, such as <http://127.0.0.1:9464/readyz>. Default: /readyz of the service that the settings describe
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Request /livez (the process makes progress) instead of /readyz
    #[arg(long, conflicts_with = "url")]
    live: bool,
    /// TOML file with settings; the environment overrides it. Also `ODOGRAPH_CONFIG`
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    config: Option<PathBuf>,
    /// Longest wait for the whole answer
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let (client, path) = if let Some(url) = &arguments.url {
        let (address, host, path) = parse_url(url)?;
        (AdminClient::new(address).with_host(host), path)
    } else {
        let listen = settings(&lookup(arguments.config.as_ref()))?.admin_listen;
        (AdminClient::new(listen), if arguments.live { "/livez" } else { "/readyz" })
    };
    let client = client.with_timeout(arguments.timeout);
    let host = client.host();
    let answer = runtime()?.block_on(client.get(path)).map_err(|e| CommandError::Failed(format!("{host}: {e}")))?;
    let (status, body) = (answer.status, answer.body.trim_end());
    if status == 200 {
        println!("{body}");
        Ok(())
    } else {
        Err(CommandError::Failed(format!("{host}{path} answers {status}: {body}")))
    }
}

/// Address, `Host` header and path of a URL.
fn parse_url(url: &str) -> Result<(SocketAddr, &str, &str), CommandError> {
    let usage = |problem: &str| CommandError::Usage(format!("odograph: --url {url}: {problem}"));
    let rest =
        url.strip_prefix("http://").ok_or_else(|| usage("expected a URL such as http://127.0.0.1:9464/readyz"))?;
    let (host, path) = rest.find('/').map_or((rest, "/readyz"), |at| rest.split_at(at));
    // A space or a line break would change the request.
    if url.bytes().any(|byte| byte <= b' ' || byte == 0x7F) {
        return Err(usage("contains a space or a control character"));
    }
    let with_port = |host: &str| if has_port(host) { host.to_owned() } else { format!("{host}:80") };
    // A name that does not resolve is not wrong usage: the network may be down.
    let mut addresses = with_port(host).to_socket_addrs().map_err(|e| CommandError::Failed(format!("{host}: {e}")))?;
    let address = addresses.next().ok_or_else(|| CommandError::Failed(format!("{host}: no address")))?;
    Ok((address, host, path))
}

fn has_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) && !host.ends_with(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_host_port_and_page() {
        let parse = |url| parse_url(url).map(|(address, host, path)| (address.to_string(), host, path));
        let is = |address: &str, host, path| (address.to_owned(), host, path);
        assert_eq!(parse("http://127.0.0.1:9/livez").unwrap(), is("127.0.0.1:9", "127.0.0.1:9", "/livez"));
        assert_eq!(parse("http://127.0.0.1").unwrap(), is("127.0.0.1:80", "127.0.0.1", "/readyz"));
        assert_eq!(parse("http://[::1]/x").unwrap(), is("[::1]:80", "[::1]", "/x"));
        for url in ["https://127.0.0.1/", "127.0.0.1:9", "http://127.0.0.1:9/a b", "http://127.0.0.1:9/a\r\nX: y"] {
            assert!(matches!(parse(url), Err(CommandError::Usage(_))), "{url}");
        }
    }
}
