//! `drydock export`.

use std::io::{self, IsTerminal as _, Write};
use std::path::Path;

use anyhow::{Context as _, Result};
use drydock_images::export::{self, File, Rights, Target};
use drydock_images::{Name, Watch as _};
use drydock_io::file::{TempFile, remove_stale};
use drydock_layout::Durability;
use drydock_model::platform::Platform;
use drydock_model::reference::ImageRef;
use serde_json::json;

use super::Context;
use crate::exit::Usage;
use crate::output::Unwritten;
use crate::remote;
use crate::rules::Rules;

pub(crate) fn export(
    context: &mut Context,
    rules: &Rules,
    name: &str,
    target: &Target,
    platform: Option<&Platform>,
) -> Result<u8> {
    let (name, layout) = context.repository.open(name)?;
    let one = || layout.image(&platform.cloned().unwrap_or_else(Platform::host));
    let progress = &context.progress;
    let (digest, to) = match target {
        Target::Layout { dir, tag } => {
            let exported = export::select(&name, &layout, platform)?;
            let durability = Durability::OnDisk;
            let left = export::layout(&name, &exported, dir, tag.as_deref(), durability, progress)?;
            context.left(left.as_ref());
            (exported.root.digest, dir.display().to_string())
        }
        Target::OciArchive { file, tag } => {
            let exported = export::select(&name, &layout, platform)?;
            let tag = tag.as_deref().unwrap_or(name.path().ref_name());
            let dir = name.path().path();
            let to = write(file, |to| export::oci_archive(dir, &exported, tag, to, progress))?;
            (exported.root.digest, to)
        }
        Target::DockerArchive { file, name: called } => {
            let image = one()?;
            let called = match called {
                Some(called) => Some(called.parse::<ImageRef>()?),
                None => own_reference(&name),
            };
            let to = write(file, |to| export::docker_archive(&image, called.as_ref(), to, progress))?;
            (image.digest(), to)
        }
        Target::Dir(dir) => {
            let image = one()?;
            let unpacked = export::unpack(&image, dir, Rights::of_user(), progress)?;
            if unpacked.left_out > 0 {
                let text =
                    format!("warning: {} devices are left out: only root makes them", unpacked.left_out);
                progress.say(&text);
            }
            (image.digest(), dir.display().to_string())
        }
        Target::Registry(to) => {
            let to: ImageRef = to.parse()?;
            // What may be imported is not what this is about, but the credentials are those of the same source.
            let found = rules.sources.find(&to.to_string(), None).ok();
            let registry = rules.registry(found.and_then(|found| found.source))?;
            let exported = export::select(&name, &layout, platform)?;
            let (dir, from) = (name.path().path(), own_reference(&name));
            remote::push(&registry, &to, from.as_ref(), dir, &exported, progress)?;
            (exported.root.digest, format!("docker://{to}"))
        }
    };
    progress.advance(0)?;
    // What is written to standard output is the archive.
    if matches!(
        target,
        Target::OciArchive { file: File::Stdout, .. } | Target::DockerArchive { file: File::Stdout, .. }
    ) {
        return Ok(0);
    }
    if context.json {
        context.out.json(&json!({"name": name.text(), "digest": digest, "target": to}))?;
    } else if !context.quiet {
        context.out.line(&format!("{name} is in {to}: {digest}"))?;
    }
    Ok(0)
}

/// The reference that the image has in its repository; none if that is a digest or no reference.
fn own_reference(name: &Name) -> Option<ImageRef> {
    name.text().parse().ok().filter(|reference: &ImageRef| reference.tag().is_some())
}

/// Writes an archive: whole, or not at all.
fn write(file: &File, put: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<String> {
    match file {
        File::Stdout => {
            let mut stdout = io::stdout();
            if stdout.is_terminal() {
                return Err(
                    Usage("an archive is nothing for a terminal: send it to a file".to_owned()).into()
                );
            }
            put(&mut stdout).map_err(|error| {
                let broken = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
                match broken.map(io::Error::kind) {
                    // No file says so, and whoever read the archive has enough of it.
                    Some(io::ErrorKind::BrokenPipe) => Unwritten(io::ErrorKind::BrokenPipe.into()).into(),
                    _ => error,
                }
            })?;
            Ok("-".to_owned())
        }
        File::Path(path) => {
            let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let failed = || format!("cannot write `{}`", path.display());
            // What killed exports left; other users' stays.
            let _ = remove_stale(dir);
            let mut temporary = TempFile::create_in(dir).with_context(failed)?;
            put(temporary.file()).with_context(failed)?;
            temporary.file().sync_all().with_context(failed)?;
            temporary.persist(path).with_context(failed)?;
            Ok(path.display().to_string())
        }
    }
}
