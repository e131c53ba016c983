//! Parses Redis' answers about streams. An unexpected shape is an error, never a panic: the server may be another program or
//! a later version.
//!
//! Written by hand because `redis::streams` does not serve: its `StreamReadReply` keeps fields in a map with text keys, so it
//! loses repeated fields, fields that are not UTF-8, and pending entries that the stream no longer has.

use std::time::Duration;

use odograph_journal::unix_now_us;
use redis::Value;

/// Fields of an entry: names and values.
pub(super) type EntryFields = Vec<(Vec<u8>, Vec<u8>)>;
/// Names with values of any type, as the XINFO commands return them.
pub(super) type NamedValues = Vec<(Vec<u8>, Value)>;

/// An entry as a read returned it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StreamEntry {
    pub(super) id: EntryId,
    /// `None` if the entry is pending and gone from the stream: trimmed or deleted.
    pub(super) fields: Option<EntryFields>,
}

/// The id of an entry: milliseconds since 1970, and a number within the millisecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EntryId {
    pub(super) ms: u64,
    pub(super) number: u64,
}

impl EntryId {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (ms, number) = text.split_once('-')?;
        Some(Self { ms: ms.parse().ok()?, number: number.parse().ok()? })
    }

    /// The time since the entry was written, by this machine's clock; zero for an id from the future.
    pub(super) fn age(self) -> Duration {
        let now_ms = u64::try_from(unix_now_us() / 1_000).unwrap_or(0);
        Duration::from_millis(now_ms.saturating_sub(self.ms))
    }
}

impl std::fmt::Display for EntryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.ms, self.number)
    }
}

/// An answer with an unexpected shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Redis answered in an unexpected shape")]
pub(super) struct Malformed;

/// The answer to XREADGROUP over one stream; empty if no entry came in time.
pub(super) fn read(answer: Value) -> Result<Vec<StreamEntry>, Malformed> {
    let streams = match answer {
        Value::Nil => return Ok(Vec::new()),
        // RESP3.
        Value::Map(streams) => streams.into_iter().map(|(_, entries)| entries).collect(),
        other => list(other)?.into_iter().map(|stream| nth(stream, 1)).collect::<Result<Vec<_>, _>>()?,
    };
    let mut found = Vec::new();
    for stream in streams {
        found.extend(entries(stream)?);
    }
    Ok(found)
}

/// The answer to XAUTOCLAIM: the cursor for the next call, the entries, and how many were gone and are no longer pending.
pub(super) fn claimed(answer: Value) -> Result<(String, Vec<StreamEntry>, usize), Malformed> {
    let mut parts = list(answer)?.into_iter();
    let next = text(parts.next().ok_or(Malformed)?)?;
    let entries = entries(parts.next().ok_or(Malformed)?)?;
    let gone = parts.next().map_or(Ok(0), |gone| list(gone).map(|gone| gone.len()))?;
    Ok((next, entries, gone))
}

/// The answer to XRANGE: a list of entries.
pub(super) fn entries(answer: Value) -> Result<Vec<StreamEntry>, Malformed> {
    // Before Redis 7 a claim returned nil for an entry that is gone.
    list(answer)?.into_iter().filter(|entry| *entry != Value::Nil).map(entry).collect()
}

fn entry(answer: Value) -> Result<StreamEntry, Malformed> {
    let mut parts = list(answer)?.into_iter();
    let id = EntryId::parse(&text(parts.next().ok_or(Malformed)?)?).ok_or(Malformed)?;
    let fields = match parts.next().ok_or(Malformed)? {
        Value::Nil => None,
        fields => Some(pairs(fields)?),
    };
    Ok(StreamEntry { id, fields })
}

/// Alternating names and values.
pub(super) fn pairs(answer: Value) -> Result<EntryFields, Malformed> {
    named(answer)?.into_iter().map(|(name, value)| Ok((name, bytes(value)?))).collect()
}

/// Alternating names and values of any type.
pub(super) fn named(answer: Value) -> Result<NamedValues, Malformed> {
    if let Value::Map(pairs) = answer {
        return pairs.into_iter().map(|(name, value)| Ok((bytes(name)?, value))).collect();
    }
    let mut values = list(answer)?.into_iter();
    let mut named = Vec::with_capacity(values.len() / 2);
    while let Some(name) = values.next() {
        named.push((bytes(name)?, values.next().ok_or(Malformed)?));
    }
    Ok(named)
}

/// The value with this name.
pub(super) fn get(named: &[(Vec<u8>, Value)], name: &str) -> Result<Value, Malformed> {
    named.iter().find(|(key, _)| key == name.as_bytes()).map(|(_, value)| value.clone()).ok_or(Malformed)
}

pub(super) fn list(answer: Value) -> Result<Vec<Value>, Malformed> {
    answer.into_sequence().map_err(|_| Malformed)
}

pub(super) fn text(answer: Value) -> Result<String, Malformed> {
    String::from_utf8(bytes(answer)?).map_err(|_| Malformed)
}

pub(super) fn number(answer: &Value) -> Result<u64, Malformed> {
    match answer {
        Value::Int(number) => u64::try_from(*number).map_err(|_| Malformed),
        _ => Err(Malformed),
    }
}

fn nth(answer: Value, index: usize) -> Result<Value, Malformed> {
    list(answer)?.into_iter().nth(index).ok_or(Malformed)
}

fn bytes(answer: Value) -> Result<Vec<u8>, Malformed> {
    match answer {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        Value::Int(number) => Ok(number.to_string().into_bytes()),
        _ => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn a_read_gives_entries_and_those_that_are_gone() {
        let gone = Value::Array(vec![bulk("5-0"), Value::Nil]);
        let there = Value::Array(vec![bulk("7-1"), Value::Array(vec![bulk("v"), bulk("1")])]);
        let stream = Value::Array(vec![bulk("flags"), Value::Array(vec![gone, there])]);
        let found = read(Value::Array(vec![stream])).unwrap();
        let fields = vec![(b"v".to_vec(), b"1".to_vec())];
        let entry = |ms, number, fields| StreamEntry { id: EntryId { ms, number }, fields };
        assert_eq!(found, [entry(5, 0, None), entry(7, 1, Some(fields))]);
        assert_eq!(read(Value::Nil), Ok(Vec::new()));
        for answer in [Value::Okay, Value::Array(vec![bulk("flags")]), Value::Array(vec![Value::Array(vec![])])] {
            assert_eq!(read(answer), Err(Malformed));
        }
        assert_eq!(EntryId { ms: 5, number: 1 }.to_string(), "5-1");
        assert!(EntryId::parse("5").is_none() && EntryId::parse("5-x").is_none());
    }
}
