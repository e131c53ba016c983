//! The error of the nom parsers: where it stopped and what was being read. Offsets come from the unread rest.

use nom::error::{ContextError, ErrorKind, ParseError};

use crate::rejection::{Rejection, RejectionReason};

/// Result of a parser over a complete, length-checked slice: running short there means refuse, never wait.
pub(crate) type Parsed<'a, O> = nom::IResult<&'a [u8], O, ParseFailure<'a>>;

/// Where a parser stopped: the unread bytes, and the innermost structure that had a name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ParseFailure<'a> {
    unread: &'a [u8],
    reading: Option<&'static str>,
}

impl<'a> ParseError<&'a [u8]> for ParseFailure<'a> {
    fn from_error_kind(unread: &'a [u8], _: ErrorKind) -> Self {
        Self { unread, reading: None }
    }

    fn append(_: &'a [u8], _: ErrorKind, first: Self) -> Self {
        first
    }
}

impl<'a> ContextError<&'a [u8]> for ParseFailure<'a> {
    fn add_context(_: &'a [u8], name: &'static str, stop: Self) -> Self {
        Self { reading: stop.reading.or(Some(name)), ..stop }
    }
}

/// Runs a parser over the whole of `input`; bytes left over are refused like bytes that are missing.
pub(crate) fn exactly<'a, O>(
    input: &'a [u8],
    whole: &'static str,
    parser: impl Fn(&'a [u8]) -> Parsed<'a, O>,
) -> Result<O, Rejection> {
    let at = |rest: &[u8]| input.len() - rest.len();
    match parser(input) {
        Ok(([], value)) => Ok(value),
        Ok((rest, _)) => Err(Rejection::new(RejectionReason::BadStructure, at(rest), "bytes left over")),
        Err(nom::Err::Error(stop) | nom::Err::Failure(stop)) => {
            Err(Rejection::new(RejectionReason::BadStructure, at(stop.unread), stop.reading.unwrap_or(whole)))
        }
        // Complete parsers never ask for more; if one did, the body would be short.
        Err(nom::Err::Incomplete(_)) => Err(Rejection::new(RejectionReason::BadStructure, input.len(), whole)),
    }
}
