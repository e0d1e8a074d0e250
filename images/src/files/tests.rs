use drydock_tar::NO_XATTRS;

use super::*;

/// `d/` is a folder, `a=3` a file of so many bytes, `a>b` a symlink, `a~b` a hard link; layers are separated by `|`.
fn apply(text: &str) -> Result<(Files, Vec<Effect>), &'static str> {
    let (mut files, mut effects) = (Files::new(), Vec::new());
    for (layer, entries) in text.split('|').enumerate() {
        for (number, entry) in entries.split_whitespace().enumerate() {
            let (name, kind) = if let Some((name, size)) = entry.split_once('=') {
                (name, Kind::File { size: size.parse().unwrap() })
            } else if let Some((name, target)) = entry.split_once('>') {
                (name, Kind::Symlink { target: target.as_bytes() })
            } else if let Some((name, target)) = entry.split_once('~') {
                (name, Kind::HardLink { target: target.as_bytes() })
            } else if entry.ends_with('/') {
                (entry, Kind::Dir)
            } else {
                (entry, Kind::File { size: 0 })
            };
            let modified = Time { seconds: 1, nanoseconds: 0 };
            let (mode, owner, xattrs) = (0o755, Owner::ROOT, NO_XATTRS);
            let entry = Entry { name: name.as_bytes(), kind, mode, owner, modified, xattrs };
            effects.push(files.apply(layer, number as u64, &entry, None)?);
        }
    }
    Ok((files, effects))
}

fn show(text: &str) -> String {
    let (files, _) = match apply(text) {
        Ok(files) => files,
        Err(error) => return error.to_owned(),
    };
    let (mut shown, mut seen) = (Vec::new(), BTreeMap::new());
    files.walk(&mut |path, number, node| {
        let path = String::from_utf8_lossy(path).into_owned();
        let first = seen.entry(number).or_insert_with(|| path.clone()).clone();
        shown.push(match &node.kind {
            _ if path.is_empty() => return,
            _ if first != path => format!("{path}~{first}"),
            NodeKind::Dir(_) => format!("{path}/"),
            NodeKind::File { size, .. } => format!("{path}={size}@{}", node.layer),
            NodeKind::Symlink(target) => format!("{path}>{}", String::from_utf8_lossy(target)),
            _ => path,
        });
    });
    shown.join(" ")
}

#[test]
fn layers_amount_to_files() {
    for (layers, want) in [
        ("", ""),
        ("./ /etc/ /etc/a=1", "etc/ etc/a=1@0"),
        ("d/e/f=1", "d/ d/e/ d/e/f=1@0"),
        ("a=1 a=2", "a=2@0"),
        ("a=1|a=2", "a=2@1"),
        ("d/ d/a=1|d/ d/b=2", "d/ d/a=1@0 d/b=2@1"),
        ("d/ d/a=1|d=3", "d=3@1"),
        ("d=3|d/ d/a=1", "d/ d/a=1@1"),
        // Whiteouts are for what is below, wherever in the layer they stand.
        ("d/ d/a=1 d/b=1|d/.wh.a", "d/ d/b=1@0"),
        ("d/ d/a=1|d/.wh.a d/a=2", "d/ d/a=2@1"),
        ("d/ d/a=1|d/a=2 d/.wh.a", "d/ d/a=2@1"),
        ("d/ d/a=1 d/b=1|.wh.d", ""),
        ("d/ d/a=1 d/b=1|d/ d/c=1 .wh.d", "d/ d/c=1@1"),
        ("d/ d/a=1 d/e/ d/e/b=1|d/ d/.wh..wh..opq d/c=1", "d/ d/c=1@1"),
        ("d/ d/a=1|d/ d/c=1 d/.wh..wh..opq", "d/ d/c=1@1"),
        ("a=1|.wh.b nowhere/.wh.c", "a=1@0"),
        ("a=1|.wh.a|a=3", "a=3@2"),
        // Hard links are names of one file, whatever becomes of the first.
        ("a=1 b~a", "a=1@0 b~a"),
        ("a=1 b~/a|.wh.a", "b=1@0"),
        ("a=1 b~a|a=2", "a=2@1 b=1@0"),
        ("a=1|b~a", "a=1@0 b~a"),
        ("a=1 a~a", "a=1@0"),
        // Folders may be behind symlinks, which lead nowhere but into the image.
        ("usr/lib/ lib>usr/lib|lib/a=1", "lib>usr/lib usr/ usr/lib/ usr/lib/a=1@1"),
        ("usr/lib/ usr/lib/a=1 lib>/usr/lib|lib/.wh.a", "lib>/usr/lib usr/ usr/lib/"),
        ("l>../../etc l/a=1", "etc/ etc/a=1@0 l>../../etc"),
        ("l>/x/../y l/a=1", "l>/x/../y x/ y/ y/a=1@0"),
        ("d/ l>d|l/", "d/ l/"),
        // What is refused.
        ("../a", "has a `..` in its name or target"),
        ("d/../../a", "has a `..` in its name or target"),
        ("a~../../etc/shadow", "has a `..` in its name or target"),
        ("a~b", "is a hard link to something that is not there"),
        ("d/ a~d", "is a hard link to a folder"),
        ("a=1 a/b=1", "lies in something that is no folder"),
        ("l>l l/a=1", "lies behind symlinks without end"),
        ("/=1", "takes the place of the root, and is no folder"),
    ] {
        assert_eq!(show(layers), want, "{layers}");
    }
}

#[test]
fn entries_tell_what_they_did() {
    let path = |text: &str| text.as_bytes().to_vec();
    let (_, effects) = apply("d/ d/a=1 d/b=2|d/ d/a=5 .wh.x d/.wh.b d/c|.wh.d").unwrap();
    let want = [
        Effect::Added { path: path("d") },
        Effect::Added { path: path("d/a") },
        Effect::Added { path: path("d/b") },
        Effect::Nothing,
        Effect::Changed { path: path("d/a"), before: 1 },
        Effect::Nothing,
        Effect::Removed { path: path("d/b"), before: 2 },
        Effect::Added { path: path("d/c") },
        Effect::Removed { path: path("d"), before: 5 },
    ];
    assert_eq!(effects, want);
}

#[test]
fn paths_and_their_number_are_limited() {
    assert_eq!(show(&"d/".repeat(2000)).len(), (1..=2000).map(|n| 2 * n + 1).sum::<usize>() - 1);
    assert!(show(&"d/".repeat(2100)).contains("4096 bytes"));
    let deep = "d/".repeat(1100);
    assert!(show(&format!("{deep} l>{deep} m>{deep} {deep}l>{deep} l/l/x")).contains("4096 bytes"));
    let mut files = Files::new();
    files.used = MAX_INDEX;
    let entry = Entry {
        name: b"a",
        kind: Kind::Fifo,
        mode: 0o644,
        owner: Owner::ROOT,
        modified: Time { seconds: 0, nanoseconds: 0 },
        xattrs: NO_XATTRS,
    };
    assert!(files.apply(0, 0, &entry, None).is_err());
}

#[test]
fn contents_are_found_by_their_entries() {
    let (files, _) = apply("d/ d/b=1 a=2 d/a~a x=3|x=4 d/c=5").unwrap();
    let contents = Contents::of(&files, 3);
    let paths = |layer, entry| {
        let paths: Vec<String> =
            contents.paths(layer, entry).map(|path| String::from_utf8(path).unwrap()).collect();
        paths.join(" ")
    };
    for (layer, entry, want) in [
        (0, 0, ""),
        (0, 1, "d/b"),
        (0, 2, "a d/a"),
        (0, 3, ""),
        (0, 4, ""),
        (1, 0, "x"),
        (1, 1, "d/c"),
        (1, 9, ""),
    ] {
        assert_eq!(paths(layer, entry), want, "{layer} {entry}");
    }
    assert_eq!([0, 1, 2].map(|layer| contents.lacks(layer)), [false, false, true]);
}

#[test]
fn two_images_side_by_side() {
    let (a, _) = apply("a=1 d/ d/x=2 d/z=3 only/ only/f").unwrap();
    let (b, _) = apply("a=1 d=5 d-e=1").unwrap();
    let mut shown = Vec::new();
    walk_both(&a, &b, &mut |path, a, b| {
        let size = |it: Option<Numbered<'_>>| it.map_or("-".to_owned(), |(_, node)| node.size().to_string());
        shown.push(format!("{}:{}:{}", String::from_utf8_lossy(path), size(a), size(b)));
    });
    assert_eq!(shown.join(" "), "a:1:1 d:0:5 d/x:2:- d/z:3:- d-e:-:1 only:0:- only/f:0:-");
}
