//! TOML, read with errors of bounded length, and written as the other implementation writes it: the same build should
//! give the same layer, and buildpacks may look at the text of what they are given.
//!
//! In what is written plain values come before tables, each table is indented by its depth, and an empty line is before
//! each table at the top and each element of an array of tables.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_ignored::Path;
use toml::{Deserializer, Table, Value};

use crate::excerpt::{self, MESSAGE};
use crate::metadata::Metadata;

/// What is wrong with a text in TOML: where, what, and the part of the line around that place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("toml: {0}")]
pub struct TomlError(String);

/// Reads TOML, if its values do not take more than [`MAX_WEIGHT`].
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, TomlError> {
    read(text, T::deserialize)
}

/// The same, and the keys that have no meaning for `T`: each with the names of the tables that it is in before it.
pub fn from_str_and_unknown<T: DeserializeOwned>(
    text: &str,
) -> Result<(T, BTreeSet<Vec<String>>), TomlError> {
    let mut unknown = BTreeSet::new();
    let mut note = |path: Path<'_>| {
        unknown.insert(names(&path));
    };
    let value = read(text, |deserializer| serde_ignored::deserialize(deserializer, &mut note))?;
    Ok((value, unknown))
}

fn names(path: &Path<'_>) -> Vec<String> {
    match path {
        Path::Root => Vec::new(),
        Path::Map { parent, key } => [names(parent), vec![key.clone()]].concat(),
        Path::Seq { parent, .. }
        | Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => names(parent),
    }
}

fn read<'t, T>(
    text: &'t str,
    deserialize: impl FnOnce(Deserializer<'t>) -> Result<T, toml::de::Error>,
) -> Result<T, TomlError> {
    if weight(text) > MAX_WEIGHT {
        return Err(TomlError(format!("its values take more than {} MiB of memory", MAX_WEIGHT >> 20)));
    }
    Deserializer::parse(text).and_then(deserialize).map_err(|error| {
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

/// Bytes of memory that reading one text may take, as is reckoned here. A `launch.toml` of 10,000 processes takes less.
pub const MAX_WEIGHT: usize = 48 << 20;

/// Bytes of memory that reading a text takes, about: of each word and sign, and of what values are kept in; most of a table,
/// of which each dot in a key makes one. What is in strings and comments takes little.
fn weight(text: &str) -> usize {
    /// Spaces, signs, and what words and numbers are made of.
    fn kind(byte: u8) -> u8 {
        match byte {
            b' ' | b'\t' | b'\r' => 0,
            b'[' | b']' | b'{' | b'}' | b'=' | b',' | b'.' | b'\n' | b'"' | b'\'' | b'#' => 1,
            _ => 2,
        }
    }
    fn behind<'a>(text: &'a [u8], is_part: &dyn Fn(u8) -> bool) -> &'a [u8] {
        &text[text.iter().position(|byte| !is_part(*byte)).unwrap_or(text.len())..]
    }
    let (mut weight, mut begins_line) = (0, true);
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        weight += 49;
        weight += match byte {
            b'[' if begins_line => 1180,
            b'{' | b'.' => 1250,
            b'[' => 290,
            b'=' => 160,
            b',' => 60,
            _ => 0,
        };
        rest = match byte {
            b'"' | b'\'' => after_string(rest, byte),
            b'#' => behind(after, &|byte| byte != b'\n'),
            b'[' if begins_line => after.strip_prefix(b"[").unwrap_or(after),
            _ if kind(byte) == 1 => after,
            _ => behind(after, &|other| kind(other) == kind(byte)),
        };
        begins_line = byte == b'\n' || begins_line && kind(byte) == 0;
    }
    weight
}

/// What follows the string that a text begins with.
fn after_string(text: &[u8], quote: u8) -> &[u8] {
    let is_long = text.starts_with(&[quote; 3]);
    let mut at = if is_long { 3 } else { 1 };
    while let Some(byte) = text.get(at) {
        match *byte {
            b'\\' if quote == b'"' => at += 1,
            b'\n' if !is_long => return &text[at..],
            byte if byte == quote && !is_long => return &text[at + 1..],
            byte if byte == quote && text[at..].starts_with(&[quote; 3]) => {
                // Two more may belong to the string.
                let more = text[at + 3..].iter().take(2).take_while(|byte| **byte == quote).count();
                return &text[at + 3 + more..];
            }
            _ => {}
        }
        at += 1;
    }
    &[]
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
    fn values_count_and_what_is_in_strings_does_not() {
        for (text, words, values) in [
            ("", 0, 0),
            ("a = 1\n", 6, 160),
            ("a  =\t\r 1.5", 7, 160 + 1250),
            ("[[a.b]]\n [c]", 11, 2 * 1180 + 1250),
            ("a=[[{}]]", 8, 160 + 2 * 290 + 1250),
            ("'.[{=' # .[{=\n.", 5, 1250),
            (r#""a\".[{="."#, 2, 1250),
            (r"'a\'.", 2, 1250),
            (r#""""ab.\"""."""."#, 2, 1250),
            ("'''\n.'''''.'.'", 3, 1250),
            ("\"never ends\n.", 3, 1250),
            (r#""""never ends."#, 1, 0),
            (r#""ends with \"#, 1, 0),
        ] {
            assert_eq!(weight(text), words * 49 + values, "{text:?}");
        }
    }

    #[test]
    fn what_takes_too_much_is_refused_and_long_texts_are_not() {
        for (head, unit, tail) in [
            ("a = [", "0,", "]"),
            ("a = [", "{a=0},", "]"),
            ("a = [", "[[[0]]],", "]"),
            ("", "[[a]]\nb=1\n", ""),
            ("", "[a.b.c.d.e.f.g]\n", ""),
            ("", "\n", ""),
        ] {
            let text = format!("{head}{}{tail}", unit.repeat((4 << 20) / unit.len()));
            let error = from_str::<Table>(&text).unwrap_err().to_string();
            assert!(error.contains("more than 48 MiB"), "{unit}: {error}");
        }
        let process = "[[processes]]\ntype = 'p'\ncommand = ['a', 'b']\nargs = ['c']\ndefault = false\n";
        let text = format!("a = '''{}'''\n", ".=[{\n".repeat(500_000));
        for text in [process.repeat(10_000), text] {
            assert!(from_str::<Table>(&text).is_ok(), "{text:.20}");
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
