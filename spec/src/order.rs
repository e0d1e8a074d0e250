//! `order.toml`: which groups of buildpacks and extensions to try, in which order.
//!
//! Specification: `platform.md` § `order.toml`, `buildpack.md` § Order Resolution.

use serde::{Deserialize, Serialize};

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct OrderToml {
    /// Groups of buildpacks, the one to try first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub order: Vec<OrderGroup>,
    /// Groups of extensions, the one to try first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub order_extensions: Vec<OrderGroup>,
}

/// A group to try.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OrderGroup {
    /// Its members in the order in which they build.
    #[serde(deserialize_with = "crate::module::null_as_default")]
    pub group: Vec<OrderElement>,
}

/// A member of a group to try.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct OrderElement {
    /// Its ID.
    pub id: String,
    /// Its version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Whether the group can do without it. Extensions are always optional.
    #[serde(skip_serializing_if = "crate::is_false")]
    pub optional: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_orders_are_read_and_unknown_keys_left_alone() {
        let text = "x = 1\n[[order]]\n[[order.group]]\nid = 'a'\nversion = '1'\noptional = true\nexec-env = ['test']\n\
            [[order.group]]\nid = 'b'\nversion = '2'\n[[order-extensions]]\ngroup = [{ id = 'e', version = '3' }]\n";
        let order: OrderToml = toml::from_str(text).unwrap();
        let element = |id: &str, version: &str, optional| OrderElement {
            id: id.into(),
            version: version.into(),
            optional,
        };
        assert_eq!(order.order[0].group, [element("a", "1", true), element("b", "2", false)]);
        assert_eq!(order.order_extensions[0].group, [element("e", "3", false)]);
    }

    proptest! {
        #[test]
        fn whatever_is_written_there_is_read_or_refused(text in r"(\[\[order(-extensions|\.group)?\]\]|group|id|version|optional| = |\[|\]|'a'|true|1|\n|\{|\}|,){0,40}") {
            let _: Result<OrderToml, _> = toml::from_str(&text);
        }
    }
}
