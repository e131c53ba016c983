//! `odograph decode`: one hex item an argument or a line, one JSON object each. A refused item does not stop it.

use std::io::{self, BufRead as _, Write as _};

use teltonika_codecs::{Datagram, Frame, Imei, LOGIN_LEN, Rejection, RejectionReason};

use super::error::CommandError;
use super::json::{DecodedItem, Refusal};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Items as hex. Without any, reads one item a line from standard input
    #[arg(value_name = "HEX")]
    items: Vec<String>,
    /// Items are UDP datagrams
    #[arg(long)]
    udp: bool,
    /// Also list each record's elements by name, with unit and scaled value
    #[arg(long)]
    named: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let Arguments { items, udp, named } = arguments;
    let mut decoder = Decoder { udp: *udp, named: *named, refused: false, bytes: Vec::new(), line: Vec::new() };
    match decoder.decode_all(items) {
        // The reader of our output has enough: that is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(CommandError::from_error(&error)),
        Ok(()) if decoder.refused => Err(CommandError::Reported),
        Ok(()) => Ok(()),
    }
}

/// The buffers are reused, so that they are allocated once.
struct Decoder {
    udp: bool,
    named: bool,
    refused: bool,
    bytes: Vec<u8>,
    line: Vec<u8>,
}

impl Decoder {
    fn decode_all(&mut self, items: &[String]) -> io::Result<()> {
        let mut out = io::BufWriter::with_capacity(64 * 1024, io::stdout().lock());
        for item in items {
            self.decode(item.as_bytes());
            out.write_all(&self.line)?;
        }
        if items.is_empty() {
            let (mut input, mut item) = (io::BufReader::with_capacity(64 * 1024, io::stdin().lock()), Vec::new());
            while input.read_until(b'\n', &mut item)? > 0 {
                self.decode(&item);
                out.write_all(&self.line)?;
                item.clear();
                // A writer that sends one item and waits for its object gets it.
                if input.buffer().is_empty() {
                    out.flush()?;
                }
            }
        }
        out.flush()
    }

    /// Decodes one item into one line.
    fn decode(&mut self, text: &[u8]) {
        let item = match unhex(text.trim_ascii(), &mut self.bytes) {
            Err(at) => Err(Refusal::not_hex(at)),
            Ok(()) if self.udp => Datagram::open(&self.bytes).map(DecodedItem::Datagram).map_err(Refusal::from),
            Ok(()) => tcp_item(&self.bytes).map_err(Refusal::from),
        };
        self.refused |= item.is_err();
        let item = item.unwrap_or_else(DecodedItem::Error);
        let item = if self.named { item.with_names() } else { item };
        self.line.clear();
        item.write(&mut self.line);
        self.line.push(b'\n');
    }
}

/// Decodes an item of a TCP connection: a ping, a login or a frame. The order of the checks is part of the contract.
fn tcp_item(bytes: &[u8]) -> Result<DecodedItem<'_>, Rejection> {
    Ok(match bytes {
        [0xFF] => DecodedItem::Ping,
        [0x00, 0x0F, digits @ ..] => DecodedItem::Login { imei: login(digits)? },
        _ => match Frame::open(bytes)? {
            Frame::Avl(avl) => DecodedItem::Avl(avl),
            Frame::Message(message) => DecodedItem::Message(message),
            Frame::EmptyMessage(_) => DecodedItem::Ping,
        },
    })
}

fn login(digits: &[u8]) -> Result<Imei, Rejection> {
    let refuse = |reason, offset, detail| Rejection { reason, offset, detail };
    if let Some(at) = digits.iter().take(Imei::LEN).position(|byte| !byte.is_ascii_digit()) {
        return Err(refuse(RejectionReason::BadImei, 2 + at, "digit of an IMEI"));
    }
    let Some((imei, rest)) = digits.split_at_checked(Imei::LEN) else {
        return Err(refuse(RejectionReason::Truncated, 2 + digits.len(), "15 digits of an IMEI"));
    };
    if !rest.is_empty() {
        return Err(refuse(RejectionReason::BadStructure, LOGIN_LEN, "bytes behind the login"));
    }
    Imei::from_ascii(imei).map_err(|e| refuse(RejectionReason::BadImei, 2 + e.at, "digit of an IMEI"))
}

/// Converts hex of either case to bytes, or returns the index of the first character that is not a hex digit. Between bytes
/// there may be what other programs print: spaces, commas, colons, dashes, and `0x` before a byte.
fn unhex(text: &[u8], bytes: &mut Vec<u8>) -> Result<(), usize> {
    let digit = |at: usize| match text.get(at) {
        Some(c @ b'0'..=b'9') => Ok(c - b'0'),
        Some(c @ b'a'..=b'f') => Ok(c - b'a' + 10),
        Some(c @ b'A'..=b'F') => Ok(c - b'A' + 10),
        _ => Err(at),
    };
    bytes.clear();
    let mut at = 0;
    while at < text.len() {
        if matches!(text[at], b' ' | b'\t' | b',' | b':' | b'-') {
            at += 1;
        } else if matches!(text[at..], [b'0', b'x' | b'X', next, ..] if next.is_ascii_hexdigit()) {
            at += 2;
        } else {
            bytes.push(digit(at)? << 4 | digit(at + 1)?);
            at += 2;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::unhex;

    #[test]
    fn hex_may_be_written_as_other_programs_print_it() {
        let mut bytes = Vec::new();
        for text in ["00ff1a", "00 FF 1a", "00:ff:1a", "0x00ff1a", "0x00, 0xff, 0x1A", "00-FF-1A", " 00ff  1a "] {
            assert_eq!(unhex(text.as_bytes(), &mut bytes), Ok(()), "{text}");
            assert_eq!(bytes, [0, 0xFF, 0x1A], "{text}");
        }
        for (text, at) in [("0 0ff", 1), ("00f", 3), ("00zz", 2), ("000x", 3), ("0x", 1), ("00;ff", 2)] {
            assert_eq!(unhex(text.as_bytes(), &mut bytes), Err(at), "{text}");
        }
    }
}
