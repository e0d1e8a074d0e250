//! Where images lie, and what they are called.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result};
use drydock_io::read::{look, look_at_link};
use drydock_layout::{Image, Layout, LayoutError, blobs_dir, check_apart};
use drydock_model::platform::Platform;
use drydock_model::reference::{LayoutDir, LayoutPath};

/// Folders may lie in folders so deep below the layout directory.
pub const MAX_DEPTH: usize = 32;

/// A folder without an index is taken for a layout only so deep below the layout directory: registry, repository, tag.
const DEPTH_OF_LAYOUTS: usize = 3;

/// A folder that holds layouts.
#[derive(Debug, Clone)]
pub struct Repository {
    dir: LayoutDir,
}

/// A name, and where the image of that name lies or would lie.
#[derive(Debug, Clone)]
pub struct Name {
    /// As people write it.
    text: String,
    /// The folder that it must not lead out of.
    dir: LayoutDir,
    path: LayoutPath,
}

/// There is no image of this name.
#[derive(Debug, thiserror::Error)]
#[error("there is no image `{name}`: `{}` has no index.json", path.display())]
pub struct Unknown {
    /// The name.
    pub name: String,
    /// Where it should be.
    pub path: PathBuf,
    /// Names that are there, and much like it.
    pub similar: Vec<String>,
}

impl Name {
    /// As people write it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The folder that it must not lead out of.
    pub fn dir(&self) -> &LayoutDir {
        &self.dir
    }

    /// The layout.
    pub fn path(&self) -> &LayoutPath {
        &self.path
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Repository {
    /// The repository in a folder, which need not be there.
    pub fn new(dir: &Path) -> Result<Self> {
        Ok(Self { dir: LayoutDir::new(&absolute(dir)?)? })
    }

    /// Its folder.
    pub fn dir(&self) -> &LayoutDir {
        &self.dir
    }

    /// Where the image of a name lies. A name that begins with `/`, `./` or `../` is a path to a layout, here or elsewhere;
    /// any other is an image reference. What lies among the blobs of an image is none.
    pub fn locate(&self, name: &str) -> Result<Name> {
        let (dir, path) = if name.starts_with(['/', '.']) {
            let path = absolute(Path::new(name))?;
            let text =
                path.to_str().with_context(|| format!("the path `{}` is not UTF-8", path.display()))?;
            match path.parent() {
                Some(parent) if !path.starts_with(self.dir.path()) => {
                    let dir = LayoutDir::new(parent)?;
                    (dir.clone(), dir.resolve(text)?)
                }
                _ => (self.dir.clone(), self.dir.resolve(text)?),
            }
        } else {
            (self.dir.clone(), self.dir.resolve(name)?)
        };
        check_apart(path.path())?;
        Ok(Name { text: name.to_owned(), dir, path })
    }

    /// The layout of a name, and that name.
    pub fn open(&self, name: &str) -> Result<(Name, Layout)> {
        let name = self.locate(name)?;
        match Layout::open(name.path()) {
            Ok(layout) => Ok((name, layout)),
            Err(LayoutError::NotFound(_)) => Err(self.unknown(&name).into()),
            Err(error) => Err(error.into()),
        }
    }

    /// The image of a name for a platform.
    pub fn image(&self, name: &str, platform: &Platform) -> Result<Image> {
        let (_, layout) = self.open(name)?;
        Ok(layout.image(platform)?)
    }

    /// That there is no image of a name, but maybe of others like it.
    pub fn unknown(&self, name: &Name) -> Unknown {
        let wanted = self.text_of(name.path()).unwrap_or_else(|| name.text.clone());
        // Where the repository cannot be listed, there is nothing to propose.
        let there = self.names().unwrap_or_default();
        let mut similar: Vec<(f64, String)> = there
            .into_iter()
            .map(|other| (likeness(&wanted, &other.text), other.text))
            .filter(|(likeness, _)| *likeness > 0.8)
            .collect();
        similar.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        let similar = similar.into_iter().take(3).map(|(_, text)| text).collect();
        Unknown { name: name.text.clone(), path: name.path().path().to_owned(), similar }
    }

    /// The names of all layouts, sorted.
    pub fn names(&self) -> Result<Vec<Name>> {
        self.walk(|dir, _| Ok(look(&dir.join("index.json"))?.is_some()))
    }

    /// The names of all layouts, and of folders that were one or were to become one; but no links.
    pub fn folders(&self) -> Result<Vec<Name>> {
        self.walk(|dir, depth| {
            if look_at_link(dir)?.is_none_or(|found| found.is_symlink()) {
                return Ok(false);
            }
            let is_there = |path: PathBuf| look_at_link(&path).map(|found| found.is_some());
            let was_one = is_there(dir.join("oci-layout"))? || depth >= DEPTH_OF_LAYOUTS;
            Ok(is_there(dir.join("index.json"))? || was_one && is_there(blobs_dir(dir))?)
        })
    }

    fn walk(&self, is_wanted: impl Fn(&Path, usize) -> io::Result<bool>) -> Result<Vec<Name>> {
        let mut found = Vec::new();
        let mut to_do = vec![(self.dir.path().to_owned(), 0)];
        while let Some((dir, depth)) = to_do.pop() {
            let look_at = |path: &Path| format!("cannot look at `{}`", path.display());
            let wanted = match is_wanted(&dir, depth) {
                // Who opens it is told so.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied && depth > 0 => {
                    found.extend(self.name_of(&dir));
                    continue;
                }
                wanted => wanted.with_context(|| look_at(&dir))?,
            };
            if depth > 0 && wanted {
                found.extend(self.name_of(&dir));
            }
            // A tag may be a link to another; links to what holds tags would make one image several.
            if depth > 0 && dir.is_symlink() || depth == MAX_DEPTH {
                continue;
            }
            let is_layout = depth > 0 && (dir.join("oci-layout").exists() || dir.join("index.json").exists());
            let list = || format!("cannot list `{}`", dir.display());
            let entries = match fs::read_dir(&dir) {
                // Somebody has removed what was listed above.
                Err(error) if error.kind() == io::ErrorKind::NotFound && depth > 0 => continue,
                entries => entries.with_context(list)?,
            };
            for entry in entries {
                let entry = entry.with_context(list)?;
                let is_own = is_layout && entry.file_name() == "blobs";
                let path = entry.path();
                if is_own {
                    continue;
                }
                // A link may lead nowhere, or to itself.
                let kind = entry.file_type().with_context(|| look_at(&path))?;
                if kind.is_dir() || kind.is_symlink() && path.is_dir() {
                    to_do.push((path, depth + 1));
                }
            }
        }
        found.sort_by(|a, b| a.text.cmp(&b.text));
        Ok(found)
    }

    fn name_of(&self, dir: &Path) -> Option<Name> {
        let path = self.dir.resolve(dir.to_str()?).ok()?;
        let text = self.text_of(&path).unwrap_or_else(|| path.to_string());
        Some(Name { text, dir: self.dir.clone(), path })
    }

    /// The shortest reference that stands for a layout; none if no reference does.
    fn text_of(&self, path: &LayoutPath) -> Option<String> {
        let below = path.path().strip_prefix(self.dir.path()).ok()?;
        let (repository, separator) = if path.digest().is_some() {
            (below.parent()?.parent()?.to_str()?, '@')
        } else {
            (below.parent()?.to_str()?, ':')
        };
        let full = format!("{repository}{separator}{}", path.ref_name());
        let short = full.strip_prefix("index.docker.io/").unwrap_or(&full);
        let shorter = short.strip_prefix("library/").unwrap_or(short);
        let stands_for = |text: &&str| self.dir.resolve(text).is_ok_and(|other| other.path() == path.path());
        [shorter, short, &full].into_iter().find(stands_for).map(str::to_owned)
    }
}

/// How much alike two names are, from 0 to 1: by what is in them, whatever comes before it.
fn likeness(wanted: &str, other: &str) -> f64 {
    let last = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
    strsim::jaro_winkler(wanted, other)
        .max(strsim::normalized_damerau_levenshtein(&last(wanted), &last(other)))
}

/// An absolute path without `.` and `..`.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    let text = path.display();
    let path = std::path::absolute(path).with_context(|| format!("cannot find out where `{text}` is"))?;
    if path.components().all(|component| component != Component::ParentDir) {
        return Ok(path);
    }
    let missing = || format!("cannot find `{text}`");
    match path.file_name() {
        // What is at its end may be a link that is meant itself, or not be there yet.
        Some(last) => {
            let parent = path.parent().expect("what has a file name has a parent");
            Ok(fs::canonicalize(parent).with_context(missing)?.join(last))
        }
        None => fs::canonicalize(&path).with_context(missing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(names: &[&str]) -> (tempfile::TempDir, Repository) {
        let temp = tempfile::tempdir().unwrap();
        let repository = Repository::new(temp.path()).unwrap();
        for name in names {
            let dir = repository.locate(name).unwrap().path().path().to_owned();
            fs::create_dir_all(blobs_dir(&dir)).unwrap();
            fs::write(dir.join("index.json"), "{}").unwrap();
        }
        (temp, repository)
    }

    #[test]
    fn names_are_as_short_as_can_be_and_stand_for_the_same() {
        let digest = format!("acme/app@sha256:{}", "0".repeat(64));
        let names = ["acme/app:v1", &digest, "app:latest", "app/debug:latest", "example.com:5000/x/y:z"];
        let (_temp, repository) = repository(&names);
        let found = repository.names().unwrap();
        let mut want = names.to_vec();
        want.sort_unstable();
        assert_eq!(found.iter().map(Name::text).collect::<Vec<_>>(), want);
        for name in found {
            assert_eq!(repository.locate(name.text()).unwrap().path(), name.path());
        }
    }

    #[test]
    fn a_repository_may_be_a_link() {
        let (temp, _) = repository(&["app:latest"]);
        let elsewhere = tempfile::tempdir().unwrap();
        let link = elsewhere.path().join("link");
        std::os::unix::fs::symlink(temp.path(), &link).unwrap();
        let repository = Repository::new(&link).unwrap();
        let names = repository.names().unwrap();
        assert_eq!(names.iter().map(Name::text).collect::<Vec<_>>(), ["app:latest"]);
        assert_eq!(repository.folders().unwrap().len(), 1);
    }

    #[test]
    fn paths_stand_for_themselves() {
        let (temp, repository) = repository(&["app:latest"]);
        let inside = temp.path().join("index.docker.io/library/app/latest");
        let found = repository.locate(inside.to_str().unwrap()).unwrap();
        assert_eq!((found.path().path(), found.dir()), (&*inside, repository.dir()));
        let outside = tempfile::tempdir().unwrap();
        let found = repository.locate(&format!("{}/../x", outside.path().display())).unwrap();
        assert_eq!(found.path().path(), outside.path().parent().unwrap().join("x"));
        assert!(repository.locate("Upper").is_err());
    }

    #[test]
    fn names_nearly_right_are_proposed() {
        let (_temp, repository) = repository(&["acme/run:base", "app:latest", "app:v1", "zoo/keeper:latest"]);
        let similar = |name: &str| repository.unknown(&repository.locate(name).unwrap()).similar;
        assert_eq!(similar("ap")[0], "app:latest");
        assert_eq!(similar("acme/rum:base"), ["acme/run:base"]);
        assert_eq!(similar("other.com/acme/run:base"), ["acme/run:base"]);
        assert!(similar("something-else").is_empty());
    }
}
