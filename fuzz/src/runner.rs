//! Runs a target, in such a way that an input that ends the process is known afterwards.

use std::collections::HashSet;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{process, thread};

use anyhow::{Context as _, Result};

use crate::corpus;
use crate::targets::Target;

/// An input that takes longer is a finding.
const HANG: Duration = Duration::from_secs(20);

/// A target, and what came of its inputs.
pub(crate) struct Runner<'t> {
    target: &'t Target,
    path: PathBuf,
    file: File,
    executions: Arc<AtomicU64>,
    /// Hashes of what was said of inputs: of millions, the texts would not have room.
    said: HashSet<u64>,
}

impl<'t> Runner<'t> {
    pub(crate) fn new(target: &'t Target) -> Result<Self> {
        let dir = corpus::repository().join("target/fuzz");
        fs::create_dir_all(&dir).with_context(|| format!("cannot make `{}`", dir.display()))?;
        let path = dir.join(target.name);
        let file = File::create(&path).with_context(|| format!("cannot write `{}`", path.display()))?;
        let executions = Arc::default();
        abort_on_hang(Arc::clone(&executions));
        Ok(Self { target, path, file, executions, said: HashSet::new() })
    }

    /// Where the input in work is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs the target once, and tells whether something new was said.
    pub(crate) fn run(&mut self, input: &[u8]) -> Result<bool> {
        self.file.set_len(input.len() as u64)?;
        self.file.write_all_at(input, 0)?;
        let said = (self.target.run)(input);
        self.executions.fetch_add(1, Ordering::Relaxed);
        let mut hash = DefaultHasher::new();
        without_values(&said).hash(&mut hash);
        Ok(self.said.insert(hash.finish()))
    }

    /// Nothing was found.
    pub(crate) fn finish(self) -> Result<String> {
        fs::remove_file(&self.path)?;
        let executions = self.executions.load(Ordering::Relaxed);
        Ok(format!("{executions} executions, {} kinds of outcome, no finding", self.said.len()))
    }
}

fn abort_on_hang(executions: Arc<AtomicU64>) {
    thread::spawn(move || {
        let mut before = u64::MAX;
        loop {
            let now = executions.load(Ordering::Relaxed);
            if now == before {
                process::abort();
            }
            before = now;
            thread::sleep(HANG);
        }
    });
}

/// The text without digits and what is quoted, which is different each time.
fn without_values(text: &str) -> String {
    let unquoted = text.split(['`', '"', '\'']).step_by(2);
    unquoted.flat_map(str::chars).filter(|c| !c.is_ascii_digit()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_do_not_make_an_outcome_new() {
        assert_eq!(without_values("no `a` in line 12"), without_values("no `b` in line 1"));
        assert_ne!(without_values("no `a` in line 12"), without_values("one `a` in line 12"));
    }
}
