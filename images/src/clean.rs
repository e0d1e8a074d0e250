//! What is of no use any more: names, and the blobs that nothing leads to.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use anyhow::{Result, bail};
use drydock_io::lock::Identity;
use drydock_layout::{Change, Durability, Layout, LayoutError, Transaction, leads_to, remove_link, sweep};
use drydock_model::digest::Digest;
use serde::Serialize;

use crate::repository::{Name, Repository};
use crate::watch::{Watch, waiting};
use crate::write;

/// Takes a name away, with what refers to the image. If nothing is left in its layout, there is no image there any more.
/// Blobs stay until nobody can be reading them: [`gc`] removes them. A name that is a link to another one is that link;
/// one in a folder that is a link is refused, for the image has another name, too.
/// The result is what went wrong after the name was gone.
pub fn remove(
    repository: &Repository,
    name: &str,
    durability: Durability,
    watch: &dyn Watch,
) -> Result<Option<String>> {
    let place = repository.locate(name)?;
    let path = place.path().path();
    let folders = path.ancestors().skip(1).take_while(|above| *above != place.dir().path());
    if let Some(link) = folders.filter(|above| above.is_symlink()).last() {
        bail!(
            "`{name}` is behind the link `{}`: name the image where it lies, or remove the link",
            link.display()
        );
    }
    if remove_link(place.dir(), place.path())? {
        return Ok(None);
    }
    repository.open(name)?;
    let transaction = Transaction::begin_to_remove(place.dir(), place.path(), durability, &waiting(watch))?;
    let layout = match Layout::open(place.path()) {
        Err(LayoutError::NotFound(_)) => return Err(repository.unknown(&place).into()),
        layout => layout?,
    };
    let named = crate::tag::named(&place, &layout)?;
    let digests: BTreeSet<Digest> =
        leads_to(path, named.iter().copied())?.iter().map(|blob| blob.digest).collect();
    let beside = crate::tag::referrers(&layout, path, &digests)?;
    // The name goes first: what else there is decides what it stands for.
    let mut changes = vec![Change::Unname];
    changes.extend(beside.into_iter().map(|descriptor| Change::Remove(descriptor.digest)));
    write::publish(transaction.prepare(&changes, &BTreeSet::new())?)
}

/// What was of no use.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cleaned {
    /// Each layout in which there was something.
    pub layouts: Vec<CleanedLayout>,
    /// Bytes on the disk that are free then: those of files of which no name is left.
    pub freed: u64,
    /// Layouts that were passed over, since somebody writes to them.
    pub busy: Vec<String>,
    /// Layouts with an index that cannot be read, or folders that cannot be used, and why.
    pub failed: Vec<Failed>,
}

/// What was of no use in a layout.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CleanedLayout {
    /// Its name.
    pub name: String,
    /// Temporary files that killed processes left.
    pub temporary: Vec<String>,
    /// Blobs that nothing leads to.
    pub blobs: Vec<Digest>,
    /// Bytes in these.
    pub size: u64,
    /// Whether the folder goes.
    pub folder: bool,
    /// For so many seconds blobs stay: something was changed a short time ago, and somebody may still be reading what was
    /// there before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<u64>,
}

/// A layout that nothing was removed from.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failed {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
    /// Whether its index or a manifest is damaged.
    pub damage: bool,
}

/// Removes what is of no use in the layouts of a repository; with `dry_run`, it only says what that would be.
pub fn gc(repository: &Repository, dry_run: bool, watch: &dyn Watch) -> Result<Cleaned> {
    let names = repository.folders()?;
    let mut cleaned = Cleaned::default();
    let mut files: HashMap<Identity, (u64, u64, u64)> = HashMap::new();
    watch.begin("cleaning", 0);
    for name in &names {
        watch.advance(0)?;
        match sweep(name.dir(), name.path(), dry_run) {
            Ok(None) => cleaned.busy.push(name.text().to_owned()),
            Err(error) => {
                let damage = error.is_damage();
                let reason = format!("{:#}", anyhow::Error::from(error));
                cleaned.failed.push(Failed { name: name.text().to_owned(), reason, damage });
            }
            Ok(Some(swept)) => {
                for blob in &swept.blobs {
                    let file = files.entry(blob.file).or_insert((0, 0, blob.size));
                    // The first look saw all names that were there before any was removed.
                    file.0 += 1;
                    file.1 = file.1.max(blob.links);
                }
                let layout = told(name, &swept);
                let is_anything = !layout.temporary.is_empty() || !layout.blobs.is_empty() || layout.folder;
                if is_anything || layout.wait.is_some() && is_unnamed(name) {
                    cleaned.layouts.push(layout);
                }
            }
        }
    }
    watch.end();
    let freed = files.values().filter(|(removed, links, _)| removed == links);
    cleaned.freed = freed.map(|(_, _, size)| size).sum();
    Ok(cleaned)
}

/// Whether it is a folder without an image.
fn is_unnamed(name: &Name) -> bool {
    !name.path().path().join("index.json").exists()
}

fn told(name: &Name, swept: &drydock_layout::Swept) -> CleanedLayout {
    CleanedLayout {
        name: name.text().to_owned(),
        temporary: swept.temporary.iter().map(|path| path.display().to_string()).collect(),
        blobs: swept.blobs.iter().map(|blob| blob.digest).collect(),
        size: swept.blobs.iter().map(|blob| blob.size).sum(),
        folder: swept.folder,
        wait: swept.wait.map(|wait| wait.as_secs().max(Duration::from_secs(1).as_secs())),
    }
}
