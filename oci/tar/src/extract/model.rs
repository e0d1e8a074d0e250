//! Threads that make small files, under a model checker ([`drydock_checker`]): all files are made, or an error comes, and nobody
//! waits for ever.

use std::fs;
use std::path::Path;

use drydock_checker as sync;
use drydock_checker::{in_many_orders, thread};
use rustix::fs::{CWD, Mode, OFlags, openat};

use self::small::{Files, Shared, SmallFiles};
use super::{ExtractError, make};
use crate::trail::Trail;

#[path = "small.rs"]
#[expect(clippy::duplicate_mod, reason = "it is compiled once more")]
#[allow(dead_code, reason = "nobody but these tests uses it")]
mod small;

const ORDERS: usize = 40;

/// Makes files of these names, two of which fill a batch, so that some have to wait.
fn make_files(into: &Path, names: &[&str], helpers: usize) -> Result<(), ExtractError> {
    let contents = vec![b'x'; 64 << 10];
    let shared = Shared::default();
    thread::scope(|scope| {
        let dir =
            openat(CWD, into, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let files = Files::new(into, Trail::reaching(dir));
        let mut small = SmallFiles::start(scope, &shared, files, helpers).unwrap();
        for name in names {
            let name = name.as_bytes();
            small.add(name, name, Mode::from_raw_mode(0o644), &contents[..])?;
        }
        small.finish()
    })
}

#[test]
fn all_are_made_or_the_first_error_comes_in_every_order() {
    in_many_orders(ORDERS, || {
        let names = ["0", "1", "2", "3", "4", "5", "6", "7", "8"];
        for helpers in [1, 2] {
            let dir = tempfile::tempdir().unwrap();
            make_files(dir.path(), &names, helpers).unwrap();
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), names.len());
            let dir = tempfile::tempdir().unwrap();
            let error = make_files(dir.path(), &[&names[..], &["1", "x"]].concat(), helpers).unwrap_err();
            assert!(error.to_string().contains("`1` is refused: it comes twice"), "{error}");
        }
    });
}
