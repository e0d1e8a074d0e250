//! What to try, in which order: `order.toml` with the platform's own buildpacks added, and with extensions.
//!
//! Specification: `platform.md` § `order.toml` and § `system.toml`.

use std::rc::Rc;

use drydock_spec::buildpack::ModuleKind;
use drydock_spec::order::{OrderElement, OrderGroup, OrderToml};
use drydock_spec::system::{System, SystemBuildpack};

use crate::Log;

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// A buildpack or an extension.
    Module(Rc<Element>),
    /// Where the groups of extensions go.
    Extensions,
}

impl Item {
    /// `<id>@<version>`, unless it stands for extensions.
    pub(super) fn name(&self) -> Option<String> {
        match self {
            Self::Module(element) => Some(element.full_name()),
            Self::Extensions => None,
        }
    }
}

/// A buildpack or an extension that is to be tried.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Element {
    /// Which of the two.
    pub(super) kind: ModuleKind,
    /// Its ID.
    pub(super) id: String,
    /// Its version.
    pub(super) version: String,
    /// Whether the group can do without it.
    pub(super) optional: bool,
}

impl Element {
    /// `<id>@<version>`.
    pub(super) fn full_name(&self) -> String {
        format!("{}@{}", self.id, self.version)
    }
}

/// Groups to try, the first first.
pub(super) type Groups = Rc<[Vec<Item>]>;

/// All groups.
#[derive(Debug)]
pub(super) struct Order {
    /// Groups of buildpacks.
    pub(super) buildpacks: Groups,
    /// Groups of extensions.
    pub(super) extensions: Groups,
}

impl Order {
    /// Adds the platform's own buildpacks to each group that has none of the same ID, and a place for extensions.
    pub(super) fn new(toml: &OrderToml, system: &System, log: &dyn Log) -> Self {
        let has_extensions = !toml.order_extensions.is_empty();
        let with_system = |group: &OrderGroup| {
            let is_new = |added: &&SystemBuildpack| group.group.iter().all(|own| own.id != added.id);
            let added = |doing: &str, side: &[SystemBuildpack]| -> Vec<Item> {
                let items: Vec<_> =
                    side.iter().filter(is_new).map(|b| buildpack(&b.id, &b.version, false)).collect();
                if !items.is_empty() {
                    log.debug(&format!("{doing} {} system buildpack(s) to group", items.len()));
                }
                items
            };
            let own = group.group.iter().map(|own| buildpack(&own.id, &own.version, own.optional));
            has_extensions
                .then_some(Item::Extensions)
                .into_iter()
                .chain(added("Prepending", &system.pre.buildpacks))
                .chain(own)
                .chain(added("Appending", &system.post.buildpacks))
                .collect()
        };
        let extension = |e: &OrderElement| item(ModuleKind::Extension, &e.id, &e.version, true);
        Self {
            buildpacks: toml.order.iter().map(with_system).collect(),
            extensions: toml
                .order_extensions
                .iter()
                .map(|g| g.group.iter().map(extension).collect())
                .collect(),
        }
    }

    /// Every module that is named, with repetitions: buildpacks first.
    pub(super) fn modules(&self) -> impl Iterator<Item = &Rc<Element>> {
        self.buildpacks.iter().chain(self.extensions.iter()).flatten().filter_map(|item| match item {
            Item::Module(element) => Some(element),
            Item::Extensions => None,
        })
    }
}

/// The groups that a composite buildpack consists of.
pub(super) fn groups_of(order: &[OrderGroup]) -> Groups {
    order
        .iter()
        .map(|group| group.group.iter().map(|e| buildpack(&e.id, &e.version, e.optional)).collect())
        .collect()
}

fn buildpack(id: &str, version: &str, optional: bool) -> Item {
    item(ModuleKind::Buildpack, id, version, optional)
}

fn item(kind: ModuleKind, id: &str, version: &str, optional: bool) -> Item {
    Item::Module(Rc::new(Element { kind, id: id.into(), version: version.into(), optional }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_log::MemoryLog;

    fn names(groups: &Groups) -> Vec<String> {
        let name = |item: &Item| match item {
            Item::Module(element) => element.full_name() + if element.optional { "?" } else { "" },
            Item::Extensions => "extensions".into(),
        };
        groups.iter().map(|group| group.iter().map(name).collect::<Vec<_>>().join(" ")).collect()
    }

    fn order(order: &str, system: &str) -> (Order, String) {
        let system: drydock_spec::system::SystemToml = toml::from_str(system).unwrap();
        let log = MemoryLog::default();
        let order = Order::new(&toml::from_str(order).unwrap(), &system.system, &log);
        (order, log.text())
    }

    const ORDER: &str = "[[order]]\ngroup=[{id='a',version='1'},{id='b',version='1',optional=true}]\n\
        [[order]]\ngroup=[{id='c',version='1'}]\n";

    #[test]
    fn the_platforms_buildpacks_go_around_each_group_that_lacks_them() {
        let system = "[system]\npre.buildpacks=[{id='p',version='1'},{id='c',version='2'}]\n\
            post.buildpacks=[{id='b',version='2'},{id='p',version='3'}]";
        let (order, said) = order(ORDER, system);
        assert_eq!(names(&order.buildpacks), ["p@1 c@2 a@1 b@1? p@3", "p@1 c@1 b@2 p@3"]);
        assert_eq!(
            said,
            "Debug: Prepending 2 system buildpack(s) to group\nDebug: Appending 1 system buildpack(s) to group\n\
             Debug: Prepending 1 system buildpack(s) to group\nDebug: Appending 2 system buildpack(s) to group\n"
        );
    }

    #[test]
    fn extensions_come_first_and_are_optional() {
        let text = format!("{ORDER}[[order-extensions]]\ngroup=[{{id='e',version='1'}}]\n");
        let (order, said) = order(&text, "");
        assert_eq!(said, "");
        assert_eq!(names(&order.buildpacks), ["extensions a@1 b@1?", "extensions c@1"]);
        assert_eq!(names(&order.extensions), ["e@1?"]);
        assert_eq!(order.modules().count(), 4);
    }
}
