//! `drydock tree`.

use anyhow::Result;
use drydock_images::tree::{Change, TreeEntry, tree as read};
use drydock_model::platform::Platform;

use super::Context;
use crate::exit::Usage;
use crate::output::{Style, bytes};

pub(crate) fn tree(
    context: &mut Context,
    name: &str,
    layer: Option<usize>,
    platform: &Platform,
) -> Result<u8> {
    let image = context.repository.image(name, platform)?;
    let count = image.manifest.layers.len();
    if layer.is_some_and(|layer| !(1..=count).contains(&layer)) {
        return Err(Usage(format!("`{name}` has {count} layers, from 1 on")).into());
    }
    let found = read(&image, layer, &context.progress)?;
    let out = &mut context.out;
    if context.json {
        out.json(&found)?;
        return Ok(0);
    }
    for layer in &found.layers {
        let heading = format!("layer {} {}", layer.number, &layer.digest.hex()[..12]);
        let wasted =
            if layer.wasted > 0 { format!(", {} wasted", bytes(layer.wasted)) } else { String::new() };
        out.styled(Style::Heading, &heading, &format!(" {}{wasted}: {}", bytes(layer.size), layer.made_by))?;
        for entry in &layer.entries {
            let (style, sign) = match entry.change {
                Change::Added => (Style::Good, "+"),
                Change::Changed => (Style::Note, "~"),
                Change::Removed => (Style::Bad, "-"),
            };
            out.styled(style, &format!("  {sign}"), &line(entry))?;
        }
    }
    let (files, folders) = (found.files, found.folders);
    out.line(&format!(
        "{files} files in {folders} folders: {}; {} wasted in lower layers",
        bytes(found.size),
        bytes(found.wasted)
    ))?;
    Ok(0)
}

fn line(entry: &TreeEntry) -> String {
    let size = match entry.change {
        Change::Removed => format!("-{}", bytes(entry.before)),
        _ if entry.kind != "file" => entry.kind.to_owned(),
        Change::Changed => format!("{} (was {})", bytes(entry.size), bytes(entry.before)),
        Change::Added => bytes(entry.size),
    };
    format!(" {size:>10}  {}", entry.path)
}
