//! What can be wrong with what is imported.

use std::path::PathBuf;

use drydock_model::digest::{DiffId, Digest};
use drydock_tar::ArchiveError;

/// What is wrong with what is imported: it is damaged, or was made to do harm.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A blob holds something else than its digest says.
    #[error("blob {expected} is corrupt where it comes from: it has digest {found}")]
    WrongDigest {
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// A blob has another size than its descriptor says.
    #[error(
        "blob {blob} is corrupt where it comes from: its descriptor says {expected} bytes, it has {found}"
    )]
    WrongSize {
        /// The blob.
        blob: Digest,
        /// What the descriptor says.
        expected: u64,
        /// What it has, or one more than expected.
        found: u64,
    },
    /// A layer holds another tar than the configuration says.
    #[error("layer `{layer}` is corrupt: its diff ID is {found}, the configuration says {expected}")]
    WrongDiffId {
        /// What it is called.
        layer: String,
        /// What the configuration says.
        expected: DiffId,
        /// What it has.
        found: DiffId,
    },
    /// Something that is needed is not there.
    #[error("{what} is not there")]
    Missing {
        /// A blob or a file.
        what: String,
    },
    /// Something is larger than anything that makes sense.
    #[error("it has more than {limit} bytes")]
    TooLarge {
        /// What is read at most.
        limit: u64,
    },
    /// There are more blobs than make sense.
    #[error("it leads to more than {limit} blobs")]
    TooMany {
        /// So many are brought at most.
        limit: usize,
    },
    /// A file does not say what it should.
    #[error("`{file}` is malformed: {reason}")]
    Malformed {
        /// Its name or digest.
        file: String,
        /// In what way.
        reason: String,
    },
    /// There is something in it, but no image: a chart, an SBOM, or what is not known here.
    #[error("it holds no image, but something else")]
    NoImage,
    /// It is no tar.
    #[error(transparent)]
    Tar(#[from] ArchiveError),
    /// It cannot be decompressed.
    #[error("`{}` cannot be decompressed", path.display())]
    Compression {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It ends within an entry.
    #[error("it is truncated: an entry of {size} bytes begins {left} bytes before its end")]
    Truncated {
        /// What the entry's header says.
        size: u64,
        /// What there is.
        left: u64,
    },
    /// An entry is not one that it may have.
    #[error("its entry `{entry:.300}` {reason}")]
    Entry {
        /// The entry's name.
        entry: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl SourceError {
    pub(crate) fn entry(name: &[u8], reason: &'static str) -> Self {
        Self::Entry { entry: String::from_utf8_lossy(name).into_owned(), reason }
    }

    pub(crate) fn malformed(file: &dyn ToString, reason: &dyn ToString) -> Self {
        Self::Malformed { file: file.to_string(), reason: reason.to_string() }
    }
}

/// There are several images, or none, of that name.
#[derive(Debug, thiserror::Error)]
#[error("{}", describe(wanted.is_some(), there))]
pub struct Choose {
    /// What was asked for.
    pub wanted: Option<String>,
    /// What there is.
    pub there: Vec<String>,
}

fn describe(is_wanted: bool, there: &[String]) -> String {
    match (is_wanted, there) {
        (true, []) => "no image in it has a name".to_owned(),
        (true, there) => format!("there is no such image in it, but these: {}", there.join(", ")),
        (false, []) => "it holds no image, or several without names".to_owned(),
        (false, there) => format!("there are several images in it, name one of these: {}", there.join(", ")),
    }
}
