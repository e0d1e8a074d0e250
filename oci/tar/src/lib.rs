//! Tar archives as they are, and the file trees that they are made of.
//!
//! - An [`Entry`] is what an archive says of one file: with owner, time, extended attributes, links and devices. It
//!   [writes itself](Entry::write) byte for byte as Go's `archive/tar` would.
//! - An [`Archive`] is read entry by entry.
//! - A [`Walk`] goes through a tree on disk and a [`Trail`] to places in it, by handles and through no symlink;
//!   [`write_contents`] archives what is in a file.
//! - [`extract`] makes one directory of an archive that may be hostile; [`give_all`] gives any tree to another owner, and
//!   [`remove_all`] removes it.
//!
//! Which entries a layer has, whose they are and from when, is for the caller to say. So is what an entry means that is
//! called a [`Whiteout`].

mod ahead;
mod contents;
mod entry;
mod error;
mod extract;
mod own;
mod pax;
mod read;
mod remove;
#[cfg(test)]
mod testing;
mod trail;
mod walk;
mod whiteout;
mod write;

pub use ahead::{Origin, open_file};
pub use contents::write_contents;
pub use entry::{Device, Entry, Kind, NO_XATTRS, Owner, Time, Xattrs};
pub use error::{ArchiveError, TarError};
pub use extract::{ExtractError, Extraction, extract};
pub use own::{change_mode, give_all};
pub use read::{Archive, Contents, Member};
pub use remove::{remove_all, remove_all_in};
pub use trail::{Trail, split_leaf};
pub use walk::{Enters, Found, Listing, Walk, list};
pub use whiteout::Whiteout;
pub use write::{write_end, write_padding};
