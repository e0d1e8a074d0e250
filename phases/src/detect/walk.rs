//! The walk through an order: one group after the other, composite buildpacks expanded, until one passes.
//!
//! A composite buildpack stands for the groups of its own order: each of them, followed by what follows the composite
//! buildpack, is a group to try. The walk keeps what it would come back to in lists of its own, not on the stack, so
//! that nothing in an order can exhaust it. Specification: `buildpack.md` § Order Resolution.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;

use anyhow::bail;
use drydock_spec::buildpack::ModuleKind;

use super::order::{Element, Groups, Item, Order, groups_of};
use crate::Error;
use crate::buildpacks::{Module, Store};

/// How many members of groups are looked at before an order is refused: nested orders can stand for more groups than
/// could ever be tried.
const MOST: usize = 1_000_000;

/// A member of a group that is tried.
#[derive(Debug, Clone)]
pub(super) struct Tried {
    /// What the order says of it.
    pub(super) element: Rc<Element>,
    /// What it says of itself.
    pub(super) module: Rc<Module>,
}

/// What a group came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome<T> {
    /// It passed.
    Passed(T),
    /// It did not.
    Failed {
        /// Whether an error was the reason.
        errored: bool,
    },
}

/// What is done with a group once it is known.
pub(super) trait Trier {
    /// What a group that passes leads to.
    type Passed;

    /// Whether the member takes part in groups at all.
    fn admits(&mut self, member: &Tried) -> Result<bool, Error>;

    /// Tries a group without composite buildpacks.
    fn try_group(&mut self, group: &[Tried]) -> Result<Outcome<Self::Passed>, Error>;
}

/// Tries the groups of an order until one passes.
///
/// Fails if a member cannot be read, if a composite buildpack contains itself, or if there are too many groups.
pub(super) fn walk<T: Trier>(
    order: &Order,
    modules: &mut Modules,
    trier: &mut T,
) -> Result<Outcome<T::Passed>, Error> {
    let mut list = List::default();
    let mut group: Vec<Tried> = Vec::new();
    let mut verdict = Outcome::Failed { errored: false };
    let mut choices = vec![Choice::new(&order.buildpacks, None, None, 0, false)];
    while let Some(choice) = choices.last_mut() {
        group.truncate(choice.members_before);
        let start = if let Some(next) = choice.groups.get(choice.tried) {
            choice.tried += 1;
            list.prepend(next, choice.rest, choice.within)?
        } else {
            let Choice { optional, rest, errored, .. } =
                choices.pop().expect("the loop's condition found it");
            if !optional {
                // What a composite buildpack came to is what the group came to that it stands in.
                match choices.last_mut() {
                    Some(outer) => outer.errored |= errored,
                    None => verdict = Outcome::Failed { errored },
                }
                continue;
            }
            // The group without it decides.
            rest
        };
        match follow(start, order, &mut list, &mut group, modules, trier)? {
            Some(choice) => choices.push(choice),
            None => match trier.try_group(&group)? {
                Outcome::Failed { errored } => match choices.last_mut() {
                    Some(choice) => choice.errored |= errored,
                    None => verdict = Outcome::Failed { errored },
                },
                passed @ Outcome::Passed(_) => return Ok(passed),
            },
        }
    }
    Ok(verdict)
}

/// Takes members into the group up to one that stands for several groups, if there is one.
fn follow<T: Trier>(
    start: Option<usize>,
    order: &Order,
    list: &mut List,
    group: &mut Vec<Tried>,
    modules: &mut Modules,
    trier: &mut T,
) -> Result<Option<Choice>, Error> {
    let mut at = start;
    while let Some(node) = at {
        list.spend(1)?;
        at = list.nodes[node].rest;
        let element = match &list.nodes[node].item {
            Item::Extensions => {
                return Ok(Some(Choice::new(&order.extensions, at, None, group.len(), true)));
            }
            Item::Module(element) => Rc::clone(element),
        };
        if group.iter().any(|Tried { element: e, .. }| e.kind == element.kind && e.id == element.id) {
            continue;
        }
        let module = modules.get(&element)?;
        if !module.order.is_empty() {
            let groups = modules.groups(&element, &module);
            list.check_cycle(node, modules.groups.len())?;
            return Ok(Some(Choice::new(&groups, at, Some(node), group.len(), element.optional)));
        }
        let member = Tried { element, module };
        if trier.admits(&member)? {
            group.push(member);
        }
    }
    Ok(None)
}

/// Several groups to try, each followed by the same rest.
struct Choice {
    groups: Groups,
    /// How many of them were tried.
    tried: usize,
    /// What follows each of them.
    rest: Option<usize>,
    /// The composite buildpack whose order this is.
    within: Option<usize>,
    /// How many members the group has so far.
    members_before: usize,
    /// Whether the rest may stand alone.
    optional: bool,
    /// Whether one of the groups failed for an error.
    errored: bool,
}

impl Choice {
    fn new(
        groups: &Groups,
        rest: Option<usize>,
        within: Option<usize>,
        members_before: usize,
        optional: bool,
    ) -> Self {
        Self { groups: Rc::clone(groups), tried: 0, rest, within, members_before, optional, errored: false }
    }
}

/// Lists of members that share their ends.
#[derive(Default)]
struct List {
    nodes: Vec<Node>,
    spent: usize,
}

struct Node {
    item: Item,
    /// What follows.
    rest: Option<usize>,
    /// The composite buildpack whose order it comes from.
    within: Option<usize>,
    /// How many composite buildpacks it is inside of.
    depth: usize,
}

impl List {
    fn spend(&mut self, members: usize) -> anyhow::Result<()> {
        self.spent = self.spent.saturating_add(members);
        if self.spent > MOST {
            bail!("the order stands for too many groups: more than {MOST} members of groups were looked at");
        }
        Ok(())
    }

    fn prepend(
        &mut self,
        items: &[Item],
        rest: Option<usize>,
        within: Option<usize>,
    ) -> anyhow::Result<Option<usize>> {
        self.spend(items.len().saturating_add(1))?;
        let depth = within.map_or(0, |outer| self.nodes[outer].depth + 1);
        let mut start = rest;
        for item in items.iter().rev() {
            self.nodes.push(Node { item: item.clone(), rest: start, within, depth });
            start = Some(self.nodes.len() - 1);
        }
        Ok(start)
    }

    /// Fails if a composite buildpack was found inside of itself. `known` is how many composite buildpacks were found
    /// so far: only where more than that many are inside of one another must one be among them twice.
    fn check_cycle(&self, node: usize, known: usize) -> anyhow::Result<()> {
        if self.nodes[node].depth < known {
            return Ok(());
        }
        let outwards = std::iter::successors(Some(node), |&node| self.nodes[node].within);
        let mut names: Vec<String> = outwards.filter_map(|node| self.nodes[node].item.name()).collect();
        names.reverse();
        let mut places = HashMap::new();
        for (place, name) in names.iter().enumerate() {
            if let Some(first) = places.insert(name, place) {
                bail!(
                    "the order of buildpack `{name}` leads back to it: {}",
                    names[first..=place].join(" > ")
                );
            }
        }
        Ok(())
    }
}

/// Modules that were read, each once.
#[derive(Debug)]
pub(super) struct Modules {
    store: Store,
    read: HashMap<(ModuleKind, String, String), Rc<Module>>,
    groups: HashMap<(String, String), Groups>,
}

impl Modules {
    /// None yet.
    pub(super) fn new(store: Store) -> Self {
        Self { store, read: HashMap::new(), groups: HashMap::new() }
    }

    /// A module; fails if it cannot be read, or speaks an API that is not supported.
    pub(super) fn get(&mut self, element: &Element) -> Result<Rc<Module>, Error> {
        let Element { kind, id, version, .. } = element;
        Ok(match self.read.entry((*kind, id.clone(), version.clone())) {
            Entry::Occupied(read) => Rc::clone(read.get()),
            Entry::Vacant(place) => {
                let module = self.store.load(*kind, id, version)?;
                module.buildpack_api()?;
                Rc::clone(place.insert(Rc::new(module)))
            }
        })
    }

    fn groups(&mut self, element: &Element, module: &Module) -> Groups {
        let key = (element.id.clone(), element.version.clone());
        Rc::clone(self.groups.entry(key).or_insert_with(|| groups_of(&module.order)))
    }
}
