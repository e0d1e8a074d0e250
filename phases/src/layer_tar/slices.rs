//! The layers of the app: one for each slice, and one for what remains.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::anyhow;
use rustix::fs::{AtFlags, FileType, Stat, statat};
use rustix::io::Errno;

use drydock_io::lock::Identity;
use drydock_io::sink::Sink;
use drydock_tar::{Found, Owner, TarError, Trail, Walk, split_leaf, write_end};

use super::files::Files;
use super::glob::Glob;
use super::root::LayerRoot;
use super::{LayerSource, Outline};
use crate::path::clean;

/// The part of an app that one slice selects, or what no slice selects.
///
/// Like a [`DirLayer`](super::DirLayer), but entries are in the order of their whole paths' bytes. If nothing is
/// selected, the directories above the app are left out as well: the tar is empty.
#[derive(Debug, Clone)]
pub struct SliceLayer {
    app: Arc<LayerRoot>,
    owner: Owner,
    tree: Arc<Tree>,
    /// Numbers of nodes of the tree.
    entries: Vec<u32>,
}

/// Splits the app at `app_dir` into layers: one for each slice, which is a list of globs, and last one for the rest.
///
/// A glob is matched against paths below the app directory as Go's `filepath.Match` does it, where `*` and `?` stop at
/// a slash; it may also begin with the app directory's own path. What matches is taken with all that is below it, unless
/// an earlier slice has it already, together with the directories on the way to it. Those are in later slices too, until
/// all that is in them has been taken.
///
/// Where `app_dir` is a symlink, the directory that it leads to is archived under the symlink's name. The directories `without`
/// are no part of the app.
pub fn slice_layers(
    app_dir: &Path,
    slices: &[Vec<String>],
    without: &[Identity],
    owner: Owner,
) -> anyhow::Result<Vec<SliceLayer>> {
    let mut app = LayerRoot::on_disk(app_dir)?;
    if let Some(real) = fs::canonicalize(&app.dir).ok().filter(|real| app.dir.is_symlink() && real.is_dir()) {
        app.dir = real;
    }
    slice_root(app, slices, without, owner)
}

fn slice_root(
    app: LayerRoot,
    slices: &[Vec<String>],
    without: &[Identity],
    owner: Owner,
) -> anyhow::Result<Vec<SliceLayer>> {
    let named = Path::new(OsStr::from_bytes(&app.name));
    let slices = slices
        .iter()
        .map(|globs| globs.iter().filter_map(|glob| Selector::parse(glob, named).transpose()).collect())
        .collect::<anyhow::Result<Vec<Vec<Selector>>>>()?;
    let mut tree = Tree::read(&app, without)?;
    let order = tree.order();
    let mut parts: Vec<_> = slices.iter().map(|selectors| tree.take(selectors, &order)).collect();
    parts.push(tree.rest(order));
    let (app, tree) = (Arc::new(app), Arc::new(tree));
    let layer = |entries| SliceLayer { app: Arc::clone(&app), owner, tree: Arc::clone(&tree), entries };
    Ok(parts.into_iter().map(layer).collect())
}

/// What one pattern of a slice selects.
enum Selector {
    /// The app directory itself, named by its absolute path.
    App,
    /// What matches, but not the app directory.
    Below(Glob),
}

impl Selector {
    /// None if the pattern cannot match anything in the app.
    fn parse(pattern: &str, app_dir: &Path) -> anyhow::Result<Option<Self>> {
        let cleaned = clean(Path::new(pattern));
        let below = if cleaned.is_absolute() { cleaned.strip_prefix(app_dir).ok() } else { Some(&*cleaned) };
        let text = below.unwrap_or(&cleaned).to_str().expect("components of a `str` are UTF-8");
        let glob = Glob::parse(text).map_err(|reason| anyhow!("`{pattern}` is not a glob: {reason}"))?;
        Ok(match below {
            Some(below) if !below.as_os_str().is_empty() => Some(Self::Below(glob)),
            Some(_) if cleaned.is_absolute() => Some(Self::App),
            _ => None,
        })
    }

    fn selects(&self, path: &[u8]) -> bool {
        match self {
            Self::App => path.is_empty(),
            Self::Below(glob) => !path.is_empty() && glob.matches(path),
        }
    }
}

impl SliceLayer {
    fn go(&self, out: Option<&mut dyn Sink>) -> Result<Outline, TarError> {
        let root = self.app.open()?;
        let mut files = Files::begin(&self.app, root.as_ref().map(|root| root.as_fd()), self.owner, out)?;
        let Some(root) = root else {
            files.add_root()?;
            return files.end();
        };
        let mut trail = Trail::reaching(root);
        let mut path = Vec::new();
        for &number in &self.entries {
            self.tree.path(number, &mut path);
            let file_type = self.tree.node(number).file_type;
            let (parent, leaf) = split_leaf(&path);
            trail.go_to(parent).map_err(|error| unreachable_dir(&self.app.join(parent), error))?;
            let (dir, _) = trail.current().map_err(|error| unreachable_dir(&self.app.join(parent), error))?;
            if leaf.is_empty() {
                files.add_open_root(dir, false)?;
            } else {
                files.add(dir, parent, leaf, file_type)?;
            }
        }
        files.end()
    }
}

impl LayerSource for SliceLayer {
    fn write(&self, out: &mut dyn Sink) -> Result<Option<Outline>, TarError> {
        if self.entries.is_empty() {
            return write_end(out).map(|()| None).map_err(TarError::Write);
        }
        self.go(Some(out)).map(Some)
    }

    fn look(&self) -> Result<Option<Outline>, TarError> {
        if self.entries.is_empty() { Ok(None) } else { self.go(None).map(Some) }
    }

    fn left_out(&self) -> BTreeSet<PathBuf> {
        self.app.left_out.all()
    }
}

fn unreachable_dir(path: &Path, error: Errno) -> TarError {
    match error {
        Errno::NOTDIR | Errno::LOOP | Errno::NOENT => TarError::Changed(path.to_owned()),
        error => TarError::read("open", path)(error),
    }
}

/// The app with what has been taken from it; the app directory itself is the first node. Paths are put together when they are needed:
/// there may be many, and long ones.
#[derive(Debug)]
struct Tree {
    /// Each directory before what is in it, with the names in the order of their bytes.
    nodes: Vec<Node>,
    /// All names, one after the other.
    names: Vec<u8>,
}

#[derive(Debug)]
struct Node {
    /// Where in the names its own begins; it ends where the next one begins.
    name: usize,
    /// The directory that holds it; its own number for the app directory.
    parent: u32,
    /// The number of the first node that is not below this one.
    end: u32,
    /// How many nodes in this directory have not been taken.
    left: u32,
    file_type: FileType,
    taken: bool,
}

/// What is in a directory, in the order of whole paths: `a/b` comes after `a.`, and `a` before it.
#[derive(Clone, Copy)]
enum Part {
    One(u32),
    Below(u32),
}

impl Tree {
    fn read(app: &LayerRoot, without: &[Identity]) -> Result<Self, TarError> {
        let root = app.open()?;
        let file_type = if root.is_some() { FileType::Directory } else { FileType::Unknown };
        let first = Node { name: 0, parent: 0, end: 1, left: 0, file_type, taken: false };
        let mut tree = Self { nodes: vec![first], names: Vec::new() };
        let Some(root) = root else { return Ok(tree) };
        let mut walk = Walk::new(&app.dir, root)?;
        // The directory that was found last, and how deep it is.
        let (mut current, mut depth) = (0, 0);
        let mut enters = |dir: BorrowedFd<'_>, _: &[u8], leaf: &[u8]| {
            let is_left_out = |found: &Stat| without.contains(&found.into());
            without.is_empty()
                || !statat(dir, leaf, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|found| is_left_out(&found))
        };
        while let Some(Found { path, leaf, file_type, .. }) = walk.find_next_where(&mut enters)? {
            let is_dir = file_type == FileType::Directory;
            if is_dir && !leaf.is_empty() {
                continue;
            }
            let (dir, name) = if leaf.is_empty() { split_leaf(path) } else { (path, leaf) };
            let wanted = if dir.is_empty() { 0 } else { dir.split(|byte| *byte == b'/').count() };
            for _ in wanted..depth {
                current = tree.leave(current);
            }
            depth = wanted;
            tree.node_mut(current).left += 1;
            let number = tree.len();
            let name_at = tree.names.len();
            tree.names.extend_from_slice(name);
            let node =
                Node { name: name_at, parent: current, end: number + 1, left: 0, file_type, taken: false };
            tree.nodes.push(node);
            if is_dir {
                (current, depth) = (number, depth + 1);
            }
        }
        while current != 0 {
            current = tree.leave(current);
        }
        tree.nodes[0].end = tree.len();
        Ok(tree)
    }

    /// Notes that a directory is over; gives the one that holds it.
    fn leave(&mut self, number: u32) -> u32 {
        self.node_mut(number).end = self.len();
        self.node(number).parent
    }

    fn len(&self) -> u32 {
        u32::try_from(self.nodes.len()).expect("no file system has as many files")
    }

    fn node(&self, number: u32) -> &Node {
        &self.nodes[number as usize]
    }

    fn node_mut(&mut self, number: u32) -> &mut Node {
        &mut self.nodes[number as usize]
    }

    fn name(&self, number: u32) -> &[u8] {
        let end = self.nodes.get(number as usize + 1).map_or(self.names.len(), |next| next.name);
        &self.names[self.node(number).name..end]
    }

    /// Puts the path below the app directory, which is empty for that directory itself, in place of what is in `path`.
    fn path(&self, number: u32, path: &mut Vec<u8>) {
        path.clear();
        // From its end to its beginning.
        let mut at = number;
        while at != 0 {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend(self.name(at).iter().rev());
            at = self.node(at).parent;
        }
        path.reverse();
    }

    /// All numbers, in the order of the whole paths' bytes.
    fn order(&self) -> Vec<u32> {
        let key = |part: &Part| match *part {
            Part::One(number) => (self.name(number), None),
            Part::Below(number) => (self.name(number), Some(&b'/')),
        };
        let mut order = vec![0];
        let (mut parts, mut left) = (Vec::new(), vec![Part::Below(0)]);
        while let Some(part) = left.pop() {
            let dir = match part {
                Part::One(number) => {
                    order.push(number);
                    continue;
                }
                Part::Below(dir) => dir,
            };
            let mut number = dir + 1;
            while number < self.node(dir).end {
                parts.push(Part::One(number));
                if self.node(number).end > number + 1 {
                    parts.push(Part::Below(number));
                }
                number = self.node(number).end;
            }
            parts.sort_unstable_by(|one, other| {
                let ((one, one_end), (other, other_end)) = (key(one), key(other));
                other.iter().chain(other_end).cmp(one.iter().chain(one_end))
            });
            left.append(&mut parts);
        }
        order
    }

    /// Takes what is selected, in the order of the tar.
    fn take(&mut self, selectors: &[Selector], order: &[u32]) -> Vec<u32> {
        let mut members = vec![false; self.nodes.len()];
        let mut path = Vec::new();
        for selected in 0..self.len() {
            let Node { taken, end, .. } = *self.node(selected);
            self.path(selected, &mut path);
            if taken || !selectors.iter().any(|selector| selector.selects(&path)) {
                continue;
            }
            for number in selected..end {
                if !self.node(number).taken {
                    self.mark_taken(number);
                    members[number as usize] = true;
                }
            }
        }
        // Directories on the way. What is in a directory has higher numbers, and so has had its turn before it.
        for number in (0..self.len()).rev() {
            if members[number as usize] {
                let Node { taken, left, parent, .. } = *self.node(number);
                if !taken && left == 0 {
                    self.mark_taken(number);
                }
                members[parent as usize] = true;
            }
        }
        order.iter().copied().filter(|number| members[*number as usize]).collect()
    }

    /// What has not been taken, in the order of the tar.
    fn rest(&self, mut order: Vec<u32>) -> Vec<u32> {
        order.retain(|number| !self.node(*number).taken);
        order
    }

    fn mark_taken(&mut self, number: u32) {
        self.node_mut(number).taken = true;
        if number != 0 {
            let parent = self.node(number).parent;
            self.node_mut(parent).left -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use proptest::prelude::*;

    use super::*;
    use crate::layer_tar::testing::{Make, USER, diff_id, make, root_as};

    fn app() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        make(
            dir.path(),
            &[
                ("app.txt", Make::File(0o644, b"app\n")),
                ("main.js", Make::File(0o644, b"5")),
                ("node_modules/x/index.js", Make::File(0o644, b"4")),
                ("site.css", Make::File(0o644, b"3")),
                ("static/b.png", Make::File(0o644, b"2")),
                ("static/js/a.js", Make::File(0o644, b"1")),
            ],
        );
        dir
    }

    fn globs(slices: &[&[&str]]) -> Vec<Vec<String>> {
        slices.iter().map(|globs| globs.iter().map(ToString::to_string).collect()).collect()
    }

    /// The paths in each layer.
    fn paths(dir: &Path, slices: &[&[&str]]) -> Vec<Vec<String>> {
        let layers = slice_layers(dir, &globs(slices), &[], USER).unwrap();
        let text = |layer: &SliceLayer, number: &u32| {
            let mut path = Vec::new();
            layer.tree.path(*number, &mut path);
            String::from_utf8(path).unwrap()
        };
        let texts = |layer: &SliceLayer| layer.entries.iter().map(|number| text(layer, number)).collect();
        layers.iter().map(texts).collect()
    }

    #[test]
    fn a_link_stands_for_the_folder_that_it_leads_to() {
        let (app, temp) = (app(), tempfile::tempdir().unwrap());
        let link = temp.path().join("link");
        std::os::unix::fs::symlink(app.path(), &link).unwrap();
        let css = link.join("*.css");
        let slices: &[&[&str]] = &[&[css.to_str().unwrap()], &["static"]];
        assert_eq!(paths(&link, slices)[0].last().unwrap(), "site.css");
        let diff_ids = || {
            slice_layers(&link, &globs(slices), &[], USER)
                .unwrap()
                .iter()
                .map(|layer| diff_id(layer))
                .collect()
        };
        let through_link: Vec<String> = diff_ids();
        fs::remove_file(&link).unwrap();
        fs::rename(app.path(), &link).unwrap();
        assert_eq!(through_link, diff_ids());
        fs::rename(&link, app.path()).unwrap();
    }

    /// The diff IDs are those of the slices that the Go lifecycle made of the same app.
    #[test]
    fn tars_are_those_of_the_go_lifecycle() {
        let app = app();
        let slices = globs(&[&["static/**", "*.css"], &["node_modules"], &["no-such-*"]]);
        let layers = slice_root(root_as(app.path(), "/workspace"), &slices, &[], USER).unwrap();
        let diff_ids: Vec<_> = layers.iter().map(|layer| diff_id(layer)).collect();
        let expected = [
            "sha256:66ca8f1eeeb1bbc6cec6813242573ad738215d6c7472dd2515a1b1eb7e7de744",
            "sha256:7cbf323855a1706a42672fc949a6016a9edbb165b78336e88f4b3cddf6b4f619",
            "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
            "sha256:a6ffcad580457ea6487ea2eab5a3e6278e4e4c63032288a3cc09f474a89ffba4",
        ];
        assert_eq!(diff_ids, expected);
    }

    #[test]
    fn directories_on_the_way_come_again_until_they_are_empty() {
        let app = app();
        let layers = paths(app.path(), &[&["static/js/a.js"], &["static/*"], &["*"], &["*"]]);
        assert_eq!(layers[0], ["", "static", "static/js", "static/js/a.js"]);
        assert_eq!(layers[1], ["", "static", "static/b.png"]);
        assert_eq!(layers[2][..4], ["", "app.txt", "main.js", "node_modules"]);
        assert_eq!(layers[3..], [[""; 0], [""; 0]]);
    }

    #[test]
    fn entries_are_in_the_order_of_whole_paths() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), &[("a/b", Make::Dir(0o755)), ("a-b/c", Make::Dir(0o755)), ("a.", Make::Dir(0o755))]);
        assert_eq!(paths(dir.path(), &[]), [["", "a", "a-b", "a-b/c", "a.", "a/b"]]);
    }

    proptest! {
        #[test]
        fn any_tree_is_in_that_order(files in prop::collection::btree_set("[ab][.-]?(/a[.-]?){0,3}", 1..20)) {
            let dir = tempfile::tempdir().unwrap();
            let mut want = BTreeSet::from([String::new()]);
            for file in &files {
                // What would be both a file and a folder is left out.
                let path = dir.path().join(file);
                let is_made = fs::create_dir_all(path.parent().unwrap()).and_then(|()| File::create_new(&path)).is_ok();
                let dirs = file.match_indices('/').map(|(at, _)| &file[..at]);
                want.extend(dirs.filter(|dir_name| dir.path().join(dir_name).is_dir()).map(str::to_owned));
                want.extend(is_made.then(|| file.clone()));
            }
            prop_assert_eq!(&paths(dir.path(), &[])[0], &Vec::from_iter(want));
        }
    }

    #[test]
    fn globs_may_be_absolute() {
        let app = app();
        let below = |glob: &str| app.path().join(glob).into_os_string().into_string().unwrap();
        for (glob, expected) in [
            (below("*.css"), &["", "site.css"][..]),
            (below("x/../static/js/"), &["", "static", "static/js", "static/js/a.js"]),
            (below(".."), &[]),
            ("/*".into(), &[]),
            (".".into(), &[]),
            ("..".into(), &[]),
            (String::new(), &[]),
        ] {
            assert_eq!(paths(app.path(), &[&[&glob]])[0], expected, "{glob}");
        }
        let whole = paths(app.path(), &[&[&below("")]]);
        assert_eq!((whole[0].len(), whole[1].len()), (11, 0));
    }

    #[test]
    fn malformed_globs_are_refused() {
        let app = app();
        let error = slice_layers(app.path(), &globs(&[&["[a"]]), &[], USER).unwrap_err();
        assert!(error.to_string().contains("`[a`"), "{error}");
    }

    #[test]
    fn what_is_gone_by_the_time_of_writing_is_an_error() {
        let app = app();
        let layers = slice_layers(app.path(), &[], &[], USER).unwrap();
        std::fs::remove_dir_all(app.path().join("static")).unwrap();
        std::fs::write(app.path().join("static"), "").unwrap();
        let error = layers[0].write(&mut drydock_io::sink::MemorySink::default()).unwrap_err();
        assert!(matches!(&error, TarError::Changed(path) if *path == app.path().join("static")), "{error}");
    }
}
