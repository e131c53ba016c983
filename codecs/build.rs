//! Turns `data/avl_ids.csv` into the compile-time table of the module `dictionary`.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

const CSV: &str = "data/avl_ids.csv";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={CSV}");
    let text = fs::read_to_string(CSV)?;
    let mut rows: Vec<(u16, String)> = Vec::new();
    for (at, line) in text.lines().enumerate().skip(1) {
        let row = row(line).map_err(|wrong| format!("{CSV}:{}: {wrong}", at + 1))?;
        rows.push(row);
    }
    rows.sort_by_key(|(id, _)| *id);
    if rows.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(format!("{CSV}: an id comes twice").into());
    }
    let table: String = rows.into_iter().map(|(_, row)| row).collect();
    let out = env::var("OUT_DIR")?;
    fs::write(Path::new(&out).join("dictionary.rs"), format!("&[\n{table}]\n"))?;
    Ok(())
}

/// One line of the file as one value of the table.
fn row(line: &str) -> Result<(u16, String), Box<dyn Error>> {
    let fields = fields(line);
    let [id, name, width, kind, min, max, multiplier, unit, fmb920, fmb003, group, description, faults] = &fields[..]
    else {
        return Err(format!("{} fields instead of 13", fields.len()).into());
    };
    let id: u16 = id.parse()?;
    let width = match width.as_str() {
        "" | "var" => "None".to_owned(),
        bytes => format!("Some({})", bytes.parse::<u8>()?),
    };
    let kind = match kind.as_str() {
        "unsigned" => "ValueKind::Unsigned",
        "signed" => "ValueKind::Signed",
        "id" => "ValueKind::Id(ByteOrder::First)",
        "id_reversed" => "ValueKind::Id(ByteOrder::Last)",
        "string" => "ValueKind::Text",
        "hex" | "" => "ValueKind::Bytes",
        other => return Err(format!("type {other}").into()),
    };
    let range = match (kind, min.as_str(), max.as_str()) {
        ("ValueKind::Unsigned" | "ValueKind::Signed", min, max) if !min.is_empty() && !max.is_empty() => {
            match (min.parse::<i128>()?, max.parse::<i128>()?) {
                // What eight bytes can hold anyway.
                (0, most) if most == i128::from(u64::MAX) => "None".to_owned(),
                (least, most) if least < most => format!("Some(({least}, {most}))"),
                _ => return Err(format!("range {min} to {max}").into()),
            }
        }
        _ => "None".to_owned(),
    };
    let faults = faults.split(';').filter(|fault| !fault.is_empty()).map(fault).collect::<Result<String, _>>()?;
    let (numerator, decimals) = ratio(multiplier)?;
    let unit = if unit.is_empty() { "None".to_owned() } else { format!("Some({unit:?})") };
    let support = |cell: &str| match cell {
        "yes" => Ok("Support::Yes"),
        "no" => Ok("Support::No"),
        "" => Ok("Support::Unknown"),
        other => Err(format!("support {other}")),
    };
    let (fmb920, fmb003) = (support(fmb920)?, support(fmb003)?);
    let mut value = String::new();
    writeln!(
        value,
        "ElementInfo {{ id: {id}, name: {name:?}, vendor_width: {width}, kind: {kind}, numerator: {numerator}, \
         decimals: {decimals}, range: {range}, faults: &[{faults}], unit: {unit}, fmb920: {fmb920}, fmb003: {fmb003}, group: {group:?}, \
         description: {description:?} }},"
    )?;
    Ok((id, value))
}

/// `raw=name` as a pair of the table.
fn fault(text: &str) -> Result<String, Box<dyn Error>> {
    let (raw, name) = text.split_once('=').ok_or_else(|| format!("fault {text}"))?;
    Ok(format!("({}, {name:?}),", raw.parse::<i128>()?))
}

/// A decimal as an integer and its number of decimals.
fn ratio(multiplier: &str) -> Result<(u32, u32), Box<dyn Error>> {
    match multiplier.split_once('.') {
        None if multiplier.is_empty() => Ok((1, 0)),
        None => Ok((multiplier.parse()?, 0)),
        Some((whole, decimals)) => Ok((format!("{whole}{decimals}").parse()?, u32::try_from(decimals.len())?)),
    }
}

/// The fields of a CSV line; quotes enclose commas, two quotes are one.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted, mut chars) = (Vec::new(), String::new(), false, line.chars().peekable());
    while let Some(char) = chars.next() {
        match char {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => field.push('"'),
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    fields.push(field);
    fields
}
