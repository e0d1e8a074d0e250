//! Traces of system calls, as `strace -f -y -o FILE` writes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// A system call.
#[derive(Debug)]
pub struct Call {
    /// The number of the thread.
    pub thread: String,
    /// Its name.
    pub name: String,
    /// Its arguments and result, as `strace -y` writes them.
    pub text: String,
}

impl Call {
    /// Those of a trace, in the order in which they ended.
    pub fn parse(trace: &str) -> Vec<Self> {
        let mut begun: BTreeMap<&str, &str> = BTreeMap::new();
        let mut calls = Vec::new();
        for line in trace.lines() {
            let Some((thread, rest)) = line.split_once(' ') else { continue };
            let rest = rest.trim_start();
            let whole = if let Some(beginning) = rest.strip_suffix("<unfinished ...>") {
                begun.insert(thread, beginning);
                continue;
            } else if let Some(end) = rest.strip_prefix("<... ") {
                let end = end.split_once("resumed>").map_or("", |(_, end)| end);
                format!("{}{end}", begun.remove(thread).unwrap_or_default())
            } else {
                rest.to_owned()
            };
            if let Some((name, text)) = whole.split_once('(') {
                let (thread, name, text) = (thread.to_owned(), name.to_owned(), text.to_owned());
                calls.push(Self { thread, name, text });
            }
        }
        calls
    }

    /// Whether it did what it should.
    pub fn succeeded(&self) -> bool {
        !self.text.contains(" = -1 ")
    }

    /// The files behind its descriptors.
    pub fn handles(&self) -> Vec<PathBuf> {
        let parts = self.text.split('<').skip(1);
        parts.filter_map(|part| part.split_once('>')).map(|(path, _)| PathBuf::from(path)).collect()
    }

    /// The paths that it names; of a call with descriptors of folders, each below its folder.
    pub fn paths(&self, is_at: bool) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let mut rest = self.text.as_str();
        while let Some((before, after)) = rest.split_once('"') {
            let (text, after) = after.split_once('"').with_context(|| format!("quotes in {self:?}"))?;
            ensure!(!text.contains('\\'), "an escaped path in {self:?}");
            let dir = before.rsplit_once('<').and_then(|(_, dir)| dir.split_once('>')).filter(|_| is_at);
            found.push(dir.map_or_else(|| PathBuf::from(text), |(dir, _)| Path::new(dir).join(text)));
            rest = after;
        }
        Ok(found)
    }
}
