//! Listening sockets, and the file limit that bounds how many connections they can serve.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use super::error::StartError;

/// Opens a listener. Gives its address too, as the port may be chosen by the system.
pub(super) fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let open = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    open().map_err(|source| StartError::Listen { address, source })
}

/// Raises the file limit as far as permitted. The number of connections leaves room for other files.
pub(super) fn connections_from_file_limit() -> usize {
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
    let connections = usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(OTHER_FILES).max(64);
    tracing::info!(files, connections, "raised the file limit of this process as far as permitted");
    connections
}

/// The kernel's usual upper bound: a whole fleet may reconnect at once.
const BACKLOG: u32 = 4096;
/// Journal, database, admin connections, logs.
const OTHER_FILES: usize = 192;
