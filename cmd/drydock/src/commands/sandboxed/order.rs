//! Buildpacks that are chosen for one build, in place of the builder's order.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use drydock_sandbox::bundle::Mount;
use drydock_sandbox::tree;
use drydock_spec::buildpack::{BuildpackToml, ModuleKind};
use drydock_spec::module::dir_name;
use drydock_spec::order::{OrderElement, OrderGroup, OrderToml};
use drydock_spec::toml_text;

use crate::exit::Usage;

/// Bytes that a `buildpack.toml` may have.
const MAX_DESCRIPTOR: u64 = 1 << 20;

/// Versions of one buildpack that are looked at.
const MAX_VERSIONS: usize = 1000;

/// What becomes of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    /// The text of `order.toml`.
    pub(super) order: String,
    /// Those that are not the builder's.
    pub(super) mounts: Vec<Mount>,
}

/// Finds what the user names, in the builder's files or on this machine.
pub(super) fn choose(names: &[String], builder: &Path) -> Result<Chosen> {
    let (mut group, mut mounts) = (Vec::new(), Vec::new());
    for name in names {
        if name.starts_with(['/', '.']) {
            let (element, mount) = of_folder(Path::new(name))?;
            group.push(element);
            mounts.push(mount);
        } else {
            group.push(of_builder(name, builder)?);
        }
    }
    let order = OrderToml { order: vec![OrderGroup { group }], ..OrderToml::default() };
    Ok(Chosen { order: toml_text::to_string(&order)?, mounts })
}

fn of_folder(dir: &Path) -> Result<(OrderElement, Mount)> {
    let from: PathBuf =
        std::fs::canonicalize(dir).with_context(|| format!("cannot find `{}`", dir.display()))?;
    let text = tree::read(&from, "buildpack.toml", MAX_DESCRIPTOR)
        .with_context(|| format!("cannot read `{}/buildpack.toml`", dir.display()))?;
    let Some(text) = text else { bail!("`{}` is no buildpack: it has no buildpack.toml", dir.display()) };
    let descriptor: BuildpackToml = toml_text::from_str(&text)
        .with_context(|| format!("cannot parse `{}/buildpack.toml`", dir.display()))?;
    let (id, version) = (descriptor.buildpack.id, descriptor.buildpack.version);
    if [&id, &version].iter().any(|word| word.is_empty() || word.contains("..")) || version.contains('/') {
        bail!("`{}/buildpack.toml` has no usable ID and version", dir.display());
    }
    let to = format!("/{}/{}/{version}", ModuleKind::Buildpack.dir(), dir_name(&id));
    Ok((OrderElement { id, version, optional: false }, Mount { from, to, writable: false }))
}

fn of_builder(name: &str, builder: &Path) -> Result<OrderElement> {
    let (id, version) = name.split_once('@').map_or((name, None), |(id, version)| (id, Some(version)));
    let folder = format!("/{}/{}", ModuleKind::Buildpack.dir(), dir_name(id));
    let there = tree::list(builder, &folder, MAX_VERSIONS).context("cannot list the builder's buildpacks")?;
    let version = match (version, there.as_slice()) {
        (Some(version), there) if there.iter().any(|one| one == version) => version,
        (None, [only]) => only,
        (_, []) => return Err(Usage(format!("the builder has no buildpack `{id}`")).into()),
        (Some(version), there) => {
            let text =
                format!("the builder has no version `{version}` of `{id}`; it has {}", there.join(", "));
            return Err(Usage(text).into());
        }
        (None, there) => {
            let text = format!(
                "the builder has several versions of `{id}`: name one of {} after an @",
                there.join(", ")
            );
            return Err(Usage(text).into());
        }
    };
    Ok(OrderElement { id: id.to_owned(), version: version.to_owned(), optional: false })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn buildpacks_are_found_in_the_builder_and_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let builder = dir.path().join("builder");
        for version in ["acme_a/1", "acme_b/1", "acme_b/2"] {
            fs::create_dir_all(builder.join("cnb/buildpacks").join(version)).unwrap();
        }
        let own = dir.path().join("own");
        fs::create_dir(&own).unwrap();
        fs::write(own.join("buildpack.toml"), "api = '0.10'\n[buildpack]\nid = 'me/own'\nversion = '7'\n")
            .unwrap();
        let choose = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            choose(&names, &builder)
        };
        let chosen = choose(&["acme/a", "acme/b@2", own.to_str().unwrap()]).unwrap();
        let order: OrderToml = toml::from_str(&chosen.order).unwrap();
        let found: Vec<String> =
            order.order[0].group.iter().map(|one| format!("{}@{}", one.id, one.version)).collect();
        assert_eq!(found, ["acme/a@1", "acme/b@2", "me/own@7"]);
        assert_eq!(chosen.mounts[0].to, "/cnb/buildpacks/me_own/7");
        for (wrong, says) in [
            ("acme/c", "has no buildpack"),
            ("acme/b", "several versions"),
            ("acme/b@3", "has no version"),
            ("./none", "cannot find"),
        ] {
            assert!(choose(&[wrong]).unwrap_err().to_string().contains(says), "{wrong}");
        }
    }
}
