//! TOML, read with errors of bounded length, and written as the other implementation writes it: the same build should
//! give the same layer, and buildpacks may look at the text of what they are given.
//!
//! In what is written plain values come before tables, each table is indented by its depth, and an empty line is before
//! each table at the top and each element of an array of tables.

use std::fmt::Write as _;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::excerpt::{self, MESSAGE};
use crate::metadata::Metadata;

/// What is wrong with a text in TOML: where, what, and the part of the line around that place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("toml: {0}")]
pub struct TomlError(String);

/// Reads TOML.
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, TomlError> {
    toml::from_str(text).map_err(|error| {
        let message = excerpt::shortened(error.message(), MESSAGE);
        let Some(span) = error.span() else { return TomlError(message) };
        let at = text.floor_char_boundary(span.start);
        let line = 1 + text[..at].matches('\n').count();
        let column = 1 + text[..at].chars().rev().take_while(|c| *c != '\n').count();
        let excerpt = excerpt::of_line(text, at);
        let shown = if excerpt.is_empty() { excerpt } else { format!(", in `{excerpt}`") };
        TomlError(format!("line {line}, column {column}: {message}{shown}"))
    })
}

/// The text of a value that TOML can hold: a struct or a map.
pub fn to_string(value: &impl Serialize) -> Result<String, toml::ser::Error> {
    toml::to_string(value)
}

/// A table's keys in their order.
#[derive(Default)]
pub(crate) struct Fields(Vec<(String, Item)>);

pub(crate) enum Item {
    /// The text of a value.
    Value(String),
    Table(Fields),
    Tables(Vec<Fields>),
}

impl Fields {
    pub(crate) fn add(&mut self, key: &str, item: Option<Item>) {
        self.0.extend(item.map(|item| (quoted_key(key), item)));
    }

    pub(crate) fn text(&mut self, key: &str, text: &str) {
        self.add(key, Some(Item::Value(quoted(text))));
    }

    pub(crate) fn text_unless_empty(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            self.text(key, text);
        }
    }

    pub(crate) fn list(&mut self, key: &str, items: &[String]) {
        let items: Vec<_> = items.iter().map(|item| quoted(item)).collect();
        self.add(key, Some(Item::Value(format!("[{}]", items.join(", ")))));
    }

    pub(crate) fn metadata(&mut self, metadata: Option<&Metadata>) {
        self.add("metadata", metadata.map(|metadata| Item::Table(own_table(&metadata.0))));
    }

    /// Nothing if there are no tables.
    pub(crate) fn tables(&mut self, key: &str, tables: impl Iterator<Item = Self>) {
        let tables: Vec<_> = tables.collect();
        self.add(key, (!tables.is_empty()).then_some(Item::Tables(tables)));
    }

    /// The text of a file with these fields.
    pub(crate) fn into_text(self) -> String {
        let mut text = String::new();
        self.write(&mut text, "", 0);
        text
    }

    /// Appends these fields of the table at `path`, which is in `depth` others.
    fn write(&self, text: &mut String, path: &str, depth: usize) {
        let indent = "  ".repeat(depth);
        for (key, item) in &self.0 {
            if let Item::Value(value) = item {
                *text += &[&indent, key.as_str(), " = ", value, "\n"].concat();
            }
        }
        for (key, item) in &self.0 {
            let path = if path.is_empty() { key.clone() } else { [path, key].join(".") };
            let (tables, brackets) = match item {
                Item::Value(_) => continue,
                Item::Table(table) => (std::slice::from_ref(table), ["[", "]\n"]),
                Item::Tables(tables) => (tables.as_slice(), ["[[", "]]\n"]),
            };
            for table in tables {
                if !text.is_empty() && (depth == 0 || matches!(item, Item::Tables(_))) {
                    text.push('\n');
                }
                *text += &[&indent, brackets[0], path.as_str(), brackets[1]].concat();
                table.write(text, &path, depth + 1);
            }
        }
    }
}

/// A table of a buildpack's own making.
fn own_table(table: &Table) -> Fields {
    let as_tables = |items: &[Value]| items.iter().map(|item| item.as_table().map(own_table)).collect();
    let item = |value: &Value| match value {
        Value::Table(table) => Item::Table(own_table(table)),
        Value::Array(items) if !items.is_empty() => {
            let tables: Option<Vec<Fields>> = as_tables(items);
            tables.map_or_else(|| Item::Value(inline(value)), Item::Tables)
        }
        value => Item::Value(inline(value)),
    };
    Fields(table.iter().map(|(key, value)| (quoted_key(key), item(value))).collect())
}

fn inline(value: &Value) -> String {
    let joined = |parts: Vec<String>| parts.join(", ");
    match value {
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("[{}]", joined(items.iter().map(inline).collect())),
        Value::Table(table) => {
            let pair = |(key, value): (&String, &Value)| format!("{} = {}", quoted_key(key), inline(value));
            format!("{{{}}}", joined(table.iter().map(pair).collect()))
        }
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => value.to_string(),
    }
}

fn quoted_key(key: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !key.is_empty() && key.chars().all(is_bare) { key.to_owned() } else { quoted(key) }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\u{8}' => quoted.push_str("\\b"),
            '\t' => quoted.push_str("\\t"),
            '\n' => quoted.push_str("\\n"),
            '\u{c}' => quoted.push_str("\\f"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_ascii_control() => {
                write!(quoted, "\\u{:04x}", u32::from(c)).expect("a string takes any text");
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        from_str::<crate::layer::LayerToml>(text).unwrap_err().to_string()
    }

    #[test]
    fn errors_tell_place_reason_and_line() {
        for (text, want) in [
            (
                "[types]\n\tlaunch = 'yes' # or no",
                "toml: line 2, column 11: invalid type: string \"yes\", expected a boolean, in ` launch = 'yes' # or no`",
            ),
            (
                "[types]\nlaunch = true\nlaunch = true",
                "toml: line 3, column 1: duplicate key, in `launch = true`",
            ),
            ("a = 1\n= é", "toml: line 2, column 1: "),
            ("[types", "toml: line 1, column 7: "),
        ] {
            assert!(error(text).starts_with(want), "{text:?}: {}", error(text));
        }
    }

    #[test]
    fn errors_are_short_whatever_the_file_holds() {
        let long = "é".repeat(100_000);
        for (text, shown) in [
            (format!("types = 3 # {long}"), "expected struct Types"),
            (format!("types = \"{long}\""), "invalid type: string"),
            (format!("k = \"{long}\" x # {long}"), "éé\" x # éé"),
            (format!("\"{long}\" = 1\n\"{long}\" = 2"), "duplicate key"),
            (format!("types = {{ launch = \"{long}\" }}"), "expected a boolean"),
        ] {
            let error = error(&text);
            assert!(error.chars().count() < 600 && error.contains(shown), "{error}");
        }
    }
}
