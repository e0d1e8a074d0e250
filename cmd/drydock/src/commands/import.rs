//! `drydock import`.

use anyhow::Result;
use drydock_images::Name;
use drydock_images::import::{self, Imported, Opened, Source};
use serde_json::json;

use super::Context;
use crate::exit::Usage;
use crate::output::bytes;

pub(crate) use drydock_images::import::Options;

pub(crate) fn import(
    context: &mut Context,
    source: &Source,
    name: Option<&str>,
    options: &Options,
) -> Result<u8> {
    let near = context.repository.dir().path();
    let opened = match source {
        Source::Layout { dir, tag } => Opened::layout(dir, tag.as_deref())?,
        Source::Archive { file, tag } => Opened::archive(file, tag.as_deref(), near, &context.progress)?,
        Source::Rootfs(path) => Opened::rootfs(path),
        Source::Registry(name) | Source::Url(name) | Source::Named(name) => {
            return Err(Usage(format!("`{name}` is no source: say what it is, as in `oci:DIR`")).into());
        }
    };
    let name = name.or(opened.name()).ok_or_else(|| {
        Usage(
            "the image has no name where it comes from: say after the source what it is to be called".into(),
        )
    })?;
    let to = context.repository.locate(name)?;
    let imported = import::import(&opened, &context.repository, &to, options, &context.progress)?;
    told(context, &to, &imported)?;
    Ok(0)
}

fn told(context: &mut Context, to: &Name, imported: &Imported) -> Result<()> {
    context.left(imported.left.as_ref());
    let Imported { digest, brought, .. } = imported;
    if context.json {
        let (shared, fetched, lacking) = (brought.shared, brought.fetched, &brought.lacking);
        return context.out.json(&json!({"name": to.text(), "digest": digest, "shared": shared,
            "fetched": fetched, "lacking": lacking}));
    }
    for lacking in &brought.lacking {
        context
            .progress
            .say(&format!("warning: blob {lacking} is named, but is not where the image comes from"));
    }
    if context.quiet {
        return Ok(());
    }
    let sizes = match (brought.fetched, brought.shared) {
        (0, 0) => String::new(),
        (fetched, 0) => format!(": {} fetched", bytes(fetched)),
        (fetched, shared) => format!(": {} fetched, {} there already", bytes(fetched), bytes(shared)),
    };
    context.out.line(&format!("{to} is {digest}{sizes}"))
}
