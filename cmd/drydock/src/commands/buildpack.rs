//! `drydock buildpack package`, `drydock buildpack new`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use drydock_encode::compress::Compression;
use drydock_images::builder::package::{package, package_file};
use drydock_images::builder::skeleton;
use drydock_images::export::File;
use drydock_io::lock::Identity;
use drydock_spec::module::ModuleName;
use serde_json::json;

use super::Context;
use super::builder::options;
use super::export::write;
use crate::cli::ForPlatform;
use crate::exit::Usage;

/// What can be done with buildpacks.
#[derive(Debug, Subcommand)]
pub(crate) enum BuildpackCommand {
    /// Make a package of a buildpack or an extension: an image in the repository, or a file
    Package {
        /// The folder: `buildpack.toml` or `extension.toml`, and maybe a `package.toml` that names dependencies
        dir: PathBuf,
        /// What the image is called
        #[arg(required_unless_present = "output")]
        name: Option<String>,
        /// Write the package to this file instead
        #[arg(long, short, value_name = "FILE.cnb", conflicts_with = "name")]
        output: Option<PathBuf>,
        /// How layers are compressed: `gzip`, `zstd` or `none`, with a level if any: `gzip:6`
        #[arg(long, default_value = "gzip:1")]
        compression: Compression,
        #[command(flatten)]
        platform: ForPlatform,
    },
    /// Write a buildpack to begin with, in shell
    New {
        /// A new folder
        dir: PathBuf,
        /// Its ID, like `acme/hello`
        #[arg(long)]
        id: String,
        /// Its version
        #[arg(long, default_value = "0.1.0")]
        version: String,
    },
}

pub(crate) fn run(context: &mut Context, command: BuildpackCommand) -> Result<u8> {
    match command {
        BuildpackCommand::Package { dir, name, output, compression, platform } => {
            let mut options = options(compression, &platform);
            let (repository, progress) = (&context.repository, &context.progress);
            let (packaged, to) = match (name, output) {
                (Some(name), _) => {
                    let to = repository.locate(&name)?;
                    (package(repository, &dir, &to, &options, progress)?, name)
                }
                (None, Some(path)) => {
                    options.without = Identity::of(&path).into_iter().collect();
                    let put = |to: &mut dyn Write| package_file(repository, &dir, to, &options, progress);
                    write(&File::Path(path), &progress.signals, put)?
                }
                (None, None) => return Err(Usage("name an image, or a file with -o".to_owned()).into()),
            };
            context.left(packaged.left.as_ref());
            let (digest, modules) = (packaged.committed.digest, packaged.modules);
            // What is written to standard output is the package.
            if to == "-" {
                return Ok(0);
            }
            if context.json {
                context.out.json(&json!({"target": to, "digest": digest, "modules": modules}))?;
            } else if !context.quiet {
                context.out.line(&format!("{to} is {digest}: {}", modules.join(", ")))?;
            }
        }
        BuildpackCommand::New { dir, id, version } => {
            let name = ModuleName::new(&id, &version).map_err(|error| Usage(error.to_string()))?;
            let files = skeleton::write(&dir, &name)?;
            if context.json {
                context.out.json(&json!({"path": dir, "files": files}))?;
            } else if !context.quiet {
                context.out.line(&format!("{name} is in {}: {}", dir.display(), files.join(", ")))?;
            }
        }
    }
    Ok(0)
}
