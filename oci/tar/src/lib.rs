//! Tar archives as they are, and the file trees that they are made of.
//!
//! - An [`Entry`] is what an archive says of one file: with owner, time, extended attributes, links and devices. It
//!   [writes itself](Entry::write) byte for byte as Go's `archive/tar` would.
//! - A [`Walk`] goes through a tree on disk and a [`Trail`] to places in it, by handles and through no symlink;
//!   [`write_contents`] archives what is in a file.
//! - [`extract`] makes files of an archive, below one directory.
//!
//! Which entries a layer has, whose they are and from when, is for the caller to say. So is what an entry means that is
//! called a [`Whiteout`].

mod ahead;
mod contents;
mod entry;
mod error;
mod extract;
mod pax;
mod trail;
mod walk;
mod whiteout;
mod write;

pub use ahead::{Origin, open_file};
pub use contents::write_contents;
pub use entry::{Device, Entry, Kind, NO_XATTRS, Owner, Time, Xattrs};
pub use error::TarError;
pub use extract::{ExtractError, extract};
pub use trail::{Trail, split_leaf};
pub use walk::{Found, Walk};
pub use whiteout::Whiteout;
pub use write::{write_end, write_padding};
