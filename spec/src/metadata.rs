//! Tables of a buildpack's own making: layer metadata, `store.toml`, build plan metadata.
//!
//! They are TOML where buildpacks and phases write them, and JSON inside labels and caches on the way to the next build.
//! An empty table is not the same as none: there are buildpacks that take only the one for a layer of their own.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use toml::{Table, Value as Toml};

use crate::toml_text::Fields;

/// A table whose content only a buildpack understands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metadata(pub Table);

/// A number that JSON cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "metadata key `{key}` is {value}, which JSON, and so the image's label, cannot hold; use a finite number or a string"
)]
pub struct NotJson {
    key: String,
    value: String,
}

impl Metadata {
    /// The text of a file that has a table `metadata` and nothing else: a `store.toml`, a restored `<layer>.toml`.
    pub fn to_toml(&self) -> String {
        let mut fields = Fields::default();
        fields.metadata(Some(self));
        fields.into_text()
    }

    /// As JSON: integers stay integers and floats floats; dates become strings.
    pub fn to_json(&self) -> Result<Json, NotJson> {
        table_to_json(&self.0)
    }

    /// From JSON; `None` for anything but an object. `null`s inside are left out: TOML has none.
    pub fn from_json(json: &Json) -> Option<Self> {
        match to_toml(json) {
            Some(Toml::Table(table)) => Some(Self(table)),
            _ => None,
        }
    }
}

fn table_to_json(table: &Table) -> Result<Json, NotJson> {
    let fields = table.iter().map(|(key, value)| Ok((key.clone(), to_json(key, value)?)));
    Ok(Json::Object(fields.collect::<Result<_, NotJson>>()?))
}

fn to_json(key: &str, value: &Toml) -> Result<Json, NotJson> {
    Ok(match value {
        Toml::String(text) => Json::from(text.as_str()),
        Toml::Integer(number) => Json::from(*number),
        Toml::Float(number) => serde_json::Number::from_f64(*number)
            .map(Json::Number)
            .ok_or_else(|| NotJson { key: key.to_owned(), value: number.to_string() })?,
        Toml::Boolean(truth) => Json::from(*truth),
        Toml::Datetime(date) => Json::from(date.to_string()),
        Toml::Array(items) => {
            Json::Array(items.iter().map(|item| to_json(key, item)).collect::<Result<_, _>>()?)
        }
        Toml::Table(table) => table_to_json(table)?,
    })
}

fn to_toml(json: &Json) -> Option<Toml> {
    Some(match json {
        Json::Null => return None,
        Json::Bool(truth) => Toml::Boolean(*truth),
        Json::String(text) => Toml::String(text.clone()),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Toml::Integer(integer),
            None => Toml::Float(number.as_f64()?),
        },
        Json::Array(items) => Toml::Array(items.iter().filter_map(to_toml).collect()),
        Json::Object(fields) => Toml::Table(
            fields.iter().filter_map(|(key, value)| Some((key.clone(), to_toml(value)?))).collect(),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(text: &str) -> Metadata {
        Metadata(text.parse().unwrap())
    }

    #[test]
    fn numbers_keep_their_kind_on_the_way_through_json() {
        let before =
            metadata("i = 3\nf = 3.0\nbig = 9007199254740993\nb = true\ns = 'x'\na = [1, 2.5]\n[t]\nk = 'v'");
        let json = before.to_json().unwrap().to_string();
        assert!(json.contains(r#""f":3.0"#) && json.contains(r#""i":3,"#), "{json}");
        assert_eq!(Metadata::from_json(&serde_json::from_str(&json).unwrap()).unwrap(), before);
    }

    #[test]
    fn the_table_of_a_file_is_there_whatever_its_shape() {
        for (text, want) in [
            ("", "[metadata]\n"),
            ("n = 1\nf = 2.0", "[metadata]\n  f = 2.0\n  n = 1\n"),
            (
                "[sub]\n[sub.empty]\n[last]\nk = 'v'",
                "[metadata]\n  [metadata.last]\n    k = \"v\"\n  [metadata.sub]\n    [metadata.sub.empty]\n",
            ),
            (
                "list = []\n[[tables]]\na = 1\n[[tables]]",
                "[metadata]\n  list = []\n\n  [[metadata.tables]]\n    a = 1\n\n  [[metadata.tables]]\n",
            ),
            (
                "mixed = [1, { a = {} }]\n\"a b\" = [[{ x = 1 }]]",
                "[metadata]\n  \"a b\" = [[{x = 1}]]\n  mixed = [1, {a = {}}]\n",
            ),
        ] {
            let before = metadata(text);
            assert_eq!(before.to_toml(), want);
            assert_eq!(toml::from_str::<Table>(want).unwrap()["metadata"], Toml::Table(before.0.clone()));
            assert_eq!(Metadata::from_json(&before.to_json().unwrap()), Some(before));
        }
    }

    #[test]
    fn a_date_becomes_a_string() {
        let json = metadata("d = 2024-01-02T03:04:05Z").to_json().unwrap();
        assert_eq!(json["d"], "2024-01-02T03:04:05Z");
    }

    #[test]
    fn what_is_no_number_is_refused_by_name() {
        let error = metadata("[t]\nx = nan").to_json().unwrap_err().to_string();
        assert!(error.contains("`x`"), "{error}");
    }

    #[test]
    fn nulls_are_left_out() {
        let json = serde_json::json!({"a": null, "b": [null, 1]});
        assert_eq!(Metadata::from_json(&json).unwrap(), metadata("b = [1]"));
        assert_eq!(Metadata::from_json(&Json::Null), None);
    }
}
