//! What tests of this module share.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use drydock_io::sink::{MemorySink, Sink};
use drydock_model::digest::DiffId;
use drydock_tar::{Owner, TarError};

use super::LayerSource;
use super::LeftOut;
use super::root::{LayerRoot, Parent};

pub(super) const USER: Owner = Owner { uid: 1000, gid: 1000 };

/// What to make on disk.
pub(super) enum Make<'a> {
    Dir(u32),
    File(u32, &'a [u8]),
    Symlink(&'a str),
}

/// Makes these things in `dir`, with directories on the way of mode 0755.
pub(super) fn make(dir: &Path, things: &[(&str, Make<'_>)]) {
    let set_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    set_mode(dir, 0o755);
    for (path, thing) in things {
        let path = dir.join(path);
        let missing = |above: &&Path| !above.exists();
        for above in path.ancestors().skip(1).take_while(missing).collect::<Vec<_>>().into_iter().rev() {
            fs::create_dir(above).unwrap();
            set_mode(above, 0o755);
        }
        match thing {
            Make::Dir(mode) => {
                fs::create_dir(&path).unwrap();
                set_mode(&path, *mode);
            }
            Make::File(mode, contents) => {
                fs::write(&path, contents).unwrap();
                set_mode(&path, *mode);
            }
            Make::Symlink(target) => symlink(target, &path).unwrap(),
        }
    }
}

/// The directory `dir` as if it were at `name`, below directories that belong to the user with mode 0755.
pub(super) fn root_as(dir: &Path, name: &str) -> LayerRoot {
    let parents = name.match_indices('/').skip(1).map(|(slash, _)| Parent {
        name: name.as_bytes()[..slash].to_vec(),
        mode: 0o755,
        owner: USER,
    });
    LayerRoot {
        dir: dir.to_owned(),
        name: name.as_bytes().to_vec(),
        parents: parents.collect(),
        left_out: LeftOut::default(),
    }
}

/// What `write` writes.
pub(super) fn written<T>(write: impl FnOnce(&mut dyn Sink) -> Result<T, TarError>) -> Vec<u8> {
    let mut out = MemorySink::default();
    write(&mut out).unwrap();
    out.into_bytes()
}

pub(super) fn diff_id(source: &dyn LayerSource) -> String {
    DiffId::of(&written(|out| source.write(out))).to_string()
}
