//! What is on a disk after the power has failed: a simulation over a trace of system calls.
//!
//! Nothing is on the disk but what was synced: the contents of a file by `fsync` of the file, the names in a folder by
//! `fsync` of the folder. What was not synced may be there or not; names of one folder change in the order of the calls.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use crate::trace::Call;

/// The calls that [`Disk::replay`] must see: those that change something, and those that name something.
pub const TRACED: &str = "trace=%file,write,writev,pwrite64,pwritev,pwritev2,ftruncate,fallocate,copy_file_range,\
                          sendfile,splice,ioctl,fsync,fdatasync,syncfs";

/// A folder and all below it, as a disk and the system's memory have it.
#[derive(Debug, Clone)]
pub struct Disk {
    root: PathBuf,
    /// The folder itself is the first.
    nodes: Vec<Node>,
    /// How many of them were there in the beginning.
    old: usize,
    /// What files are to hold that are not there yet.
    later: BTreeMap<usize, Vec<u8>>,
}

#[derive(Debug, Clone)]
enum Node {
    /// What is in it when it is whole; whether all of that is on the disk.
    File {
        contents: Vec<u8>,
        is_synced: bool,
    },
    Folder {
        names: Names,
        on_disk: Names,
        since: Vec<Names>,
    },
}

type Names = BTreeMap<String, usize>;

/// What of that which is not synced is there after all.
#[derive(Debug, Clone, Copy)]
pub enum Luck {
    /// Nothing.
    None,
    /// All names, and nothing of the contents.
    Names,
    /// Some of it, as this number says.
    Some(u64),
}

impl Disk {
    /// All that is in `root` now is on the disk.
    pub fn new(root: &Path) -> Result<Self> {
        let mut disk = Self { root: root.to_owned(), nodes: vec![folder()], old: 0, later: BTreeMap::new() };
        disk.read(root, 0)?;
        disk.old = disk.nodes.len();
        Ok(disk)
    }

    /// Looks into `root`, as it is after these calls, for what files hold that they make.
    pub fn look_ahead(&mut self, calls: &[Call]) -> Result<()> {
        let mut end = self.clone();
        for call in calls {
            end.replay(call)?;
        }
        let mut later = BTreeMap::new();
        end.find_made(0, &self.root, &mut later)?;
        self.later = later;
        Ok(())
    }

    fn read(&mut self, dir: &Path, number: usize) -> Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name().into_string().ok().context("a name of text")?;
            let is_dir = entry.file_type()?.is_dir();
            let node = if is_dir { folder() } else { file(fs::read(entry.path())?, true) };
            let made = self.add(node);
            self.names(number)?.insert(name, made);
            if is_dir {
                self.read(&entry.path(), made)?;
            }
        }
        self.sync(number);
        Ok(())
    }

    fn add(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn names(&mut self, number: usize) -> Result<&mut Names> {
        match &mut self.nodes[number] {
            Node::Folder { names, .. } => Ok(names),
            Node::File { .. } => bail!("a file is no folder"),
        }
    }

    /// Where a path leads now, from the root on; none outside of it or where nothing is.
    fn find(&self, path: &Path) -> Option<usize> {
        let below = path.strip_prefix(&self.root).ok()?;
        below.components().try_fold(0, |number, name| match (&self.nodes[number], name) {
            (Node::Folder { names, .. }, Component::Normal(name)) => names.get(name.to_str()?).copied(),
            _ => None,
        })
    }

    /// Changes the names of a folder: what a path's last name stands for from now on.
    fn change(&mut self, changes: &[(&Path, Option<usize>)]) -> Result<()> {
        let mut touched = Vec::new();
        for (path, node) in changes {
            if !path.starts_with(&self.root) {
                continue;
            }
            let parent = path.parent().and_then(|parent| self.find(parent));
            let parent = parent.with_context(|| format!("the folder of {}", path.display()))?;
            let name = path.file_name().and_then(|name| name.to_str()).context("a name")?.to_owned();
            match node {
                Some(node) => self.names(parent)?.insert(name, *node),
                None => self.names(parent)?.remove(&name),
            };
            touched.push(parent);
        }
        touched.dedup();
        for parent in touched {
            if let Node::Folder { names, since, .. } = &mut self.nodes[parent] {
                since.push(names.clone());
            }
        }
        Ok(())
    }

    fn sync(&mut self, number: usize) {
        match &mut self.nodes[number] {
            Node::File { is_synced, .. } => *is_synced = true,
            Node::Folder { names, on_disk, since } => {
                on_disk.clone_from(names);
                since.clear();
            }
        }
    }

    /// Does what a call did; says whether anything may be different from before.
    pub fn replay(&mut self, call: &Call) -> Result<bool> {
        let Call { name, .. } = call;
        let is_at = name.contains("at") && name != "creat" && name != "fallocate";
        let paths = || call.paths(is_at);
        let first = || paths()?.into_iter().next().with_context(|| format!("no path in {call:?}"));
        let two = || <[PathBuf; 2]>::try_from(paths()?).map_err(|_| anyhow!("two paths: {call:?}"));
        match name.as_str() {
            "open" | "openat" | "openat2" | "creat" => {
                if !call.text.contains("O_CREAT") && !call.text.contains("O_TRUNC") && name != "creat" {
                    return Ok(false);
                }
                let path = first()?;
                match self.find(&path) {
                    Some(_) if !call.text.contains("O_TRUNC") => return Ok(false),
                    Some(found) => self.write(found),
                    None => {
                        let contents = self.later.remove(&self.nodes.len()).unwrap_or_default();
                        let made = self.add(file(contents, false));
                        self.change(&[(&path, Some(made))])?;
                    }
                }
            }
            "mkdir" | "mkdirat" => {
                let made = self.add(folder());
                self.change(&[(&first()?, Some(made))])?;
            }
            "unlink" | "unlinkat" | "rmdir" => self.change(&[(&first()?, None)])?,
            "rename" | "renameat" | "renameat2" => {
                let [from, to] = two()?;
                if !self.is_about(&[&from, &to]) {
                    return Ok(false);
                }
                ensure!(!call.text.contains("RENAME_EXCHANGE"), "not simulated: {call:?}");
                let moved = self.known(&from)?;
                self.change(&[(&to, Some(moved)), (&from, None)])?;
            }
            "link" | "linkat" => {
                let [from, to] = two()?;
                if !self.is_about(&[&from, &to]) {
                    return Ok(false);
                }
                let linked = self.known(&from)?;
                self.change(&[(&to, Some(linked))])?;
            }
            "fsync" | "fdatasync" => match call.handles().first().and_then(|path| self.find(path)) {
                Some(found) => self.sync(found),
                None => return Ok(false),
            },
            "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" | "ftruncate" | "fallocate"
            | "ioctl" | "copy_file_range" | "sendfile" | "splice" => {
                for path in call.handles() {
                    // Of a call with two files, the one that is read is not to be told from the other: both count.
                    if let Some(found) = self.find(&path).filter(|found| *found >= self.old) {
                        self.write(found);
                    }
                }
            }
            "access" | "faccessat" | "faccessat2" | "stat" | "lstat" | "newfstatat" | "statx"
            | "readlink" | "readlinkat" | "execve" | "chdir" | "getcwd" | "statfs" | "chmod" | "fchmodat"
            | "utimensat" | "chown" | "fchownat" | "lchown" | "getxattr" | "lgetxattr"
            | "inotify_add_watch" => return Ok(false),
            _ if paths()?.iter().any(|path| path.starts_with(&self.root)) => bail!("not simulated: {call:?}"),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn is_about(&self, paths: &[&Path]) -> bool {
        paths.iter().any(|path| path.starts_with(&self.root))
    }

    /// What a path leads to; outside of the root, a file that was there before.
    fn known(&mut self, path: &Path) -> Result<usize> {
        if let Some(found) = self.find(path) {
            return Ok(found);
        }
        ensure!(!path.starts_with(&self.root), "nothing is known at {}", path.display());
        let contents = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        Ok(self.add(file(contents, true)))
    }

    fn write(&mut self, number: usize) {
        if let Node::File { is_synced, .. } = &mut self.nodes[number] {
            *is_synced = false;
        }
    }

    fn find_made(&self, number: usize, path: &Path, found: &mut BTreeMap<usize, Vec<u8>>) -> Result<()> {
        match &self.nodes[number] {
            Node::Folder { names, .. } => {
                names.iter().try_for_each(|(name, number)| self.find_made(*number, &path.join(name), found))
            }
            Node::File { .. } if number < self.old => Ok(()),
            Node::File { .. } => {
                found.insert(number, fs::read(path).with_context(|| format!("read {}", path.display()))?);
                Ok(())
            }
        }
    }

    /// Writes to the folder `to` what is there when the power comes back.
    pub fn after_failure(&self, luck: Luck, to: &Path) -> Result<()> {
        self.write_out(0, &mut Dice::new(luck), to)
    }

    fn write_out(&self, number: usize, dice: &mut Dice, to: &Path) -> Result<()> {
        match &self.nodes[number] {
            Node::File { contents, is_synced } => {
                let length = if *is_synced { contents.len() } else { dice.length(contents.len()) };
                Ok(fs::write(to, &contents[..length])?)
            }
            Node::Folder { on_disk, since, .. } => {
                fs::create_dir(to)?;
                let states = [&[on_disk.clone()][..], since].concat();
                let names = &states[dice.state(states.len())];
                names.iter().try_for_each(|(name, number)| self.write_out(*number, dice, &to.join(name)))
            }
        }
    }
}

fn folder() -> Node {
    Node::Folder { names: Names::new(), on_disk: Names::new(), since: Vec::new() }
}

fn file(contents: Vec<u8>, is_synced: bool) -> Node {
    Node::File { contents, is_synced }
}

/// Says what of the rest is there.
struct Dice {
    luck: Luck,
    thrown: u64,
}

impl Dice {
    fn new(luck: Luck) -> Self {
        let thrown = if let Luck::Some(seed) = luck { seed } else { 0 };
        Self { luck, thrown }
    }

    /// A number below `most` (splitmix64).
    fn below(&mut self, most: usize) -> usize {
        self.thrown = self.thrown.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.thrown;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % most.max(1) as u64).unwrap_or(0)
    }

    fn state(&mut self, count: usize) -> usize {
        match self.luck {
            Luck::None => 0,
            Luck::Names => count - 1,
            Luck::Some(_) => self.below(count),
        }
    }

    fn length(&mut self, whole: usize) -> usize {
        match self.luck {
            Luck::Some(_) => self.below(whole + 1),
            _ => 0,
        }
    }
}
