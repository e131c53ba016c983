//! Reads as much of Rust as the rules need: which module a file is, what it uses, which types it defines.

use std::collections::BTreeMap;

/// A file: its path inside the crate's `src`, and its text.
pub type File<'a> = (&'a str, &'a str);

/// A module of the crate, as the rules see it.
#[derive(Debug, Default)]
pub struct Module {
    /// The file, inside `src`.
    pub path: String,
    /// The text without comments, strings and test modules.
    pub code: String,
    /// Every path that the file uses, absolute from the crate's root.
    pub uses: Vec<Use>,
    /// Names of the types and traits that it defines for others.
    pub types: Vec<String>,
}

/// A path of a `use` line, or one written out in code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The segments. They begin at the crate's root, or with the name of another crate.
    pub path: Vec<String>,
    /// The path is inside this crate.
    pub is_local: bool,
    /// `pub use`.
    pub is_public: bool,
    /// A `use` line, as opposed to a path in code.
    pub is_import: bool,
    /// The name under which the last segment is known here.
    pub name: String,
}

/// All modules of a crate by their path, such as `ingest::drain`. The root is the empty path.
pub type Modules = BTreeMap<Vec<String>, Module>;

pub fn modules(files: &[File<'_>]) -> Modules {
    let named = |(path, text): &File<'_>| (module_path(path), (*path).to_owned(), product_code(text));
    let texts: Vec<_> = files.iter().map(named).collect();
    let paths: Vec<_> = texts.iter().map(|(module, _, _)| module.clone()).collect();
    let module = |(module, path, code): (Vec<String>, String, String)| {
        let uses = uses(&code, &module, &paths);
        let types = types(&code);
        (module, Module { path, code, uses, types })
    };
    texts.into_iter().map(module).collect()
}

/// `ingest/drain/mod.rs` is `ingest::drain`.
fn module_path(path: &str) -> Vec<String> {
    let mut segments: Vec<_> = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if matches!(segments.last().map(String::as_str), Some("mod" | "lib")) {
        segments.pop();
    }
    segments
}

/// The text without comments, contents of strings, and test modules.
fn product_code(text: &str) -> String {
    let code = without_comments_and_strings(text);
    let mut kept = String::with_capacity(code.len());
    let mut rest = code.as_str();
    while let Some(at) = rest.find("#[cfg(test)]") {
        let (before, item) = rest.split_at(at);
        kept.push_str(before);
        // The attribute holds for one item: up to its closing brace, or up to a semicolon before any brace.
        let end = match (item.find('{'), item.find(';')) {
            (Some(brace), semicolon) if semicolon.is_none_or(|semicolon| brace < semicolon) => closing(item, brace),
            (_, semicolon) => semicolon.map_or(item.len(), |semicolon| semicolon + 1),
        };
        rest = &item[end..];
    }
    kept + rest
}

/// The index behind the brace that closes the one at `open`.
fn closing(text: &str, open: usize) -> usize {
    let mut depth = 0_u32;
    for (at, byte) in text.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return at + 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

fn without_comments_and_strings(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            'r' if raw_string(rest).is_some() && !ends_in_word(&code) => raw_string(rest).unwrap_or(1),
            '"' => string(rest),
            '\'' => character(rest),
            _ => 0,
        };
        if skipped == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            rest = &rest[skipped..];
        }
    }
    code
}

fn ends_in_word(code: &str) -> bool {
    code.ends_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Length of a string literal.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of `r"…"` or `r#"…"#`, if the text begins with one.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text[1..].bytes().take_while(|byte| *byte == b'#').count();
    let body = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(2 + hashes + body.find(&end)? + end.len())
}

/// Length of a character literal; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut inside = text.char_indices().skip(1);
    match inside.next() {
        Some((_, '\\')) => text[2..].char_indices().skip(1).find(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 3),
        Some(_) => inside.next().filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}

fn uses(code: &str, module: &[String], modules: &[Vec<String>]) -> Vec<Use> {
    let mut uses = Vec::new();
    let mut code_without_imports = String::new();
    let mut statement: Option<String> = None;
    for line in code.lines() {
        let (is_public, tree) = import(line);
        if statement.is_none() && tree.is_none() {
            code_without_imports.push_str(line);
            code_without_imports.push('\n');
            continue;
        }
        let text = statement.get_or_insert_default();
        text.push_str(if text.is_empty() && is_public { "pub use " } else { "" });
        text.push_str(tree.unwrap_or(line));
        if line.contains(';') {
            let text = statement.take().unwrap_or_default();
            let (is_public, tree) = text.strip_prefix("pub use ").map_or((false, text.as_str()), |tree| (true, tree));
            for (path, name) in expanded(tree.split(';').next().unwrap_or_default()) {
                uses.extend(resolved(&path, name, module, modules, is_public, true));
            }
        }
    }
    uses.extend(written_out(&code_without_imports).into_iter().filter_map(|path| {
        let name = path.last().cloned().unwrap_or_default();
        resolved(&path, name, module, modules, false, false)
    }));
    uses
}

/// Whether a line begins a public `use`, and what follows the word.
fn import(line: &str) -> (bool, Option<&str>) {
    let line = line.trim_start();
    let Some(rest) = line.strip_prefix("pub") else { return (false, line.strip_prefix("use ")) };
    let rest = if rest.starts_with('(') { rest.split_once(')').map_or(rest, |(_, rest)| rest) } else { rest };
    (true, rest.trim_start().strip_prefix("use "))
}

/// The paths of a tree such as `a::{b, c::{d, e as f}}`, each with the name it gets.
fn expanded(tree: &str) -> Vec<(Vec<String>, String)> {
    let tree = tree.trim();
    let Some((prefix, group)) = tree.split_once('{') else {
        let (path, alias) = tree.split_once(" as ").map_or((tree, None), |(path, alias)| (path, Some(alias.trim())));
        let path: Vec<_> = path.split("::").map(|segment| segment.trim().to_owned()).collect();
        let last = path.iter().rev().find(|segment| *segment != "self").cloned().unwrap_or_default();
        return vec![(path, alias.map_or(last, str::to_owned))];
    };
    let group = group.trim_end().strip_suffix('}').unwrap_or(group);
    let (mut depth, mut begin, mut parts) = (0_u32, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&group[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&group[begin..]);
    let with_prefix = |part: &str| format!("{}{}", prefix.trim(), part.trim());
    parts.into_iter().filter(|part| !part.trim().is_empty()).flat_map(|part| expanded(&with_prefix(part))).collect()
}

/// Paths in code, visibilities aside, that begin with `crate::`, `super::` or the name of one of our crates.
fn written_out(code: &str) -> Vec<Vec<String>> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let ours = |path: &&str| {
        let first = path.split("::").next().unwrap_or_default();
        path.contains("::") && (matches!(first, "crate" | "super" | "self") || first.starts_with("odograph"))
    };
    let code = code.replace("pub(in ", "pub(in_");
    let words = code.split(|c: char| !is_part(c)).map(|word| word.trim_matches(':')).filter(ours);
    words.map(|path| path.split("::").filter(|segment| !segment.is_empty()).map(str::to_owned).collect()).collect()
}

fn resolved(
    path: &[String],
    name: String,
    module: &[String],
    modules: &[Vec<String>],
    is_public: bool,
    is_import: bool,
) -> Option<Use> {
    let first = path.first()?;
    let child: Vec<String> = module.iter().cloned().chain([first.clone()]).collect();
    let (mut at, mut rest) = match first.as_str() {
        "crate" => (Vec::new(), &path[1..]),
        "self" | "super" => (module.to_vec(), path),
        _ if modules.contains(&child) => (module.to_vec(), path),
        _ => return Some(Use { path: path.to_vec(), is_local: false, is_public, is_import, name }),
    };
    while let Some((segment, later)) = rest.split_first() {
        match segment.as_str() {
            "self" => {}
            "super" => drop(at.pop()),
            _ => break,
        }
        rest = later;
    }
    at.extend(rest.iter().filter(|segment| *segment != "self").cloned());
    Some(Use { path: at, is_local: true, is_public, is_import, name })
}

/// The deepest module on a path.
pub fn module_of(path: &[String], modules: &Modules) -> Vec<String> {
    let lengths = (0..=path.len()).rev();
    lengths.map(|length| path[..length].to_vec()).find(|prefix| modules.contains_key(prefix)).unwrap_or_default()
}

/// The module that defines what a path names: follows the re-exports of facades.
pub fn origin_of(path: &[String], modules: &Modules) -> Vec<String> {
    let mut path = path.to_vec();
    // Re-exports of re-exports are two or three steps.
    for _ in 0..8 {
        let at = module_of(&path, modules);
        let Some(name) = path.get(at.len()) else { return at };
        let exports = modules.get(&at).map(|module| module.uses.as_slice()).unwrap_or_default();
        let Some(export) = exports.iter().find(|export| export.is_public && export.is_local && export.name == *name)
        else {
            return at;
        };
        path.clone_from(&export.path);
    }
    module_of(&path, modules)
}

fn types(code: &str) -> Vec<String> {
    // Nobody can import what is private to its file.
    let visible = code.lines().filter(|line| line.starts_with("pub")).collect::<Vec<_>>().join(
        "
",
    );
    let types = definitions(&visible).filter(|(kind, _)| matches!(*kind, "struct" | "enum" | "trait" | "type"));
    types.map(|(_, name)| name).collect()
}

/// Items that begin a line without indentation, macros aside: the keyword and the name.
pub fn definitions(code: &str) -> impl Iterator<Item = (&str, String)> {
    code.lines().filter_map(|line| {
        let line = line.strip_prefix("pub").map_or(line, |rest| {
            let rest = if rest.starts_with('(') { rest.split_once(')').map_or(rest, |(_, rest)| rest) } else { rest };
            rest.strip_prefix(' ').unwrap_or(line)
        });
        let line = ["async ", "unsafe "].iter().fold(line, |line, word| line.strip_prefix(word).unwrap_or(line));
        let (mut kind, mut rest) = line.split_once(' ')?;
        if kind == "const" && rest.starts_with("fn ") {
            (kind, rest) = rest.split_once(' ')?;
        }
        let is_item = matches!(kind, "struct" | "enum" | "trait" | "type" | "fn" | "const" | "static" | "union");
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        is_item.then(|| (kind, rest[..end].to_owned()))
    })
}
