//! What steps of Dockerfiles made, kept so that they need not be done again.
//!
//! ```text
//! <cache>/roots/step-<key>/files/          what the step wrote, as the kernel's overlay has it
//! <cache>/roots/step-<key>/blobs/sha256/   its layer
//! <cache>/roots/step-<key>/layer.json      which layer that is
//! ```

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use drydock_encode::pipeline;
use drydock_extend::in_place::Layer;
use drydock_layout::blob_path;
use drydock_model::digest::{DiffId, Digest};
use drydock_model::manifest::Descriptor;
use drydock_sandbox::roots::{self, Root};
use serde::{Deserialize, Serialize};

use super::super::Shop;

/// The file that says what a step made.
const NOTE: &str = "layer.json";

/// Bytes that it may have.
const MAX_NOTE: u64 = 64 << 10;

/// What a step made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Note {
    /// When, in seconds since 1970.
    pub(super) created: i64,
    /// None if it changed nothing.
    pub(super) layer: Option<LayerNote>,
}

/// A layer, by what an image says of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct LayerNote {
    pub(super) diff_id: DiffId,
    pub(super) descriptor: Descriptor,
}

/// A step that was done.
#[derive(Debug, Clone)]
pub(super) struct Done {
    /// Its name in the cache.
    pub(super) name: String,
    pub(super) note: Note,
    /// The folder with what it wrote.
    pub(super) files: PathBuf,
}

/// The steps that are kept, and those of this build that will be.
pub(super) struct Kept<'a> {
    shop: &'a Shop,
    users: &'a str,
    /// Of this build, by their names: they lie in the session.
    new: HashMap<String, (PathBuf, Note)>,
    /// Those that nobody removes meanwhile.
    found: HashMap<String, Root>,
}

impl<'a> Kept<'a> {
    pub(super) fn new(shop: &'a Shop, users: &'a str) -> Self {
        Self { shop, users, new: HashMap::new(), found: HashMap::new() }
    }

    /// The name of a step with this key, whose layer is written like this.
    pub(super) fn name(key: &Digest, settings: &pipeline::Settings, latest: Option<i64>) -> String {
        let all = format!("{key} {:?} {latest:?}", settings.compression);
        format!("step-{}", Digest::of(all.as_bytes()).hex())
    }

    /// The step of this name, if it was done: in this build, or in an earlier one if that counts.
    pub(super) fn find(&mut self, name: &str, earlier: bool) -> Result<Option<Done>> {
        if let Some((dir, note)) = self.new.get(name) {
            let done = Done { name: name.to_owned(), note: note.clone(), files: dir.join("files") };
            return Ok(Some(done));
        }
        if !earlier {
            return Ok(None);
        }
        let Some(root) = roots::find(&self.shop.cache, name, self.users)? else { return Ok(None) };
        // What cannot be read is made again.
        let Ok(note) = read_note(root.dir()) else { return Ok(None) };
        let done = Done { name: name.to_owned(), note, files: root.files.clone() };
        self.found.insert(name.to_owned(), root);
        Ok(Some(done))
    }

    /// Notes what a step made whose folder in the session this is.
    pub(super) fn add(
        &mut self,
        name: String,
        dir: PathBuf,
        layer: Option<Layer>,
        created: i64,
    ) -> Result<Done> {
        let failed = || format!("cannot keep what is in `{}`", dir.display());
        let keep = |layer: Layer| -> Result<LayerNote> {
            let blob = layer.blob;
            let descriptor = Descriptor::new(blob.media_type, blob.digest, blob.size);
            blob.file.persist(&blob_path(&dir, &blob.digest))?;
            Ok(LayerNote { diff_id: layer.diff_id, descriptor })
        };
        let note = Note { created, layer: layer.map(keep).transpose().with_context(failed)? };
        fs::write(dir.join(NOTE), serde_json::to_vec(&note)?).with_context(failed)?;
        let done = Done { name: name.clone(), note: note.clone(), files: dir.join("files") };
        self.new.insert(name, (dir, note));
        Ok(done)
    }

    /// Puts those of this build into the cache, whatever came of it; all that were used stay there as long as these are not dropped.
    pub(super) fn finish(self) -> Result<HashMap<String, Root>> {
        let made: Vec<_> = self.new.into_iter().map(|(name, (dir, _))| (name, dir)).collect();
        let put = roots::put(&self.shop.cache, self.users, &made).context("cannot keep what was built")?;
        let mut all = self.found;
        all.extend(made.into_iter().map(|(name, _)| name).zip(put));
        Ok(all)
    }
}

/// Has a step done again whose folder of the cache this is. Who uses the folder can go on.
pub(in crate::commands::sandboxed) fn forget(dir: &Path) -> Result<()> {
    let note = dir.join(NOTE);
    fs::remove_file(&note).with_context(|| format!("cannot remove `{}`", note.display()))
}

/// What a folder of the cache says of its step, if it has the layer.
fn read_note(dir: &Path) -> Result<Note> {
    let text = drydock_io::read::read_to_string(&dir.join(NOTE), MAX_NOTE)?;
    let note: Note = serde_json::from_str(&text)?;
    if let Some(LayerNote { descriptor, .. }) = &note.layer {
        let size = fs::metadata(blob_path(dir, &descriptor.digest))?.len();
        ensure!(size == descriptor.size, "the layer has another size");
    }
    Ok(note)
}
