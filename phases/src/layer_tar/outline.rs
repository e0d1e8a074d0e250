//! What a layer's tar would be, as far as that can be told without reading files.

use std::os::fd::BorrowedFd;

use drydock_layout::seen::{Looks, Print};
use drydock_model::digest::Digest;
use drydock_model::hash::Hasher;
use drydock_tar::{Kind, Owner};
use rustix::fs::Stat;

/// A tar without the contents of its files, or one directory of it with all that is below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outline {
    /// Of all entries: names, kinds, sizes, modes, owners, targets. With the same contents of files, equal shapes are equal tars.
    pub shape: Digest,
    /// With how the files look: equal prints are equal tars ([`drydock_layout::seen`]). None where looks tell nothing.
    pub print: Option<Print>,
    /// With how folders, links and all others look, too, but for the layer's root: equal ones are equal trees, attributes included.
    pub tree: Option<Print>,
}

/// Draws an [`Outline`], entry by entry; what a directory below holds is drawn by itself.
#[derive(Debug, Clone)]
pub(super) struct Outliner {
    shape: Hasher,
    looks: Option<Looks>,
    /// Of what is no file.
    others: Option<Looks>,
}

impl Outliner {
    /// Of a tar with one owner, of what is in the directory `dir`.
    pub(super) fn new(dir: Option<BorrowedFd<'_>>, owner: Owner) -> Self {
        // Where it cannot be found out, looks tell nothing.
        let looks = || dir.and_then(|dir| Looks::on(dir).ok().flatten());
        let mut outliner = Self { shape: Hasher::new(), looks: looks(), others: looks() };
        outliner.add_owner(owner);
        outliner
    }

    /// With nothing in it, for a directory below.
    pub(super) fn emptied(&self) -> Self {
        let emptied = |looks: &Option<Looks>| looks.as_ref().map(Looks::emptied);
        Self { shape: Hasher::new(), looks: emptied(&self.looks), others: emptied(&self.others) }
    }

    /// A directory below, with all that is in it.
    pub(super) fn add_below(&mut self, below: &Outline) {
        const BELOW: u32 = u32::MAX;
        self.shape.update(&BELOW.to_le_bytes());
        self.shape.update(below.shape.hex().as_bytes());
        for (looks, print) in [(&mut self.looks, &below.print), (&mut self.others, &below.tree)] {
            match (looks.as_mut(), print) {
                (Some(looks), Some(print)) => looks.add_print(print),
                _ => *looks = None,
            }
        }
    }

    /// An entry.
    pub(super) fn add(&mut self, name: &[u8], kind: &Kind<'_>, mode: u32) {
        let (number, size, target): (u32, u64, &[u8]) = match kind {
            Kind::File { size } => (0, *size, b""),
            Kind::Dir => (1, 0, b""),
            Kind::Symlink { target } => (2, 0, target),
            Kind::HardLink { target } => (3, 0, target),
            Kind::Fifo => (4, 0, b""),
            Kind::CharDevice(device) => (5, u64::from(device.major) << 32 | u64::from(device.minor), b""),
            Kind::BlockDevice(device) => (6, u64::from(device.major) << 32 | u64::from(device.minor), b""),
        };
        self.shape.update(&number.to_le_bytes());
        self.shape.update(&mode.to_le_bytes());
        self.shape.update(&size.to_le_bytes());
        for text in [name, target] {
            self.shape.update(&(text.len() as u64).to_le_bytes());
            self.shape.update(text);
        }
    }

    /// The owner of an entry.
    pub(super) fn add_owner(&mut self, owner: Owner) {
        self.shape.update(&owner.uid.to_le_bytes());
        self.shape.update(&owner.gid.to_le_bytes());
    }

    /// A file whose contents are in the tar.
    pub(super) fn look_at(&mut self, stat: &Stat) {
        if let Some(looks) = &mut self.looks {
            looks.add(stat);
        }
    }

    /// Anything else below the root. None: there is no telling how it looks.
    pub(super) fn look_at_other<'a>(&mut self, stat: impl Into<Option<&'a Stat>>) {
        match (&mut self.others, stat.into()) {
            (Some(others), Some(stat)) => others.add(stat),
            (others, _) => *others = None,
        }
    }

    pub(super) fn finish(self) -> Outline {
        let shape = Digest::from_hash(self.shape);
        let print = self.looks.and_then(|mut looks| {
            looks.add_bytes(shape.to_string().as_bytes());
            looks.finish()
        });
        let tree = print.as_ref().zip(self.others).and_then(|(files, mut others)| {
            others.add_print(files);
            others.finish()
        });
        Outline { shape, print, tree }
    }
}
