//! On a folder in place of a root, with the rights of whoever runs the tests.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::num::NonZeroUsize;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command as Process;
use std::thread;

use drydock_encode::compress::Compression;
use drydock_model::config::ImageConfig;
use drydock_model::platform::Platform;
use rustix::fs::{XattrFlags, lsetxattr};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use serde_json::json;
use tempfile::TempDir;

use super::snapshot::Change;
use super::*;
use crate::language::{IgnoreRules, parse};
use crate::plan::{Build, Wanted};

/// Runs programs of this machine, in the folder that is the root.
struct Host<'a>(&'a Path);

impl Runner for Host<'_> {
    type Failure = String;

    fn run(&self, words: &[String], program: &Program, _: &Identity) -> Result<(), String> {
        let path =
            |word: &str| if word.starts_with("/scratch") { self.0.join(&word[1..]) } else { word.into() };
        let mut command = Process::new(path(&words[0]));
        command.args(&words[1..]).env_clear().envs(&program.env).env("PATH", "/usr/bin:/bin");
        let status = command.current_dir(self.0.join(program.dir.trim_start_matches('/'))).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }
}

pub(super) struct Stage {
    temp: TempDir,
}

impl Stage {
    pub(super) fn new() -> Self {
        let stage = Self { temp: tempfile::tempdir().unwrap() };
        for dir in ["root/scratch", "root/proc", "root/dev", "context", "blobs"] {
            fs::create_dir_all(stage.path(dir)).unwrap();
        }
        stage
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.temp.path().join(path)
    }

    pub(super) fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(super) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| format!("{error}"))
    }

    /// Does what the instructions say; what fails is told with its causes.
    fn apply(&self, text: &str, ignore: &str, latest: Option<i64>) -> Result<Vec<Layer>, String> {
        let layer = |made| match made {
            Made::New(layer) => layer,
            Made::Kept { .. } => panic!("there is no cache"),
        };
        Ok(self.make(text, ignore, latest, None)?.into_iter().map(layer).collect())
    }

    pub(super) fn make(
        &self,
        text: &str,
        ignore: &str,
        latest: Option<i64>,
        cache: Option<Cache<'_>>,
    ) -> Result<Vec<Made>, String> {
        let mut context = Context::open(&self.path("context"), IgnoreRules::parse(ignore).unwrap()).unwrap();
        self.make_of(text, &mut context, latest, cache)
    }

    /// The same of other contexts.
    pub(super) fn make_of(
        &self,
        text: &str,
        contexts: &mut dyn Contexts,
        latest: Option<i64>,
        cache: Option<Cache<'_>>,
    ) -> Result<Vec<Made>, String> {
        let config: ImageConfig =
            serde_json::from_value(json!({"rootfs": {"type": "layers", "diff_ids": []}})).unwrap();
        let dockerfile = parse(&format!("FROM x\n{text}")).unwrap();
        let wanted = Wanted { target: None, args: &[], platform: &Platform::host() };
        let mut build = Build::of(&dockerfile, &wanted, &mut |_, _| Ok(config.clone())).unwrap();
        let plan = build.stages.pop().unwrap().plan;
        let (root, blobs) = (self.path("root"), self.path("blobs"));
        let left_out = ["/scratch", "/out"].map(PathBuf::from);
        let scripts = self.path("root/scratch");
        let place = Place {
            root: &root,
            left_out: &left_out,
            scripts: &scripts,
            scripts_inside: Path::new("/scratch"),
        };
        let settings =
            Settings { threads: NonZeroUsize::MIN, compression: Compression::NONE, write_out: false };
        let mut making = Making { layers: Layers { dir: &blobs, settings, latest }, cache };
        carry_out(&plan, &place, contexts, Some(&mut making), &Host(&root), &|_, _| {}).map_err(|failure| {
            match failure {
                Failure::Files { source, .. } => format!("{source:#}"),
                Failure::Program { line, failure, .. } => format!("line {line}: {failure}"),
            }
        })
    }

    /// The same as whoever runs the tests: root's files are not for everybody to make.
    pub(super) fn copy(&self, text: &str, ignore: &str) -> Result<Vec<Layer>, String> {
        let owner = fs::metadata(self.temp.path()).unwrap();
        let (uid, gid) = (owner.uid(), owner.gid());
        let text = text.replacen(' ', &format!(" --chown={uid}:{gid} "), 1);
        self.apply(&text, ignore, None)
    }

    /// What is below a folder: contents of files, targets of links.
    pub(super) fn tree(&self, path: &str) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut left = vec![self.path(path)];
        while let Some(dir) = left.pop() {
            for entry in fs::read_dir(&dir).unwrap() {
                let entry = entry.unwrap();
                let name = entry.path().strip_prefix(self.path(path)).unwrap().display().to_string();
                let kind = entry.file_type().unwrap();
                let what = if kind.is_dir() {
                    left.push(entry.path());
                    "/".to_owned()
                } else if kind.is_symlink() {
                    format!("-> {}", fs::read_link(entry.path()).unwrap().display())
                } else {
                    fs::read_to_string(entry.path()).unwrap()
                };
                found.insert(name, what);
            }
        }
        found
    }
}

/// The entries of a layer: kind, permissions, name, and target or contents.
fn entries(layer: &Layer) -> Vec<String> {
    let mut archive = tar::Archive::new(fs::File::open(layer.blob.file.path()).unwrap());
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let kind = char::from(entry.header().entry_type().as_byte());
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let mode = entry.header().mode().unwrap();
        let link = entry.link_name_bytes().map(|link| format!(" -> {}", String::from_utf8_lossy(&link)));
        let mut contents = String::new();
        entry.read_to_string(&mut contents).unwrap();
        found.push(format!("{kind} {mode:o} {name}{}{contents}", link.unwrap_or_default()));
    }
    found
}

#[test]
fn what_a_program_changes_is_a_layer() {
    for (before, run, want) in [
        ("", "true", None),
        (
            "",
            "mkdir -p a/b; echo -n 1 > a/b/c; chmod 4711 a/b/c",
            Some(&["5 755 a/", "5 755 a/b/", "0 4711 a/b/c1"][..]),
        ),
        (
            "mkdir -p a/b; echo -n 1 > a/b/c; echo 2 > a/d",
            "echo -n 3 > a/b/c",
            Some(&["5 755 a/", "5 755 a/b/", "0 644 a/b/c3"]),
        ),
        ("mkdir -p a; echo 1 > a/b; echo 2 > a/c", "rm a/b", Some(&["5 755 a/", "0 0 a/.wh.b"])),
        ("mkdir -p a/b/c a/d", "rm -r a/b", Some(&["5 755 a/", "0 0 a/.wh.b"])),
        ("echo 1 > a; echo 2 > b", "rm a", Some(&["0 0 .wh.a"])),
        // Everything in it is another: what was there goes in one.
        (
            "mkdir -p a/x; touch a/b a/c a/x/y",
            "rm -r a; mkdir a; touch a/d",
            Some(&["5 755 a/", "0 0 a/.wh..wh..opq", "0 644 a/d"]),
        ),
        ("mkdir a; touch a/b a/c a/d", "rm a/b a/c", Some(&["5 755 a/", "0 0 a/.wh.b", "0 0 a/.wh.c"])),
        (
            "mkdir -p a/out out; touch out/x a/b a/c",
            "rm a/b a/c; touch out/y; rm out/x",
            Some(&["5 755 a/", "0 0 a/.wh.b", "0 0 a/.wh.c"]),
        ),
        ("mkdir a; touch a/b", "rm -r a; ln -s b a", Some(&["2 777 a -> b"])),
        ("ln -s b a", "rm a; mkdir a; touch a/b", Some(&["5 755 a/", "0 644 a/b"])),
        ("touch a", "ln a b; ln a c", Some(&["0 644 a", "1 644 b -> a", "1 644 c -> a"])),
        ("touch a", "chmod 600 a", Some(&["0 600 a"])),
        ("mkdir -p a/b; touch a/b/c", "chmod 700 a", Some(&["5 700 a/"])),
        ("echo 1 > a; echo 2 > b; touch -d @1 a b", "cp -p a c; mv c b", Some(&["0 644 b1\n"])),
        // The same size, the same time.
        ("echo 1 > a; touch -d @1 a", "echo 2 > a; touch -d @1 a", Some(&["0 644 a2\n"])),
        ("", "mkfifo -m 640 f; mkdir proc/x scratch/y", Some(&["6 640 f"])),
        // A point in a name comes before a slash in bytes, but not in a walk.
        ("mkdir a; touch a/b a.b", "touch a/c a.c", Some(&["0 644 a.c", "5 755 a/", "0 644 a/c"])),
    ] {
        let stage = Stage::new();
        let umask = |text: &str| format!("umask 022; {text}");
        let prepared =
            Process::new("sh").args(["-c", &umask(before)]).current_dir(stage.path("root")).status();
        assert!(prepared.unwrap().success(), "{before}");
        let layers = stage.apply(&format!("RUN {}", umask(run)), "", Some(7)).unwrap();
        let found: Vec<_> = layers.iter().map(entries).collect();
        let mut want: Vec<Vec<String>> =
            want.iter().map(|want| want.iter().map(|&entry| entry.to_owned()).collect()).collect();
        // In a folder, a name comes before a longer one with what is in it.
        for want in &mut want {
            want.sort_by_key(|entry| place(entry));
        }
        assert_eq!(found, want, "{before} | {run}");
    }
}

/// Where an entry belongs, by its text.
fn place(entry: &str) -> Vec<u8> {
    let name = entry.split(' ').nth(2).unwrap();
    let name = name.strip_suffix('/').unwrap_or(name);
    let (dir, leaf) = name.rsplit_once('/').unwrap_or(("", name));
    match leaf.strip_prefix(".wh.") {
        Some(leaf) => [dir.replace('/', "\0").as_bytes(), b"\0\0", leaf.as_bytes()].concat(),
        None => name.replace('/', "\0").into_bytes(),
    }
}

#[test]
fn layers_have_extended_attributes_and_times() {
    let stage = Stage::new();
    let (root, path) = (stage.path("root"), stage.path("root/a"));
    stage.write("root/a", "1");
    let before = Snapshot::take(&root, &[]).unwrap();
    for name in ["user.kept", "user.drydock"] {
        lsetxattr(&path, name, b"value", XattrFlags::empty()).unwrap();
    }
    let changes = Snapshot::take(&root, &[]).unwrap().changes_since(&before);
    let mut sink = drydock_io::sink::MemorySink::default();
    layer::write(&root, &changes, Some(5), &mut sink).unwrap();
    let bytes = sink.into_bytes();
    let mut archive = tar::Archive::new(bytes.as_slice());
    let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!(entry.header().mtime().unwrap(), 5);
    let records = entry.pax_extensions().unwrap().unwrap();
    let names: Vec<_> = records.map(|record| record.unwrap().key().unwrap().to_owned()).collect();
    assert_eq!(names, ["SCHILY.xattr.user.drydock", "SCHILY.xattr.user.kept"]);
}

#[test]
fn what_cannot_be_looked_at_is_not_gone() {
    let stage = Stage::new();
    let (root, dir) = (stage.path("root"), stage.path("root/a"));
    fs::create_dir_all(dir.join("b")).unwrap();
    fs::set_permissions(&dir, Permissions::from_mode(0o444)).unwrap();
    let take = || {
        let none = CapabilitySet::empty();
        let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
        set_capabilities(None, none).unwrap();
        Snapshot::take(&root, &[]).map(|now| now.changes_since(&Snapshot::default()))
    };
    let taken = thread::scope(|scope| scope.spawn(take).join().unwrap());
    fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
    assert_eq!(taken.unwrap_err().to_string(), "cannot look at `/a/b`");
}

#[test]
fn what_is_left_out_whole_is_not_looked_into() {
    let stage = context();
    let closed = stage.path("context/data/closed");
    fs::create_dir_all(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o000)).unwrap();
    let copy = |text: &str, ignore: &str| {
        let none = CapabilitySet::empty();
        let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
        set_capabilities(None, none).unwrap();
        stage.copy(text, ignore).map(drop)
    };
    let copy = |text, ignore| thread::scope(|scope| scope.spawn(|| copy(text, ignore)).join().unwrap());
    let found = [
        copy("COPY . /x", "data\n!dir/c"),
        copy("COPY . /y", "*\n!dir"),
        copy("COPY --parents **/c */*/d /z/", "data/*\n!a.txt"),
        copy("COPY . /x", "data\n!**/keep"),
    ];
    fs::set_permissions(&closed, Permissions::from_mode(0o755)).unwrap();
    assert_eq!(found[..3], [Ok(()), Ok(()), Ok(())]);
    assert!(found[3].as_ref().is_err_and(|error| error.contains("data/closed")), "{:?}", found[3]);
}

#[test]
fn sockets_are_as_good_as_nothing() {
    let stage = Stage::new();
    let root = stage.path("root");
    for name in ["file", "kept"] {
        stage.write(&format!("root/a/{name}"), "1");
    }
    let before = Snapshot::take(&root, &[]).unwrap();
    fs::remove_file(root.join("a/file")).unwrap();
    for name in ["file", "new"] {
        UnixListener::bind(root.join("a").join(name)).unwrap();
    }
    let changes = Snapshot::take(&root, &[]).unwrap().changes_since(&before);
    let [Change::There(dir, _), Change::Gone(file)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((&dir[..], &file[..]), (&b"a"[..], &b"a/file"[..]));
}

#[test]
fn folders_behind_links_are_left_out() {
    let stage = Stage::new();
    let root = stage.path("root");
    for dir in ["root/mnt/layers", "root/usr"] {
        fs::create_dir_all(stage.path(dir)).unwrap();
    }
    symlink("/mnt", root.join("volumes")).unwrap();
    symlink("../mnt/layers", root.join("usr/layers")).unwrap();
    for left_out in ["/volumes/layers", "/usr/layers", "/usr/../mnt/./layers/"] {
        let take = || Snapshot::take(&root, &[left_out.into()]).unwrap();
        let before = take();
        stage.write("root/mnt/layers/file", left_out);
        assert_eq!(take().changes_since(&before), [], "{left_out}");
    }
}

#[test]
fn the_same_changes_give_the_same_layer() {
    let digests: Vec<_> = (0..2)
        .map(|_| {
            let stage = Stage::new();
            let text = "RUN mkdir -p a/b; echo 1 > a/b/c; ln a/b/c d\nRUN rm a/b/c; touch -d @3 e\nWORKDIR /x/y\nRUN true";
            let layers = stage.apply(text, "", Some(5));
            // Whoever is not root makes no folders of root's.
            match layers {
                Ok(layers) => layers.iter().map(|layer| (layer.text.clone(), layer.diff_id)).collect::<Vec<_>>(),
                Err(error) => vec![(error, DiffId::of(b""))],
            }
        })
        .collect();
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn programs_have_scripts_variables_and_folders() {
    let stage = Stage::new();
    stage.write("root/w/x", "");
    stage
        .apply("WORKDIR /w\nENV v=1\nRUN <<E\n#!/bin/sh\necho $v $HOME $(basename $PWD) > out\nE\nRUN [\"cp\", \"out\", \"b c\"]", "", None)
        .unwrap();
    assert_eq!((stage.read("root/w/out"), stage.read("root/w/b c")), ("1 / w\n".into(), "1 / w\n".into()));
    assert_eq!(fs::read_dir(stage.path("root/scratch")).unwrap().count(), 0, "the script is left");
    let error = stage.apply("RUN true\nRUN exit 3\nRUN touch never", "", None).unwrap_err();
    assert!(error.starts_with("line 3: ") && error.contains('3'), "{error}");
    assert!(!stage.path("root/never").exists());
    assert_eq!(fs::read_dir(stage.path("blobs")).unwrap().count(), 0, "layers are left");
    let error = stage.apply("USER nobody-here\nRUN true", "", None).unwrap_err();
    assert!(error.contains("`nobody-here` is no user of the image"), "{error}");
    let error = stage.apply("RUN touch .wh.x", "", None).unwrap_err();
    assert!(error.contains("begins with `.wh.`"), "{error}");
}

pub(super) fn context() -> Stage {
    let stage = Stage::new();
    for path in ["a.txt", "b.txt", "dir/c", "dir/sub/d", "dir/sub/e.md", ".hidden", "z[1]"] {
        stage.write(&format!("context/{path}"), path);
    }
    symlink("c", stage.path("context/dir/link")).unwrap();
    symlink("dir/sub", stage.path("context/inside")).unwrap();
    symlink("a.txt", stage.path("context/file-link")).unwrap();
    symlink("/usr", stage.path("root/abs")).unwrap();
    stage.write("root/usr/there", "");
    stage
}

#[test]
fn copies() {
    for (text, ignore, want) in [
        ("COPY a.txt /x", "", &[("x", "a.txt")][..]),
        ("COPY a.txt /x/", "", &[("x", "/"), ("x/a.txt", "a.txt")]),
        ("COPY a.txt /usr", "", &[("usr/a.txt", "a.txt")]),
        ("COPY ../../a.txt /x", "", &[("x", "a.txt")]),
        ("COPY a.txt dir/c /x/", "", &[("x", "/"), ("x/a.txt", "a.txt"), ("x/c", "c")]),
        (
            "COPY dir /x",
            "",
            &[
                ("x", "/"),
                ("x/c", "c"),
                ("x/link", "-> c"),
                ("x/sub", "/"),
                ("x/sub/d", "d"),
                ("x/sub/e.md", "e.md"),
            ],
        ),
        ("COPY dir/sub /usr", "", &[("usr/d", "d"), ("usr/e.md", "e.md")]),
        ("COPY inside /x", "", &[("x", "/"), ("x/d", "d"), ("x/e.md", "e.md")]),
        ("COPY inside/d /x", "", &[("x", "d")]),
        ("COPY file-link /x", "", &[("x", "a.txt")]),
        ("COPY *.txt /x/", "", &[("x", "/"), ("x/a.txt", "a.txt"), ("x/b.txt", "b.txt")]),
        (
            "COPY ?.txt [z][[]1] /x/",
            "",
            &[("x", "/"), ("x/a.txt", "a.txt"), ("x/b.txt", "b.txt"), ("x/z[1]", "z[1]")],
        ),
        ("COPY */c /x/", "", &[("x", "/"), ("x/c", "c")]),
        ("COPY *.none a.txt /x/", "", &[("x", "/"), ("x/a.txt", "a.txt")]),
        ("COPY a.txt /abs/", "", &[("usr/a.txt", "a.txt")]),
        ("COPY a.txt /abs/new/x", "", &[("usr/new", "/"), ("usr/new/x", "a.txt")]),
        ("COPY dir /x", "**/*.md\ndir/link", &[("x", "/"), ("x/c", "c"), ("x/sub", "/"), ("x/sub/d", "d")]),
        ("COPY dir /x", "dir\n!dir/sub/d", &[("x", "/"), ("x/sub", "/"), ("x/sub/d", "d")]),
        ("COPY . /x", "*\n!a.txt", &[("x", "/"), ("x/a.txt", "a.txt")]),
        ("COPY *.txt /x/", "a.*", &[("x", "/"), ("x/b.txt", "b.txt")]),
        (
            "COPY --exclude=**/*.md --exclude=link dir /x",
            "",
            &[("x", "/"), ("x/c", "c"), ("x/sub", "/"), ("x/sub/d", "d")],
        ),
        ("COPY --exclude=b.* *.txt /x/", "", &[("x", "/"), ("x/a.txt", "a.txt")]),
        ("COPY <<E <<'F' /x/\n$none-\nE\n$y\nF", "", &[("x", "/"), ("x/E", "-\n"), ("x/F", "$y\n")]),
        ("COPY <<E /x\n1\nE", "", &[("x", "1\n")]),
        ("ADD a.txt /x", "", &[("x", "a.txt")]),
        (
            "COPY --parents dir/c a.txt /x",
            "",
            &[("x", "/"), ("x/a.txt", "a.txt"), ("x/dir", "/"), ("x/dir/c", "c")],
        ),
        ("COPY --parents dir/./sub/d /x/", "", &[("x", "/"), ("x/sub", "/"), ("x/sub/d", "d")]),
        ("COPY --parents dir/./sub /x/", "**/*.md", &[("x", "/"), ("x/sub", "/"), ("x/sub/d", "d")]),
        (
            "COPY --parents **/d **/*.txt /x/",
            "",
            &[
                ("x", "/"),
                ("x/a.txt", "a.txt"),
                ("x/b.txt", "b.txt"),
                ("x/dir", "/"),
                ("x/dir/sub", "/"),
                ("x/dir/sub/d", "d"),
            ],
        ),
    ] {
        let stage = context();
        let before = stage.tree("root");
        stage.copy(text, ignore).unwrap_or_else(|error| panic!("{text}: {error}"));
        let mut found = stage.tree("root");
        found.retain(|path, _| !before.contains_key(path));
        let want: BTreeMap<String, String> = want
            .iter()
            .map(|&(path, what)| {
                let what = match what {
                    "c" => "dir/c",
                    "d" => "dir/sub/d",
                    "e.md" => "dir/sub/e.md",
                    what => what,
                };
                (path.to_owned(), what.to_owned())
            })
            .collect();
        assert_eq!(found, want, "{text} | {ignore}");
    }
    let stage = context();
    stage.copy("COPY --chmod=u=rwX,go= dir /x", "").unwrap();
    let mode = |path: &str| fs::symlink_metadata(stage.path(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("root/x/c"), mode("root/x/sub"), mode("root/x/sub/d")), (0o600, 0o700, 0o600));
    let time = |path: &str| fs::symlink_metadata(stage.path(path)).unwrap().mtime();
    assert_eq!(time("root/x/sub"), time("context/dir/sub"));
}

#[test]
fn nothing_comes_from_outside_of_the_context() {
    let stage = context();
    stage.write("outside", "secret");
    stage.write("root/file", "kept");
    symlink("../outside", stage.path("context/up")).unwrap();
    symlink(stage.path("outside"), stage.path("context/abs")).unwrap();
    symlink("..", stage.path("context/parent")).unwrap();
    symlink("loop", stage.path("context/loop")).unwrap();
    symlink("a.txt", stage.path("context/to-hidden")).unwrap();
    for (text, ignore, want) in [
        ("COPY up /x", "", "`up` is not in the context"),
        ("COPY abs /x", "", "`abs` is not in the context"),
        ("COPY parent/outside /x", "", "`parent/outside` is not in the context"),
        ("COPY ../outside /x", "", "`../outside` is not in the context"),
        ("COPY loop /x", "", "context/loop`: Too many"),
        ("COPY none /x", "", "`none` is not in the context"),
        ("COPY a.txt /x", "a.txt", "`a.txt` is left out of the context"),
        ("COPY to-hidden /x", "a.txt", "`to-hidden` is left out of the context"),
        ("COPY *.txt /x", "", "`*.txt` is several files, so `/x` must be a folder"),
        ("COPY dir /file", "", "`/file` is there and is no folder"),
        ("COPY a.txt /file/x", "", "`/file` is there and is no folder"),
        ("COPY dir/c /usr/there/y/", "", "`/usr/there` is there and is no folder"),
        ("COPY a.txt /", "", ""),
    ] {
        let result = stage.copy(text, ignore);
        if want.is_empty() {
            result.unwrap();
            continue;
        }
        let error = result.expect_err(text);
        assert!(error.contains(want), "{text}: {error}");
    }
    // What a link in a folder leads to is the image's.
    stage.copy("COPY . /y", "").unwrap();
    assert_eq!(stage.tree("root/y")["up"], "-> ../outside");
    assert_eq!((stage.read("root/file"), stage.read("outside")), ("kept".into(), "secret".into()));
}

#[test]
fn a_folder_is_copied_into_itself_once() {
    let stage = Stage::new();
    stage.write("root/app/a", "1");
    stage.write("root/app/z/b", "2");
    fs::remove_dir(stage.path("context")).unwrap();
    symlink("root/app", stage.path("context")).unwrap();
    stage.copy("COPY . /app/z/copy", "").unwrap();
    let tree = stage.tree("root/app");
    let found: Vec<_> = tree.iter().map(|(path, what)| (path.as_str(), what.as_str())).collect();
    let want = [("a", "1"), ("z", "/"), ("z/b", "2"), ("z/copy", "/"), ("z/copy/a", "1"), ("z/copy/z", "/")];
    assert_eq!(found, [&want[..], &[("z/copy/z/b", "2")]].concat());
}
