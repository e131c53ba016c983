//! The shape of Redis' answers about streams. What has another shape is an error, never a panic: the server may be another
//! program, or a later version.

use redis::Value;

/// Names and values of an entry.
pub(super) type Fields = Vec<(Vec<u8>, Vec<u8>)>;
/// Names and values of any type, as the XINFO commands give them.
pub(super) type Named = Vec<(Vec<u8>, Value)>;

/// An entry as a read gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: EntryId,
    /// `None` for one that is pending and gone from the stream: trimmed, or deleted.
    pub(super) fields: Option<Fields>,
}

/// A stream's id: milliseconds, and a number among those of one millisecond.
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
}

impl std::fmt::Display for EntryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.ms, self.number)
    }
}

/// An answer of another shape than the command's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Redis answers in another shape than expected")]
pub(super) struct Malformed;

/// What XREADGROUP over one stream gives; nothing where it waited in vain.
pub(super) fn read(answer: Value) -> Result<Vec<Entry>, Malformed> {
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

/// What XAUTOCLAIM gives: where to go on, the entries, and the ids of those that were gone and are not pending any more.
pub(super) fn claimed(answer: Value) -> Result<(String, Vec<Entry>, usize), Malformed> {
    let mut parts = list(answer)?.into_iter();
    let next = text(parts.next().ok_or(Malformed)?)?;
    let entries = entries(parts.next().ok_or(Malformed)?)?;
    let gone = parts.next().map_or(Ok(0), |gone| list(gone).map(|gone| gone.len()))?;
    Ok((next, entries, gone))
}

/// A list of entries, as XRANGE gives it.
pub(super) fn entries(answer: Value) -> Result<Vec<Entry>, Malformed> {
    // Before Redis 7 a claim gave nil for an entry that is gone.
    list(answer)?.into_iter().filter(|entry| *entry != Value::Nil).map(entry).collect()
}

fn entry(answer: Value) -> Result<Entry, Malformed> {
    let mut parts = list(answer)?.into_iter();
    let id = EntryId::parse(&text(parts.next().ok_or(Malformed)?)?).ok_or(Malformed)?;
    let fields = match parts.next().ok_or(Malformed)? {
        Value::Nil => None,
        fields => Some(pairs(fields)?),
    };
    Ok(Entry { id, fields })
}

/// Names and values, one after the other.
pub(super) fn pairs(answer: Value) -> Result<Fields, Malformed> {
    named(answer)?.into_iter().map(|(name, value)| Ok((name, bytes(value)?))).collect()
}

/// The same with values of any type.
pub(super) fn named(answer: Value) -> Result<Named, Malformed> {
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

/// One of named values.
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
        let entry = |ms, number, fields| Entry { id: EntryId { ms, number }, fields };
        assert_eq!(found, [entry(5, 0, None), entry(7, 1, Some(fields))]);
        assert_eq!(read(Value::Nil), Ok(Vec::new()));
        for wrong in [Value::Okay, Value::Array(vec![bulk("flags")]), Value::Array(vec![Value::Array(vec![])])] {
            assert_eq!(read(wrong), Err(Malformed));
        }
        assert_eq!(EntryId { ms: 5, number: 1 }.to_string(), "5-1");
        assert!(EntryId::parse("5").is_none() && EntryId::parse("5-x").is_none());
    }
}
