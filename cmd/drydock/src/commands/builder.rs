//! `drydock builder create`, `drydock builder inspect`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use drydock_encode::compress::Compression;
use drydock_images::builder::inspect::{Inspected, InspectedGroup, InspectedMember, InspectedModule};
use drydock_images::builder::{Options, create, inspect};
use drydock_images::flatten;
use drydock_layout::Durability;
use serde_json::json;

use super::{Context, cores};
use crate::cli::ForPlatform;
use crate::env;
use crate::output::{Output, Style};

/// What can be done with builders.
#[derive(Debug, Subcommand)]
pub(crate) enum BuilderCommand {
    /// Make a builder of a build image, run images, buildpacks and a lifecycle
    Create {
        name: String,
        /// The file that says of what: that of `pack builder create`. Images are those of the repository
        #[arg(long, short, value_name = "builder.toml")]
        config: PathBuf,
        /// How layers are compressed: `gzip`, `zstd` or `none`, with a level if any: `gzip:6`
        #[arg(long, default_value = "gzip:1")]
        compression: Compression,
        #[command(flatten)]
        platform: ForPlatform,
    },
    /// Show what is in a builder: lifecycle, run images, buildpacks, and the order in which they are tried
    Inspect {
        name: String,
        #[command(flatten)]
        platform: ForPlatform,
    },
}

/// How images are made from here.
pub(super) fn options(compression: Compression, platform: &ForPlatform) -> Options {
    let write = flatten::Options { compression, threads: cores(), durability: Durability::OnDisk };
    Options { platform: platform.get(), write, without: Vec::new() }
}

pub(crate) fn run(context: &mut Context, command: BuilderCommand) -> Result<u8> {
    match command {
        BuilderCommand::Create { name, config, compression, platform } => {
            let to = context.repository.locate(&name)?;
            let options = options(compression, &platform);
            let lifecycles = env::lifecycles();
            let created =
                create::create(&context.repository, &to, &config, &lifecycles, &options, &context.progress)?;
            context.left(created.left.as_ref());
            let (digest, modules, lifecycle) = (created.committed.digest, created.modules, created.lifecycle);
            if context.json {
                let value =
                    json!({"name": name, "digest": digest, "modules": modules, "lifecycle": lifecycle});
                context.out.json(&value)?;
            } else if !context.quiet {
                context
                    .out
                    .line(&format!("{name} is {digest}: lifecycle {lifecycle}, {}", modules.join(", ")))?;
            }
        }
        BuilderCommand::Inspect { name, platform } => {
            let (name, layout) = context.repository.open(&name)?;
            let found = inspect::inspect(&name, &layout.image(&platform.get())?)?;
            if context.json {
                context.out.json(&found)?;
            } else {
                show(&found, &mut context.out)?;
            }
        }
    }
    Ok(0)
}

fn show(found: &Inspected, out: &mut Output) -> Result<()> {
    out.styled(Style::Heading, &found.name, "")?;
    let mut field = |name: &str, value: &str| {
        if value.is_empty() { Ok(()) } else { out.line(&format!("  {name:<15} {value}")) }
    };
    field("description", &found.description)?;
    field("digest", &found.digest.to_string())?;
    field("path", &found.path)?;
    field("made by", format!("{} {}", found.created_by.name, found.created_by.version).trim())?;
    let target = &found.target;
    let parts = [Some(&target.os), Some(&target.arch), target.variant.as_ref()];
    let platform = parts.into_iter().flatten().cloned().collect::<Vec<_>>().join("/");
    let distro = target.distro.as_ref().map(|distro| format!(", {distro}")).unwrap_or_default();
    field("target", &format!("{platform}{distro}"))?;
    field("stack", &found.stack)?;
    field("mixins", &found.mixins.join(" "))?;
    if let (Some(uid), Some(gid)) = (found.user.uid, found.user.gid) {
        field("user", &format!("{uid}:{gid}"))?;
    }
    field("lifecycle", &found.lifecycle.version)?;
    for (name, versions) in
        [("Platform API", &found.lifecycle.apis.platform), ("Buildpack API", &found.lifecycle.apis.buildpack)]
    {
        field(name, &versions.supported.join(" "))?;
        if !versions.deprecated.is_empty() {
            field("  deprecated", &versions.deprecated.join(" "))?;
        }
    }
    let mirrors = |mirrors: &[String]| match mirrors {
        [] => String::new(),
        mirrors => format!(" (mirrors: {})", mirrors.join(", ")),
    };
    let run_images = found.run_images.iter().map(|run| format!("{}{}", run.image, mirrors(&run.mirrors)));
    out.section("run images", &run_images.collect::<Vec<_>>())?;
    table("buildpacks", &found.buildpacks, out)?;
    table("extensions", &found.extensions, out)?;
    out.section("order", &lines(&found.order))?;
    out.section("order of extensions", &lines(&found.order_extensions))?;
    for (heading, side) in
        [("before each group", &found.system.pre), ("after each group", &found.system.post)]
    {
        let names = side.buildpacks.iter().map(|it| format!("{} {}", it.id, it.version));
        out.section(heading, &names.collect::<Vec<_>>())?;
    }
    out.section("problems", &found.problems)
}

fn table(heading: &str, modules: &[InspectedModule], out: &mut Output) -> Result<()> {
    if modules.is_empty() {
        return Ok(());
    }
    out.styled(Style::Heading, heading, "")?;
    let row = |it: &InspectedModule| {
        let texts = [&it.version, &it.api, &it.name, &it.homepage].map(Clone::clone);
        [vec![format!("  {}", it.id)], texts.into()].concat()
    };
    let rows: Vec<Vec<String>> = modules.iter().map(row).collect();
    out.table(&["  ID", "VERSION", "API", "NAME", "HOME PAGE"], &[], &rows)
}

/// The lines of a tree.
fn lines(order: &[InspectedGroup]) -> Vec<String> {
    let mut lines = Vec::new();
    groups(order, "", &mut lines);
    lines
}

fn groups(order: &[InspectedGroup], indent: &str, lines: &mut Vec<String>) {
    for (number, group) in order.iter().enumerate() {
        let is_last = number + 1 == order.len();
        let (branch, below) = if is_last { ("└ ", "  ") } else { ("├ ", "│ ") };
        lines.push(format!("{indent}{branch}group {}", number + 1));
        for (at, member) in group.group.iter().enumerate() {
            let InspectedMember { id, version, optional, cyclic, order } = member;
            let (branch, inner) = if at + 1 == group.group.len() { ("└ ", "  ") } else { ("├ ", "│ ") };
            let optional = if *optional { " (optional)" } else { "" };
            let cyclic = if *cyclic { " (part of itself)" } else { "" };
            let name = format!("{id} {version}");
            lines.push(format!("{indent}{below}{branch}{}{optional}{cyclic}", name.trim_end()));
            groups(order, &format!("{indent}{below}{inner}"), lines);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_drawn_as_trees() {
        let member = |id: &str, optional, order| InspectedMember {
            id: id.to_owned(),
            version: "1".to_owned(),
            optional,
            cyclic: false,
            order,
        };
        let inner =
            vec![InspectedGroup { group: vec![member("a", false, vec![]), member("b", true, vec![])] }];
        let order = vec![
            InspectedGroup { group: vec![member("m", false, inner), member("c", true, vec![])] },
            InspectedGroup { group: vec![member("d", false, vec![])] },
        ];
        let want = "\
├ group 1
│ ├ m 1
│ │ └ group 1
│ │   ├ a 1
│ │   └ b 1 (optional)
│ └ c 1 (optional)
└ group 2
  └ d 1";
        assert_eq!(lines(&order).join("\n"), want);
    }
}
