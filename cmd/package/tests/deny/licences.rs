//! Every package has a licence and a source that `deny.toml` allows.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use spdx::{Expression, Licensee};

use crate::{Exception, Package, deny, packages};

/// Why a licence is not allowed, if it is not.
fn objection(licence: Option<&str>, allowed: &[Licensee]) -> Option<String> {
    let Some(licence) = licence else { return Some("it names no licence".to_owned()) };
    let canonical = Expression::canonicalize(licence);
    let text = canonical.ok().flatten().unwrap_or_else(|| licence.to_owned());
    match Expression::parse(&text) {
        Err(error) => Some(format!("`{licence}` is no licence: {}", error.reason)),
        Ok(expression) if expression.evaluate(|needed| allowed.iter().any(|one| one.satisfies(needed))) => {
            None
        }
        Ok(_) => Some(format!("`{licence}` is not allowed")),
    }
}

fn allowed(names: &[String]) -> Result<Vec<Licensee>> {
    let parse = |name: &String| Licensee::parse(name).with_context(|| format!("{name} in deny.toml"));
    names.iter().map(parse).collect()
}

#[test]
fn licences_and_sources_are_allowed() {
    let deny = deny().unwrap();
    let sources: BTreeSet<String> =
        deny.sources.allow_registry.iter().map(|url| format!("registry+{url}")).collect();
    let packages = packages().unwrap();
    assert!(packages.iter().any(|package| package.name == "drydock-launcher"));
    let mut objections = BTreeSet::new();
    for Package { name, version, license, source, .. } in &packages {
        let mut object = |why: String| objections.insert(format!("{name} {version}: {why}"));
        let exceptions = deny.licenses.exceptions.iter().filter(|exception| exception.name == *name);
        let names: Vec<String> =
            exceptions.flat_map(|exception| &exception.allow).chain(&deny.licenses.allow).cloned().collect();
        if let Some(why) = objection(license.as_deref(), &allowed(&names).unwrap()) {
            object(why);
        }
        if let Some(source) = source.as_ref().filter(|&source| !sources.contains(source)) {
            object(format!("it comes from {source}"));
        }
    }
    assert!(objections.is_empty(), "{objections:#?}");
    for Exception { name, .. } in &deny.licenses.exceptions {
        assert!(
            packages.iter().any(|package| package.name == *name),
            "no package needs the exception for {name}"
        );
    }
}

#[test]
fn licences_are_told_apart() {
    let allowed = allowed(&["MIT".to_owned(), "Zlib".to_owned()]).unwrap();
    for (licence, want) in [
        (Some("MIT"), None),
        (Some("MIT/GPL-3.0-only"), None),
        (Some("MIT AND Zlib"), None),
        (Some("MIT AND GPL-3.0-only"), Some("`MIT AND GPL-3.0-only` is not allowed")),
        (Some("Zlib AND (GPL-3.0-only OR MIT)"), None),
        (Some("Custom"), Some("`Custom` is no licence: unknown term")),
        (None, Some("it names no licence")),
    ] {
        assert_eq!(objection(licence, &allowed).as_deref(), want, "{licence:?}");
    }
}
