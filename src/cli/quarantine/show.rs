//! `odograph quarantine show`.

use std::io::{self, Write as _};

use teltonika_codecs::{AvlData, Message, MessageCodec, Rejection};

use super::filter::{FilterArguments, open};
use super::output::{SHORT_ID, object, written};
use crate::cli::error::CommandError;
use crate::cli::json::{DecodedItem, Refusal};
use crate::cli::setup::runtime;
use crate::cli::time_argument::format_time;
use crate::hex;
use crate::replay::alone;
use crate::store::QuarantineEntry;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The record's id as `list` prints it, or its first digits. Without it, the filters must leave one record
    #[arg(value_name = "ID", value_parser = id)]
    id: Option<String>,
    #[command(flatten)]
    filter: FilterArguments,
    /// Print one JSON object, with the decoded bytes under `decoded`
    #[arg(long)]
    json: bool,
    /// Also list the elements by name, with unit and scaled value
    #[arg(long)]
    named: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let mut filter = arguments.filter.filter()?;
    filter.digest.clone_from(&arguments.id);
    let (settings, _log) = arguments.filter.settings()?;
    let found = runtime()?.block_on(async {
        open(&settings).await?.newest(&filter, AMBIGUITY_MAX).await.map_err(|e| CommandError::from_error(&e))
    })?;
    let [entry] = found.as_slice() else {
        let ids =
            found.iter().map(|entry| format!("\n  {} of {}", hex::text(&entry.digest), entry.imei)).collect::<String>();
        return Err(CommandError::Failed(match found.len() {
            0 => "no such record is in quarantine".to_owned(),
            _ => format!("several records match; give more digits of the id, or --imei:{ids}"),
        }));
    };
    let decoded = decode(entry, arguments.named);
    let mut out = io::stdout().lock();
    written(if arguments.json {
        let mut object = object(entry);
        object["decoded"] = serde_json::from_str(&decoded).unwrap_or_default();
        writeln!(out, "{object}")
    } else {
        table(entry, &decoded, &mut out)
    })
}

/// Decodes the bytes as far as the current version can, in the format of `odograph decode`.
fn decode(entry: &QuarantineEntry, named: bool) -> String {
    let frame;
    let item = if entry.record_index.is_some() {
        frame = alone(entry.codec, &entry.bytes);
        AvlData::open(&frame).map(DecodedItem::Avl)
    } else {
        whole(&entry.bytes)
    };
    let item = item.unwrap_or_else(|rejection| DecodedItem::Error(Refusal::from(rejection)));
    let item = if named { item.with_names() } else { item };
    let mut object = Vec::new();
    item.write(&mut object);
    String::from_utf8_lossy(&object).into_owned()
}

fn whole(data: &[u8]) -> Result<DecodedItem<'_>, Rejection> {
    if data.first().is_some_and(|id| MessageCodec::from_id(*id).is_some()) {
        Ok(Message::open(data)?.map_or(DecodedItem::Ping, DecodedItem::Message))
    } else {
        AvlData::open(data).map(DecodedItem::Avl)
    }
}

fn table(entry: &QuarantineEntry, decoded: &str, out: &mut impl io::Write) -> io::Result<()> {
    let QuarantineEntry {
        imei,
        digest,
        reason,
        detail,
        received_at_us,
        journal,
        position,
        record_index,
        codec,
        bytes,
        seen,
    } = entry;
    let what = match record_index {
        Some(index) => format!("record {index} of a frame, counted from 0"),
        None => "a whole frame: its data field, from codec id to second count".to_owned(),
    };
    writeln!(out, "id              {}", hex::text(digest))?;
    writeln!(out, "imei            {imei}")?;
    writeln!(out, "reason          {reason}: {detail}")?;
    writeln!(out, "first received  {}", format_time(*received_at_us))?;
    writeln!(out, "seen            {seen}")?;
    writeln!(out, "what            {what}")?;
    writeln!(out, "codec           0x{codec:02X}")?;
    writeln!(out, "in the journal  {journal} at position {position}")?;
    writeln!(out, "bytes           {}", hex::text(bytes))?;
    writeln!(out, "{decoded}")
}

fn id(text: &str) -> Result<String, String> {
    let id = text.to_ascii_lowercase();
    let digits = id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits && (4..=64).contains(&id.len()) {
        Ok(id)
    } else {
        Err(format!("expected 4 to 64 hexadecimal digits, such as the {SHORT_ID} that list prints"))
    }
}

/// How many records an ambiguous id lists.
const AMBIGUITY_MAX: u32 = 10;
