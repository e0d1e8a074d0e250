//! `project.toml`, and the patterns in it that choose the files of a build.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use drydock_images::builder::selection::{NoPattern, Selection};
use drydock_spec::descriptor::ProjectDescriptor;

use super::{Target, roughly};

pub(crate) const TARGET: Target = Target {
    name: "project",
    longest: 1 << 11,
    words: &[
        b"[_]\nschema-version = '0.2'\n",
        b"[build]\n",
        b"[io.buildpacks]\n",
        b"include = ['*']\n",
        b"exclude = ['!a', '/b/']\n",
        b"[[io.buildpacks.group]]\nid = 'a'\n",
        b"[[build.env]]\nname = 'A'\nvalue = 'b'\n",
        b"script = { api = '0.10', inline = 'x' }\n",
        b"**/",
        b"/**",
        b"*",
        b"?",
        b"!",
        b"[a-c]",
        b"[!a]",
        b"{a,b}",
        b"\\\\",
        b"/",
        b"#",
        b" ",
    ],
    can_use: |path, _| path.file_name().is_some_and(|name| name == "project.toml"),
    run,
};

/// Few names, in which patterns find much.
const FILES: [&str; 9] = ["a", "b/a", "b/c/a.c", "b/c/.d", "b.c", "c d", "d/e/f/g", "[a]/b", "#x/y"];

fn run(input: &[u8]) -> String {
    let Ok(text) = str::from_utf8(input) else { return "no text".into() };
    let descriptor = match ProjectDescriptor::parse(text).map(|(descriptor, _)| descriptor) {
        Ok(descriptor) => descriptor,
        Err(error) => {
            let said = error.to_string();
            assert!(said.len() < 1000, "an error is long: {said}");
            return said.lines().last().unwrap_or_default().to_owned();
        }
    };
    let patterns = [descriptor.include.as_slice(), &descriptor.exclude].concat();
    let only = left(&Selection::Only(patterns.clone()));
    let without = left(&Selection::Without(patterns));
    let groups = descriptor.group.len() + descriptor.pre.group.len() + descriptor.post.group.len();
    let said = match (only, without) {
        (Ok(only), Ok(without)) => {
            assert!(only.is_disjoint(&without), "what is chosen is what is not: {only:?} and {without:?}");
            format!("{}{}", roughly(only.len()), roughly(without.len()))
        }
        (only, without) => {
            assert_eq!(only.as_ref().err(), without.as_ref().err());
            only.err().unwrap_or_default()
        }
    };
    format!("{said}{}", roughly(groups))
}

/// The files that a selection leaves; the rest of the machine is as it was.
fn left(selection: &Selection) -> Result<BTreeSet<String>, String> {
    let dir = tempfile::tempdir().expect("there is room");
    let root = dir.path().join("root");
    for file in FILES {
        let path = root.join(file);
        fs::create_dir_all(path.parent().expect("it is in a folder")).expect("there is room");
        fs::write(path, file).expect("there is room");
    }
    fs::write(dir.path().join("a"), "canary").expect("there is room");
    if let Err(error) = selection.apply(&root) {
        return Err(error.downcast::<NoPattern>().expect("all can be removed").reason);
    }
    assert!(dir.path().join("a").exists(), "a file outside is gone");
    let found = files(&root);
    assert!(found.iter().all(|file| FILES.contains(&file.as_str())), "{found:?}");
    Ok(found)
}

fn files(root: &Path) -> BTreeSet<String> {
    let entries = walkdir::WalkDir::new(root).into_iter().map(|entry| entry.expect("it can be listed"));
    let files = entries.filter(|entry| entry.file_type().is_file());
    let below = |entry: walkdir::DirEntry| {
        entry.path().strip_prefix(root).expect("it is below").display().to_string()
    };
    files.map(below).collect()
}
