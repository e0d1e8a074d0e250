//! What must be done as root before a phase begins, and how root is dropped.
//!
//! Orchestrators start most phases as root, with volumes that root made, and say with `CNB_USER_ID` and `CNB_GROUP_ID`
//! who the build belongs to. An ordinary user's process has nothing to prepare.
//! Specification: `platform.md` § Build Image and, of each phase, the notes on user and group.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use drydock_io::access::{Access, READ, SEARCH, User, WRITE};
use drydock_io::read;
use drydock_io::way::{self, Links};
use drydock_layout::Early;
use drydock_model::reference::LayoutPath;
use drydock_phases::{Error, Kind, limits};
use drydock_tar::{Owner, give_all};
use rustix::fs::{CWD, Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::process::{geteuid, getgid, getuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use crate::args::layout::Layout;
use crate::phase::Phase;

/// Whether a phase needs root, and for what.
#[derive(Debug, PartialEq, Eq)]
pub enum Privileges {
    /// The phase runs what others wrote, and never as root.
    RefuseRoot,
    /// The phase goes on as whoever started it.
    Keep,
    /// The phase prepares folders as root, and goes on as `user`.
    Drop {
        /// Who the phase goes on as.
        user: User,
        /// Folders with all that is in them, absolute. Those that are missing stay so.
        volumes: Vec<PathBuf>,
        /// Where images are written.
        outputs: Option<Outputs>,
    },
}

/// Folders that images are written to.
#[derive(Debug, PartialEq, Eq)]
pub struct Outputs {
    layout_dir: PathBuf,
    /// Relative to the layout directory.
    images: Vec<PathBuf>,
}

impl Outputs {
    /// The folders of these images; none if no layouts were asked for.
    pub fn of<'a>(layout: &Layout, images: impl Iterator<Item = &'a LayoutPath>) -> Option<Self> {
        let layout_dir = layout.dir_if_asked()?.path();
        let below = |image: &LayoutPath| image.path().strip_prefix(layout_dir).ok().map(Path::to_owned);
        Some(Self { layout_dir: layout_dir.to_owned(), images: images.filter_map(below).collect() })
    }
}

impl Privileges {
    /// Opens the files of these layouts that the phase could not open once it has dropped root.
    pub fn open_early(&self, layouts: &[PathBuf]) -> Early {
        match self {
            Self::Drop { user, .. } if geteuid().is_root() && user.uid != 0 => {
                let is_in_reach = layouts.iter().all(|layout| is_in_reach(layout, *user));
                let layouts = layouts.iter().map(PathBuf::as_path);
                Early::of(layouts, |facts| !is_in_reach || !Access::from(facts).allows(*user, READ))
            }
            _ => Early::default(),
        }
    }

    /// Prepares folders, drops root. What could not be prepared is told to `warn`. Must be called before the process has a second thread: see [`run_as`].
    pub fn ensure(&self, phase: Phase, warn: &dyn Fn(&str)) -> Result<(), Error> {
        let general = |cause: anyhow::Error| Error::new(Kind::General, cause);
        match self {
            Self::RefuseRoot if getuid().is_root() => {
                Err(general(anyhow!("failed to {}: refusing to run as root", phase.verb())))
            }
            Self::RefuseRoot | Self::Keep => Ok(()),
            Self::Drop { user, volumes, outputs } => {
                // Who stays root, or is not root, has nothing to gain from other owners.
                if geteuid().is_root() && user.uid != 0 {
                    make_usable(*user, volumes, warn).context("failed to chown volumes").map_err(general)?;
                    if let Some(outputs) = outputs {
                        outputs.make_usable(*user, warn).map_err(|cause| {
                            Error::new(Kind::Phase, cause)
                                .with_help("remove what is in the way, or name the image otherwise")
                        })?;
                    }
                }
                run_as(*user)
                    .with_context(|| format!("failed to exec as user {}:{}", user.uid, user.gid))
                    .map_err(|cause| general(cause).with_help(NEEDED))?;
                // These run buildpacks, which may call what this would break: sudo, newuidmap and their like.
                if !matches!(phase, Phase::Create | Phase::Extend) {
                    set_no_new_privs(true).context("failed to give up new privileges")?;
                }
                Ok(())
            }
        }
    }
}

/// What it takes to become another user.
const NEEDED: &str = "start the phase as root with the capabilities CAP_SETUID and CAP_SETGID, or as the user that \
                      CNB_USER_ID and CNB_GROUP_ID name";

/// Makes the thread that calls it, and every thread that it starts later, run as `user`: real, effective and saved
/// identities, the groups that `/etc/group` gives that user, and no capabilities. There is no way back but by a file
/// with the set-user-ID bit.
///
/// The kernel keeps all this for each thread, and this changes only the caller's; it must be the only one.
fn run_as(user: User) -> anyhow::Result<()> {
    let real = User { uid: getuid().as_raw(), gid: getgid().as_raw() };
    if user == real && user == User::current() {
        return Ok(());
    }
    // The groups first: without root there is no right to change them.
    set_thread_groups(&groups(user.uid)?).context("changing the supplementary groups")?;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    set_thread_res_gid(gid, gid, gid).context("changing the group")?;
    set_thread_res_uid(uid, uid, uid).context("changing the user")?;
    if user.uid != 0 {
        // The change of the user leaves those that files may turn into others.
        let none = CapabilitySet::empty();
        let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
        set_capabilities(None, none).context("giving up capabilities")?;
    }
    Ok(())
}

/// Gives folders away. One that lies behind a link of somebody else's is left to the phase, which finds it as the user.
fn make_usable(user: User, volumes: &[PathBuf], warn: &dyn Fn(&str)) -> anyhow::Result<()> {
    for volume in volumes {
        let changed = match way::open(CWD, volume, Links::OfRoot, None) {
            Ok(dir) => own_unless_usable(&dir, user),
            Err(Errno::NOENT) => Ok(()),
            Err(Errno::LOOP) => {
                tell_left(user, volume, warn);
                Ok(())
            }
            Err(error) => Err(error.into()),
        };
        changed.with_context(|| format!("changing the owner of `{}`", volume.display()))?;
    }
    Ok(())
}

/// Says why a folder was not given to the user who needs it.
fn tell_left(user: User, dir: &Path, warn: &dyn Fn(&str)) {
    if dir.metadata().is_ok_and(|facts| may_write(Access::from(&facts), user)) {
        return;
    }
    warn(&format!(
        "`{}` is not made user {}'s: there is a link on the way that others than root may have put there; name the folder itself",
        dir.display(),
        user.uid
    ));
}

impl Outputs {
    fn make_usable(&self, user: User, warn: &dyn Fn(&str)) -> anyhow::Result<()> {
        let Self { layout_dir, images } = self;
        let root = match way::open(CWD, layout_dir, Links::OfRoot, Some(user)) {
            // The export looks where it leads, as the user.
            Err(Errno::LOOP) => {
                tell_left(user, layout_dir, warn);
                return Ok(());
            }
            root => {
                root.with_context(|| format!("making the layout directory `{}`", layout_dir.display()))?
            }
        };
        for image in images {
            let change = || -> io::Result<()> {
                let dir = match way::open(&root, image, Links::None, Some(user)) {
                    Err(Errno::LOOP) => return Ok(()),
                    dir => dir?,
                };
                // Whoever made it may have kept it to themselves, and will want to read the image.
                let mode = Mode::from_raw_mode(dir.metadata()?.mode() & 0o7777 | 0o755);
                rustix::fs::fchmod(&dir, mode)?;
                own_unless_usable(&dir, user)
            };
            change().with_context(|| format!("making the folder `{}`", layout_dir.join(image).display()))?;
        }
        Ok(())
    }
}

/// Whether `user` may search every folder on the way to a layout's blobs, so far as these are there.
fn is_in_reach(layout: &Path, user: User) -> bool {
    // Where links lead, others may be on the way.
    let blobs = layout.canonicalize().unwrap_or_else(|_| layout.to_owned()).join("blobs/sha256");
    blobs.ancestors().all(|dir| match dir.metadata() {
        Err(error) => error.kind() == io::ErrorKind::NotFound,
        Ok(facts) => Access::from(&facts).allows(user, SEARCH),
    })
}

/// Whether `user` may write, taking for granted that an owner may.
fn may_write(Access { owner, mode }: Access, user: User) -> bool {
    const GROUP_WRITE: u32 = WRITE << 3;
    owner.uid == user.uid || owner.gid == user.gid && mode & GROUP_WRITE != 0 || mode & WRITE != 0
}

/// Gives a folder and all that is in it to `user`. One that `user` may write to is left alone: what is in it is taken
/// to be like it. A file with several names stays whose it is: its other names may be anywhere, as in a run image's layout.
fn own_unless_usable(dir: &File, user: User) -> io::Result<()> {
    if may_write(Access::from(&dir.metadata()?), user) {
        return Ok(());
    }
    give_all(dir, Owner { uid: user.uid, gid: user.gid }, &|facts| facts.st_nlink <= 1)
}

/// A user as `/etc/passwd` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// What `USER` is set to.
    pub name: String,
    /// What `HOME` is set to.
    pub home: String,
}

impl Account {
    /// The account with this number on this machine. The executables are static, so no name service is asked.
    pub fn of(uid: u32) -> Result<Self, Error> {
        let find = || -> anyhow::Result<Self> {
            Self::find(&read_database(PASSWD)?, uid)
                .ok_or_else(|| anyhow!("`{PASSWD}` has no user with this number"))
        };
        find().map_err(|cause| {
            Error::new(Kind::General, cause.context(format!("failed to set environment for user {uid}")))
        })
    }

    fn find(passwd: &str, uid: u32) -> Option<Self> {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
            // After the name come password, number, group, description and home.
            let is_this = fields.nth(1)?.parse() == Ok(uid);
            let home = fields.nth(2)?;
            is_this.then(|| Self { name: name.to_owned(), home: home.to_owned() })
        })
    }
}

/// The users of this machine.
const PASSWD: &str = "/etc/passwd";
/// Its groups, and who is in them.
const GROUP: &str = "/etc/group";

fn read_database(path: &str) -> anyhow::Result<String> {
    let bytes = read::read(Path::new(path), limits::DOCUMENT);
    let bytes = bytes.with_context(|| format!("reading `{path}`"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The groups that the user with this number is in besides its own; none if this machine does not know the user.
fn groups(uid: u32) -> anyhow::Result<Vec<Gid>> {
    let read = |path: &str| match read::look(Path::new(path)) {
        Ok(None) => Ok(String::new()),
        _ => read_database(path),
    };
    let Some(account) = Account::find(&read(PASSWD)?, uid) else { return Ok(Vec::new()) };
    Ok(groups_with(&read(GROUP)?, &account.name).into_iter().map(Gid::from_raw).collect())
}

/// The numbers of the groups that have this member. `group` has lines of name, password, number and members.
fn groups_with(group: &str, name: &str) -> BTreeSet<u32> {
    let gid = |line: &str| {
        let mut fields = line.split(':');
        let named = fields.next().is_some_and(|name| !name.is_empty() && !name.starts_with('#'));
        let gid = fields.nth(1)?.parse().ok()?;
        let is_member = fields.next()?.split(',').any(|member| member.trim() == name);
        (named && is_member && gid != u32::MAX).then_some(gid)
    };
    group.lines().filter_map(gid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CNB: User = User { uid: 1000, gid: 1001 };

    #[test]
    fn who_may_write() {
        for (uid, gid, mode, want) in [
            (1000, 0, 0o40_700, true),
            (1000, 0, 0o40_500, true),
            (0, 0, 0o40_755, false),
            (0, 0, 0o40_775, false),
            (0, 1001, 0o40_775, true),
            (0, 1001, 0o40_755, false),
            (0, 0, 0o41_777, true),
            (1001, 1000, 0o40_775, false),
        ] {
            let access = Access { owner: User { uid, gid }, mode };
            assert_eq!(may_write(access, CNB), want, "{uid}:{gid} {mode:o}");
        }
    }

    #[test]
    fn accounts() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\n#cnb:x:1000:1:::\nbroken\n:x:1000:1::/:\n\
                      cnb:x:1000:1000::/home/cnb:/bin/sh\nagain:x:1000:1000::/other:/bin/sh\nshort:x:7:7\n";
        let account = |name: &str, home: &str| Some(Account { name: name.into(), home: home.into() });
        assert_eq!(Account::find(passwd, 0), account("root", "/root"));
        assert_eq!(Account::find(passwd, 1000), account("cnb", "/home/cnb"));
        assert_eq!(Account::find(passwd, 7), None);
        assert_eq!(Account::find(passwd, 5), None);
    }

    #[test]
    fn groups_of_a_member() {
        let group = "root:x:0:\ncnb:x:1000:\n#disk:x:6:cnb\n:x:7:cnb\nbroken\nbad:x:many:cnb\nshort:x:8\n\
                     docker:x:998:other,cnb\nstaff:x:50:cnb, other\nagain:x:50:cnb\nnobody:x:4294967295:cnb\n\
                     near:x:9:cnbs,acnb\n";
        for (name, want) in [("cnb", &[50, 998][..]), ("other", &[50, 998]), ("root", &[])] {
            assert_eq!(Vec::from_iter(groups_with(group, name)), want, "{name}");
        }
    }

    #[test]
    fn an_unknown_account_is_an_error() {
        let error = Account::of(4_000_000_000).unwrap_err();
        assert_eq!(error.kind, Kind::General);
        assert!(error.to_string().starts_with("failed to set environment for user 4000000000: "), "{error}");
    }

    #[test]
    fn whoever_runs_this_may_go_on_as_themselves() {
        let user = User { uid: getuid().as_raw(), gid: getgid().as_raw() };
        let missing = PathBuf::from("/nonexistent/volume");
        Privileges::Drop { user, volumes: vec![missing], outputs: None }
            .ensure(Phase::Analyze, &|_| ())
            .unwrap();
        Privileges::Keep.ensure(Phase::Extend, &|_| ()).unwrap();
        let refused = Privileges::RefuseRoot.ensure(Phase::Build, &|_| ()).map_err(|error| error.to_string());
        let want =
            if user.uid == 0 { Err("failed to build: refusing to run as root".to_owned()) } else { Ok(()) };
        assert_eq!(refused, want);
    }
}
