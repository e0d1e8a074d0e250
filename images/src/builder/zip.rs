//! Zip files, and so jar and war files: entry by entry, with bounded memory.

use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context as _, Result};
use drydock_tar::Kind;
use flate2::read::DeflateDecoder;
use rawzip::{CompressionMethod, RECOMMENDED_BUFFER_SIZE, ZipArchive};

use super::tree::{Guard, Member, MemberKind, Visit};
use crate::files::MAX_PATH;
use crate::import::{SourceError, Watched};
use crate::watch::Watch;

/// The bits of a mode that say what a file is, and some of their values.
const TYPE: u32 = 0o170_000;
const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const FILE: u32 = 0o100_000;

/// Whether a file begins like a zip file, or like one without entries.
pub(super) fn is_zip(magic: &[u8]) -> bool {
    magic.starts_with(b"PK\x03\x04") || magic.starts_with(b"PK\x05\x06")
}

/// Gives every file to `visit`, in the order that they have in the list at the file's end.
pub(super) fn visit(path: &Path, watch: &dyn Watch, visit: &mut Visit<'_>) -> Result<()> {
    let damaged = |error: rawzip::Error| SourceError::malformed(&path.display(), &error);
    let mut buffer = vec![0; RECOMMENDED_BUFFER_SIZE];
    let archive = ZipArchive::from_file(drydock_io::read::open(path)?, &mut buffer).map_err(damaged)?;
    let mut guard = Guard::default();
    let mut entries = archive.entries(&mut buffer);
    while let Some(entry) = entries.next_entry().map_err(damaged)? {
        watch.advance(0)?;
        let name = entry.file_path();
        let name = name.as_bytes();
        let refused = |reason| SourceError::entry(name, reason);
        if entry.flags().is_encrypted() {
            return Err(refused("is encrypted").into());
        }
        let found = archive.get_entry(entry.wayfinder()).map_err(damaged)?;
        let packed = Watched { inner: found.reader(), watch };
        let unpacked: Box<dyn Read> = match entry.compression_method() {
            CompressionMethod::STORE => Box::new(packed),
            CompressionMethod::DEFLATE => Box::new(DeflateDecoder::new(packed)),
            _ => return Err(refused("is compressed in a way that is not known").into()),
        };
        // At its end, it is known whether it has the size and the checksum that it should have.
        let mut contents = found.verifying_reader(unpacked);
        let (size, mode) = (entry.uncompressed_size_hint(), entry.mode().value());
        let mut target = Vec::new();
        let kind = match mode & TYPE {
            FOLDER => Kind::Dir,
            LINK => {
                (&mut contents)
                    .take(MAX_PATH as u64 + 1)
                    .read_to_end(&mut target)
                    .with_context(|| SourceError::entry(name, "is a link that cannot be read"))?;
                if target.is_empty() || target.len() > MAX_PATH {
                    return Err(refused("is a link to nothing, or has too long a target").into());
                }
                Kind::Symlink { target: &target }
            }
            0 | FILE => Kind::File { size },
            _ => Kind::Fifo,
        };
        let inner = guard.admit(name, &kind).map_err(refused)?;
        if inner.is_empty() {
            continue;
        }
        let kind = match kind {
            Kind::File { size } => MemberKind::File { size },
            Kind::Symlink { target } => MemberKind::Symlink { target },
            _ => MemberKind::Dir,
        };
        let member = Member { path: &inner, kind, executable: mode & 0o111 != 0, facts: None };
        match kind {
            MemberKind::File { .. } => visit(&member, &mut contents)?,
            _ => visit(&member, &mut io::empty())?,
        }
    }
    Ok(())
}
