//! `odograph decode`: one hex item an argument or a line, one JSON object each; never stops at a bad one.

use std::io::{self, BufRead as _, Write as _};

use teltonika_codecs::{Datagram, Frame, Imei, LOGIN_LEN, Rejection, RejectionReason};

use super::error::CommandError;
use super::json::{Line, Refusal};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Items as hex; without any, one a line of standard input
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
    let mut decoder = Decoder { udp: arguments.udp, refused: false, bytes: Vec::new(), line: Line::default() };
    decoder.line.named = arguments.named;
    match decoder.all(&arguments.items) {
        // Whoever reads our output has enough: that is no failure.
        Err(wrong) if wrong.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(wrong) => Err(CommandError::from_error(&wrong)),
        Ok(()) if decoder.refused => Err(CommandError::Reported),
        Ok(()) => Ok(()),
    }
}

struct Decoder {
    udp: bool,
    refused: bool,
    bytes: Vec<u8>,
    line: Line,
}

impl Decoder {
    fn all(&mut self, items: &[String]) -> io::Result<()> {
        let mut out = io::BufWriter::with_capacity(64 * 1024, io::stdout().lock());
        for item in items {
            self.item(item.as_bytes());
            out.write_all(self.line.as_bytes())?;
        }
        if items.is_empty() {
            let (mut input, mut item) = (io::BufReader::with_capacity(64 * 1024, io::stdin().lock()), Vec::new());
            while input.read_until(b'\n', &mut item)? > 0 {
                self.item(&item);
                out.write_all(self.line.as_bytes())?;
                item.clear();
                // Whoever sends one item and waits for its object gets it.
                if input.buffer().is_empty() {
                    out.flush()?;
                }
            }
        }
        out.flush()
    }

    /// Decodes one item into one line.
    fn item(&mut self, text: &[u8]) {
        self.line.clear();
        let outcome = match unhex(text.trim_ascii(), &mut self.bytes) {
            Err(at) => Err(Refusal::not_hex(at)),
            Ok(()) if self.udp => {
                Datagram::open(&self.bytes).map(|datagram| self.line.datagram(&datagram)).map_err(Refusal::from)
            }
            Ok(()) => tcp_item(&self.bytes, &mut self.line).map_err(Refusal::from),
        };
        if let Err(refusal) = outcome {
            self.refused = true;
            self.line.clear();
            self.line.error(&refusal);
        }
        self.line.end();
    }
}

/// What stands on a TCP connection: a ping, a login or a frame. The order of the checks is part of the contract.
fn tcp_item(bytes: &[u8], line: &mut Line) -> Result<(), Rejection> {
    match bytes {
        [0xFF] => line.ping(),
        [0x00, 0x0F, digits @ ..] => line.login(login(digits)?),
        _ => match Frame::open(bytes)? {
            Frame::Avl(avl) => line.avl(&avl),
            Frame::Message(message) => line.message(&message),
            Frame::EmptyMessage(_) => line.ping(),
        },
    }
    Ok(())
}

fn login(digits: &[u8]) -> Result<Imei, Rejection> {
    let refuse = |reason, offset, detail| Rejection { reason, offset, detail };
    if let Some(at) = digits.iter().take(Imei::LEN).position(|byte| !byte.is_ascii_digit()) {
        return Err(refuse(RejectionReason::BadImei, 2 + at, "digit of an IMEI"));
    }
    let Some((imei, behind)) = digits.split_at_checked(Imei::LEN) else {
        return Err(refuse(RejectionReason::Truncated, 2 + digits.len(), "15 digits of an IMEI"));
    };
    if !behind.is_empty() {
        return Err(refuse(RejectionReason::BadStructure, LOGIN_LEN, "bytes behind the login"));
    }
    Imei::from_ascii(imei).map_err(|wrong| refuse(RejectionReason::BadImei, 2 + wrong.at, "digit of an IMEI"))
}

/// Hex to bytes, either case; the index of the first character that does not belong.
fn unhex(text: &[u8], bytes: &mut Vec<u8>) -> Result<(), usize> {
    let digit = |at: usize| match text.get(at) {
        Some(c @ b'0'..=b'9') => Ok(c - b'0'),
        Some(c @ b'a'..=b'f') => Ok(c - b'a' + 10),
        Some(c @ b'A'..=b'F') => Ok(c - b'A' + 10),
        _ => Err(at),
    };
    bytes.clear();
    for at in (0..text.len()).step_by(2) {
        bytes.push(digit(at)? << 4 | digit(at + 1)?);
    }
    Ok(())
}
