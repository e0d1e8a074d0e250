//! Commands that write: `drydock tag`, `rm`, `gc`, `flatten`.

use anyhow::Result;
use drydock_encode::compress::Compression;
use drydock_images::clean::{self, CleanedLayout};
use drydock_images::flatten::{self, Options};
use drydock_images::{Name, tag as tagging};
use drydock_layout::Durability;
use drydock_model::platform::Platform;
use drydock_sandbox::room::Room;
use serde_json::json;

use super::{Context, cores, sandboxed};
use crate::exit;
use crate::output::bytes;

impl Context {
    /// The image is there, but something of the old one is, too.
    pub(super) fn left(&self, left: Option<&String>) {
        if let Some(left) = left {
            let text = format!("warning: what nothing leads to any more could not be removed: {left}");
            self.progress.say(&crate::output::printable(&text));
        }
    }
}

pub(crate) fn tag(context: &mut Context, name: &str, new: &[String]) -> Result<u8> {
    let (from, layout) = context.repository.open(name)?;
    let new: Vec<Name> = new.iter().map(|name| context.repository.locate(name)).collect::<Result<_>>()?;
    let tagged = tagging::tag(&from, &layout, &new, Durability::OnDisk, &context.progress)?;
    context.left(tagged.left.as_ref());
    let names: Vec<&str> = new.iter().map(Name::text).collect();
    if context.json {
        let (shared, copied) = (tagged.shared.shared, tagged.shared.copied);
        let digest = tagged.digest;
        context.out.json(&json!({"digest": digest, "names": names, "shared": shared, "copied": copied}))?;
    } else if !context.quiet {
        context.out.line(&format!("{} is {}", names.join(", "), tagged.digest))?;
    }
    Ok(0)
}

pub(crate) fn remove(context: &mut Context, names: &[String]) -> Result<u8> {
    let (mut removed, mut failed) = (Vec::new(), None);
    for name in names {
        match clean::remove(&context.repository, name, Durability::OnDisk, &context.progress) {
            Ok(left) => context.left(left.as_ref()),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
        removed.push(name);
        if !context.json && !context.quiet {
            context.out.line(&format!("{name} is gone; `drydock gc` removes its blobs in ten minutes"))?;
        }
    }
    // Those before one that fails are gone, too.
    if context.json && (failed.is_none() || !removed.is_empty()) {
        context.out.json(&json!({"removed": removed}))?;
    }
    failed.map_or(Ok(0), Err)
}

pub(crate) fn gc(context: &mut Context, dry_run: bool, all: bool, room: Option<&Room>) -> Result<u8> {
    let cleaned = clean::gc(&context.repository, dry_run, &context.progress)?;
    let sandboxed::Cleaned { unpacked, builds } =
        room.map(|_| sandboxed::clean(all)).transpose()?.unwrap_or_default();
    let out = &mut context.out;
    if context.json {
        let mut answer = serde_json::to_value(&cleaned)?;
        answer["unpacked"] = json!(unpacked);
        answer["builds"] = json!(builds);
        out.json(&answer)?;
    } else {
        for layout in cleaned.layouts.iter().filter(|_| !context.quiet) {
            out.line(&told(layout))?;
        }
        for name in cleaned.busy.iter().filter(|_| !context.quiet) {
            out.line(&format!("{name}: somebody writes to it, left alone"))?;
        }
        if !context.quiet {
            if unpacked > 0 {
                let which = if all { "that nobody uses" } else { "that nobody has used for days" };
                out.line(&format!("unpacked images {which}: {unpacked} removed"))?;
            }
            if builds > 0 {
                let which = if all { "that nobody uses" } else { "whose image is gone" };
                out.line(&format!("caches of builds {which}: {builds} removed"))?;
            }
            let verb = if dry_run { "would be" } else { "are" };
            out.line(&format!("{} {verb} free", bytes(cleaned.freed)))?;
        }
    }
    for failed in &cleaned.failed {
        let text = format!("{}: nothing is removed: {}", failed.name, failed.reason);
        context.progress.say(&crate::output::printable(&text));
    }
    Ok(match cleaned.failed.as_slice() {
        [] => 0,
        failed if failed.iter().any(|failed| failed.damage) => exit::FOUND,
        _ => exit::FAILED,
    })
}

fn told(layout: &CleanedLayout) -> String {
    let mut what = Vec::new();
    let count = |n: usize, one: &str, several: &str| match n {
        0 => None,
        1 => Some(format!("1 {one}")),
        n => Some(format!("{n} {several}")),
    };
    what.extend(count(layout.temporary.len(), "temporary file", "temporary files"));
    let blobs = count(layout.blobs.len(), "blob", "blobs");
    what.extend(blobs.map(|blobs| format!("{blobs} ({})", bytes(layout.size))));
    if layout.folder {
        what.push("its folder".to_owned());
    }
    if let Some(wait) = layout.wait {
        what.push(format!("the rest in {} minutes", wait.div_ceil(60)));
    }
    format!("{}: {}", layout.name, what.join(", "))
}

pub(crate) fn flatten(
    context: &mut Context,
    name: &str,
    new: Option<&str>,
    compression: Compression,
    platform: &Platform,
) -> Result<u8> {
    let image = context.repository.image(name, platform)?;
    let to = context.repository.locate(new.unwrap_or(name))?;
    let options = Options { compression, threads: cores(), durability: Durability::OnDisk };
    let flattened = flatten::flatten(&image, &to, options, &context.progress)?;
    context.left(flattened.left.as_ref());
    let (before, after, digest) = (flattened.before, flattened.after, flattened.committed.digest);
    if context.json {
        context.out.json(&json!({"name": to.text(), "digest": digest, "before": before, "after": after}))?;
    } else if !context.quiet {
        let sizes = format!("{} in one layer, {} before", bytes(after), bytes(before));
        context.out.line(&format!("{to} is {digest}: {sizes}"))?;
    }
    Ok(0)
}
