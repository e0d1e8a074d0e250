//! What groups name: each member must be there, and no composite buildpack may consist of itself.

use std::collections::{BTreeMap, BTreeSet};

use drydock_spec::module::{ModuleName, ModuleToml};
use drydock_spec::order::{OrderElement, OrderGroup};

/// What is there, with what is said of it.
pub(super) type Known<'a> = BTreeMap<&'a ModuleName, &'a [OrderGroup]>;

/// Where something is wrong, and what: a key, and a reason.
pub(super) type Fault = (String, String);

/// The same groups with the versions that are left out where only one is there.
pub(super) fn resolve(key: &str, order: &[OrderGroup], known: &Known<'_>) -> Result<Vec<OrderGroup>, Fault> {
    let group = |(at, group): (usize, &OrderGroup)| {
        if group.group.is_empty() {
            return Err((format!("{key}[{at}].group"), "is empty".to_owned()));
        }
        let member = |(number, member): (usize, &OrderElement)| {
            element(member, known)
                .map_err(|(field, reason)| (format!("{key}[{at}].group[{number}].{field}"), reason))
        };
        Ok(OrderGroup { group: group.group.iter().enumerate().map(member).collect::<Result<_, _>>()? })
    };
    order.iter().enumerate().map(group).collect()
}

/// A member with its version; or which of its keys is wrong, and how.
pub(super) fn element(
    member: &OrderElement,
    known: &Known<'_>,
) -> Result<OrderElement, (&'static str, String)> {
    let OrderElement { id, version, .. } = member;
    let versions: Vec<&str> =
        known.keys().filter(|name| name.id() == id).map(|name| name.version()).collect();
    match versions.as_slice() {
        [] => {
            let mut there: Vec<String> = known.keys().map(ToString::to_string).collect();
            there.truncate(10);
            let there = if there.is_empty() { "nothing".to_owned() } else { there.join(", ") };
            Err(("id", format!("`{id}` is not there, but {there}")))
        }
        [only] if version.is_empty() => Ok(OrderElement { version: (*only).to_owned(), ..member.clone() }),
        several if version.is_empty() => {
            Err(("version", format!("is missing: of `{id}` there are {}", several.join(", "))))
        }
        several if several.contains(&version.as_str()) => Ok(member.clone()),
        several => {
            Err(("version", format!("`{version}` of `{id}` is not there, but {}", several.join(", "))))
        }
    }
}

/// Checks what composite buildpacks consist of: all of it is there, by ID and version, and none is part of itself.
pub(super) fn check_composites(known: &Known<'_>) -> Result<(), Fault> {
    let mut done = BTreeSet::new();
    known.keys().try_for_each(|name| check(name, known, &mut Vec::new(), &mut done))
}

/// `path` leads to it; of what is `done`, all is well.
fn check<'a>(
    name: &'a ModuleName,
    known: &Known<'a>,
    path: &mut Vec<&'a ModuleName>,
    done: &mut BTreeSet<&'a ModuleName>,
) -> Result<(), Fault> {
    if done.contains(name) {
        return Ok(());
    }
    if let Some(begin) = path.iter().position(|above| *above == name) {
        let round: Vec<String> =
            path[begin..].iter().chain([&name]).map(|name| format!("`{name}`")).collect();
        return Err(("order".to_owned(), format!("of buildpacks is a cycle: {}", round.join(" → "))));
    }
    path.push(name);
    let order = known.get(name).copied().unwrap_or_default();
    for (at, group) in order.iter().enumerate() {
        for (number, member) in group.group.iter().enumerate() {
            let key = |field| format!("`{name}`, order[{at}].group[{number}].{field}");
            if member.version.is_empty() {
                return Err((key("version"), format!("is missing: which version of `{}`", member.id)));
            }
            element(member, known).map_err(|(field, reason)| (key(field), reason))?;
            let next =
                known.keys().find(|other| other.id() == member.id && other.version() == member.version);
            if let Some(next) = next {
                check(next, known, path, done)?;
            }
        }
    }
    path.pop();
    done.insert(name);
    Ok(())
}

/// What is there of these.
pub(super) fn known<'a>(modules: impl IntoIterator<Item = (&'a ModuleName, &'a ModuleToml)>) -> Known<'a> {
    modules.into_iter().map(|(name, toml)| (name, toml.order.as_slice())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A buildpack, and what it consists of.
    type Composite<'a> = (&'a str, &'a [&'a [&'a str]]);

    fn member(text: &str) -> OrderElement {
        let (id, version) = text.split_once('@').unwrap_or((text, ""));
        OrderElement { id: id.into(), version: version.into(), optional: true }
    }

    fn order(groups: &[&[&str]]) -> Vec<OrderGroup> {
        groups
            .iter()
            .map(|group| OrderGroup { group: group.iter().map(|text| member(text)).collect() })
            .collect()
    }

    fn with<T>(modules: &[(&str, &[&[&str]])], look: impl FnOnce(&Known<'_>) -> T) -> T {
        let named: Vec<(ModuleName, Vec<OrderGroup>)> = modules
            .iter()
            .map(|(name, groups)| {
                let (id, version) = name.split_once('@').unwrap();
                (ModuleName::new(id, version).unwrap(), order(groups))
            })
            .collect();
        look(&named.iter().map(|(name, order)| (name, order.as_slice())).collect())
    }

    #[test]
    fn members_are_found_or_named() {
        let there: &[(&str, &[&[&str]])] = &[("a@1", &[]), ("b@1", &[]), ("b@2", &[])];
        for (groups, want) in [
            (&[&["a", "b@2"][..]][..], Ok("a@1 b@2")),
            (&[&["a@1"], &["b@1"]], Ok("a@1 b@1")),
            (&[&["a"], &["a", "c"]], Err(("order[1].group[1].id", "`c` is not there, but a@1, b@1, b@2"))),
            (&[&["b"]], Err(("order[0].group[0].version", "is missing: of `b` there are 1, 2"))),
            (&[&["b@3"]], Err(("order[0].group[0].version", "`3` of `b` is not there, but 1, 2"))),
            (&[&[]], Err(("order[0].group", "is empty"))),
        ] {
            let found = with(there, |known| resolve("order", &order(groups), known));
            let found = found.map(|groups| {
                let names = groups.iter().flat_map(|group| &group.group);
                names.map(|it| format!("{}@{}", it.id, it.version)).collect::<Vec<_>>().join(" ")
            });
            let want = want.map(str::to_owned).map_err(|(key, why)| (key.to_owned(), why.to_owned()));
            assert_eq!(found, want);
        }
    }

    #[test]
    fn composites_are_whole_and_end() {
        let cases: [(&[Composite<'_>], Option<&str>); 6] = [
            (&[("m@1", &[&["a@1", "b@1"]]), ("a@1", &[&["b@1"]]), ("b@1", &[])], None),
            (&[("m@1", &[&["a@2"]]), ("a@1", &[])], Some("`m@1`, order[0].group[0].version")),
            (&[("m@1", &[&["a@1"], &["c@1"]]), ("a@1", &[])], Some("`m@1`, order[1].group[0].id")),
            (&[("m@1", &[&["a"]]), ("a@1", &[])], Some("`m@1`, order[0].group[0].version")),
            (&[("m@1", &[&["m@1"]])], Some("order")),
            (&[("a@1", &[&["b@1"]]), ("b@1", &[&["c@1"]]), ("c@1", &[&["a@1"]])], Some("order")),
        ];
        for (modules, want) in cases {
            let fault = with(modules, check_composites).err();
            assert_eq!(fault.as_ref().map(|(key, _)| key.as_str()), want, "{fault:?}");
        }
        let (_, reason) = with(cases[5].0, check_composites).unwrap_err();
        assert_eq!(reason, "of buildpacks is a cycle: `a@1` → `b@1` → `c@1` → `a@1`");
    }
}
