//! What builder and launcher must agree on: the environments that buildpacks and app processes run in, the files that
//! change them, and the versions of the APIs ([`api`]).
//!
//! Names and values are byte strings, as the kernel has them: an environment need not be UTF-8. Nothing here reads a
//! file or a variable; callers pass in what they have read. Specification: `buildpack.md` § Environment, `platform.md`
//! § User-Provided Variables.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod api;

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::vec::Vec;

/// Variables of the launcher's own environment that an app process does not get.
pub const NOT_FOR_LAUNCH: [&str; 5] =
    ["CNB_LAYERS_DIR", "CNB_APP_DIR", "CNB_PROCESS_TYPE", "CNB_PLATFORM_API", "CNB_DEPRECATION_MODE"];

/// Folders that a platform puts on `PATH` for its own use: an app process does not get them.
pub const NOT_ON_LAUNCH_PATH: [&str; 2] = ["/cnb/process", "/cnb/lifecycle"];

/// Variables of the builder's own environment that a buildpack gets besides those of [`BUILD_PATHS`].
pub const FOR_BUILD: [&str; 9] = [
    "CNB_STACK_ID",
    "HOSTNAME",
    "HOME",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "NO_PROXY",
    "no_proxy",
];

/// Folders of a layer, each with the variables that list such folders, separated by `:`.
pub type LayerPaths = [(&'static str, &'static [&'static str])];

/// What a launch layer adds to the environment of an app process by its folders alone.
pub const LAUNCH_PATHS: &LayerPaths = &[("bin", &["PATH"]), ("lib", &["LD_LIBRARY_PATH"])];

/// What a build layer adds to the environment of the buildpacks after it by its folders alone.
pub const BUILD_PATHS: &LayerPaths = &[
    ("bin", &["PATH"]),
    ("lib", &["LD_LIBRARY_PATH", "LIBRARY_PATH"]),
    ("include", &["CPATH"]),
    ("pkgconfig", &["PKG_CONFIG_PATH"]),
];

/// One file of an environment folder (`env/`, `env.launch/`, …).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvFile {
    /// Its name without folders: `NAME` or `NAME.<action>`.
    pub name: Vec<u8>,
    /// All of its contents, a last newline included.
    pub contents: Vec<u8>,
}

/// What a file does to the variable that it is named after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// `.append`: the value, the delimiter, the contents.
    Append,
    /// `.prepend`: the contents, the delimiter, the value.
    Prepend,
    /// `.override`: the contents.
    Override,
    /// `.default`: the contents, if the value is empty or unset.
    Default,
    /// A bare dot at the end of the name: like [`Action::Prepend`], with `:` where no delimiter is given.
    PrependPath,
}

/// Splits the name of an environment file at its first dot: the variable, and what to do with it. `default` is for a
/// name without a dot. `None`: an ending that is no action (such as `.delim`), whose file changes nothing.
pub fn parse_file_name(name: &[u8], default: Action) -> Option<(&[u8], Action)> {
    let Some(dot) = name.iter().position(|&byte| byte == b'.') else { return Some((name, default)) };
    let action = match &name[dot + 1..] {
        b"append" => Action::Append,
        b"prepend" => Action::Prepend,
        b"override" => Action::Override,
        b"default" => Action::Default,
        b"" => Action::PrependPath,
        _ => return None,
    };
    Some((&name[..dot], action))
}

/// Environment variables, in byte order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Env {
    vars: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Env {
    /// Takes over `NAME=value` entries. Of two with one name the first counts; an entry without `=` is dropped.
    pub fn from_entries<'a>(entries: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut vars = BTreeMap::new();
        for entry in entries {
            if let Some(equals) = entry.iter().position(|&byte| byte == b'=')
                && let Entry::Vacant(vacant) = vars.entry(entry[..equals].to_vec())
            {
                vacant.insert(entry[equals + 1..].to_vec());
            }
        }
        Self { vars }
    }

    /// What an app process gets of the launcher's environment: all but [`NOT_FOR_LAUNCH`], and a `PATH` without
    /// [`NOT_ON_LAUNCH_PATH`].
    #[must_use]
    pub fn for_launch(mut self) -> Self {
        for name in NOT_FOR_LAUNCH {
            self.vars.remove(name.as_bytes());
        }
        if let Some(path) = self.vars.get_mut(&b"PATH"[..]) {
            let kept: Vec<&[u8]> = path
                .split(|&byte| byte == b':')
                .filter(|dir| !NOT_ON_LAUNCH_PATH.iter().any(|own| own.as_bytes() == *dir))
                .collect();
            *path = kept.join(&b':');
        }
        self
    }

    /// What a buildpack gets of the builder's environment: [`FOR_BUILD`], and the variables of [`BUILD_PATHS`].
    #[must_use]
    pub fn for_build(mut self) -> Self {
        self.vars
            .retain(|name, _| FOR_BUILD.iter().any(|kept| kept.as_bytes() == name) || is_build_path(name));
        self
    }

    /// A variable's value; empty if it is unset.
    pub fn get(&self, name: impl AsRef<[u8]>) -> &[u8] {
        self.vars.get(name.as_ref()).map_or(b"", Vec::as_slice)
    }

    /// Sets a variable, whatever it was before.
    pub fn set(&mut self, name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.vars.insert(name.into(), value.into());
    }

    /// Puts a folder first in a variable that lists folders.
    pub fn prepend_path(&mut self, name: impl AsRef<[u8]>, dir: &[u8]) {
        let old = self.get(&name);
        let new = if old.is_empty() { dir.to_vec() } else { [dir, b":", old].concat() };
        self.set(name.as_ref(), new);
    }

    /// Puts those folders of a layer that exist first in their variables.
    ///
    /// `exists` is asked for every folder of `paths`, given as `<layer>/<folder>`; its errors are passed on.
    pub fn add_layer_paths<E>(
        &mut self,
        layer: &[u8],
        paths: &LayerPaths,
        mut exists: impl FnMut(&[u8]) -> Result<bool, E>,
    ) -> Result<(), E> {
        for (folder, names) in paths {
            let dir = [layer, folder.as_bytes()].join(&b'/');
            if exists(&dir)? {
                for name in *names {
                    self.prepend_path(name, &dir);
                }
            }
        }
        Ok(())
    }

    /// Applies the files of one environment folder, in the order given (byte order of their names). `default` is what
    /// a file without an action does. A file `NAME.delim` among them is the delimiter for `NAME`.
    pub fn apply_files(&mut self, files: &[EnvFile], default: Action) {
        for file in files {
            let Some((name, action)) = parse_file_name(&file.name, default) else { continue };
            let delimiter = |otherwise| delimiter_for(name, files).unwrap_or(otherwise);
            let (old, contents) = (self.get(name), file.contents.as_slice());
            let new = match action {
                _ if old.is_empty() => contents.to_vec(),
                Action::Append => [old, delimiter(b""), contents].concat(),
                Action::Prepend => [contents, delimiter(b""), old].concat(),
                Action::PrependPath => [contents, delimiter(b":"), old].concat(),
                Action::Override => contents.to_vec(),
                Action::Default => continue,
            };
            self.set(name, new);
        }
    }

    /// Applies the variables that a user gave for the build (`<platform>/env/`), each file named after its variable:
    /// a variable of [`BUILD_PATHS`] is prepended to, any other is set.
    pub fn apply_platform_files(&mut self, files: &[EnvFile]) {
        for file in files {
            if is_build_path(&file.name) {
                self.prepend_path(&file.name, &file.contents);
            } else {
                self.set(file.name.as_slice(), file.contents.as_slice());
            }
        }
    }

    /// Names and values in byte order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.vars.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
    }

    /// The entries `NAME=value` in byte order of the names.
    pub fn entries(&self) -> impl Iterator<Item = Vec<u8>> {
        self.iter().map(|(name, value)| [name, value].join(&b'='))
    }
}

fn is_build_path(name: &[u8]) -> bool {
    BUILD_PATHS.iter().any(|(_, names)| names.iter().any(|known| known.as_bytes() == name))
}

fn delimiter_for<'a>(name: &[u8], files: &'a [EnvFile]) -> Option<&'a [u8]> {
    files
        .iter()
        .find(|file| file.name.strip_suffix(b".delim") == Some(name))
        .map(|file| file.contents.as_slice())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn env(entries: &[&str]) -> Env {
        Env::from_entries(entries.iter().map(|entry| entry.as_bytes()))
    }

    fn files(files: &[(&str, &str)]) -> Vec<EnvFile> {
        files
            .iter()
            .map(|(name, contents)| EnvFile { name: (*name).into(), contents: (*contents).into() })
            .collect()
    }

    fn entries(env: &Env) -> Vec<String> {
        env.entries().map(|entry| String::from_utf8_lossy(&entry).into_owned()).collect()
    }

    #[test]
    fn entries_are_taken_over_once_each() {
        let env = env(&["B=2", "A=1=1", "B=3", "no equals sign", "=empty name", "C="]);
        assert_eq!(entries(&env), ["=empty name", "A=1=1", "B=2", "C="]);
        assert_eq!(env.get("B"), b"2");
        assert_eq!(env.get("unset"), b"");
    }

    #[test]
    fn launch_drops_what_is_the_platforms() {
        let env =
            env(&["CNB_APP_DIR=/a", "CNB_EXEC_ENV=test", "CNB_PLATFORM_API=0.14", "HOME=/h"]).for_launch();
        assert_eq!(entries(&env), ["CNB_EXEC_ENV=test", "HOME=/h"]);
        for (before, after) in [
            ("/cnb/process:/cnb/lifecycle:/usr/bin", "/usr/bin"),
            ("/usr/bin:/cnb/process::/bin:/cnb/process", "/usr/bin::/bin"),
            ("/cnb/process/x:/cnb/lifecycle/", "/cnb/process/x:/cnb/lifecycle/"),
            ("/cnb/lifecycle", ""),
            ("", ""),
        ] {
            let mut env = Env::default();
            env.set("PATH", before);
            assert_eq!(env.for_launch().get("PATH"), after.as_bytes(), "{before}");
        }
        assert_eq!(Env::default().for_launch(), Env::default());
    }

    #[test]
    fn build_keeps_what_is_listed() {
        let env =
            env(&["HOME=/h", "home=/h", "no_proxy=x", "CPATH=/c", "CNB_APP_DIR=/a", "SECRET=1"]).for_build();
        assert_eq!(entries(&env), ["CPATH=/c", "HOME=/h", "no_proxy=x"]);
    }

    #[test]
    fn layer_paths_come_first() {
        let mut env = env(&["PATH=/bin"]);
        let there = |dir: &[u8]| Ok::<_, ()>(dir.ends_with(b"/bin") || dir.ends_with(b"/lib"));
        env.add_layer_paths(b"/layers/a", BUILD_PATHS, there).unwrap();
        env.add_layer_paths(b"/layers/b", LAUNCH_PATHS, there).unwrap();
        assert_eq!(
            entries(&env),
            [
                "LD_LIBRARY_PATH=/layers/b/lib:/layers/a/lib",
                "LIBRARY_PATH=/layers/a/lib",
                "PATH=/layers/b/bin:/layers/a/bin:/bin"
            ]
        );
        assert_eq!(env.add_layer_paths(b"/layers/c", LAUNCH_PATHS, |_| Err("denied")), Err("denied"));
    }

    #[test]
    fn file_names() {
        for (name, expected) in [
            ("A", Some(("A", Action::Override))),
            ("A.append", Some(("A", Action::Append))),
            ("A.prepend", Some(("A", Action::Prepend))),
            ("A.override", Some(("A", Action::Override))),
            ("A.default", Some(("A", Action::Default))),
            ("A.", Some(("A", Action::PrependPath))),
            ("A.delim", None),
            ("A.B.append", None),
            ("A.APPEND", None),
            (".append", Some(("", Action::Append))),
        ] {
            let parsed = parse_file_name(name.as_bytes(), Action::Override);
            assert_eq!(parsed, expected.map(|(name, action)| (name.as_bytes(), action)), "{name}");
        }
    }

    #[test]
    fn files_change_variables() {
        for (old, names, new) in [
            ("old", &[("A", "new")][..], "new"),
            ("old", &[("A.override", "new\n")], "new\n"),
            ("old", &[("A.append", "new")], "oldnew"),
            ("old", &[("A.append", "new"), ("A.delim", ", ")], "old, new"),
            ("old", &[("A.prepend", "new")], "newold"),
            ("old", &[("A.delim", ";"), ("A.prepend", "new")], "new;old"),
            ("old", &[("A.", "new")], "new:old"),
            ("old", &[("A.", "new"), ("A.delim", ";")], "new;old"),
            ("old", &[("A.default", "new")], "old"),
            ("old", &[("A.other", "new")], "old"),
            ("", &[("A.append", "new"), ("A.delim", ";")], "new"),
            ("", &[("A.prepend", "new"), ("A.delim", ";")], "new"),
            ("", &[("A.", "new")], "new"),
            ("", &[("A.default", "new")], "new"),
            ("", &[("A.append", "1"), ("A.default", "2"), ("A.prepend", "3"), ("AB.delim", ";")], "31"),
        ] {
            let mut env = Env::default();
            env.set("A", old);
            env.apply_files(&files(names), Action::Override);
            assert_eq!(env.get("A"), new.as_bytes(), "{old:?} {names:?}");
        }
    }

    #[test]
    fn default_is_for_names_without_action() {
        let mut env = env(&["A=old"]);
        env.apply_files(&files(&[("A", "new"), ("B", "new")]), Action::Default);
        assert_eq!(entries(&env), ["A=old", "B=new"]);
    }

    #[test]
    fn platform_files_set_or_prepend() {
        let mut env = env(&["PATH=/bin", "A=old"]);
        env.apply_platform_files(&files(&[("A", "new"), ("B.append", "x"), ("CPATH", "/c"), ("PATH", "/p")]));
        assert_eq!(entries(&env), ["A=new", "B.append=x", "CPATH=/c", "PATH=/p:/bin"]);
    }

    proptest! {
        /// No byte is lost or added on the way in and out.
        #[test]
        fn entries_round_trip(vars in prop::collection::btree_map(
            prop::collection::vec(any::<u8>().prop_filter("a name", |b| *b != b'='), 0..6),
            prop::collection::vec(any::<u8>(), 0..9), 0..9))
        {
            let given: Vec<Vec<u8>> = vars.iter().map(|(name, value)| [&name[..], value].join(&b'=')).collect();
            let env = Env::from_entries(given.iter().map(Vec::as_slice));
            prop_assert_eq!(env.entries().collect::<Vec<_>>(), given);
        }

        /// Appending keeps the old value in front, prepending keeps it at the end, with what the file says untouched.
        #[test]
        fn nothing_is_lost(old: Vec<u8>, contents: Vec<u8>, delimiter: Vec<u8>, append: bool) {
            let mut env = Env::default();
            env.set("A", old.clone());
            let name = if append { b"A.append".to_vec() } else { b"A.prepend".to_vec() };
            let delim = EnvFile { name: b"A.delim".to_vec(), contents: delimiter.clone() };
            env.apply_files(&[EnvFile { name, contents: contents.clone() }, delim], Action::Override);
            let delimiter = if old.is_empty() { Vec::new() } else { delimiter };
            let expected = if append { [old, delimiter, contents] } else { [contents, delimiter, old] };
            prop_assert_eq!(env.get("A"), expected.concat());
        }

        /// A name is split at its first dot, and only at a known action.
        #[test]
        fn any_file_name(name: Vec<u8>) {
            if let Some((variable, action)) = parse_file_name(&name, Action::Default) {
                prop_assert!(!variable.contains(&b'.') && name.starts_with(variable));
                prop_assert_eq!(action == Action::Default && variable == name, !name.contains(&b'.'));
            }
        }
    }
}
