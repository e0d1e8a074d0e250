//! `drydock export`.

use std::fs;
use std::io::{self, IsTerminal as _, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use drydock_images::export::{self, File, Rights, Target};
use drydock_images::{Name, Watch as _};
use drydock_io::file::Destination;
use drydock_layout::Durability;
use drydock_model::platform::Platform;
use drydock_model::reference::ImageRef;
use rustix::fs::fstat;
use serde_json::json;

use super::Context;
use crate::exit::Usage;
use crate::output::Unwritten;
use crate::progress::Signals;
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
            let put = |to: &mut dyn Write| export::oci_archive(dir, &exported, tag, to, progress);
            let ((), to) = write(file, &progress.signals, put)?;
            (exported.root.digest, to)
        }
        Target::DockerArchive { file, name: called } => {
            let image = one()?;
            let called = match called {
                Some(called) => Some(called.parse::<ImageRef>()?),
                None => own_reference(&name),
            };
            let put = |to: &mut dyn Write| export::docker_archive(&image, called.as_ref(), to, progress);
            let ((), to) = write(file, &progress.signals, put)?;
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
    if is_to_stdout(target) {
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

/// Whether an image goes to standard output as an archive.
pub(super) fn is_to_stdout(target: &Target) -> bool {
    matches!(target, Target::OciArchive { file, .. } | Target::DockerArchive { file, .. } if is_stdout(file))
}

/// Whether an archive goes to standard output, by whatever name: `-`, `/dev/stdout`, or a pipe that it is, too.
pub(super) fn is_stdout(file: &File) -> bool {
    let same = |path: &Path| -> io::Result<bool> {
        let (there, stdout) = (fs::metadata(path)?, fstat(io::stdout())?);
        Ok((there.dev(), there.ino()) == (stdout.st_dev, stdout.st_ino))
    };
    match file {
        File::Stdout => true,
        File::Path(path) => same(path).unwrap_or(false),
    }
}

/// Writes an archive. What is a file is there whole, or not at all.
pub(super) fn write<T>(
    file: &File,
    signals: &Signals,
    put: impl FnOnce(&mut dyn Write) -> Result<T>,
) -> Result<(T, String)> {
    let no_terminal = || Usage("an archive is nothing for a terminal: send it to a file".to_owned()).into();
    match file {
        File::Path(path) if !is_stdout(file) => {
            let failed = || format!("cannot write `{}`", path.display());
            // A pipe may have no reader.
            let mut to = signals.at_once(|| Destination::open(path)).with_context(failed)?;
            if to.file().is_terminal() {
                return Err(no_terminal());
            }
            let written = put(to.file()).with_context(failed)?;
            to.finish().with_context(failed)?;
            Ok((written, path.display().to_string()))
        }
        _ => {
            let mut stdout = io::stdout();
            if stdout.is_terminal() {
                return Err(no_terminal());
            }
            let written = put(&mut stdout).map_err(|error| {
                let broken = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
                match broken.map(io::Error::kind) {
                    // No file says so, and whoever read the archive has enough of it.
                    Some(io::ErrorKind::BrokenPipe) => Unwritten(io::ErrorKind::BrokenPipe.into()).into(),
                    _ => error,
                }
            })?;
            Ok((written, "-".to_owned()))
        }
    }
}
