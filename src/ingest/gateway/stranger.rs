//! What a peer is that does not speak the protocol: a wrong port or a balancer's setting shows in one log line.

/// Names the protocol that the first bytes of a peer look like, if it is a known one.
pub(super) fn looks_like(bytes: &[u8]) -> Option<&'static str> {
    KNOWN.iter().find(|(begin, _)| bytes.starts_with(begin)).map(|(_, name)| *name)
}

const KNOWN: [(&[u8], &str); 9] = [
    (b"GET ", "HTTP"),
    (b"POST ", "HTTP"),
    (b"HEAD ", "HTTP"),
    (b"PUT ", "HTTP"),
    (b"OPTIONS ", "HTTP"),
    (b"\x16\x03", "TLS"),
    (b"PROXY ", "PROXY protocol"),
    (b"\r\n\r\n\0\r\nQUIT\n", "PROXY protocol"),
    (b"SSH-", "SSH"),
];

#[cfg(test)]
mod tests {
    use super::looks_like;

    #[test]
    fn protocols_that_come_to_a_wrong_port_are_named() {
        for (bytes, name) in [
            (&b"GET / HTTP/1.1\r\n"[..], Some("HTTP")),
            (b"\x16\x03\x01\x02\0", Some("TLS")),
            (b"PROXY TCP4 1.2.3.4", Some("PROXY protocol")),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11", Some("PROXY protocol")),
            (b"\0\x0f3563", None),
            (b"", None),
        ] {
            assert_eq!(looks_like(bytes), name);
        }
    }
}
