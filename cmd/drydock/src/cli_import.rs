//! What can be asked of `drydock import`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use drydock_encode::compress::Compression;
use drydock_images::import::Source;
use drydock_model::platform::Platform;

use crate::cli::platform;
use crate::cli_sandboxed::{Sandboxed, duration, time};

/// What `--help` ends with.
pub(crate) const EXAMPLES: &str = "\
Examples:
  drydock import docker://node:22
  drydock import oci-archive:app.tar acme/app:1.0
  drydock import dockerfile:. acme/shop --build-arg VERSION=1.0 --secret id=npm,src=.npmrc
  drydock import dockerfile:https://example.com/shop.tar.gz acme/shop --file docker/Dockerfile
  drydock import dockerfile:git+https://git.example.com/web/shop.git#v1.2 acme/shop:1.2 --context services/shop
  drydock import dockerfile:git+ssh://git@git.example.com/web/shop#main@0123…(40 digits) acme/shop --ssh-key deploy_key

Base images of a Dockerfile are taken from the repository; those that are not there come from registries, as the file of sources allows,
and stay. A git repository is `git+https://`, `git+ssh://` or `git+file://`, with `#BRANCH`, `#TAG`, `#HASH` or `#BRANCH@HASH`, and
`:FOLDER` behind that for a folder of it. A commit must be on the branch, or, without one, on any branch or tag. Its user and token are
those that `auth` in the file of sources, `drydock login` or git's credential helpers have. A lock file has the digests of base images
that were imported; a git repository is locked by the hash of a commit.";

/// `drydock import`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "they are flags of a command line")]
pub(crate) struct Import {
    /// `docker://NAME`, `oci:DIR[:tag]`, `oci-archive:FILE[:tag]`, `docker-archive:FILE[:name]`,
    /// `rootfs:TAR-or-DIR`, `https://…` for an archive, `rootfs:https://…`, or `SOURCE/NAME` from the file of sources; to build a
    /// Dockerfile, `dockerfile:DIR`, `dockerfile:TAR`, `dockerfile:https://…` for a tar, `dockerfile:git+https://…[#REF[:FOLDER]]`
    #[arg(required_unless_present = "all")]
    pub(crate) source: Option<Source>,
    /// What it is called here [default: what it is called where it comes from]
    pub(crate) name: Option<String>,
    /// Only for this platform [default: all; of a Dockerfile, that of this machine]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_parser = platform)]
    pub(crate) platform: Option<Platform>,
    /// As one layer, for one platform
    #[arg(long)]
    pub(crate) flatten: bool,
    /// How layers are compressed that are made anew: `gzip`, `zstd` or `none`, with a level if any: `gzip:6`
    #[arg(long, default_value = "gzip:1")]
    pub(crate) compression: Compression,
    /// Every image that the file of sources lists
    #[arg(long, conflicts_with = "source")]
    pub(crate) all: bool,
    /// Write the digest of what is imported into the lock file beside the file of sources
    #[arg(long, conflicts_with = "locked")]
    pub(crate) lock: bool,
    /// Only what the lock file has, with the digest that it has
    #[arg(long)]
    pub(crate) locked: bool,
    #[command(flatten)]
    pub(crate) dockerfile: DockerfileOptions,
}

/// What is said of a Dockerfile.
#[derive(Debug, Args)]
#[command(next_help_heading = "Of a Dockerfile")]
pub(crate) struct DockerfileOptions {
    /// The build file: its path in the source [default: `Dockerfile` in the context]
    #[arg(long, short, value_name = "PATH")]
    pub(crate) file: Option<String>,
    /// The folder that files are copied from: its path in the source [default: all of the source]
    #[arg(long, value_name = "PATH")]
    pub(crate) context: Option<String>,
    /// A value for an `ARG`; without a value, that of this command's variable. It is told in the image's history: no secret
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// The stage that becomes the image [default: the last one]
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// What `RUN --mount=type=secret,id=ID` sees, and nothing else: a file, or the value of a variable [default: of that called ID]
    #[arg(long, value_name = "id=ID[,src=FILE|,env=VARIABLE]", value_parser = secret)]
    pub(crate) secret: Vec<Secret>,
    /// The private key for git by SSH [default: those of the agent, and of ~/.ssh]
    #[arg(long, value_name = "FILE")]
    pub(crate) ssh_key: Option<PathBuf>,
    /// Carry every instruction out, whatever is known from earlier builds
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// When everything is said to have been made, in seconds since 1970, or `now`; no file is later [default: `$SOURCE_DATE_EPOCH`, else
    /// now, with files' own times]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) creation_time: Option<u64>,
    /// Stop the build after this time: `90s`, `15m`, `1h`
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) sandboxed: Sandboxed,
}

impl DockerfileOptions {
    /// The first of these that was given, for what is no Dockerfile.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let given = [
            ("--file", self.file.is_some()),
            ("--context", self.context.is_some()),
            ("--build-arg", !self.build_arg.is_empty()),
            ("--target", self.target.is_some()),
            ("--secret", !self.secret.is_empty()),
            ("--ssh-key", self.ssh_key.is_some()),
            ("--no-cache", self.no_cache),
            ("--creation-time", self.creation_time.is_some()),
            ("--timeout", self.timeout.is_some()),
        ];
        given.into_iter().find_map(|(name, is_given)| is_given.then_some(name))
    }
}

/// A secret, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Secret {
    pub(crate) id: String,
    pub(crate) place: SecretPlace,
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretPlace {
    File(PathBuf),
    Variable(String),
}

fn secret(text: &str) -> Result<Secret, String> {
    let expected = || "expected `id=ID`, and `src=FILE` or `env=VARIABLE` behind a comma".to_owned();
    let (mut id, mut file, mut variable) = (None, None, None);
    for pair in text.split(',') {
        let (name, value) =
            pair.split_once('=').filter(|(_, value)| !value.is_empty()).ok_or_else(expected)?;
        let place = match (name, value) {
            ("type", "file" | "env") => continue,
            ("id", _) => &mut id,
            ("src" | "source", _) => &mut file,
            ("env", _) => &mut variable,
            _ => return Err(expected()),
        };
        if place.replace(value.to_owned()).is_some() {
            return Err(expected());
        }
    }
    let id = id.ok_or_else(expected)?;
    let place = match (file, variable) {
        (Some(file), None) => SecretPlace::File(file.into()),
        (None, variable) => SecretPlace::Variable(variable.unwrap_or_else(|| id.clone())),
        (Some(_), Some(_)) => return Err(expected()),
    };
    Ok(Secret { id, place })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_say_where_they_are() {
        let file = |path: &str| SecretPlace::File(path.into());
        let variable = |name: &str| SecretPlace::Variable(name.to_owned());
        for (text, want) in [
            ("id=a,src=/x=y", Some(file("/x=y"))),
            ("type=file,source=x,id=a", Some(file("x"))),
            ("id=a,env=B", Some(variable("B"))),
            ("id=a", Some(variable("a"))),
            ("src=x", None),
            ("id=a,src=x,env=B", None),
            ("id=a,id=b", None),
            ("id=", None),
            ("id=a,other=x", None),
            ("", None),
        ] {
            let want = want.map(|place| Secret { id: "a".to_owned(), place });
            assert_eq!(secret(text).ok(), want, "{text}");
        }
    }
}
