//! Where mutation begins: inputs that are good, or that were once found to be bad.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use walkdir::WalkDir;

use crate::targets::Target;

/// The repository that this package was built from.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in a folder of the repository")
}

/// The files in `fuzz/corpus/<target>`, and those of the acceptance tests that the target can use, but not the very large ones.
pub(crate) fn seeds(target: &Target) -> Result<Vec<Vec<u8>>> {
    let of_tests = ["acceptance/images", "acceptance/scenarios"].map(|dir| repository().join(dir));
    let own = repository().join("fuzz/corpus").join(target.name);
    let mut seeds = Vec::new();
    for (dir, is_own) in of_tests.iter().map(|dir| (dir, false)).chain([(&own, true)]) {
        for entry in WalkDir::new(dir).sort_by_file_name() {
            let path = entry.with_context(|| format!("cannot list `{}`", dir.display()))?.into_path();
            if path.is_file() {
                let bytes = fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
                let fits = bytes.len() <= target.longest && (target.can_use)(&path, &bytes);
                if is_own || fits {
                    seeds.push(bytes);
                }
            }
        }
    }
    seeds.sort();
    seeds.dedup();
    ensure!(!seeds.is_empty(), "no input to begin with in `{}`", own.display());
    Ok(seeds)
}
