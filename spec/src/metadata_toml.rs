//! The text of `config/metadata.toml` as the other implementation writes it: the file is in the app image, and the same
//! build should give the same layer.
//!
//! Plain values come before tables, each table is indented by its depth, and an empty line is before each table at the
//! top and each element of an array of tables.

use std::fmt::Write as _;

use toml::{Table, Value};

use crate::group::GroupElement;
use crate::json;
use crate::launch::{BomEntry, BuildMetadata, Command, Process};

impl BuildMetadata {
    /// The text of `config/metadata.toml`.
    pub fn to_toml(&self) -> String {
        let tables = |tables: Vec<Fields>| (!tables.is_empty()).then_some(Item::Tables(tables));
        let mut fields = Fields::default();
        fields.add("bom", tables(self.bom.iter().map(bom_entry).collect()));
        fields.add("buildpacks", tables(self.buildpacks.iter().map(group_element).collect()));
        fields.add("extensions", tables(self.extensions.iter().map(group_element).collect()));
        let labels = self.labels.iter().map(|label| {
            let mut fields = Fields::default();
            fields.text("key", &label.key);
            fields.text("value", &label.value);
            fields
        });
        fields.add("labels", tables(labels.collect()));
        let processes = tables(self.processes.iter().map(process).collect());
        fields.add("processes", processes.or_else(|| Some(Item::Value("[]".into()))));
        let slices = self.slices.iter().map(|slice| {
            let mut fields = Fields::default();
            fields.list("paths", &slice.paths);
            fields
        });
        fields.add("slices", tables(slices.collect()));
        fields.text_unless_empty("buildpack-default-process-type", &self.buildpack_default_process_type);
        let mut text = String::new();
        fields.write(&mut text, "", 0);
        text
    }
}

fn bom_entry(entry: &BomEntry) -> Fields {
    let mut fields = Fields::default();
    fields.text("name", &entry.name);
    fields.add("metadata", (!entry.metadata.is_empty()).then(|| Item::Table(own_table(&entry.metadata.0))));
    fields.add("buildpack", Some(Item::Table(group_element(&entry.buildpack))));
    fields
}

fn group_element(element: &GroupElement) -> Fields {
    let mut fields = Fields::default();
    fields.text("id", &element.id);
    fields.text("version", &element.version);
    fields.text_unless_empty("api", &element.api);
    fields.text_unless_empty("homepage", &element.homepage);
    fields
}

fn process(process: &Process) -> Fields {
    // Commands, unlike all other strings, are written as in JSON.
    let quoted = |text: &String| json::to_string(text).expect("a string makes JSON");
    let command = match &process.command {
        Command::Text(text) => quoted(text),
        Command::List(words) => format!("[{}]", words.iter().map(quoted).collect::<Vec<_>>().join(", ")),
    };
    let mut fields = Fields::default();
    fields.text("type", &process.r#type);
    fields.add("command", Some(Item::Value(command)));
    if let Some(args) = &process.args {
        fields.list("args", args);
    }
    fields.add("direct", Some(Item::Value(process.direct.to_string())));
    fields.text("buildpack-id", &process.buildpack_id);
    fields.text_unless_empty("working-dir", &process.working_dir);
    if !process.exec_env.is_empty() {
        fields.list("exec-env", &process.exec_env);
    }
    fields
}

/// A table's keys in their order.
#[derive(Default)]
struct Fields(Vec<(String, Item)>);

enum Item {
    /// The text of a value.
    Value(String),
    Table(Fields),
    Tables(Vec<Fields>),
}

impl Fields {
    fn add(&mut self, key: &str, item: Option<Item>) {
        self.0.extend(item.map(|item| (quoted_key(key), item)));
    }

    fn text(&mut self, key: &str, text: &str) {
        self.add(key, Some(Item::Value(quoted(text))));
    }

    fn text_unless_empty(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            self.text(key, text);
        }
    }

    fn list(&mut self, key: &str, items: &[String]) {
        let items: Vec<_> = items.iter().map(|item| quoted(item)).collect();
        self.add(key, Some(Item::Value(format!("[{}]", items.join(", ")))));
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
    use proptest::prelude::*;

    use super::*;
    use crate::launch::{Label, Slice};
    use crate::metadata::Metadata;

    #[test]
    fn the_text_is_the_other_implementations() {
        let metadata: BuildMetadata = toml::from_str(
            r#"
            buildpack-default-process-type = "web"
            labels = [{ key = "k", value = "a\tb & \u0007\u007f" }]
            buildpacks = [{ id = "acme/a", version = "1", api = "0.10", homepage = "h" }, { id = "b", version = "2" }]
            extensions = [{ id = "e", version = "1" }]
            slices = [{ paths = ["a", "b"] }, { paths = [] }]
            bom = [{ name = "n", buildpack = { id = "b", version = "2" }, metadata = {
                f = 1.0, list = [1, { x = "y" }], tables = [{ i = 1, sub = { z = 1 } }, {}], "a b" = {}, "" = true } }]
            processes = [
                { type = "web", command = ["a & <b>", "c"], args = ["& d"], direct = true, buildpack-id = "b",
                  working-dir = "/w", exec-env = ["test"] },
                { type = "job", command = ["d"], buildpack-id = "b" },
            ]
            "#,
        )
        .unwrap();
        let expected = r#"buildpack-default-process-type = "web"

[[bom]]
  name = "n"
  [bom.metadata]
    "" = true
    f = 1.0
    list = [1, {x = "y"}]
    [bom.metadata."a b"]

    [[bom.metadata.tables]]
      i = 1
      [bom.metadata.tables.sub]
        z = 1

    [[bom.metadata.tables]]
  [bom.buildpack]
    id = "b"
    version = "2"

[[buildpacks]]
  id = "acme/a"
  version = "1"
  api = "0.10"
  homepage = "h"

[[buildpacks]]
  id = "b"
  version = "2"

[[extensions]]
  id = "e"
  version = "1"

[[labels]]
  key = "k"
  value = "a\tb & \u0007\u007f"

[[processes]]
  type = "web"
  command = ["a \u0026 \u003cb\u003e", "c"]
  args = ["& d"]
  direct = true
  buildpack-id = "b"
  working-dir = "/w"
  exec-env = ["test"]

[[processes]]
  type = "job"
  command = ["d"]
  direct = false
  buildpack-id = "b"

[[slices]]
  paths = ["a", "b"]

[[slices]]
  paths = []
"#;
        assert_eq!(metadata.to_toml(), expected);
        assert_eq!(toml::from_str::<BuildMetadata>(expected).unwrap(), metadata);
    }

    #[test]
    fn no_line_is_empty_at_the_start() {
        assert_eq!(BuildMetadata::default().to_toml(), "processes = []\n");
        let process = Process { command: Command::Text("a".into()), ..Process::default() };
        let metadata = BuildMetadata { processes: vec![process], ..BuildMetadata::default() };
        assert!(metadata.to_toml().starts_with("[[processes]]\n  type = \"\"\n  command = \"a\"\n"));
    }

    proptest! {
        /// Whatever the strings hold, they come back.
        #[test]
        fn it_reads_back(text: String, list: Vec<String>, key: String) {
            let table = Table::from_iter([(key, Value::from(text.clone()))]);
            let metadata = BuildMetadata {
                bom: vec![BomEntry { metadata: Metadata(table), ..BomEntry::default() }],
                labels: vec![Label { key: text.clone(), value: text.clone() }],
                processes: vec![Process {
                    command: Command::List(list.clone()),
                    args: Some(list.clone()),
                    working_dir: text,
                    ..Process::default()
                }],
                slices: vec![Slice { paths: list }],
                ..BuildMetadata::default()
            };
            prop_assert_eq!(toml::from_str::<BuildMetadata>(&metadata.to_toml()).unwrap(), metadata);
        }
    }
}
