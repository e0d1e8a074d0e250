//! The text of `config/metadata.toml`, which is in the app image.

use crate::group::GroupElement;
use crate::json;
use crate::launch::{BomEntry, BuildMetadata, Command, Process};
use crate::toml_text::{Fields, Item};

impl BuildMetadata {
    /// The text of `config/metadata.toml`.
    pub fn to_toml(&self) -> String {
        let mut fields = Fields::default();
        fields.tables("bom", self.bom.iter().map(bom_entry));
        fields.tables("buildpacks", self.buildpacks.iter().map(group_element));
        fields.tables("extensions", self.extensions.iter().map(group_element));
        let labels = self.labels.iter().map(|label| {
            let mut fields = Fields::default();
            fields.text("key", &label.key);
            fields.text("value", &label.value);
            fields
        });
        fields.tables("labels", labels);
        if self.processes.is_empty() {
            fields.list("processes", &[]);
        }
        fields.tables("processes", self.processes.iter().map(process));
        let slices = self.slices.iter().map(|slice| {
            let mut fields = Fields::default();
            fields.list("paths", &slice.paths);
            fields
        });
        fields.tables("slices", slices);
        fields.text_unless_empty("buildpack-default-process-type", &self.buildpack_default_process_type);
        fields.into_text()
    }
}

fn bom_entry(entry: &BomEntry) -> Fields {
    let mut fields = Fields::default();
    fields.text("name", &entry.name);
    fields.metadata(entry.metadata.as_ref());
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use toml::{Table, Value};

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
                bom: vec![BomEntry { metadata: Some(Metadata(table)), ..BomEntry::default() }],
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
