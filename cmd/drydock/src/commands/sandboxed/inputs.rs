//! What a build begins with: folders in its session that the sandboxes see.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use drydock_images::builder::place::{self, Placed};
use drydock_images::builder::selection::NoPattern;
use drydock_images::{Name, Watch};
use drydock_io::access::User;
use drydock_io::lock::Lock;
use drydock_io::read::is_dir;
use drydock_model::config::ImageConfig;
use drydock_sandbox::copy::copy;
use drydock_sandbox::roots::Waiting;
use drydock_sandbox::tree::Tree;
use drydock_tar::{Owner, give_all};
use rustix::process::geteuid;

use super::kept::Kept;
use super::{Shop, caches, descriptor, variable};
use crate::cli_sandboxed::Build;
use crate::exit::Usage;

/// Bytes that a file with variables may have.
const MAX_ENV_FILE: u64 = 1 << 20;

/// The folders.
pub(super) struct Inputs {
    /// `/layers`.
    pub(super) layers: PathBuf,
    /// The app.
    pub(super) workspace: PathBuf,
    /// `/platform`.
    pub(super) platform: PathBuf,
    /// `/cache`.
    pub(super) cache: PathBuf,
    /// Layers of the last build.
    pub(super) kept: Kept,
    /// What is in `platform`.
    _in_memory: Tree,
    /// Nobody else builds with this cache meanwhile.
    _lock: Lock,
}

/// Who a builder's buildpacks are.
pub(super) fn builder_user(options: &Build, config: &ImageConfig) -> Result<User> {
    let name = options.builder()?;
    let number = |asked: Option<u32>, variable: &str| -> Result<u32> {
        if let Some(asked) = asked {
            return Ok(asked);
        }
        let text = config
            .config
            .env(variable)
            .with_context(|| format!("`{name}` is no builder: its configuration does not set {variable}"))?;
        text.parse().with_context(|| format!("`{name}` is no usable builder: its {variable} is `{text}`"))
    };
    let user = User { uid: number(options.uid, "CNB_USER_ID")?, gid: number(options.gid, "CNB_GROUP_ID")? };
    if user.uid == 0 {
        bail!("`{name}` is no usable builder: its buildpacks would run as root (CNB_USER_ID is 0)");
    }
    if [user.uid, user.gid].contains(&u32::MAX) {
        bail!(
            "`{name}` is no usable builder: nobody can have the number {} (CNB_USER_ID, CNB_GROUP_ID)",
            u32::MAX
        );
    }
    Ok(user)
}

impl Inputs {
    /// Makes them; `waiting` is asked while another build has the cache.
    pub(super) fn make(
        shop: &Shop,
        options: &Build,
        name: &Name,
        user: User,
        waiting: &Waiting<'_>,
        watch: &dyn Watch,
    ) -> Result<Self> {
        let (cache, kept, lock) = caches::open(&shop.cache, options, name, waiting)?;
        let (layers, platform) = (shop.session.make("layers")?, shop.session.make("platform")?);
        // What variables say is on no disk.
        let in_memory = Tree::in_memory(&platform, None)?;
        let env = platform.join("env");
        fs::create_dir(&env).with_context(|| format!("cannot make `{}`", env.display()))?;
        let workspace = shop.session.make("workspace")?;
        let without = [shop.own_folders(name.dir())?, vec![cache.clone()]].concat();
        app(&options.path, &workspace, &without, watch)?;
        options.selection.apply(&workspace).map_err(|error| match error.downcast::<NoPattern>() {
            Ok(wrong) => Usage(format!("{}: {wrong}", descriptor::FILE)).into(),
            Err(error) => error,
        })?;
        give(&workspace, user)?;
        give(&layers, user)?;
        for (name, value) in variables(options)? {
            let path = env.join(&name);
            fs::write(&path, value).with_context(|| format!("cannot write `{}`", path.display()))?;
            open_to_all(&path, 0o644)?;
        }
        for dir in [&layers, &workspace, &platform, &env] {
            open_to_all(dir, 0o755)?;
        }
        Ok(Self { layers, workspace, platform, cache, kept, _in_memory: in_memory, _lock: lock })
    }
}

/// Lets whoever runs in an image read, and maybe enter, something.
pub(super) fn open_to_all(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot change the mode of `{}`", path.display()))
}

/// A copy of the app's source, which is a folder or an archive; of a folder, without what is at these paths.
fn app(from: &Path, to: &Path, without: &[PathBuf], watch: &dyn Watch) -> Result<()> {
    let found = fs::canonicalize(from).with_context(|| format!("cannot find `{}`", from.display()))?;
    if is_dir(&found).with_context(|| format!("cannot look at `{}`", found.display()))? {
        if without.contains(&found) {
            return Err(
                Usage(format!("`{}` holds images or a cache, and no app's source", from.display())).into()
            );
        }
        let is_said = |path: &&PathBuf| without.iter().any(|other| other != *path && path.starts_with(other));
        for path in without.iter().filter(|path| path.starts_with(&found) && !is_said(path)) {
            watch.note(&format!("`{}` is left out of the app", path.display()));
        }
        return copy(&found, to, without, &|| watch.advance(0))
            .with_context(|| format!("cannot copy the app at `{}`", from.display()));
    }
    match place::source(&found, to, watch)? {
        Placed::Done if fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_none()) => {
            Err(Usage(format!("`{}` is an empty archive: --path names the app's source", from.display()))
                .into())
        }
        Placed::Done => Ok(()),
        Placed::NoArchive => {
            let text = "is no folder, and neither a tar nor a zip file: --path names the app's source";
            Err(Usage(format!("`{}` {text}", from.display())).into())
        }
    }
}

/// Gives a folder, with all that is in it, to the user of the buildpacks. Who is not root has no other files in a room.
fn give(dir: &Path, user: User) -> Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let owner = Owner { uid: user.uid, gid: user.gid };
    let given = File::open(dir).and_then(|open| give_all(open, owner, &|_| true));
    given.with_context(|| format!("cannot give `{}` to the user of the buildpacks", dir.display()))
}

/// The variables for the buildpacks; later ones win.
fn variables(options: &Build) -> Result<Vec<(String, String)>> {
    let mut found: Vec<(String, String)> = Vec::new();
    for text in &options.described_env {
        found.extend(variable(text)?);
    }
    for path in &options.env_file {
        let text = drydock_io::read::read_to_string(path, MAX_ENV_FILE)
            .with_context(|| format!("cannot read `{}`", path.display()))?;
        let read = lines(&text).map(|(number, line)| {
            let name = line.split('=').next().unwrap_or_default();
            if name.contains(char::is_whitespace) {
                return Err(Usage(format!("line {number}: the name `{name}` has a space")).into());
            }
            variable(line).with_context(|| format!("line {number}"))
        });
        let read = read.collect::<Result<Vec<_>>>().with_context(|| format!("`{}`", path.display()))?;
        found.extend(read.into_iter().flatten());
    }
    for text in &options.env {
        found.extend(variable(text)?);
    }
    Ok(found)
}

/// Those that are neither empty nor comments, with their numbers. As for `docker run`, there may be a byte order mark, and space before
/// a name; all that follows the `=` is the value.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines().map(str::trim_start);
    (1..).zip(lines).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    #[test]
    fn files_of_variables_have_comments() {
        let found: Vec<_> = lines("\u{feff}# x\nA=1\n\n  # y\n\tB= 2 # no comment \r\n").collect();
        assert_eq!(found, [(2, "A=1"), (5, "B= 2 # no comment ")]);
        assert_eq!(lines("\u{feff}A=1").next(), Some((1, "A=1")));
    }

    #[test]
    fn files_of_variables_are_regular_and_short() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        mkfifoat(CWD, path("fifo"), Mode::RWXU).unwrap();
        fs::write(path("long"), vec![b'#'; 1 + (1 << 20)]).unwrap();
        fs::write(path("good"), "# x\nA=1\n").unwrap();
        let read = |name: &str| {
            let options = Build::of(&["app", "--env-file", path(name).to_str().unwrap(), "--env", "A=2"]);
            variables(&options).map_err(|error| format!("{error:#}"))
        };
        let pair = |value: &str| ("A".to_owned(), value.to_owned());
        assert_eq!(read("good").unwrap(), [pair("1"), pair("2")]);
        fs::write(path("spaces"), "B=1\nA =1\n").unwrap();
        assert!(read("spaces").unwrap_err().ends_with("line 2: the name `A ` has a space"));
        assert!(read("fifo").unwrap_err().ends_with("not a regular file"));
        assert!(read("long").unwrap_err().ends_with("more than 1048576 bytes"));
    }

    #[test]
    fn builders_say_who_builds() {
        let mut config: ImageConfig = serde_json::from_str(
            r#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}"#,
        )
        .unwrap();
        let args = &["app", "--builder", "b"][..];
        assert!(
            builder_user(&Build::of(args), &config).unwrap_err().to_string().contains("`b` is no builder")
        );
        config.config.set_env("CNB_USER_ID", "1001");
        config.config.set_env("CNB_GROUP_ID", "1000");
        assert_eq!(builder_user(&Build::of(args), &config).unwrap(), User { uid: 1001, gid: 1000 });
        let other = Build::of(&["app", "--builder", "b", "--uid", "7", "--gid", "8"]);
        assert_eq!(builder_user(&other, &config).unwrap(), User { uid: 7, gid: 8 });
        for id in ["0", "4294967295", "-1", "cnb"] {
            config.config.set_env("CNB_USER_ID", id);
            assert!(builder_user(&Build::of(args), &config).is_err(), "{id}");
        }
    }
}
