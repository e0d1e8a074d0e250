//! The environment that buildpacks and extensions run in.
//!
//! What the files in environment folders mean is `drydock_env`'s; here they are read. Specification: `buildpack.md`
//! § Environment, `platform.md` § Environment.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use drydock_env::{Action, BUILD_PATHS, Env, EnvFile};
use drydock_spec::analyzed::Target;
use drydock_spec::api::BuildpackApi;

use crate::{file, limits};

/// What all buildpacks of a build share: some variables of the phase's own environment, and what earlier buildpacks'
/// build layers have added.
#[derive(Debug, Clone)]
pub struct BuildEnv {
    env: Env,
}

/// One run of a buildpack's or an extension's executable.
#[derive(Debug, Clone, Copy)]
pub struct Invocation<'a> {
    /// The Buildpack API that it speaks.
    pub api: BuildpackApi,
    /// Where it is: `CNB_BUILDPACK_DIR` or `CNB_EXTENSION_DIR`, and the folder.
    pub root_dir: (&'static str, &'a Path),
    /// Whether it does without the variables that the user gave (`clear-env`).
    pub clear_env: bool,
    /// The platform directory.
    pub platform_dir: &'a Path,
    /// Where the builder image's author says which variables builds get.
    pub build_config_dir: &'a Path,
    /// Paths that it gets as arguments, too, under the names that they have from Buildpack API 0.8 on.
    pub paths: &'a [(&'static str, &'a Path)],
    /// What the run image runs on; see [`crate::target::complete`].
    pub target: &'a Target,
    /// `CNB_EXEC_ENV`; empty where there is none.
    pub exec_env: &'a str,
}

impl BuildEnv {
    /// Takes those variables of the phase's own environment that buildpacks may see.
    pub fn new(environment: &[(OsString, OsString)]) -> Self {
        let mut env = Env::default();
        for (name, value) in environment {
            env.set(name.as_bytes(), value.as_bytes());
        }
        Self { env: env.for_build() }
    }

    /// Adds what a build layer offers to the buildpacks that come after its own.
    pub fn add_layer(&mut self, layer: &Path) -> anyhow::Result<()> {
        self.env
            .add_layer_paths(layer.as_os_str().as_bytes(), BUILD_PATHS, |dir| {
                Path::new(OsStr::from_bytes(dir)).try_exists()
            })
            .with_context(|| format!("look for folders in layer {}", layer.display()))?;
        for dir in ["env", "env.build"] {
            self.env.apply_files(&read_env_dir(&layer.join(dir))?, Action::Override);
        }
        Ok(())
    }

    /// The variables of one invocation, in byte order of their names.
    pub fn variables(&self, invocation: &Invocation<'_>) -> anyhow::Result<Vec<(OsString, OsString)>> {
        let Invocation { api, root_dir, clear_env, platform_dir, build_config_dir, paths, target, exec_env } =
            *invocation;
        let mut env = self.env.clone();
        if !clear_env {
            env.apply_platform_files(&read_env_dir(&platform_dir.join("env"))?);
        }
        env.apply_files(&read_env_dir(&build_config_dir.join("env"))?, Action::Default);

        let mut set_path = |name: &str, path: &Path| env.set(name, path.as_os_str().as_bytes());
        set_path(root_dir.0, root_dir.1);
        if api.has_dir_variables() {
            set_path("CNB_PLATFORM_DIR", platform_dir);
            for (name, path) in paths {
                set_path(name, path);
            }
        }
        if api.has_targets() {
            for (name, value) in target_variables(target) {
                env.set(name, value);
            }
        }
        if api.has_exec_env() && !exec_env.is_empty() {
            env.set("CNB_EXEC_ENV", exec_env);
        }

        let to_os = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        env.iter()
            .map(|(name, value)| {
                if value.contains(&0) {
                    bail!("the value of environment variable `{}` has a NUL byte in it", name.escape_ascii());
                }
                Ok((to_os(name), to_os(value)))
            })
            .collect()
    }
}

/// The variables that tell a target; those without a value are left out, operating system and architecture never.
fn target_variables(target: &Target) -> impl Iterator<Item = (&'static str, &str)> {
    let distro = target.distro.as_ref();
    let optional = [
        ("CNB_TARGET_ARCH_VARIANT", target.arch_variant.as_str()),
        ("CNB_TARGET_DISTRO_NAME", distro.map_or("", |distro| &distro.name)),
        ("CNB_TARGET_DISTRO_VERSION", distro.map_or("", |distro| &distro.version)),
    ];
    [("CNB_TARGET_OS", target.os.as_str()), ("CNB_TARGET_ARCH", target.arch.as_str())]
        .into_iter()
        .chain(optional.into_iter().filter(|(_, value)| !value.is_empty()))
}

/// The files of an environment folder in byte order of their names; none if there is no such folder. Folders in it do
/// not count. Together they have at most [`limits::ENV_DIR`] bytes.
fn read_env_dir(dir: &Path) -> anyhow::Result<Vec<EnvFile>> {
    let read = || -> anyhow::Result<Vec<EnvFile>> {
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut files = Vec::new();
        let mut left = limits::ENV_DIR;
        for entry in entries {
            let (name, path) = entry.map(|entry| (entry.file_name(), entry.path()))?;
            if !fs::metadata(&path).map_err(file::failed("stat", &path))?.is_dir() {
                let contents = file::read(&path, left)?;
                left -= contents.len() as u64;
                files.push(EnvFile { name: name.into_vec(), contents });
            }
        }
        files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    };
    read().with_context(|| format!("read environment files of {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use drydock_spec::analyzed::Distro;
    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    /// A platform directory, a build configuration and layers, all in one temporary folder.
    struct Dirs {
        root: tempfile::TempDir,
        platform: PathBuf,
        config: PathBuf,
        target: Target,
    }

    impl Dirs {
        /// Of these files, given as path and contents.
        fn with(files: &[(&str, &[u8])]) -> Self {
            let root = tempfile::tempdir().unwrap();
            for (path, contents) in files {
                let path = root.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, contents).unwrap();
            }
            let path = |name: &str| root.path().join(name);
            Self { platform: path("platform"), config: path("config"), target: Target::default(), root }
        }

        fn link(&self, name: &str, to: &str) {
            symlink(self.root.path().join(to), self.root.path().join(name)).unwrap();
        }

        fn invocation(&self) -> Invocation<'_> {
            Invocation {
                api: "0.7".parse().unwrap(),
                root_dir: ("CNB_BUILDPACK_DIR", Path::new("/bp")),
                clear_env: false,
                platform_dir: &self.platform,
                build_config_dir: &self.config,
                paths: &[],
                target: &self.target,
                exec_env: "",
            }
        }

        /// What a buildpack sees, besides [`Invocation::root_dir`].
        fn seen(&self, env: &BuildEnv, invocation: &Invocation<'_>) -> Vec<String> {
            let text = |part: &OsStr| part.to_string_lossy().replace(self.root.path().to_str().unwrap(), "");
            let variables = env.variables(invocation).unwrap();
            variables
                .iter()
                .filter(|(name, _)| name != invocation.root_dir.0)
                .map(|(name, value)| format!("{}={}", text(name), text(value)))
                .collect()
        }
    }

    fn environment(vars: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        vars.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn of_the_own_environment_only_what_is_listed_is_seen() {
        let env =
            BuildEnv::new(&environment(&[("HOME", "/h"), ("PATH", "/p"), ("CNB_X", "1"), ("TOKEN", "s")]));
        let dirs = Dirs::with(&[]);
        assert_eq!(dirs.seen(&env, &dirs.invocation()), ["HOME=/h", "PATH=/p"]);
    }

    #[test]
    fn layers_add_up() {
        let dirs = Dirs::with(&[
            ("a/bin/x", b""),
            ("a/lib/x", b""),
            ("a/include/x", b""),
            ("a/pkgconfig/x", b""),
            ("a/env/A", b"env"),
            ("a/env.build/A.append", b"+build"),
            ("a/env.launch/A", b"launch"),
            ("a/env/B.default", b"first"),
            ("b/bin/x", b""),
            ("b/env/B.default", b"second"),
        ]);
        let mut env = BuildEnv::new(&environment(&[("PATH", "/p")]));
        for layer in ["a", "b", "missing"] {
            env.add_layer(&dirs.root.path().join(layer)).unwrap();
        }
        assert_eq!(
            dirs.seen(&env, &dirs.invocation()),
            [
                "A=env+build",
                "B=first",
                "CPATH=/a/include",
                "LD_LIBRARY_PATH=/a/lib",
                "LIBRARY_PATH=/a/lib",
                "PATH=/b/bin:/a/bin:/p",
                "PKG_CONFIG_PATH=/a/pkgconfig",
            ]
        );
    }

    #[test]
    fn the_platform_overrides_and_the_builder_image_defaults() {
        let dirs = Dirs::with(&[
            ("platform/env/A", b"platform"),
            ("platform/env/PATH", b"/first"),
            ("platform/env/dir/X", b"not seen"),
            ("config/env/A", b"default"),
            ("config/env/B", b"default"),
            ("config/env/HOME.override", b"/built"),
        ]);
        let env = BuildEnv::new(&environment(&[("PATH", "/p"), ("HOME", "/h")]));
        assert_eq!(
            dirs.seen(&env, &dirs.invocation()),
            ["A=platform", "B=default", "HOME=/built", "PATH=/first:/p"]
        );
        assert_eq!(
            dirs.seen(&env, &Invocation { clear_env: true, ..dirs.invocation() }),
            ["A=default", "B=default", "HOME=/built", "PATH=/p"]
        );
    }

    #[test]
    fn buildpack_apis_bring_variables() {
        let (env, dirs) = (BuildEnv::new(&[]), Dirs::with(&[]));
        let distro = Distro { name: "debian".into(), version: "12".into() };
        let target =
            Target { os: "linux".into(), arch: "arm64".into(), distro: Some(distro), ..Default::default() };
        let paths = [("CNB_LAYERS_DIR", Path::new("/layers/x"))];
        let all = [
            "CNB_EXEC_ENV=test",
            "CNB_LAYERS_DIR=/layers/x",
            "CNB_PLATFORM_DIR=/platform",
            "CNB_TARGET_ARCH=arm64",
            "CNB_TARGET_DISTRO_NAME=debian",
            "CNB_TARGET_DISTRO_VERSION=12",
            "CNB_TARGET_OS=linux",
        ];
        for (api, expected) in [
            ("0.7", &all[..0]),
            ("0.8", &all[1..3]),
            ("0.9", &all[1..3]),
            ("0.10", &all[1..]),
            ("0.12", &all[..]),
        ] {
            let invocation = Invocation {
                api: api.parse().unwrap(),
                platform_dir: Path::new("/platform"),
                paths: &paths,
                target: &target,
                exec_env: "test",
                ..dirs.invocation()
            };
            assert_eq!(dirs.seen(&env, &invocation), expected, "{api}");
        }
    }

    #[test]
    fn values_are_bytes_and_no_byte_is_lost() {
        let dirs = Dirs::with(&[("platform/env/A", b"\xff\n"), ("config/env/x", b"")]);
        let root_dir = ("CNB_EXTENSION_DIR", Path::new("/ext"));
        let invocation = Invocation { root_dir, ..dirs.invocation() };
        let variables = BuildEnv::new(&[]).variables(&invocation).unwrap();
        assert_eq!(variables[0], ("A".into(), OsString::from_vec(b"\xff\n".to_vec())));
        assert_eq!(variables[1], ("CNB_EXTENSION_DIR".into(), "/ext".into()));

        fs::write(dirs.platform.join("env/A"), b"a\0b").unwrap();
        let error = BuildEnv::new(&[]).variables(&invocation).unwrap_err().to_string();
        assert!(error.contains("`A`") && error.contains("NUL"), "{error}");
    }

    #[test]
    fn links_count_as_what_they_lead_to() {
        let dirs = Dirs::with(&[("platform/env/A", b"a"), ("elsewhere/B", b"b")]);
        dirs.link("platform/env/FILE", "elsewhere/B");
        dirs.link("platform/env/DIR", "elsewhere");
        let env = BuildEnv::new(&[]);
        assert_eq!(dirs.seen(&env, &dirs.invocation()), ["A=a", "FILE=b"]);
        dirs.link("platform/env/BROKEN", "nothing");
        let error = read_env_dir(&dirs.platform.join("env")).unwrap_err();
        assert!(format!("{error:#}").contains("platform/env"), "{error:#}");
    }

    #[test]
    fn only_regular_files_within_the_limit() {
        let half = limits::ENV_DIR / 2;
        for (name, make, why) in [
            ("FIFO", mkfifo as fn(&Path), "not a regular file"),
            ("DEVICE", |path| symlink("/dev/zero", path).unwrap(), "not a regular file"),
            ("LARGE", |path| sparse(path, limits::ENV_DIR + 1), "more than"),
            ("SECOND", |path| sparse(path, limits::ENV_DIR / 2 + 1), "more than"),
        ] {
            let dirs = Dirs::with(&[("platform/env/A", b"a")]);
            let dir = dirs.platform.join("env");
            sparse(&dir.join("FIRST"), half - 1);
            assert_eq!(read_env_dir(&dir).unwrap().len(), 2);
            make(&dir.join(name));
            let error = format!("{:#}", read_env_dir(&dir).unwrap_err());
            assert!(error.contains("platform/env") && error.contains(why), "{error}");
        }
    }

    fn mkfifo(path: &Path) {
        mkfifoat(CWD, path, Mode::RWXU).unwrap();
    }

    fn sparse(path: &Path, size: u64) {
        fs::File::create(path).unwrap().set_len(size).unwrap();
    }
}
