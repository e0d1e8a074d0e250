//! `drydock sbom`.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use drydock_images::sbom::{self, SbomFile};
use drydock_model::platform::Platform;
use drydock_spec::sbom::SbomFormat as Format;

use super::Context;
use crate::cli::SbomFormat;
use crate::exit::{self, Usage};
use crate::output::{bytes, printable};

/// Which files, and what is done with them.
pub(crate) struct Choice<'a> {
    pub(crate) format: Option<SbomFormat>,
    pub(crate) layer: Option<&'a str>,
    pub(crate) output: Option<&'a Path>,
}

pub(crate) fn sbom(
    context: &mut Context,
    name: &str,
    choice: &Choice<'_>,
    platform: &Platform,
) -> Result<u8> {
    let image = context.repository.image(name, platform)?;
    let format = choice.format.map(|format| match format {
        SbomFormat::CycloneDx => Format::CycloneDx,
        SbomFormat::Spdx => Format::Spdx,
        SbomFormat::Syft => Format::Syft,
    });
    let is_of = |file: &SbomFile| {
        let fits = |layer: &str| file.of == layer || file.of.split(':').next() == Some(layer);
        format.is_none_or(|format| sbom::format_name(format) == file.format) && choice.layer.is_none_or(fits)
    };
    let is_read = format.is_some() || choice.output.is_some();
    let all = sbom::files(&image, &context.progress, &|file| is_read && is_of(file))?;
    let wanted: Vec<SbomFile> = all.iter().filter(|file| is_of(file)).cloned().collect();
    if wanted.is_empty() {
        let there: Vec<String> = all.iter().map(|file| format!("{} ({})", file.of, file.format)).collect();
        let there = if there.is_empty() { "it has none at all".to_owned() } else { there.join(", ") };
        context.progress.say(&printable(&format!("`{name}` has no such SBOM files: {there}")));
        return Ok(exit::FOUND);
    }
    if let Some(dir) = choice.output {
        wanted.iter().try_for_each(|file| write(dir, file))?;
        return Ok(0);
    }
    let out = &mut context.out;
    match (format, wanted.as_slice()) {
        // As it is, to the byte.
        (Some(_), [only]) => out.bytes(only.text.as_deref().unwrap_or_default())?,
        (Some(format), several) => out.json(&sbom::merge(format, several)?)?,
        (None, _) if context.json => out.json(&wanted)?,
        (None, _) => {
            let row = |file: &SbomFile| {
                vec![file.of.clone(), file.format.to_owned(), bytes(file.size), file.path.clone()]
            };
            let rows: Vec<_> = wanted.iter().map(row).collect();
            out.table(&["OF", "FORMAT", "SIZE", "PATH"], &[2], &rows)?;
        }
    }
    Ok(0)
}

/// Writes a file to `<dir>/<buildpack>/<layer>/<name>`.
fn write(dir: &Path, file: &SbomFile) -> Result<()> {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    let parts: Vec<&str> = file.of.split([':', '/']).filter(|part| !part.is_empty()).chain([name]).collect();
    // The path comes from the image.
    ensure!(
        parts.iter().all(|part| !matches!(*part, "." | "..")),
        Usage(format!("`{}` leads elsewhere", file.path))
    );
    let to = parts.iter().fold(dir.to_owned(), |dir, part| dir.join(part));
    let parent = to.parent().context("a file has a folder")?;
    drydock_io::file::make_dirs(parent)
        .with_context(|| format!("cannot make folder `{}`", parent.display()))?;
    let text = file.text.as_deref().unwrap_or_default();
    drydock_io::file::write_atomically(&to, text).with_context(|| format!("cannot write `{}`", to.display()))
}
