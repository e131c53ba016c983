//! The rules, as functions from the files of a crate to what breaks them, in words.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{File, Modules, definitions, module_of, modules, origin_of};

type Path = Vec<String>;

/// Modules that use each other, directly or through others. One shortest circle for each such group.
pub fn circles(files: &[File<'_>]) -> Vec<String> {
    let modules = modules(files);
    let arrows: BTreeMap<Path, BTreeSet<Path>> = modules.keys().map(|at| (at.clone(), targets(at, &modules))).collect();
    let (mut found, mut in_circle) = (Vec::new(), BTreeSet::new());
    for start in modules.keys() {
        if in_circle.contains(start) {
            continue;
        }
        if let Some(circle) = shortest_circle(start, &arrows) {
            let words: Vec<_> = circle.iter().chain([start]).map(|module| shown(module)).collect();
            found.push(words.join(" uses "));
            in_circle.extend(circle);
        }
    }
    found
}

fn targets(at: &[String], modules: &Modules) -> BTreeSet<Path> {
    let uses = modules[at].uses.iter().filter(|used| used.is_local);
    uses.map(|used| module_of(&used.path, modules)).filter(|target| target != at).collect()
}

fn shortest_circle(start: &Path, arrows: &BTreeMap<Path, BTreeSet<Path>>) -> Option<Vec<Path>> {
    let mut seen = BTreeSet::new();
    let mut ways = std::collections::VecDeque::from([vec![start.clone()]]);
    while let Some(way) = ways.pop_front() {
        for next in way.last().and_then(|last| arrows.get(last)).into_iter().flatten() {
            if next == start {
                return Some(way);
            }
            if seen.insert(next.clone()) {
                ways.push_back(way.iter().cloned().chain([next.clone()]).collect());
            }
        }
    }
    None
}

fn shown(module: &[String]) -> String {
    if module.is_empty() { "the crate's root".to_owned() } else { module.join("::") }
}

/// Modules below `from` may not use what is below any of `never`. Beginnings are written as `store::model`.
pub struct Direction {
    pub from: &'static str,
    pub never: &'static [&'static str],
}

/// Only modules below `only` may use what is below `module`.
pub struct Private {
    pub module: &'static str,
    pub only: &'static [&'static str],
}

/// Uses that run against the direction of the layers. A re-export leads to where the name is defined.
pub fn wrong_directions(files: &[File<'_>], directions: &[Direction], private: &[Private]) -> Vec<String> {
    let modules = modules(files);
    let mut found = BTreeSet::new();
    for (at, module) in &modules {
        for used in &module.uses {
            let targets = if used.is_local {
                vec![module_of(&used.path, &modules), origin_of(&used.path, &modules)]
            } else {
                vec![used.path.clone()]
            };
            for target in targets {
                let against = directions.iter().any(|direction| {
                    is_below(at, direction.from) && direction.never.iter().any(|never| is_below(&target, never))
                });
                let intrudes = private.iter().any(|private| {
                    is_below(&target, private.module) && !private.only.iter().any(|only| is_below(at, only))
                });
                if against || intrudes {
                    found.insert(format!("{} must not use {}", shown(at), used.path.join("::")));
                }
            }
        }
    }
    found.into_iter().collect()
}

fn is_below(module: &[String], beginning: &str) -> bool {
    beginning.is_empty()
        || beginning
            .split("::")
            .map(Some)
            .eq((0..beginning.split("::").count()).map(|at| module.get(at).map(String::as_str)))
}

/// Definitions in facades: a `mod.rs` or `lib.rs` maps and re-exports.
pub fn facades_that_define(files: &[File<'_>]) -> Vec<String> {
    let modules = modules(files);
    let facades = modules.values().filter(|module| module.path.ends_with("mod.rs") || module.path == "lib.rs");
    let define = |module: &super::source::Module| {
        let path = module.path.clone();
        definitions(&module.code).map(move |(kind, name)| format!("{path} defines {kind} {name}")).collect::<Vec<_>>()
    };
    facades.flat_map(define).collect()
}

/// Names of types that two files define, and that somebody imports without their module, or that facades export twice.
pub fn ambiguous_names(files: &[File<'_>]) -> Vec<String> {
    let modules = modules(files);
    let mut homes: BTreeMap<&str, BTreeSet<&Path>> = BTreeMap::new();
    for (at, module) in &modules {
        for name in &module.types {
            homes.entry(name).or_default().insert(at);
        }
    }
    let mut found = BTreeSet::new();
    for (name, homes) in homes.into_iter().filter(|(_, homes)| homes.len() > 1) {
        let defined = homes.iter().map(|home| shown(home)).collect::<Vec<_>>().join(" and ");
        let mut exported = BTreeSet::new();
        for (at, module) in &modules {
            let named = |used: &&super::source::Use| used.is_local && used.path.last().is_some_and(|last| last == name);
            for used in module.uses.iter().filter(named) {
                let origin = origin_of(&used.path, &modules);
                if used.is_public {
                    exported.insert(origin);
                } else if used.is_import && used.name == name && homes.contains(&origin) && !homes.contains(at) {
                    found.insert(format!("{} imports {name} without its module: {defined} define one", shown(at)));
                }
            }
        }
        if exported.len() > 1 {
            found.insert(format!("{name} is exported twice: {defined} define one"));
        }
    }
    found.into_iter().collect()
}

/// Files that match on the backend of a database URL.
pub fn matches_on_the_backend(files: &[File<'_>]) -> Vec<String> {
    let matches = |code: &str| {
        let by_name = ["DatabaseUrl::Postgres", "DatabaseUrl::Sqlite"].iter().any(|variant| code.contains(variant));
        let by_self = ["Self::Postgres", "Self::Sqlite"].iter().any(|variant| code.contains(variant));
        by_name || (by_self && code.contains("for DatabaseUrl"))
    };
    modules(files).values().filter(|module| matches(&module.code)).map(|module| module.path.clone()).collect()
}
