//! What a `RUN` sees besides its image: binds, caches, folders in memory and secrets.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use drydock_extend::in_place::Contexts as _;
use drydock_extend::plan::{Mount, Program, Sharing};
use drydock_images::Watch as _;
use drydock_io::read::is_dir;
use drydock_model::digest::Digest;
use drydock_sandbox::bundle;
use drydock_sandbox::copy::copy;
use drydock_sandbox::roots::{self, Root};
use drydock_sandbox::tree::{Above, Tree};

use super::super::Shop;
use super::Task;
use super::contexts::Contexts;
use crate::progress::Progress;

/// The mounts of one program; dropped, they are gone.
#[derive(Default)]
pub(super) struct Mounts {
    /// Those above others come first.
    pub(super) seen: Vec<bundle::Mount>,
    /// Variables that hold secrets.
    pub(super) env: Vec<(String, String)>,
    trees: Vec<Tree>,
    caches: BTreeMap<String, Root>,
}

/// Who makes them.
pub(super) struct Maker<'m, 'a> {
    pub(super) shop: &'a Shop,
    pub(super) task: &'a Task<'a>,
    pub(super) progress: &'a Progress,
    pub(super) users: &'a str,
    pub(super) contexts: &'m mut Contexts<'a>,
}

impl Maker<'_, '_> {
    pub(super) fn make(&mut self, program: &Program) -> Result<Mounts> {
        let keys = program.mounts.iter().map(|mount| self.cache_key(mount)).collect::<Result<Vec<_>>>()?;
        let mounts = || program.mounts.iter().zip(&keys);
        // Each once, in one order, so that two programs do not wait for each other.
        let caches: BTreeMap<&String, &Mount> =
            mounts().filter_map(|(mount, key)| Some((key.as_ref()?, mount))).collect();
        let mut all = Mounts::default();
        for (key, mount) in caches {
            all.caches.insert(key.clone(), self.cache(key, mount)?);
        }
        for (mount, key) in mounts() {
            self.add(mount, key.as_ref(), &mut all)?;
        }
        all.seen.sort_by_key(|mount| mount.to.split('/').count());
        Ok(all)
    }

    fn add(&mut self, mount: &Mount, cache: Option<&String>, all: &mut Mounts) -> Result<()> {
        let (from, to, writable) = match mount {
            Mount::Bind { from, source, target, writable } => {
                let found = self.contexts.find(from, source)?;
                let found = if *writable { self.throwing_away(&found, all)? } else { found };
                (found, target, *writable)
            }
            Mount::Cache { target, writable, .. } => {
                let root = cache.and_then(|key| all.caches.get(key)).context("the cache was opened")?;
                (root.files.clone(), target, *writable)
            }
            Mount::Tmpfs { target, size } => {
                let at = self.contexts.folder("memory")?;
                all.trees.push(Tree::in_memory(&at, *size)?);
                (at, target, true)
            }
            Mount::Secret { id, target, env, mode, uid, gid, .. } => {
                // Whether it must be there was looked at before.
                let Some(secret) = self.task.secrets.get(id) else { return Ok(()) };
                if let Some(name) = env {
                    let value = String::from_utf8(secret.clone()).ok();
                    let value = value.filter(|value| !value.contains('\0'));
                    let value = value
                        .with_context(|| format!("the secret `{id}` can be no variable: it is no text"))?;
                    all.env.push((name.clone(), value));
                }
                let Some(target) = target else { return Ok(()) };
                (self.secret_file(secret, (*mode, *uid, *gid), all)?, target, false)
            }
        };
        all.seen.push(bundle::Mount { from, to: to.clone(), writable });
        Ok(())
    }

    /// The same files, with a place for what is written to them.
    fn throwing_away(&mut self, found: &Path, all: &mut Mounts) -> Result<PathBuf> {
        let dir = self.contexts.folder("written")?;
        if !is_dir(found).with_context(|| format!("cannot look at `{}`", found.display()))? {
            let copy = dir.join("file");
            fs::copy(found, &copy).with_context(|| format!("cannot copy `{}`", found.display()))?;
            return Ok(copy);
        }
        let make = |name: &str| -> Result<PathBuf> {
            let path = dir.join(name);
            fs::create_dir(&path).with_context(|| format!("cannot make `{}`", path.display()))?;
            Ok(path)
        };
        let (above, at) = (Above { upper: make("upper")?, work: make("work")? }, make("root")?);
        all.trees.push(Tree::stacked(&[found], Some(&above), &at, &self.shop.room)?);
        Ok(at)
    }

    /// On no disk.
    fn secret_file(
        &mut self,
        secret: &[u8],
        (mode, uid, gid): (u32, u32, u32),
        all: &mut Mounts,
    ) -> Result<PathBuf> {
        let dir = self.contexts.folder("secrets")?;
        all.trees.push(Tree::in_memory(&dir, None)?);
        let path = dir.join("secret");
        fs::write(&path, secret)
            .and_then(|()| chown(&path, Some(uid), Some(gid)))
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
            .context("cannot write a secret for a program")?;
        Ok(path)
    }

    /// What a cache is called among all that is kept: whatever else it is filled from, it is another one.
    fn cache_key(&mut self, mount: &Mount) -> Result<Option<String>> {
        let Mount::Cache { id, from, source, .. } = mount else { return Ok(None) };
        let text = match from {
            None => id.clone(),
            Some(from) => {
                let failed = || format!("`{source}`, which fills the cache `{id}`");
                // From here on, what is copied of the context does not change.
                self.contexts.find(from, source).with_context(failed)?;
                format!("{id}\0{}", self.contexts.mounted(from, source).with_context(failed)?)
            }
        };
        Ok(Some(format!("cache-{}", Digest::of(text.as_bytes()).hex())))
    }

    fn cache(&mut self, key: &str, mount: &Mount) -> Result<Root> {
        let Mount::Cache { id, sharing, from, source, mode, uid, gid, .. } = mount else {
            anyhow::bail!("only caches are kept")
        };
        let progress = self.progress;
        let filled = from.as_ref().map(|from| self.contexts.find(from, source)).transpose()?;
        let mut make = |to: &Path| -> Result<()> {
            fs::create_dir(to)?;
            chown(to, Some(*uid), Some(*gid))?;
            fs::set_permissions(to, fs::Permissions::from_mode(*mode))?;
            filled.as_deref().map_or(Ok(()), |from| copy(from, to, &[], &|| progress.advance(0)))
        };
        let (cache, users) = (&self.shop.cache, self.users);
        let waiting = format!("waiting for another build that uses the cache `{id}`");
        let waiting = self.progress.waiting(&waiting);
        let opened = match sharing {
            Sharing::Shared => roots::get(cache, key, users, &waiting, &mut make),
            Sharing::Locked => roots::get_alone(cache, key, users, &waiting, &mut make),
            Sharing::Private => roots::get_free(cache, key, users, &mut make),
        };
        self.progress.advance(0)?;
        opened.with_context(|| format!("cannot open the cache `{id}`"))
    }
}
