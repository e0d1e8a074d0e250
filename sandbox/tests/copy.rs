//! Copies of folders. They are a program of their own: what starts others keeps locks of this crate's other tests for a moment.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use drydock_sandbox::copy::copy;

fn tree() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("a"), dir.path().join("b"));
    for name in ["own/deep/mine", "own/deep/ours", "-n"] {
        let path = from.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    fs::create_dir(&to).unwrap();
    (dir, from, to)
}

#[test]
fn copies_share_no_file() {
    let (_dir, from, to) = tree();
    copy(&from, &to, &[], &|| Ok(())).unwrap();
    fs::write(to.join("-n"), "other").unwrap();
    assert_eq!(fs::read_to_string(from.join("-n")).unwrap(), "-n");
}

#[test]
fn what_is_left_out_is_not_there() {
    for (without, there) in [
        ("own", &["-n"][..]),
        ("own/deep", &["-n", "own"]),
        ("own/deep/mine", &["-n", "own", "own/deep", "own/deep/ours"]),
    ] {
        let (_dir, from, to) = tree();
        fs::set_permissions(from.join("own"), fs::Permissions::from_mode(0o750)).unwrap();
        let without = [from.join(without), to.join("elsewhere")];
        copy(&from, &to, &without, &|| Ok(())).unwrap();
        for name in ["-n", "own", "own/deep", "own/deep/mine", "own/deep/ours"] {
            assert_eq!(to.join(name).exists(), there.contains(&name), "{name} of {without:?}");
        }
        if let Ok(made) = fs::metadata(to.join("own")) {
            assert_eq!(made.permissions().mode() & 0o7777, 0o750);
        }
    }
}

#[test]
fn it_ends_when_it_is_to_end_and_says_why_it_failed() {
    let (_dir, from, to) = tree();
    // Before so much is copied, somebody has been asked.
    fs::write(from.join("large"), vec![1; 64 << 20]).unwrap();
    let stop = copy(&from, &to, &[], &|| Err(io::Error::other("enough")));
    assert_eq!(stop.unwrap_err().to_string(), "enough");
    let failed = copy(&from.join("none"), &to, &[], &|| Ok(())).unwrap_err().to_string();
    assert!(failed.starts_with("cp: cannot stat") && failed.contains("a/none"), "{failed}");
}
