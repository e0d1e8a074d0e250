//! What comes from stages, images and other machines.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use drydock_io::lock::Identity;
use drydock_model::digest::Digest;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, getxattr, mknodat, setxattr};

use super::tests::Stage;
use super::*;
use crate::language::IgnoreRules;
use crate::plan::{Copying, Origin};

/// A context and a root, and downloads that are in the context.
struct Both {
    context: Context,
    root: Context,
    downloads: PathBuf,
}

impl Contexts for Both {
    fn open(&mut self, from: &From) -> Result<&mut Context> {
        Ok(if *from == From::Context { &mut self.context } else { &mut self.root })
    }

    fn download(&mut self, url: &str) -> Result<fs::File> {
        let name = url.rsplit('/').next().unwrap_or_default();
        fs::File::open(self.downloads.join(name)).context("cannot download")
    }
}

/// What is brought is what its digest says, too.
fn bring(stage: &Stage, copying: &Copying) -> Result<(), String> {
    let mut contexts = Both {
        context: Context::open(&stage.path("context"), IgnoreRules::default()).unwrap(),
        root: Context::of_root(&stage.path("other")).unwrap(),
        downloads: stage.path("context"),
    };
    let mut scope = Scope::open(&stage.path("root")).unwrap();
    let mut target = Target::new(&mut scope, None, None);
    let bring = || {
        let before = digest_of_copied(&mut contexts, copying)?;
        assert_eq!(bring::bring(&mut contexts, copying, &mut target)?, before);
        target.finish()
    };
    bring().map_err(|error| format!("{error:#}"))
}

fn copying(from: From, sources: Vec<Origin>, target: &str) -> Copying {
    let (chown, chmod, exclude) = (None, None, IgnoreRules::default());
    Copying { from, sources, target: target.to_owned(), chown, chmod, exclude, unpacks: true }
}

#[test]
fn what_comes_from_a_root_keeps_what_it_is() {
    let stage = Stage::new();
    for path in ["other/dir/a", "context/dir/a"] {
        stage.write(path, "a");
        let path = stage.path(path);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        // Only root may give files away.
        if rustix::process::geteuid().is_root() {
            chown(&path, Some(7), Some(8)).unwrap();
        }
        fs::hard_link(&path, path.with_file_name("b")).unwrap();
    }
    for dir in ["other/dir", "context/dir"] {
        let dir = stage.path(dir);
        mknodat(CWD, dir.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        fs::create_dir(dir.join("inner")).unwrap();
        for dir in [&dir, &dir.join("inner")] {
            setxattr(dir, "user.of-folder", b"x", XattrFlags::empty()).unwrap();
        }
    }
    let dir = || vec![Origin::Context("dir".to_owned())];
    bring(&stage, &copying(From::Stage(0), dir(), "/s")).unwrap();
    bring(&stage, &copying(From::Context, dir(), "/c")).unwrap();
    let facts = |path: &str| fs::metadata(stage.path(path)).unwrap();
    let given = facts("other/dir/a");
    let (of_root, of_context) = (facts("root/s/a"), facts("root/c/a"));
    assert_eq!((of_root.uid(), of_root.gid(), of_root.mode() & 0o7777), (given.uid(), given.gid(), 0o640));
    assert_eq!((of_context.uid(), of_context.gid(), of_context.mode() & 0o7777), (0, 0, 0o640));
    for (a, b) in [("root/s/a", "root/s/b"), ("root/c/a", "root/c/b")] {
        assert_eq!((facts(a).ino(), facts(a).nlink()), (facts(b).ino(), 2), "{a}");
    }
    for fifo in ["root/s/fifo", "root/c/fifo"] {
        assert_eq!(FileType::from_raw_mode(facts(fifo).mode()), FileType::Fifo, "{fifo}");
    }
    let parents = vec![Origin::WithParents("dir/a".to_owned())];
    bring(&stage, &copying(From::Stage(0), parents, "/p/")).unwrap();
    for (dir, want) in [("root/s/inner", Some("x")), ("root/p/dir", Some("x")), ("root/c/inner", None)] {
        let mut value = [0; 9];
        let length = getxattr(stage.path(dir), "user.of-folder", &mut value).ok();
        let value = length.map(|length| std::str::from_utf8(&value[..length]).unwrap());
        assert_eq!(value, want, "{dir}");
    }
}

#[test]
fn a_file_on_its_way_takes_no_other_files_name() {
    let stage = Stage::new();
    fs::create_dir(stage.path("other")).unwrap();
    let names = ["file", ".drydock-extend", ".drydock-extend-0", ".drydock-extend-1"];
    for name in names {
        stage.write(&format!("context/{name}"), "new");
        stage.write(&format!("root/x/{name}"), "old");
    }
    let mut seen = Vec::new();
    for name in names {
        bring(&stage, &copying(From::Context, vec![Origin::Context(name.to_owned())], "/x/")).unwrap();
        seen.push(name);
        for name in names {
            let want = if seen.contains(&name) { "new" } else { "old" };
            assert_eq!(fs::read_to_string(stage.path(&format!("root/x/{name}"))).unwrap(), want, "{name}");
        }
    }
    assert_eq!(fs::read_dir(stage.path("root/x")).unwrap().count(), names.len());
}

#[test]
fn two_names_of_a_file_are_not_two_files() {
    let stage = Stage::new();
    stage.write("context/dir/a", "x");
    fs::hard_link(stage.path("context/dir/a"), stage.path("context/dir/b")).unwrap();
    let digest = || {
        let mut context = Context::open(&stage.path("context"), IgnoreRules::default()).unwrap();
        digest_of_path(&mut context, "dir").unwrap()
    };
    let linked = digest();
    fs::remove_file(stage.path("context/dir/b")).unwrap();
    stage.write("context/dir/b", "x");
    assert_ne!(digest(), linked);
}

#[test]
fn downloads_are_checked() {
    let stage = Stage::new();
    fs::create_dir(stage.path("other")).unwrap();
    stage.write("context/file", "downloaded");
    let time = UNIX_EPOCH + Duration::from_secs(77);
    fs::File::options().append(true).open(stage.path("context/file")).unwrap().set_modified(time).unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(1);
    header.set_mode(0o644);
    tar.append_data(&mut header, "in-tar", &b"1"[..]).unwrap();
    stage.write("context/a.tar", tar.into_inner().unwrap());
    let url = |name: &str, checksum, unpacks| {
        let url = format!("https://x/{name}");
        vec![Origin::Url { url, name: Some(name.to_owned()), checksum, unpacks }]
    };
    let good = Digest::of(b"downloaded");
    bring(&stage, &copying(From::Context, url("file", None, false), "/d/")).unwrap();
    bring(&stage, &copying(From::Context, url("file", Some(good), false), "/named")).unwrap();
    for path in ["root/d/file", "root/named"] {
        let facts = fs::metadata(stage.path(path)).unwrap();
        assert_eq!((facts.mode() & 0o7777, facts.mtime(), facts.len()), (0o600, 77, 10), "{path}");
    }
    let nameless =
        || vec![Origin::Url { url: "https://x/file".to_owned(), name: None, checksum: None, unpacks: false }];
    bring(&stage, &copying(From::Context, nameless(), "/index")).unwrap();
    assert_eq!(fs::read(stage.path("root/index")).unwrap(), b"downloaded");
    let error = bring(&stage, &copying(From::Context, nameless(), "/d")).unwrap_err();
    assert!(error.contains("`/d` is a folder, and the address"), "{error}");
    bring(&stage, &copying(From::Context, url("a.tar", None, true), "/u")).unwrap();
    bring(&stage, &copying(From::Context, url("a.tar", None, false), "/a.tar")).unwrap();
    assert_eq!(fs::read(stage.path("root/u/in-tar")).unwrap(), b"1");
    assert!(stage.path("root/a.tar").is_file());
    let bad = Digest::of(b"other");
    let error = bring(&stage, &copying(From::Context, url("file", Some(bad), false), "/bad")).unwrap_err();
    assert!(error.contains(&format!("has the digest {good}, not {bad}")), "{error}");
    assert!(!stage.path("root/bad").exists());
}

#[test]
fn paths_are_as_long_as_the_kernels() {
    let stage = Stage::new();
    for path in ["context/a", "other/a"] {
        stage.write(path, "a");
    }
    let from = || vec![Origin::Context("a".to_owned())];
    let target = |folders: usize| format!("/{}", "d/".repeat(folders));
    bring(&stage, &copying(From::Context, from(), &target(400))).unwrap();
    let error = bring(&stage, &copying(From::Context, from(), &target(2100))).unwrap_err();
    assert!(error.contains("name too long") && error.len() < 2000, "{error}");
}

#[test]
fn what_is_copied_by_its_path_is_what_its_digest_says() {
    let stage = Stage::new();
    for path in ["a[b]c", "abc", "d?r/[slug]/page", "dir/s/other"] {
        stage.write(&format!("context/{path}"), path);
    }
    let to = stage.path("copies");
    fs::create_dir(&to).unwrap();
    let mut context = Context::open(&stage.path("context"), IgnoreRules::default()).unwrap();
    let mut copied = Context::open(&to, IgnoreRules::default()).unwrap();
    for (path, name) in [("a[b]c", "file"), ("/d?r/./[slug]/", "dir"), ("/", "all")] {
        let copied_as = copy_path(&mut context, path, &to, name).unwrap();
        assert_eq!(copied_as, digest_of_path(&mut context, path).unwrap(), "{path}");
        assert_eq!(copied_as, digest_of_path(&mut copied, name).unwrap(), "{path}");
    }
    assert_eq!(fs::read_to_string(to.join("file")).unwrap(), "a[b]c");
    assert_eq!(fs::read_to_string(to.join("dir/page")).unwrap(), "d?r/[slug]/page");
    assert!(copy_path(&mut context, "*", &to, "none").unwrap_err().to_string().contains("`*` is not"));
}

#[test]
fn folders_are_left_out_by_whatever_name() {
    let stage = Stage::new();
    for path in ["kept", "cache/blob", "deep/kept"] {
        stage.write(&format!("context/{path}"), path);
    }
    let context = |going: Going| {
        let cache = Identity::of(&stage.path("context/cache")).unwrap();
        let context = Context::open(&stage.path("context"), IgnoreRules::default()).unwrap();
        context.without(vec![cache]).while_going(going)
    };
    let to = stage.path("copies");
    fs::create_dir(&to).unwrap();
    copy_path(&mut context(Rc::new(|| Ok(()))), "/", &to, "all").unwrap();
    let names = |path: &str| fs::read_dir(stage.path(path)).unwrap().count();
    assert_eq!((names("copies/all"), names("copies/all/deep")), (2, 1));
    let error = copy_path(&mut context(Rc::new(|| Ok(()))), "cache", &to, "cache").unwrap_err();
    assert!(error.to_string().contains("no part of the context"), "{error}");
    // Who asks to stop need not wait for the last file.
    let stop: Going = Rc::new(|| Err(std::io::Error::other("stopped")));
    let error = copy_path(&mut context(stop), "/", &to, "stopped").unwrap_err();
    assert!(format!("{error:#}").contains("stopped"), "{error:#}");
}
