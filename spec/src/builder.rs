//! `builder.toml`, of which a builder is made, and `package.toml`, of which a buildpack package is made.
//!
//! Both are the platform's own: the keys are those of `pack builder create` and `pack buildpack package`. A key that is not
//! known is an error: what it asks for would not be done.

use serde::Deserialize;

use crate::analyzed::StackRunImage;
use crate::buildpack::ModuleTarget;
use crate::order::OrderGroup;
use crate::system::System;

/// `builder.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct BuilderToml {
    /// What it is for, for people.
    pub description: String,
    /// Its buildpacks.
    pub buildpacks: Vec<ModuleSource>,
    /// Its extensions.
    pub extensions: Vec<ModuleSource>,
    /// Groups of buildpacks, the one to try first.
    pub order: Vec<OrderGroup>,
    /// Groups of extensions, the one to try first.
    pub order_extensions: Vec<OrderGroup>,
    /// Buildpacks before and after each group.
    pub system: System,
    /// What builds run in.
    pub build: BuildSection,
    /// What apps run on.
    pub run: RunSection,
    /// The older form of both.
    pub stack: StackSection,
    /// What runs the buildpacks.
    pub lifecycle: LifecycleSection,
    /// The platforms that it can be made for; any if empty.
    pub targets: Vec<ModuleTarget>,
}

/// Where a buildpack or an extension comes from: one of `uri` and `image`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModuleSource {
    /// The ID that it must have; any if empty.
    pub id: String,
    /// The version that it must have; any if empty.
    pub version: String,
    /// A folder or a file.
    pub uri: String,
    /// A package's name.
    pub image: String,
}

/// `[build]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BuildSection {
    /// The image.
    pub image: String,
    /// Variables of builds, which users can override.
    pub env: Vec<BuildVariable>,
}

/// A variable of builds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BuildVariable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// What becomes of a value that is there: `default`, `override`, `append` or `prepend`, as in an env folder.
    pub suffix: String,
    /// What comes between two values.
    pub delim: String,
}

/// `[run]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunSection {
    /// The images, the one to use first.
    pub images: Vec<StackRunImage>,
}

/// `[stack]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct StackSection {
    /// Its ID, which build image and run image have as a label.
    pub id: String,
    /// What builds run in.
    pub build_image: String,
    /// What apps run on.
    pub run_image: String,
    /// Other names of that.
    pub run_image_mirrors: Vec<String>,
}

/// `[lifecycle]`: at most one of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LifecycleSection {
    /// A folder or an archive.
    pub uri: String,
    /// The version that it must have.
    pub version: String,
}

/// `package.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PackageToml {
    /// Where the buildpack is: the file's own folder, if this is empty.
    pub buildpack: PackagedModule,
    /// Where the extension is, if it is none.
    pub extension: PackagedModule,
    /// Buildpacks that a composite one consists of.
    pub dependencies: Vec<ModuleSource>,
    /// The older form of a target.
    pub platform: PackagePlatform,
    /// The platforms that it can be made for; any if empty.
    pub targets: Vec<ModuleTarget>,
}

/// `[buildpack]` and `[extension]` of `package.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PackagedModule {
    /// A folder or a file.
    pub uri: String,
}

/// `[platform]` of `package.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PackagePlatform {
    /// The operating system.
    pub os: String,
}

impl BuilderToml {
    /// The images of the older form in place of those that the newer one lacks; what the two forms disagree upon is an
    /// error: the key, and what is wrong with it.
    pub fn merged(mut self) -> Result<Self, (&'static str, String)> {
        let of_stack = std::mem::take(&mut self.stack.build_image);
        if self.build.image.is_empty() {
            self.build.image = of_stack;
        } else if !of_stack.is_empty() && of_stack != self.build.image {
            let reason = format!("is `{of_stack}`, but build.image is `{}`", self.build.image);
            return Err(("stack.build-image", reason));
        }
        if self.build.image.is_empty() {
            return Err(("build.image", "is missing: name the image that builds run in".to_owned()));
        }
        let image = std::mem::take(&mut self.stack.run_image);
        let mirrors = std::mem::take(&mut self.stack.run_image_mirrors);
        match self.run.images.first() {
            None if image.is_empty() => {
                return Err(("run.images", "is missing: name an image that apps run on".to_owned()));
            }
            None => self.run.images.push(StackRunImage { image, mirrors }),
            Some(first) if !image.is_empty() && first.image != image => {
                let reason = format!("is `{image}`, but run.images[0].image is `{}`", first.image);
                return Err(("stack.run-image", reason));
            }
            Some(_) => {}
        }
        Ok(self)
    }
}

/// Why a variable of builds cannot be a file of an env folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct InvalidVariable {
    /// Which key of the variable.
    pub key: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl BuildVariable {
    /// The files of the env folder that stand for it, with what is in them. Specification: `platform.md` § Provided by the
    /// Platform.
    pub fn files(&self) -> Result<Vec<(String, &str)>, InvalidVariable> {
        let invalid = |key, reason: String| Err(InvalidVariable { key, reason });
        let Self { name, value, suffix, delim } = self;
        if name.is_empty()
            || name.starts_with('.')
            || name.contains(['/', '=', '\0', '.'])
            || name.len() > 200
        {
            return invalid("name", format!("`{name}` cannot be the name of a variable"));
        }
        if value.contains('\0') {
            return invalid("value", format!("the value of `{name}` has a NUL"));
        }
        let mut files = match suffix.as_str() {
            "" => vec![(name.clone(), value.as_str())],
            "append" | "prepend" if delim.is_empty() => {
                return invalid("delim", format!("`{name}` has the suffix `{suffix}`, which needs a delim"));
            }
            "default" | "override" | "append" | "prepend" => {
                vec![(format!("{name}.{suffix}"), value.as_str())]
            }
            _ => {
                let known = "one of `default`, `override`, `append`, `prepend`";
                return invalid("suffix", format!("`{suffix}` is not {known}"));
            }
        };
        if !delim.is_empty() {
            files.push((format!("{name}.delim"), delim));
        }
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::toml_text;

    #[test]
    fn both_forms_are_read() {
        let new = "[build]\nimage = 'b'\n[[run.images]]\nimage = 'r'\nmirrors = ['m']\n";
        let old = "[stack]\nid = 's'\nbuild-image = 'b'\nrun-image = 'r'\nrun-image-mirrors = ['m']\n";
        for text in [new, old, &format!("{new}{old}")] {
            let file: BuilderToml = toml_text::from_str(text).unwrap();
            let file = file.merged().unwrap();
            assert_eq!(file.build.image, "b", "{text}");
            let run_image = StackRunImage { image: "r".into(), mirrors: vec!["m".into()] };
            assert_eq!(file.run.images, [run_image], "{text}");
        }
    }

    #[test]
    fn what_is_missing_or_disagrees_is_named() {
        for (text, key) in [
            ("", "build.image"),
            ("[build]\nimage = 'b'", "run.images"),
            ("[build]\nimage = 'b'\n[stack]\nbuild-image = 'c'\nrun-image = 'r'", "stack.build-image"),
            (
                "[build]\nimage = 'b'\n[[run.images]]\nimage = 'r'\n[stack]\nrun-image = 'q'",
                "stack.run-image",
            ),
        ] {
            let file: BuilderToml = toml_text::from_str(text).unwrap();
            assert_eq!(file.merged().unwrap_err().0, key, "{text}");
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        for text in ["x = 1", "[build]\nimages = 'b'", "[[buildpacks]]\npath = 'x'", "[lifecycle]\nurl = 'x'"]
        {
            let error = toml_text::from_str::<BuilderToml>(text).unwrap_err().to_string();
            assert!(error.contains("unknown field"), "{error}");
        }
        assert!(toml_text::from_str::<PackageToml>("[[dependencies]]\nurl = 'x'").is_err());
    }

    #[test]
    fn variables_become_files() {
        let variable = |name: &str, value: &str, suffix: &str, delim: &str| BuildVariable {
            name: name.into(),
            value: value.into(),
            suffix: suffix.into(),
            delim: delim.into(),
        };
        for (from, want) in [
            (variable("A", "1", "", ""), Ok(vec![("A", "1")])),
            (variable("A", "", "default", ""), Ok(vec![("A.default", "")])),
            (variable("A", "1", "append", ":"), Ok(vec![("A.append", "1"), ("A.delim", ":")])),
            (variable("A", "1", "prepend", ""), Err("delim")),
            (variable("A", "1", "suffix", ""), Err("suffix")),
            (variable("", "1", "", ""), Err("name")),
            (variable("../A", "1", "", ""), Err("name")),
            (variable("A=B", "1", "", ""), Err("name")),
            (variable("A", "\0", "", ""), Err("value")),
        ] {
            let files = from.files();
            let found = files
                .as_ref()
                .map(|files| files.iter().map(|(name, value)| (name.as_str(), *value)).collect::<Vec<_>>());
            assert_eq!(found.map_err(|error| error.key), want, "{from:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_there_is_read_or_refused(text in r"(\[\[(buildpacks|order|targets|run\.images|build\.env|order\.group)\]\]|\[(build|run|stack|lifecycle)\]|id|uri|image|mirrors| = |\[|\]|'a'|true|1|\n|\{|\}|,){0,40}") {
            if let Ok(file) = toml::from_str::<BuilderToml>(&text) {
                let _: Result<BuilderToml, _> = file.merged();
            }
            let _: Result<PackageToml, _> = toml::from_str(&text);
        }
    }
}
