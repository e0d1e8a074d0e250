//! What is known from before is put back as it was.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::time::{Duration, SystemTime};

use super::tests::Stage;
use super::*;
use crate::cache::Store;
use crate::language::IgnoreRules;

const LONG: Duration = Duration::from_hours(1);

/// A file system with something to change in it.
fn stage() -> Stage {
    let stage = Stage::new();
    for (path, text) in
        [("root/etc/old", "old"), ("root/full/a", "a"), ("root/full/b/c", "c"), ("context/file", "1")]
    {
        stage.write(path, text);
    }
    stage.write("root/was-dir/x/y", "");
    stage.write("root/was-file", "");
    symlink("etc", stage.path("root/was-link")).unwrap();
    stage
}

/// How everything looks: kind, permissions, times, links, and what is in it.
fn looks(stage: &Stage) -> Vec<String> {
    let tree = stage.tree("root");
    let look = |(path, what): (&String, &String)| {
        let facts = fs::symlink_metadata(stage.path(&format!("root/{path}"))).unwrap();
        let time = if facts.is_file() { facts.mtime() } else { 0 };
        format!("{path} {:o} {time} {} {what}", facts.mode(), facts.nlink())
    };
    tree.iter().map(look).collect()
}

#[test]
fn layers_are_put_back_as_they_were() {
    let text = "RUN rm etc/old && touch -d @5 etc/new && ln etc/new etc/other && ln -s new etc/link && chmod 4751 etc/new\n\
        RUN rm -r full && mkdir full && echo d > full/d && chmod 1777 full\n\
        RUN rm -r was-dir && echo file > was-dir; rm was-file && mkdir was-file && echo > was-file/z; rm was-link && mkdir was-link\n\
        RUN :\n\
        RUN mkdir -p a/b && chmod 700 a && touch a/b/c";
    let store_dir = tempfile::tempdir().unwrap();
    let store = Store::open(&store_dir.path().join("cached"), LONG).unwrap();
    let (first, second) = (stage(), stage());
    let made = |stage: &Stage, text: &str| {
        let made = stage.make(text, "", None, Some(Cache::new(&store, "base"))).unwrap();
        let layer = |made: &Made| match made {
            Made::Kept { text, layer } => format!("{text} {}", layer.diff_id),
            Made::New(_) => panic!("it is not in the cache"),
        };
        made.iter().map(layer).collect::<Vec<_>>()
    };
    let layers = made(&first, text);
    assert_eq!(layers.len(), 4);
    assert_eq!(made(&second, text), layers);
    assert_eq!(looks(&second), looks(&first));
}

#[test]
fn only_what_is_the_same_is_known() {
    let store_dir = tempfile::tempdir().unwrap();
    let store = Store::open(&store_dir.path().join("cached"), LONG).unwrap();
    let count = store_dir.path().join("count");
    let runs = |first: &str, text: &str, prepare: &dyn Fn(&Stage)| {
        let _ = fs::remove_file(&count);
        let stage = stage();
        prepare(&stage);
        let text = text.replace("COUNT", &format!("echo >> {}", count.display()));
        stage.make(&text, "", None, Some(Cache::new(&store, first))).unwrap();
        fs::read(&count).map_or(0, |bytes| bytes.len())
    };
    let owner = fs::metadata(store_dir.path()).unwrap();
    let copy = format!("COPY --chown={}:{} file /file", owner.uid(), owner.gid());
    let whole = format!("ARG a=1\nRUN COUNT; echo 1 > one\n{copy}\nRUN COUNT; cat file > two");
    let same = |_: &Stage| {};
    assert_eq!(runs("base", &whole, &same), 2);
    assert_eq!(runs("base", &whole, &same), 0);
    assert_eq!(runs("other base", &whole, &same), 2);
    assert_eq!(runs("base", &whole.replace("a=1", "a=2"), &same), 2);
    assert_eq!(runs("base", &whole.replace("two", "three"), &same), 1);
    assert_eq!(runs("base", &whole.replace("/file", "/file2").replace("cat file", "cat file2"), &same), 1);
    assert_eq!(runs("base", &whole, &|stage| stage.write("context/file", "2")), 1);
    let executable = |stage: &Stage| {
        fs::set_permissions(stage.path("context/file"), Permissions::from_mode(0o755)).unwrap();
    };
    assert_eq!(runs("base", &whole, &executable), 1);
    let touched = |stage: &Stage| {
        let file = fs::File::options().write(true).open(stage.path("context/file")).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    };
    assert_eq!(runs("base", &whole, &touched), 0);
    // What comes after other files is new, whatever is known of it.
    assert_eq!(runs("base", &whole.replace("echo 1", "echo 1;"), &same), 2);
    // What is done again and leaves the same files does not make the rest new.
    for (number, want) in [(1, 3), (2, 1)] {
        let text = format!("RUN COUNT; : {number}\nRUN COUNT; echo > two\nRUN COUNT; rm two");
        assert_eq!(runs("base", &text, &same), want);
    }
}

/// A context in which a file becomes another one each time that it is looked at.
struct Changing<'a> {
    context: Context,
    stage: &'a Stage,
    texts: &'a [&'a str],
}

impl Contexts for Changing<'_> {
    fn open(&mut self, _: &From) -> Result<&mut Context> {
        if let Some((text, later)) = self.texts.split_first() {
            self.stage.write("context/file", text);
            self.texts = later;
        }
        Ok(&mut self.context)
    }

    fn download(&mut self, url: &str) -> Result<File> {
        anyhow::bail!("`{url}` is not there")
    }
}

#[test]
fn what_changes_meanwhile_is_known_as_what_it_was_when_it_was_copied() {
    let store_dir = tempfile::tempdir().unwrap();
    let store = Store::open(&store_dir.path().join("cached"), LONG).unwrap();
    for (texts, want) in [
        (&["old", "new"][..], "new"),
        (&["old"], "old"),
        (&["new"], "new"),
        (&["other", "old"], "old"),
        (&["old"], "old"),
    ] {
        let stage = Stage::new();
        let context = Context::open(&stage.path("context"), IgnoreRules::default()).unwrap();
        let mut changing = Changing { context, stage: &stage, texts };
        stage.make_of("COPY file /", &mut changing, None, Some(Cache::new(&store, "base"))).unwrap();
        assert_eq!(stage.read("root/file"), want, "{texts:?}");
    }
    assert_eq!(fs::read_dir(store_dir.path().join("cached")).unwrap().count(), 2);
}

#[test]
fn what_is_damaged_old_or_of_others_is_not_used() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("cached");
    let store = Store::open(&dir, LONG).unwrap();
    let text = "RUN touch -d @5 new";
    let make = |store: &Store| {
        let stage = stage();
        stage.make(text, "", None, Some(Cache::new(store, "base"))).unwrap();
        assert_eq!(stage.tree("root")["new"], "");
    };
    make(&store);
    let entry = || fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    assert_eq!(entry().len(), 1);
    for blob in fs::read_dir(entry()[0].join("blobs/sha256")).unwrap() {
        let blob = blob.unwrap().path();
        let bytes = fs::read(&blob).unwrap();
        for damaged in [b"x".repeat(bytes.len()), bytes[1..].to_vec(), Vec::new()] {
            fs::write(&blob, damaged).unwrap();
            make(&store);
            assert_eq!(fs::read(&blob).unwrap(), bytes, "{}", blob.display());
        }
    }
    for name in ["index.json", "oci-layout"] {
        fs::write(entry()[0].join(name), "{").unwrap();
        make(&store);
    }
    // What is being made is left alone.
    fs::create_dir(dir.join("begun")).unwrap();
    drop(Store::open(&dir, LONG).unwrap());
    assert_eq!(entry().len(), 2);
    drop(Store::open(&dir, Duration::ZERO).unwrap());
    assert_eq!(entry().len(), 0);
    fs::set_permissions(&dir, Permissions::from_mode(0o777)).unwrap();
    let error = Store::open(&dir, LONG).unwrap_err().to_string();
    assert!(error.contains("others could write to it"), "{error}");
}
