//! Which phases a build runs: ours, or the builder's own.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use drydock_model::config::ImageConfig;
use drydock_spec::json;
use drydock_spec::module::{Apis, LIFECYCLE_APIS};

use super::steps::Phase;
use crate::cli_sandboxed::{self as cli, Build};
use crate::env;
use crate::exit::Usage;

/// The Platform APIs that phases can be spoken to in, the newest first. In older ones there are no layouts.
const PLATFORM_APIS: [&str; 3] = ["0.14", "0.13", "0.12"];

/// The phases of a build.
pub(super) struct Lifecycle {
    /// Their folder on this machine; none if they are the builder's.
    pub(super) dir: Option<PathBuf>,
    /// The Platform API that they are spoken to in.
    pub(super) api: &'static str,
}

impl Lifecycle {
    /// What runs beside a layout repository must be ours alone, unless the builder is trusted: a program that is linked dynamically
    /// would also run what the builder has for libraries.
    pub(super) fn find(options: &Build, builder: &ImageConfig) -> Result<Self> {
        let dir = match &options.lifecycle {
            Some(cli::Lifecycle::Builder) if !options.trust_builder => {
                let text = "the builder's own lifecycle would see the layout repository and the cache: --lifecycle builder needs \
                            --trust-builder";
                return Err(Usage(text.to_owned()).into());
            }
            Some(cli::Lifecycle::Builder) => return Ok(Self { dir: None, api: of_builder(builder)? }),
            Some(cli::Lifecycle::Dir(dir)) if is_there(dir) => dir.clone(),
            Some(cli::Lifecycle::Dir(dir)) => bail!("`{}` has no `creator` and `launcher`", dir.display()),
            None => {
                let own = env::own_dir().context("cannot find the folder of this executable")?;
                let found = [own.join("lifecycle"), own.clone()].into_iter().find(|dir| is_there(dir));
                found.with_context(|| {
                    format!("the phases are not in `{}`: name their folder with --lifecycle", own.display())
                })?
            }
        };
        if !options.trust_builder && is_dynamic(&dir.join(Phase::Export.name()))? {
            bail!(
                "the phases in `{}` are linked dynamically, and would run the builder's libraries: take those that `cargo run -p \
                 drydock-package` makes, or --trust-builder",
                dir.display()
            );
        }
        let dir = fs::canonicalize(&dir).with_context(|| format!("cannot find `{}`", dir.display()))?;
        Ok(Self { dir: Some(dir), api: PLATFORM_APIS[0] })
    }
}

fn is_there(dir: &Path) -> bool {
    dir.join(Phase::Create.name()).is_file() && dir.join("launcher").is_file()
}

/// The newest Platform API that a builder's lifecycle speaks, too.
fn of_builder(builder: &ImageConfig) -> Result<&'static str> {
    let label = builder.label(LIFECYCLE_APIS);
    let label = label.with_context(|| {
        format!("the builder does not say what its lifecycle speaks: it has no label `{LIFECYCLE_APIS}`")
    })?;
    let apis: Apis =
        json::from_str(label).with_context(|| format!("the builder's label `{LIFECYCLE_APIS}`"))?;
    let api = PLATFORM_APIS.into_iter().find(|api| apis.platform.have(api));
    api.with_context(|| {
        let spoken = apis.platform.supported.join(", ");
        format!(
            "the builder's lifecycle speaks Platform API {spoken}; for image layouts, it takes one of {}",
            PLATFORM_APIS.join(", ")
        )
    })
}

/// Whether an executable names a loader, which every file with shared libraries does.
fn is_dynamic(path: &Path) -> Result<bool> {
    let mut bytes = Vec::new();
    let read = drydock_io::read::open(path).and_then(|file| file.take(4096).read_to_end(&mut bytes));
    read.with_context(|| format!("cannot read `{}`", path.display()))?;
    Ok(names_loader(&bytes))
}

/// An ELF file of 64 bits has its program headers at its beginning.
fn names_loader(elf: &[u8]) -> bool {
    const INTERPRETER: u32 = 3;
    let number = |at: usize, length: usize| -> Option<u64> {
        let mut bytes = [0; 8];
        bytes[..length].copy_from_slice(elf.get(at..)?.get(..length)?);
        Some(u64::from_le_bytes(bytes))
    };
    let headers = || -> Option<(usize, usize, usize)> {
        let at = usize::try_from(number(0x20, 8)?).ok()?;
        Some((at, usize::try_from(number(0x36, 2)?).ok()?, usize::try_from(number(0x38, 2)?).ok()?))
    };
    elf.starts_with(b"\x7fELF\x02\x01")
        && headers().is_some_and(|(at, size, count)| {
            (0..count)
                .any(|n| at.checked_add(n * size).and_then(|at| number(at, 4)) == Some(INTERPRETER.into()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_api_of_both_is_spoken() {
        let config = |label: &str| -> ImageConfig {
            let text = r#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}"#;
            let mut config: ImageConfig = serde_json::from_str(text).unwrap();
            config.config.labels.insert(LIFECYCLE_APIS.to_owned(), label.to_owned());
            config
        };
        for (supported, want) in [
            (r#"["0.3","0.12","0.13"]"#, Ok("0.13")),
            (r#"["0.14","0.15"]"#, Ok("0.14")),
            (r#"["0.10"]"#, Err("speaks Platform API 0.10;")),
            ("3", Err("the builder's label")),
        ] {
            let label = format!(r#"{{"platform":{{"supported":{supported}}}}}"#);
            let found = of_builder(&config(&label)).map_err(|error| error.to_string());
            match (found, want) {
                (Ok(found), Ok(want)) => assert_eq!(found, want),
                (Err(error), Err(says)) => assert!(error.contains(says), "{error}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn executables_say_whether_they_are_dynamic() {
        assert!(is_dynamic(&std::env::current_exe().unwrap()).unwrap());
        let mut elf = vec![0; 0x40 + 0x38];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (elf[0x20], elf[0x36], elf[0x38]) = (0x40, 0x38, 1);
        elf[0x40] = 1;
        assert!(!names_loader(&elf));
        elf[0x40] = 3;
        assert!(names_loader(&elf));
        assert!(!names_loader(b"#!/bin/sh"));
        elf.truncate(0x30);
        assert!(!names_loader(&elf));
    }
}
