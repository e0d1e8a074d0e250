//! Build plans: what buildpacks provide to and require of each other.
//!
//! `bin/detect` writes a [`BuildPlan`]; the detector makes of all of them the [`Plan`] (`plan.toml`); of it, each
//! buildpack and extension is given its part, a [`BuildpackPlan`]. Specification: `buildpack.md` § Build Plan and
//! § Buildpack Plan, `platform.md` § `plan.toml`.

use serde::{Deserialize, Serialize};

use crate::metadata::Metadata;
use crate::toml_text::Fields;

/// What a `bin/detect` writes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct BuildPlan {
    /// What is provided.
    pub provides: Vec<Provide>,
    /// What is required.
    pub requires: Vec<DeclaredRequire>,
    /// What else could be provided and required instead.
    pub or: Vec<PlanSections>,
}

/// One of the alternatives of a build plan.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PlanSections {
    /// What is provided.
    pub provides: Vec<Provide>,
    /// What is required.
    pub requires: Vec<DeclaredRequire>,
}

impl BuildPlan {
    /// The alternatives, the one to try first.
    pub fn alternatives(self) -> Vec<PlanSections> {
        let first = PlanSections { provides: self.provides, requires: self.requires };
        std::iter::once(first).chain(self.or).collect()
    }
}

/// Something that is provided.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Provide {
    /// Its name.
    pub name: String,
}

/// Something that is required, as `bin/detect` writes it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DeclaredRequire {
    /// Its name.
    pub name: String,
    /// An old place for a version, which is an error unless empty: it belongs into the metadata.
    pub version: String,
    /// What the one who provides it should know.
    pub metadata: Option<Metadata>,
}

/// Something that is required.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Require {
    /// Its name.
    pub name: String,
    /// What the one who provides it should know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
}

impl From<&DeclaredRequire> for Require {
    fn from(declared: &DeclaredRequire) -> Self {
        Self { name: declared.name.clone(), metadata: declared.metadata.clone() }
    }
}

/// What a buildpack or an extension should provide: the file that `bin/build` and `bin/generate` are given.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BuildpackPlan {
    /// What is required of it.
    pub entries: Vec<Require>,
}

/// `plan.toml`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// An entry for each name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<PlanEntry>,
}

/// Who provides something, and who requires it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanEntry {
    /// Those who provide it.
    pub providers: Vec<Provider>,
    /// What is required: all of one name.
    pub requires: Vec<Require>,
}

/// A buildpack or an extension that provides something.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provider {
    /// Its ID.
    pub id: String,
    /// Its version.
    pub version: String,
    /// Whether it is an extension.
    #[serde(skip_serializing_if = "crate::is_false")]
    pub extension: bool,
}

impl BuildpackPlan {
    /// The text of the file, as the other implementation writes it.
    pub fn to_toml(&self) -> String {
        let entry = |require: &Require| {
            let mut fields = Fields::default();
            fields.text("name", &require.name);
            fields.metadata(require.metadata.as_ref());
            fields
        };
        let mut fields = Fields::default();
        fields.tables("entries", self.entries.iter().map(entry));
        fields.into_text()
    }
}

impl Plan {
    /// What is required of a buildpack, or of an extension.
    pub fn part_of(&self, id: &str, extension: bool) -> BuildpackPlan {
        let is_meant = |provider: &Provider| provider.id == id && provider.extension == extension;
        let entries = self.entries.iter().filter(|entry| entry.providers.iter().any(is_meant));
        BuildpackPlan { entries: entries.flat_map(|entry| entry.requires.iter().cloned()).collect() }
    }

    /// The plan without the entries in which one of these names is required.
    #[must_use]
    pub fn without(mut self, names: &[String]) -> Self {
        self.entries.retain(|entry| !entry.requires.iter().any(|require| names.contains(&require.name)));
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAN: &str = "[[entries]]\n\
        providers = [{ id = 'a', version = '1' }, { id = 'e', version = '1', extension = true }]\n\
        requires = [{ name = 'x' }, { name = 'x', metadata = { n = 1 } }]\n\
        [[entries]]\n\
        providers = [{ id = 'a', version = '1' }]\n\
        requires = [{ name = 'y' }]\n";

    fn names(plan: &BuildpackPlan) -> Vec<&str> {
        plan.entries.iter().map(|require| require.name.as_str()).collect()
    }

    #[test]
    fn each_provider_is_given_its_part() {
        let plan: Plan = toml::from_str(PLAN).unwrap();
        assert_eq!(toml::from_str::<Plan>(&toml::to_string(&plan).unwrap()).unwrap(), plan);
        for (id, extension, want) in [
            ("a", false, &["x", "x", "y"][..]),
            ("e", true, &["x", "x"]),
            ("a", true, &[]),
            ("e", false, &[]),
        ] {
            assert_eq!(names(&plan.part_of(id, extension)), want, "{id} {extension}");
        }
        assert_eq!(
            plan.part_of("e", true).to_toml(),
            "[[entries]]\n  name = \"x\"\n\n[[entries]]\n  name = \"x\"\n  [entries.metadata]\n    n = 1\n"
        );
        let rest = plan.without(&["x".into()]);
        assert_eq!(names(&rest.part_of("a", false)), ["y"]);
    }

    #[test]
    fn an_empty_plan_is_an_empty_file() {
        assert_eq!(toml::to_string(&Plan::default()).unwrap(), "");
        assert_eq!(BuildpackPlan::default().to_toml(), "");
    }

    #[test]
    fn empty_metadata_is_handed_on() {
        let text = "[[requires]]\nname = 'a'\n[[requires]]\nname = 'b'\nmetadata = {}\n";
        let declared = toml::from_str::<BuildPlan>(text).unwrap().requires;
        let requires: Vec<_> = declared.iter().map(Require::from).collect();
        let entry =
            PlanEntry { providers: vec![Provider { id: "p".into(), ..Provider::default() }], requires };
        let plan = toml::to_string(&Plan { entries: vec![entry] }).unwrap();
        assert_eq!(
            toml::from_str::<Plan>(&plan).unwrap().part_of("p", false).to_toml(),
            "[[entries]]\n  name = \"a\"\n\n[[entries]]\n  name = \"b\"\n  [entries.metadata]\n"
        );
    }

    #[test]
    fn alternatives_come_after_the_plan_itself() {
        let text =
            "provides = [{ name = 'a' }]\n[[or]]\nrequires = [{ name = 'b', version = '1' }]\n[[or]]\n";
        let alternatives = toml::from_str::<BuildPlan>(text).unwrap().alternatives();
        assert_eq!(alternatives.len(), 3);
        assert_eq!(alternatives[0].provides[0].name, "a");
        assert_eq!(alternatives[1].requires[0].version, "1");
        assert_eq!(alternatives[2], PlanSections::default());
    }

    proptest! {
        #[test]
        fn whatever_is_written_there_is_read_or_refused(text in r"(\[\[(or\.)?(provides|requires|or)\]\]|\[requires\.metadata\]|name|version| = |\[|\]|'a'|1|\n|\{|\}|,){0,40}") {
            let _: Result<BuildPlan, _> = toml::from_str(&text);
            let _: Result<Plan, _> = toml::from_str(&text);
        }
    }
}
