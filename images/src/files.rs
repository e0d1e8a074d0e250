//! The files of an image: what its layers amount to, one after the other, without what is in them.
//!
//! Specification: OCI image-spec, `layer.md` § Applying Changesets. As where images are unpacked, an entry whose folder
//! is a symlink lies where that leads to, within the image.

mod both;
mod contents;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub(crate) use self::both::{Numbered, walk_both};
pub(crate) use self::contents::Contents;
use drydock_model::digest::Digest;
use drydock_tar::{Device, Entry, Kind, Owner, Time, Whiteout, Xattrs};

/// A path may have so many bytes: those that a system call takes.
pub const MAX_PATH: usize = 4096;

/// What is kept of an image's files takes about so many bytes at most: those of more than a million files.
pub const MAX_INDEX: usize = 256 << 20;

/// Symlinks that are followed on the way to one file: as many as Linux follows.
const MAX_LINKS: usize = 40;

/// What a file takes, about, beside its name and attributes; and what a name takes beside its bytes.
const EACH: usize = 80;

/// The files of an image.
#[derive(Debug)]
pub struct Files {
    nodes: Vec<Node>,
    /// About how many bytes are kept.
    used: usize,
}

/// A file of any kind. Names that are hard links to one another lead to one of these.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// Permissions with setuid, setgid and sticky bits.
    pub mode: u32,
    /// Who it belongs to.
    pub owner: Owner,
    /// When it was modified.
    pub modified: Time,
    /// Extended attributes, if there are any.
    pub xattrs: Option<Box<Xattrs>>,
    /// The layer that it comes from, from 0 on.
    pub layer: u32,
    /// The number of its entry in that layer; none for a folder that has no entry.
    pub entry: Option<u32>,
}

/// What a file is.
#[derive(Debug, Clone)]
pub enum NodeKind {
    /// A file.
    File {
        /// Bytes in it.
        size: u64,
        /// The digest of what is in it, if it was looked at.
        digest: Option<Box<Digest>>,
    },
    /// A folder, with what its names stand for.
    Dir(Box<Names>),
    /// A symlink.
    Symlink(Box<[u8]>),
    /// A FIFO.
    Fifo,
    /// A device of characters.
    CharDevice(Device),
    /// A device of blocks.
    BlockDevice(Device),
}

/// The names in a folder.
pub type Names = BTreeMap<Box<[u8]>, Slot>;

/// What a name stands for.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    node: u32,
    /// The layer that gave the name.
    layer: u32,
}

impl Node {
    /// Bytes in it, if it is a file.
    pub fn size(&self) -> u64 {
        match self.kind {
            NodeKind::File { size, .. } => size,
            _ => 0,
        }
    }

    /// What it is called: `file`, `folder`, ….
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            NodeKind::File { .. } => "file",
            NodeKind::Dir(_) => "folder",
            NodeKind::Symlink(_) => "symlink",
            NodeKind::Fifo => "fifo",
            NodeKind::CharDevice(_) | NodeKind::BlockDevice(_) => "device",
        }
    }
}

/// What an entry did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// There is something that was not there before.
    Added {
        /// Where; without a slash at the beginning.
        path: Vec<u8>,
    },
    /// Something is in place of something else.
    Changed {
        /// Where.
        path: Vec<u8>,
        /// Bytes in the files that were there.
        before: u64,
    },
    /// Something is gone.
    Removed {
        /// Where.
        path: Vec<u8>,
        /// Bytes in the files that were there.
        before: u64,
    },
    /// Nothing but that a folder is there, as before.
    Nothing,
}

const TOO_MANY: &str = "is one too many: the image has too many files";

/// Where an entry belongs.
struct Place {
    dir: u32,
    /// The folder's path.
    path: Vec<u8>,
    /// The name in it; none for the root itself.
    leaf: Option<Vec<u8>>,
}

impl Place {
    fn full(&self) -> Vec<u8> {
        let mut path = self.path.clone();
        if let Some(leaf) = &self.leaf {
            push(&mut path, leaf);
        }
        path
    }
}

const ROOT: u32 = 0;

impl Default for Files {
    fn default() -> Self {
        Self::new()
    }
}

impl Files {
    /// Without anything but the root.
    pub fn new() -> Self {
        Self { nodes: vec![folder(0)], used: 0 }
    }

    /// Applies an entry of a layer that is not below those of other entries. `digest` is that of its contents, if they
    /// were read. The error says what is wrong with the entry: the rest of a sentence.
    pub fn apply(
        &mut self,
        layer: usize,
        number: u64,
        entry: &Entry<'_>,
        digest: Option<Digest>,
    ) -> Result<Effect, &'static str> {
        let number = u32::try_from(number).map_err(|_| TOO_MANY)?;
        let layer = u32::try_from(layer).map_err(|_| TOO_MANY)?;
        let parts = parts(entry.name)?;
        if let Some(whiteout) = parts.last().and_then(|leaf| Whiteout::of(leaf)) {
            return self.white_out(layer, &parts[..parts.len() - 1], whiteout);
        }
        let place = self.place(&parts, Some(layer))?.expect("folders that are missing are made");
        let node = match entry.kind {
            Kind::HardLink { target } => {
                let target = self.place(&self::parts(target)?, None)?.and_then(|target| self.at(&target));
                let target = target.ok_or("is a hard link to something that is not there")?;
                if matches!(self.nodes[target.node as usize].kind, NodeKind::Dir(_)) {
                    return Err("is a hard link to a folder");
                }
                target.node
            }
            _ => self.add(new_node(layer, number, entry, digest))?,
        };
        self.put(&place, Slot { node, layer })
    }

    /// Puts a file where it belongs. A folder in place of a folder keeps what is in it.
    fn put(&mut self, place: &Place, slot: Slot) -> Result<Effect, &'static str> {
        let path = place.full();
        let before = self.at(place);
        if let Some(before) = before
            && let NodeKind::Dir(names) = &mut self.nodes[before.node as usize].kind
            && before.node != slot.node
        {
            let names = std::mem::take(names);
            if matches!(self.nodes[slot.node as usize].kind, NodeKind::Dir(_)) {
                let mut new = self.nodes[slot.node as usize].clone();
                new.kind = NodeKind::Dir(names);
                let old = std::mem::replace(&mut self.nodes[before.node as usize], new);
                let new = &self.nodes[before.node as usize];
                let is_same = (old.mode, old.owner, &old.xattrs) == (new.mode, new.owner, &new.xattrs);
                self.name(place, Slot { node: before.node, layer: slot.layer })?;
                return Ok(if is_same { Effect::Nothing } else { Effect::Changed { path, before: 0 } });
            }
            self.nodes[before.node as usize].kind = NodeKind::Dir(names);
        }
        if place.leaf.is_none() {
            return Err("takes the place of the root, and is no folder");
        }
        let before = before.map(|before| self.size_of(before.node));
        self.name(place, slot)?;
        Ok(match before {
            Some(before) => Effect::Changed { path, before },
            None => Effect::Added { path },
        })
    }

    fn white_out(
        &mut self,
        layer: u32,
        dir: &[&[u8]],
        whiteout: Whiteout<'_>,
    ) -> Result<Effect, &'static str> {
        // So that the last part is followed too if it is a symlink.
        let parts: Vec<&[u8]> = dir.iter().copied().chain([&b"?"[..]]).collect();
        let Some(mut place) = self.place(&parts, None)? else { return Ok(Effect::Nothing) };
        let gone = match whiteout {
            Whiteout::Opaque => {
                place.leaf = None;
                let NodeKind::Dir(names) = &self.nodes[place.dir as usize].kind else {
                    unreachable!("a place is in one")
                };
                names.keys().cloned().collect()
            }
            Whiteout::Name(name) => {
                place.leaf = Some(name.to_vec());
                vec![Box::from(name)]
            }
        };
        let (mut any, mut before) = (false, 0);
        for name in gone {
            if let Some(removed) = self.remove_below(place.dir, &name, layer) {
                any = true;
                before += removed;
            }
        }
        let path = place.full();
        Ok(if any { Effect::Removed { path, before } } else { Effect::Nothing })
    }

    /// Removes what a name stands for, but for what this layer put there; gives how many bytes that were.
    fn remove_below(&mut self, dir: u32, name: &[u8], layer: u32) -> Option<u64> {
        let NodeKind::Dir(names) = &self.nodes[dir as usize].kind else { return None };
        let slot = *names.get(name)?;
        let inner: Vec<Box<[u8]>> = match &self.nodes[slot.node as usize].kind {
            NodeKind::Dir(names) => names.keys().cloned().collect(),
            _ if slot.layer == layer => return None,
            _ => Vec::new(),
        };
        let mut before = self.nodes[slot.node as usize].size();
        let mut any = false;
        for name in inner {
            if let Some(removed) = self.remove_below(slot.node, &name, layer) {
                any = true;
                before += removed;
            }
        }
        let is_empty = match &self.nodes[slot.node as usize].kind {
            NodeKind::Dir(names) => names.is_empty(),
            _ => true,
        };
        if is_empty && slot.layer != layer {
            let NodeKind::Dir(names) = &mut self.nodes[dir as usize].kind else { return None };
            names.remove(name);
            any = true;
        }
        any.then_some(before)
    }

    /// Where a path leads to. Folders that are missing are made if there is a layer to make them for; otherwise there is
    /// no such place.
    fn place(&mut self, parts: &[&[u8]], make_for: Option<u32>) -> Result<Option<Place>, &'static str> {
        let Some((leaf, above)) = parts.split_last() else {
            return Ok(Some(Place { dir: ROOT, path: Vec::new(), leaf: None }));
        };
        let mut to_do: Vec<Vec<u8>> = above.iter().rev().map(|part| part.to_vec()).collect();
        let mut trail = vec![(ROOT, 0)];
        let mut path = Vec::new();
        let mut links = 0;
        while let Some(part) = to_do.pop() {
            let &(dir, length) = trail.last().expect("the root stays");
            if part == b".." {
                if trail.len() > 1 {
                    trail.pop();
                }
                path.truncate(trail.last().expect("the root stays").1);
                continue;
            }
            debug_assert_eq!(path.len(), length, "the path is the trail's");
            let NodeKind::Dir(names) = &self.nodes[dir as usize].kind else {
                unreachable!("a trail is of folders")
            };
            let next = if let Some(slot) = names.get(&*part) {
                slot.node
            } else {
                let Some(layer) = make_for else { return Ok(None) };
                let node = self.add(folder(layer))?;
                let place = Place { dir, path: Vec::new(), leaf: Some(part.clone()) };
                self.name(&place, Slot { node, layer })?;
                node
            };
            match &self.nodes[next as usize].kind {
                NodeKind::Dir(_) => {
                    push(&mut path, &part);
                    if path.len() > MAX_PATH {
                        return Err("has a path of more than 4096 bytes");
                    }
                    trail.push((next, path.len()));
                }
                NodeKind::Symlink(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err("lies behind symlinks without end");
                    }
                    if target.starts_with(b"/") {
                        trail.truncate(1);
                        path.clear();
                    }
                    let names = target.split(|&byte| byte == b'/').rev();
                    to_do.extend(names.filter(|name| !matches!(*name, b"" | b".")).map(<[u8]>::to_vec));
                }
                _ => return Err("lies in something that is no folder"),
            }
        }
        let dir = trail.last().expect("the root stays").0;
        if path.len() + 1 + leaf.len() > MAX_PATH {
            return Err("has a path of more than 4096 bytes");
        }
        Ok(Some(Place { dir, path, leaf: Some(leaf.to_vec()) }))
    }

    fn at(&self, place: &Place) -> Option<Slot> {
        let Some(leaf) = &place.leaf else { return Some(Slot { node: ROOT, layer: 0 }) };
        match &self.nodes[place.dir as usize].kind {
            NodeKind::Dir(names) => names.get(leaf.as_slice()).copied(),
            _ => None,
        }
    }

    fn name(&mut self, place: &Place, slot: Slot) -> Result<(), &'static str> {
        let Some(leaf) = &place.leaf else { return Ok(()) };
        self.take(leaf.len() + EACH)?;
        if let NodeKind::Dir(names) = &mut self.nodes[place.dir as usize].kind {
            names.insert(leaf.as_slice().into(), slot);
        }
        Ok(())
    }

    fn add(&mut self, node: Node) -> Result<u32, &'static str> {
        let xattrs = node.xattrs.iter().flat_map(|all| all.iter());
        let attributes: usize = xattrs.map(|(name, value)| name.len() + value.len() + EACH).sum();
        let target = if let NodeKind::Symlink(target) = &node.kind { target.len() } else { 0 };
        self.take(EACH + attributes + target)?;
        let number = u32::try_from(self.nodes.len()).map_err(|_| TOO_MANY)?;
        self.nodes.push(node);
        Ok(number)
    }

    fn take(&mut self, bytes: usize) -> Result<(), &'static str> {
        self.used += bytes;
        if self.used > MAX_INDEX { Err(TOO_MANY) } else { Ok(()) }
    }

    /// Bytes in all files below one.
    fn size_of(&self, node: u32) -> u64 {
        match &self.nodes[node as usize].kind {
            NodeKind::Dir(names) => names.values().map(|slot| self.size_of(slot.node)).sum(),
            _ => self.nodes[node as usize].size(),
        }
    }

    /// Shows every file, in the order of their paths, folders before what is in them; the root, whose path is empty, is
    /// the first. The number is the same for hard links to one file.
    pub fn walk<'a>(&'a self, visit: &mut dyn FnMut(&[u8], u32, &'a Node)) {
        let mut path = Vec::new();
        self.walk_from(ROOT, &mut path, visit);
    }

    fn walk_from<'a>(&'a self, number: u32, path: &mut Vec<u8>, visit: &mut dyn FnMut(&[u8], u32, &'a Node)) {
        let node = &self.nodes[number as usize];
        visit(path, number, node);
        if let NodeKind::Dir(names) = &node.kind {
            for (name, slot) in names.iter() {
                let length = path.len();
                push(path, name);
                self.walk_from(slot.node, path, visit);
                path.truncate(length);
            }
        }
    }

    /// What is at a path, through no symlink.
    pub fn get(&self, path: &[u8]) -> Option<&Node> {
        let mut number = ROOT;
        for part in path.split(|&byte| byte == b'/').filter(|part| !part.is_empty()) {
            let NodeKind::Dir(names) = &self.nodes[number as usize].kind else { return None };
            number = names.get(part)?.node;
        }
        Some(&self.nodes[number as usize])
    }
}

impl Clone for Files {
    fn clone(&self) -> Self {
        Self { nodes: self.nodes.clone(), used: self.used }
    }
}

fn push(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// A folder that has no entry.
fn folder(layer: u32) -> Node {
    Node {
        kind: NodeKind::Dir(Box::default()),
        mode: 0o755,
        owner: Owner::ROOT,
        modified: Time { seconds: 0, nanoseconds: 0 },
        xattrs: None,
        layer,
        entry: None,
    }
}

fn new_node(layer: u32, number: u32, entry: &Entry<'_>, digest: Option<Digest>) -> Node {
    let kind = match entry.kind {
        Kind::File { size } => NodeKind::File { size, digest: digest.map(Box::new) },
        Kind::Dir => NodeKind::Dir(Box::default()),
        Kind::Symlink { target } => NodeKind::Symlink(target.into()),
        Kind::HardLink { .. } => unreachable!("it is another name of what is there"),
        Kind::Fifo => NodeKind::Fifo,
        Kind::CharDevice(device) => NodeKind::CharDevice(device),
        Kind::BlockDevice(device) => NodeKind::BlockDevice(device),
    };
    Node {
        kind,
        mode: entry.mode,
        owner: entry.owner,
        modified: entry.modified,
        xattrs: (!entry.xattrs.is_empty()).then(|| Box::new(entry.xattrs.clone())),
        layer,
        entry: Some(number),
    }
}

/// The parts of a path; names in a layer are relative to the root, with or without a slash at the beginning.
fn parts(name: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    if name.is_empty() {
        return Err("has no name");
    }
    if name.contains(&0) {
        return Err("has a NUL in its name or target");
    }
    let parts: Vec<&[u8]> =
        name.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.contains(&&b".."[..]) {
        return Err("has a `..` in its name or target");
    }
    Ok(parts)
}
