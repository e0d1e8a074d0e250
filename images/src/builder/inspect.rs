//! What is in a builder, by its labels.

use anyhow::{Result, bail};
use drydock_layout::Image;
use drydock_model::config::ImageConfig;
use drydock_model::digest::Digest;
use drydock_spec::json;
use drydock_spec::label::{BASE_DISTRO_NAME, BASE_DISTRO_VERSION, STACK_ID, STACK_MIXINS};
use drydock_spec::module::{
    self as labels, Apis, BuilderMetadata, Creator, LabelRunImage, ModuleFacts, ModuleLayers,
};
use drydock_spec::order::{OrderElement, OrderGroup};
use drydock_spec::system::System;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::repository::Name;

/// Composite buildpacks are shown in one another so deep.
const MAX_DEPTH: usize = 16;

/// So many members of groups are shown.
const MAX_MEMBERS: usize = 10_000;

/// A builder.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspected {
    /// What was asked for.
    pub name: String,
    /// The layout's folder.
    pub path: String,
    /// Of the manifest.
    pub digest: Digest,
    /// What it is for, for people.
    pub description: String,
    /// What made it.
    pub created_by: Creator,
    /// What runs the buildpacks.
    pub lifecycle: InspectedLifecycle,
    /// What it builds in.
    pub target: InspectedTarget,
    /// The stack's ID.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stack: String,
    /// What the stack has besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mixins: Vec<String>,
    /// Who builds: the variables `CNB_USER_ID` and `CNB_GROUP_ID`.
    pub user: InspectedUser,
    /// Run images, the one to use first.
    pub run_images: Vec<LabelRunImage>,
    /// Buildpacks by ID and version.
    pub buildpacks: Vec<InspectedModule>,
    /// Extensions by ID and version.
    pub extensions: Vec<InspectedModule>,
    /// Groups of buildpacks, the one to try first.
    pub order: Vec<InspectedGroup>,
    /// Groups of extensions, the one to try first.
    pub order_extensions: Vec<InspectedGroup>,
    /// Buildpacks before and after each group.
    #[serde(skip_serializing_if = "is_empty")]
    pub system: System,
    /// What could not be found out, and why.
    pub problems: Vec<String>,
}

fn is_empty(system: &System) -> bool {
    *system == System::default()
}

/// A lifecycle.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectedLifecycle {
    /// Its version.
    pub version: String,
    /// What it speaks.
    pub apis: Apis,
}

/// What a builder builds in.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectedTarget {
    /// Operating system.
    pub os: String,
    /// Architecture.
    pub arch: String,
    /// Its variant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Distribution, and its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distro: Option<String>,
}

/// Who builds.
#[derive(Debug, Serialize)]
pub struct InspectedUser {
    /// User ID.
    pub uid: Option<u32>,
    /// Group ID.
    pub gid: Option<u32>,
}

/// A buildpack or an extension.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectedModule {
    /// Its ID.
    pub id: String,
    /// Its version.
    pub version: String,
    /// Its name for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its home page.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub homepage: String,
    /// The Buildpack API that it speaks.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api: String,
    /// The diff ID of its layer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub layer: String,
}

/// A group.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct InspectedGroup {
    /// Its members.
    pub group: Vec<InspectedMember>,
}

/// A member of a group.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct InspectedMember {
    /// Its ID.
    pub id: String,
    /// Its version; empty if the builder leaves it open.
    pub version: String,
    /// Whether the group can do without it.
    pub optional: bool,
    /// Whether it is part of itself, and not shown again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cyclic: bool,
    /// What it consists of, if it is composite.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub order: Vec<InspectedGroup>,
}

/// Looks at a builder.
pub fn inspect(name: &Name, image: &Image) -> Result<Inspected> {
    let config = &image.config;
    let mut problems = Vec::new();
    let Some(text) = config.label(labels::BUILDER_METADATA) else {
        bail!("`{name}` is no builder: it has no label `{}`", labels::BUILDER_METADATA);
    };
    let metadata: BuilderMetadata = json::from_str(text).unwrap_or_else(|error| {
        problems.push(format!("label {}: {error}", labels::BUILDER_METADATA));
        BuilderMetadata::default()
    });
    let buildpack_layers: ModuleLayers = label(config, labels::BUILDPACK_LAYERS, &mut problems);
    let extension_layers: ModuleLayers = label(config, labels::EXTENSION_LAYERS, &mut problems);
    let order: Vec<OrderGroup> = label(config, labels::ORDER, &mut problems);
    let order_extensions: Vec<OrderGroup> = label(config, labels::ORDER_EXTENSIONS, &mut problems);
    let mut tree = Tree { layers: &buildpack_layers, left: MAX_MEMBERS, path: Vec::new() };
    let order = tree.groups(&order);
    if tree.left == 0 {
        problems.push(format!("the order has more than {MAX_MEMBERS} members: the rest is left out"));
    }
    let mut plain = Tree { layers: &ModuleLayers::new(), left: MAX_MEMBERS, path: Vec::new() };
    let env = |name| config.config.env(name).and_then(|text| text.parse().ok());
    let distro = config.label(BASE_DISTRO_NAME).map(|name| {
        format!("{name} {}", config.label(BASE_DISTRO_VERSION).unwrap_or_default()).trim_end().to_owned()
    });
    let lifecycle = metadata.lifecycle.completed();
    let mut run_images = metadata.run_images;
    let of_stack = metadata.stack.run_image;
    if !of_stack.image.is_empty() && run_images.iter().all(|known| known.image != of_stack.image) {
        run_images.push(of_stack);
    }
    Ok(Inspected {
        name: name.text().to_owned(),
        path: name.path().to_string(),
        digest: image.digest(),
        description: metadata.description,
        created_by: metadata.created_by,
        lifecycle: InspectedLifecycle { version: lifecycle.version, apis: lifecycle.apis },
        target: InspectedTarget {
            os: config.os.clone(),
            arch: config.architecture.clone(),
            variant: config.variant.clone().filter(|text| !text.is_empty()),
            distro,
        },
        stack: config.label(STACK_ID).unwrap_or_default().to_owned(),
        mixins: label(config, STACK_MIXINS, &mut problems),
        user: InspectedUser { uid: env("CNB_USER_ID"), gid: env("CNB_GROUP_ID") },
        run_images,
        buildpacks: modules(metadata.buildpacks, &buildpack_layers),
        extensions: modules(metadata.extensions, &extension_layers),
        order,
        order_extensions: plain.groups(&order_extensions),
        system: label(config, labels::SYSTEM, &mut problems),
        problems,
    })
}

/// What a label says; other programs write `null` where there is nothing.
fn label<T: DeserializeOwned + Default>(config: &ImageConfig, key: &str, problems: &mut Vec<String>) -> T {
    let text = config.label(key).filter(|text| !text.is_empty()).unwrap_or("null");
    json::from_str::<Option<T>>(text)
        .unwrap_or_else(|error| {
            problems.push(format!("label {key}: {error}"));
            None
        })
        .unwrap_or_default()
}

fn modules(all: Vec<ModuleFacts>, layers: &ModuleLayers) -> Vec<InspectedModule> {
    let module = |facts: ModuleFacts| {
        let layer = layers.get(&facts.id).and_then(|versions| versions.get(&facts.version));
        let layer = layer.cloned().unwrap_or_default();
        let or = |one: String, other: String| if one.is_empty() { other } else { one };
        InspectedModule {
            id: facts.id,
            version: facts.version,
            name: or(facts.name, layer.name),
            homepage: or(facts.homepage, layer.homepage),
            api: layer.api,
            layer: layer.layer_diff_id,
        }
    };
    let mut all: Vec<InspectedModule> = all.into_iter().map(module).collect();
    all.sort_by(|a, b| (&a.id, &a.version).cmp(&(&b.id, &b.version)));
    all.dedup_by(|a, b| a.id == b.id && a.version == b.version);
    all
}

/// Finds out what composite buildpacks consist of.
struct Tree<'a> {
    layers: &'a ModuleLayers,
    /// So many members may still be shown.
    left: usize,
    /// What the groups at hand are part of.
    path: Vec<(String, String)>,
}

impl Tree<'_> {
    fn groups(&mut self, order: &[OrderGroup]) -> Vec<InspectedGroup> {
        order.iter().map(|group| InspectedGroup { group: self.members(&group.group) }).collect()
    }

    fn members(&mut self, members: &[OrderElement]) -> Vec<InspectedMember> {
        members.iter().map_while(|member| self.member(member)).collect()
    }

    fn member(&mut self, OrderElement { id, version, optional }: &OrderElement) -> Option<InspectedMember> {
        self.left = self.left.checked_sub(1)?;
        let versions = self.layers.get(id);
        let only = versions.filter(|all| all.len() == 1).and_then(|all| all.first_key_value());
        let version = match only {
            Some((only, _)) if version.is_empty() => only.clone(),
            _ => version.clone(),
        };
        let name = (id.clone(), version.clone());
        let cyclic = self.path.contains(&name);
        let order = versions.and_then(|all| all.get(&version)).map(|layer| layer.order.as_slice());
        let order = match order {
            Some(order) if !cyclic && self.path.len() < MAX_DEPTH => {
                self.path.push(name);
                let groups = self.groups(order);
                self.path.pop();
                groups
            }
            _ => Vec::new(),
        };
        Some(InspectedMember { id: id.clone(), version, optional: *optional, cyclic, order })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(layers: &str, order: &str) -> (String, usize) {
        let layers: ModuleLayers = json::from_str(layers).unwrap();
        let order: Vec<OrderGroup> = json::from_str(order).unwrap();
        let mut tree = Tree { layers: &layers, left: MAX_MEMBERS, path: Vec::new() };
        let groups = tree.groups(&order);
        (text(&groups), tree.left)
    }

    fn text(groups: &[InspectedGroup]) -> String {
        let member = |it: &InspectedMember| {
            let flags = [if it.optional { "?" } else { "" }, if it.cyclic { "!" } else { "" }].concat();
            let below = if it.order.is_empty() { String::new() } else { format!("({})", text(&it.order)) };
            format!("{}@{}{flags}{below}", it.id, it.version)
        };
        let group = |group: &InspectedGroup| group.group.iter().map(member).collect::<Vec<_>>().join(" ");
        groups.iter().map(group).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn orders_are_trees() {
        let layers = r#"{"m":{"1":{"order":[{"group":[{"id":"a","version":"1"},{"id":"b","version":"2","optional":true}]},
            {"group":[{"id":"m","version":"1"}]}]}},"a":{"1":{}},"b":{"1":{},"2":{}}}"#;
        let (text, _) =
            shown(layers, r#"[{"group":[{"id":"m"}]},{"group":[{"id":"b"},{"id":"x","version":"3"}]}]"#);
        assert_eq!(text, "m@1(a@1 b@2? | m@1!) | b@ x@3");
    }

    #[test]
    fn orders_that_were_made_to_be_large_end() {
        let composite = |at: usize| {
            let next = format!(
                r#"{{"group":[{{"id":"m{0}","version":"1"}},{{"id":"m{0}","version":"1"}}]}}"#,
                at + 1
            );
            format!(r#""m{at}":{{"1":{{"order":[{next},{next}]}}}}"#)
        };
        let layers: Vec<String> = (0..40).map(composite).collect();
        let (_, left) =
            shown(&format!("{{{}}}", layers.join(",")), r#"[{"group":[{"id":"m0","version":"1"}]}]"#);
        assert_eq!(left, 0);
    }
}
