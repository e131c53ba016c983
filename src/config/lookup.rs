//! Reads values by key from the environment and a file, and collects every mistake.

use std::collections::BTreeMap;
use std::fmt;

use super::keys::{ALL, SettingKey};

/// The texts of the settings. The environment overrides the file.
#[derive(Clone, Debug, Default)]
pub struct Lookup {
    environment: BTreeMap<String, String>,
    file: BTreeMap<String, String>,
    mistakes: Vec<Mistake>,
}

impl Lookup {
    /// Variables as given: the process environment in `main`, a map in tests.
    pub fn from_variables<N: Into<String>, V: Into<String>>(variables: impl IntoIterator<Item = (N, V)>) -> Self {
        let environment = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { environment, ..Self::default() }
    }

    /// Adds the text of a TOML file.
    #[must_use]
    pub fn with_file(mut self, name: &str, text: &str) -> Self {
        let table = match text.parse::<toml::Table>() {
            Ok(table) => table,
            Err(error) => {
                self.mistakes.push(Mistake::new(name, format!("expected TOML: {}", error.message())));
                return self;
            }
        };
        for (key, value) in table {
            let value = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                other => {
                    self.mistakes
                        .push(Mistake::new(&key, format!("expected text or a whole number, not {}", other.type_str())));
                    continue;
                }
            };
            if ALL.iter().any(|known| known.name == key) {
                self.file.insert(key, value);
            } else {
                self.mistakes.push(Mistake::new(&key, "is not a setting"));
            }
        }
        self
    }

    /// Adds a mistake from an earlier step, such as a file that cannot be read.
    #[must_use]
    pub fn with_mistake(mut self, name: &str, what: impl Into<String>) -> Self {
        self.mistakes.push(Mistake::new(name, what));
        self
    }

    /// Variables that look like settings but are not. They are worth a warning only: orchestrators set such names.
    pub fn unknown_variables(&self) -> impl Iterator<Item = &str> {
        self.environment
            .keys()
            .map(String::as_str)
            .filter(|name| name.starts_with("ODOGRAPH_") && *name != "ODOGRAPH_CONFIG")
            .filter(|name| ALL.iter().all(|key| key.variable != *name))
    }

    /// The value of a key and where it comes from.
    pub(super) fn get(&self, key: &SettingKey) -> Option<(&str, Source)> {
        let variable = self.environment.get(key.variable).map(|text| (text.as_str(), Source::Environment));
        variable.or_else(|| self.file.get(key.name).map(|text| (text.as_str(), Source::File)))
    }
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A variable.
    Environment,
    /// The file.
    File,
    /// Neither.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
        })
    }
}

/// One wrong setting. The text never repeats the value of `database_url`, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The setting as the user wrote it: variable or key.
    pub setting: String,
    /// What is wrong.
    pub what: String,
}

impl Mistake {
    fn new(setting: &str, what: impl Into<String>) -> Self {
        Self { setting: setting.to_owned(), what: what.into() }
    }
}

/// All mistakes in the settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(|mistake| format!("{}: {}", mistake.setting, mistake.what)).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// Reads one value after the other and collects the mistakes.
pub(super) struct Reader<'a> {
    lookup: &'a Lookup,
    mistakes: Vec<Mistake>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(lookup: &'a Lookup) -> Self {
        Self { lookup, mistakes: lookup.mistakes.clone() }
    }

    /// Reads a value with a fixed default. The default also replaces a wrong value until all mistakes are known.
    pub(super) fn value<T>(&mut self, key: &SettingKey, parse: impl Fn(&str) -> Result<T, String>) -> T {
        self.optional(key, &parse)
            .or_else(|| parse(key.default?).ok())
            .unwrap_or_else(|| panic!("the default of {} is right: a test reads them all", key.name))
    }

    /// Reads a value without a fixed default.
    pub(super) fn optional<T>(&mut self, key: &SettingKey, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let (text, source) = self.lookup.get(key)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(what) => {
                let name = if source == Source::Environment { key.variable } else { key.name };
                self.mistakes.push(Mistake::new(name, what));
                None
            }
        }
    }

    /// Gives the settings, or all mistakes.
    pub(super) fn finish<T>(self, settings: T) -> Result<T, Mistakes> {
        if self.mistakes.is_empty() { Ok(settings) } else { Err(Mistakes(self.mistakes)) }
    }
}
