//! What can be asked for, and how.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use drydock_encode::compress::Compression;
use drydock_images::export::Target;
use drydock_images::list::Listed;
use drydock_model::platform::Platform;

use crate::cli_import::{EXAMPLES, Import};
use crate::cli_sandboxed::{Build, Run, Shell};
use crate::commands::builder::BuilderCommand;
use crate::commands::buildpack::BuildpackCommand;
use crate::commands::ls::Format;

/// What `--help` ends with.
const EXIT_CODES: &str = "\
Exit codes:
  0    done; no difference, no damage
  1    damage, or a difference, was found
  2    the command line is not right
  3    there is no such image, or none for the platform
  4    something else failed: no permission, no room, …
  130  stopped by Ctrl-C (143 by SIGTERM); nothing is left half-written

A NAME is an image reference (`app`, `acme/run:base`, `example.com/app@sha256:…`), or a path to a layout that begins
with `/`, `./` or `../`.";

const LAYOUT_DIR: &str = "The layout repository [default: $CNB_OCI_LAYOUT_PATH, else /layout-repo if it is there, else ./layout-repo]";

const SOURCES: &str = "The file that says what may come from where [default: $DRYDOCK_SOURCES, else drydock/sources.toml in $XDG_CONFIG_HOME or /etc]";

/// Handles a repository of OCI image layouts.
#[derive(Debug, Parser)]
#[command(name = "drydock", version, after_help = EXIT_CODES, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What all commands take.
#[derive(Debug, Args)]
pub(crate) struct Global {
    #[arg(long, global = true, value_name = "DIR", help = LAYOUT_DIR)]
    pub(crate) layout_dir: Option<PathBuf>,
    #[arg(long, global = true, value_name = "FILE", help = SOURCES)]
    pub(crate) sources: Option<PathBuf>,
    /// Print answers and errors only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Print the answer as JSON, and progress as events, a line of JSON each, on standard error
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Which of an image's platforms.
#[derive(Debug, Args)]
pub(crate) struct ForPlatform {
    /// Which image, where a name has several: `linux/arm64`, `linux/arm/v7` [default: that of this machine]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_parser = platform)]
    pub(crate) platform: Option<Platform>,
}

impl ForPlatform {
    pub(crate) fn get(&self) -> Platform {
        self.platform.clone().unwrap_or_else(Platform::host)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List images: platforms, sizes, what they share with others
    Ls {
        /// Only names that have this in them, or fit it if it has `*`, `?` or `[`
        pattern: Option<String>,
        /// How each is printed, with {name}, {repository}, {tag}, {digest}, {platforms}, {size}, {own}, {linked}, {copied},
        /// {lacking}, {created}, {base}, {path}; `\t` and `\n` are tab and line feed
        #[arg(long, value_name = "TEXT", conflicts_with = "json")]
        format: Option<Format>,
    },
    /// Show all that is to be known of an image without unpacking it
    Inspect {
        name: String,
        /// Print the manifest as it is stored
        #[arg(long, conflicts_with = "json")]
        raw: bool,
        #[command(flatten)]
        platform: ForPlatform,
    },
    /// Show what each layer adds, changes and removes, and what space is wasted
    Tree {
        name: String,
        /// Only this layer, from 1 on
        #[arg(long, value_name = "N")]
        layer: Option<usize>,
        #[command(flatten)]
        platform: ForPlatform,
    },
    /// Show in what two images differ; exit code 1 if they do
    Diff {
        #[arg(value_name = "A")]
        before: String,
        #[arg(value_name = "B")]
        after: String,
        #[command(flatten)]
        platform: ForPlatform,
    },
    /// List the SBOM files in an image, print them merged, or write them to a folder
    Sbom {
        name: String,
        /// Print all files of this format as one document
        #[arg(long, value_enum)]
        format: Option<SbomFormat>,
        /// Only those of this buildpack (`acme_a`) or layer (`acme_a:lib`)
        #[arg(long, value_name = "LAYER")]
        layer: Option<String>,
        /// Write the files, each as it is, below this folder
        #[arg(long, short, value_name = "DIR")]
        output: Option<PathBuf>,
        #[command(flatten)]
        platform: ForPlatform,
    },
    /// Print what the phases printed when an image was built, if they were given `-log-file auto`
    Log {
        /// The image; or a file that phases were given with `-log-file`, as a path that begins with `/`, `./` or `../`
        name: String,
        /// Print the log of the build that runs, and go on until it ends
        #[arg(long, short)]
        follow: bool,
        #[command(flatten)]
        platform: ForPlatform,
    },
    /// Check every digest, size, diff ID, configuration, label and index; exit code 1 on damage
    Verify {
        /// Which images [default: all]
        names: Vec<String>,
    },
    /// Give an image further names, for all its platforms
    Tag {
        name: String,
        #[arg(required = true)]
        new: Vec<String>,
    },
    /// Take names away; `gc` removes what only they led to, when nobody can be reading it any more
    Rm {
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Remove what is of no use: blobs that nothing leads to, and what killed programs left
    ///
    /// Of the user's cache (`~/.cache/drydock`), images' unpacked files that nobody has used for seven days go as well, and caches of
    /// builds that nobody has used for as long and whose image is gone. What is in use stays.
    Gc {
        /// Only say what would be removed
        #[arg(long, short = 'n')]
        dry_run: bool,
        /// Remove all of the user's cache, however new it is
        #[arg(long, conflicts_with = "dry_run")]
        all: bool,
    },
    /// Make an image of one layer
    Flatten {
        name: String,
        /// What the new image is called; without this, it takes the place of the old one
        new: Option<String>,
        /// How the layer is compressed: `gzip`, `zstd` or `none`, with a level if any: `gzip:6`
        #[arg(long, default_value = "gzip:1")]
        compression: Compression,
        #[command(flatten)]
        platform: ForPlatform,
    },
    /// Make builders, and look into them
    #[command(subcommand)]
    Builder(BuilderCommand),
    /// Begin buildpacks, and package them
    #[command(subcommand)]
    Buildpack(BuildpackCommand),
    /// Bring an image from elsewhere, with the digest that it has; or build it by a Dockerfile
    #[command(after_help = EXAMPLES)]
    Import(Box<Import>),
    /// Write an image to elsewhere
    Export {
        name: String,
        /// `docker://NAME`, `oci:DIR[:tag]`, `oci-archive:FILE[:tag]`, `docker-archive:FILE[:name]` or, for the files of the image,
        /// `dir:DIR`; `-` as FILE is standard output
        target: Target,
        /// Only for this platform [default: all; for `docker-archive` and `dir` that of this machine]
        #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_parser = platform)]
        platform: Option<Platform>,
    },
    /// Build an app's source into an image, without a daemon and without root
    ///
    /// The builder and the run image are in the layout repository, and so will be the app image. Exit codes are those of the phase that
    /// fails: 20 if no group of buildpacks fits, 51 if a buildpack fails, …
    Build(Box<Build>),
    /// Start an app image to try it; signals and the exit code pass through, and what has not ended ten seconds after a signal is killed; on a terminal, keys are the app's own, and Ctrl-C ends one that does nothing about it
    Run(Run),
    /// Start a shell in an image's file system; nothing that is changed there is kept
    Shell(Shell),
    /// Keep the credentials for a registry where docker and podman find them, too
    Login {
        registry: String,
        #[arg(long, short)]
        user: Option<String>,
        /// Read the password from standard input; without this, it is asked for
        #[arg(long)]
        password_stdin: bool,
        /// Do not ask the host whether they are right: for one that has git repositories, and no registry
        #[arg(long)]
        unchecked: bool,
    },
    /// Forget the credentials for a registry
    Logout { registry: String },
    /// Print what a shell needs to complete commands
    Completions { shell: clap_complete::Shell },
    /// Print the manual page, or that of a command
    Man { command: Option<String> },
}

impl Command {
    /// How long it may take.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        match self {
            Self::Build(build) => build.timeout,
            Self::Import(import) => import.dockerfile.timeout,
            _ => None,
        }
    }
}

/// A format of SBOM files.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum SbomFormat {
    #[value(name = "cyclonedx")]
    CycloneDx,
    Spdx,
    Syft,
}

pub(crate) fn platform(text: &str) -> Result<Platform, String> {
    let parts: Vec<&str> = text.split('/').collect();
    match parts.as_slice() {
        [os, architecture, rest @ ..] if rest.len() < 2 && parts.iter().all(|part| !part.is_empty()) => {
            Ok(Platform {
                os: (*os).to_owned(),
                architecture: (*architecture).to_owned(),
                variant: rest.first().map(|variant| (*variant).to_owned()),
                ..Platform::default()
            })
        }
        _ => Err("expected an operating system and an architecture, as in `linux/arm64`".to_owned()),
    }
}

/// The value of a field that `ls --format` knows.
pub(crate) fn field(listed: &Listed, name: &str) -> Option<String> {
    Some(match name {
        "name" => listed.name.clone(),
        "repository" => listed.repository.clone(),
        "tag" => listed.tag.clone(),
        "digest" => listed.digest.map(|digest| digest.to_string()).unwrap_or_default(),
        "platforms" => listed.platforms.join(","),
        "size" => listed.size.to_string(),
        "own" => listed.own.to_string(),
        "linked" => listed.linked.to_string(),
        "copied" => listed.copied.to_string(),
        "lacking" => listed.lacking.to_string(),
        "created" => listed.created.clone().unwrap_or_default(),
        "base" => listed.base.clone().unwrap_or_default(),
        "path" => listed.path.clone(),
        _ => return None,
    })
}
