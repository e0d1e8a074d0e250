//! What tests of this crate share.

use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use drydock_model::digest::DiffId;
use tar::EntryType;

use crate::{ExtractError, Extraction, extract};

/// Name, type, and the text that [`tar_of`] puts in.
pub(crate) type Entries<'a> = &'a [(&'a str, EntryType, &'a str)];

/// An archive of these entries, whose names and targets are put into the headers as they are. The last text is the
/// target of links, and the contents of anything else.
pub(crate) fn tar_of(entries: Entries<'_>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, entry_type, text) in entries {
        let mut header = tar::Header::new_ustar();
        let fields = header.as_ustar_mut().expect("was made as such");
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        let is_link = matches!(entry_type, EntryType::Link | EntryType::Symlink);
        if is_link {
            fields.linkname[..text.len()].copy_from_slice(text.as_bytes());
        }
        let contents = if is_link { "" } else { text };
        header.set_entry_type(*entry_type);
        let is_dir = *entry_type == EntryType::Directory || name.ends_with('/');
        header.set_mode(if is_dir { 0o755 } else { 0o644 });
        header.set_size(contents.len() as u64);
        header.set_cksum();
        builder.append(&header, contents.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Corrects the checksums of all headers.
pub(crate) fn seal(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

/// What the tests' archives call the directory that is extracted.
pub(crate) const NAMED: &str = "/layers/bp/layer";

/// A place to extract to, among things that must not be touched.
pub(crate) struct Sandbox {
    dir: tempfile::TempDir,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("layers/bp/other")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        for file in ["outside/secret", "layers/group.toml", "layers/bp/layer.toml", "layers/bp/other/file"] {
            fs::write(dir.path().join(file), file).unwrap();
        }
        Self { dir }
    }

    /// Where the archive goes.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("layers/bp/layer")
    }

    pub(crate) fn extract(&self, tar: &[u8]) -> Result<(), ExtractError> {
        self.extract_as(tar, DiffId::of(tar), tar.len() as u64)
    }

    pub(crate) fn extract_as(
        &self,
        tar: impl std::io::Read,
        diff_id: DiffId,
        limit: u64,
    ) -> Result<(), ExtractError> {
        extract(
            tar,
            &Extraction {
                diff_id,
                named: Path::new(NAMED),
                into: &self.root(),
                limit,
                threads: NonZeroUsize::new(3).expect("not 0"),
            },
        )
    }

    /// What was extracted.
    pub(crate) fn describe(&self) -> Vec<String> {
        describe(&self.root())
    }

    /// That nothing else was made, changed or linked to.
    pub(crate) fn assert_rest_is_untouched(&self, context: &str) {
        let mut left = describe(self.dir.path());
        left.retain(|line| !line.starts_with("layers/bp/layer/"));
        let expected = [
            "layers/ 755",
            "layers/bp/ 755",
            "layers/bp/layer.toml 644 layers/bp/layer.toml",
            "layers/bp/other/ 755",
            "layers/bp/other/file 644 layers/bp/other/file",
            "layers/group.toml 644 layers/group.toml",
            "outside/ 755",
            "outside/secret 644 outside/secret",
        ];
        assert_eq!(left, expected, "{context}");
        let links = fs::metadata(self.dir.path().join("outside/secret")).unwrap().nlink();
        assert_eq!(links, 1, "{context}");
    }

    /// Likewise, and that nothing is left of the archive.
    pub(crate) fn assert_nothing_is_left(&self, context: &str) {
        self.assert_rest_is_untouched(context);
        assert!(!self.root().exists(), "{context}");
    }
}

/// What is in a directory: path, permissions (not a symlink's), contents or target.
pub(crate) fn describe(dir: &Path) -> Vec<String> {
    fn add(path: &Path, name: &Path, lines: &mut Vec<String>) {
        let metadata = fs::symlink_metadata(path).unwrap();
        let mode = metadata.permissions().mode() & 0o7777;
        let name_text = name.display();
        if metadata.is_symlink() {
            lines.push(format!("{name_text} -> {}", fs::read_link(path).unwrap().display()));
        } else if metadata.is_dir() {
            lines.push(format!("{name_text}/ {mode:o}"));
            let mut names: Vec<_> =
                fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            for child in names {
                add(&path.join(&child), &name.join(&child), lines);
            }
        } else if metadata.is_file() {
            let contents = fs::read(path).unwrap();
            lines.push(format!("{name_text} {mode:o} {}", String::from_utf8_lossy(&contents)));
        } else {
            lines.push(format!("{name_text} {mode:o} special"));
        }
    }
    let mut lines = Vec::new();
    add(dir, Path::new(""), &mut lines);
    lines.remove(0);
    lines
}
