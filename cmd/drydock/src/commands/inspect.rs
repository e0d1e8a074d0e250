//! `drydock inspect`.

use anyhow::Result;
use drydock_images::inspect::{Inspected, inspect as look};
use drydock_layout::read_blob;
use drydock_model::platform::Platform;

use super::Context;
use crate::output::{Output, Style, bytes};

/// Characters of a label that are shown; `--json` has them all.
const SHOWN: usize = 100;

pub(crate) fn inspect(context: &mut Context, name: &str, raw: bool, platform: &Platform) -> Result<u8> {
    let (name, layout) = context.repository.open(name)?;
    let image = layout.image(platform)?;
    if raw {
        context.out.bytes(&read_blob(image.layout(), &image.descriptor)?)?;
        return Ok(0);
    }
    let found = look(&name, &layout, &image, &context.progress)?;
    if context.json {
        context.out.json(&found)?;
    } else {
        show(&found, &mut context.out)?;
    }
    Ok(0)
}

fn show(found: &Inspected, out: &mut Output) -> Result<()> {
    out.styled(Style::Heading, &found.name, "")?;
    let mut field = |name: &str, value: &str| {
        if value.is_empty() { Ok(()) } else { out.line(&format!("  {name:<12} {value}")) }
    };
    field("digest", &found.digest.to_string())?;
    field("path", &found.path)?;
    field("platform", &found.platform)?;
    if found.platforms.len() > 1 {
        field("platforms", &found.platforms.join(", "))?;
    }
    field("created", found.created.as_deref().unwrap_or_default())?;
    field("size", &bytes(found.size))?;
    if let Some(run_image) = &found.run_image {
        field("run image", &run_image.image)?;
        if run_image.reference != run_image.image {
            field("", &run_image.reference)?;
        }
    }
    if let Some(source) = &found.source {
        field("source", &source.to_string())?;
    }
    field("user", &found.config.user)?;
    field("folder", &found.config.working_dir)?;
    field("entrypoint", &found.config.entrypoint.join(" "))?;
    field("command", &found.config.cmd.join(" "))?;
    out.section("environment", &found.config.env)?;

    out.styled(Style::Heading, "layers", "")?;
    let rows: Vec<Vec<String>> = found
        .layers
        .iter()
        .map(|layer| {
            let state = if layer.present { "" } else { " (missing)" };
            let hex = layer.digest.hex()[..12].to_owned();
            vec![
                format!("  {}", layer.number),
                bytes(layer.size),
                hex,
                format!("{}{state}", cut(&layer.made_by)),
            ]
        })
        .collect();
    out.table(&["  #", "SIZE", "DIGEST", "MADE BY"], &[0, 1], &rows)?;

    let named = |id: &str, version: &str| format!("{id} {version}");
    let buildpacks: Vec<_> = found.buildpacks.iter().map(|it| named(&it.id, &it.version)).collect();
    out.section("buildpacks", &buildpacks)?;
    let extensions: Vec<_> = found.extensions.iter().map(|it| named(&it.id, &it.version)).collect();
    out.section("extensions", &extensions)?;
    let processes = found.processes.iter().map(|process| {
        let words = process.command.iter().chain(&process.args).cloned().collect::<Vec<_>>().join(" ");
        let default = if process.default { " (default)" } else { "" };
        format!("{}{default}: {words}", process.r#type)
    });
    out.section("processes", &processes.collect::<Vec<_>>())?;
    let sboms: Vec<_> =
        found.sboms.iter().map(|file| format!("{} ({})", file.path, bytes(file.size))).collect();
    out.section("SBOM files", &sboms)?;
    let referrers = found.referrers.iter();
    out.section(
        "referrers",
        &referrers.map(|it| format!("{} {}", it.digest, it.artifact_type)).collect::<Vec<_>>(),
    )?;
    let pairs = |(key, value): (&String, &String)| format!("{key}={}", cut(value));
    out.section("labels", &found.labels.iter().map(pairs).collect::<Vec<_>>())?;
    out.section("annotations", &found.annotations.iter().map(pairs).collect::<Vec<_>>())?;
    out.section("problems", &found.problems)
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
