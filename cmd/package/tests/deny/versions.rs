//! Which versions of packages are used: one of each but for those that `deny.toml` lists, and none that was yanked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result, bail};
use drydock_package::{cargo, workspace};
use serde::Deserialize;

use crate::{Package, Skipped, deny, packages};

/// All that are there in more than one version; of each, those but the newest.
fn duplicates(packages: &[Package]) -> BTreeSet<String> {
    let mut versions: BTreeMap<&str, BTreeSet<Vec<u64>>> = BTreeMap::new();
    let mut texts = BTreeMap::new();
    for Package { name, version, .. } in packages {
        let numbers =
            version.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect::<Vec<u64>>();
        texts.insert((name.as_str(), numbers.clone()), version);
        versions.entry(name).or_default().insert(numbers);
    }
    let older = |(name, versions): (&str, BTreeSet<Vec<u64>>)| {
        let named = |numbers| format!("{name}@{}", texts[&(name, numbers)]);
        versions.into_iter().rev().skip(1).map(named).collect::<Vec<_>>()
    };
    versions.into_iter().flat_map(older).collect()
}

#[test]
fn duplicate_versions_are_listed() {
    let deny = deny().unwrap();
    assert!(deny.bans.skip.iter().all(|Skipped { reason, .. }| !reason.is_empty()));
    let listed: BTreeSet<String> = deny.bans.skip.into_iter().map(|Skipped { name, .. }| name).collect();
    let found = duplicates(&packages().unwrap());
    assert_eq!(found, listed, "left: duplicate versions; right: those that deny.toml lists");
}

#[test]
fn older_versions_are_the_duplicates() {
    let package = |(name, version): (&str, &str)| Package {
        name: name.to_owned(),
        version: version.to_owned(),
        license: None,
        source: None,
        targets: Vec::new(),
    };
    let packages = [("a", "1.9.0+x"), ("b", "1.0.0"), ("a", "1.10.0"), ("b", "1.0.0"), ("a", "0.1.0")];
    assert_eq!(duplicates(&packages.map(package)), ["a@0.1.0".to_owned(), "a@1.9.0+x".to_owned()].into());
}

/// The registry's packages in a lock file: names and versions.
fn locked(lock: &str) -> Result<Vec<(String, String)>> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Locked>,
    }
    #[derive(Deserialize)]
    struct Locked {
        name: String,
        version: String,
        source: Option<String>,
    }
    let text = fs::read_to_string(workspace().join(lock)).with_context(|| format!("read {lock}"))?;
    let lock: Lock = toml::from_str(&text).with_context(|| format!("parse {lock}"))?;
    let packages = lock.package.into_iter().filter(|package| package.source.is_some());
    Ok(packages.map(|Locked { name, version, .. }| (name, version)).collect())
}

/// Has cargo choose these very versions anew: it takes none that was yanked. It asks the registry.
fn choose(packages: &[(String, String)]) -> Result<()> {
    let mut manifest =
        "[package]\nname = \"all\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n".to_owned();
    for (number, (name, version)) in packages.iter().enumerate() {
        writeln!(
            manifest,
            "p{number} = {{ package = \"{name}\", version = \"={version}\", default-features = false }}"
        )?;
    }
    let dir = tempfile::tempdir()?;
    fs::create_dir(dir.path().join("src"))?;
    fs::write(dir.path().join("src/lib.rs"), "")?;
    let path = dir.path().join("Cargo.toml");
    fs::write(&path, manifest)?;
    let output = cargo::command().args(["generate-lockfile", "--manifest-path"]).arg(&path).output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

#[test]
fn none_was_yanked() {
    for lock in ["Cargo.lock", "cmd/launcher/Cargo.lock", "acceptance/libcnb-buildpack/Cargo.lock"] {
        let packages = locked(lock).unwrap();
        assert!(!packages.is_empty(), "{lock}");
        choose(&packages).with_context(|| lock.to_owned()).unwrap();
    }
}

#[test]
fn what_was_yanked_is_told() {
    let error = choose(&[("log".to_owned(), "0.4.24".to_owned())]).unwrap_err().to_string();
    assert!(error.contains("version 0.4.24 is yanked"), "{error}");
}
