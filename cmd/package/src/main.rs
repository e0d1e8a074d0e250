//! `cargo run -p drydock-package` builds the executables as they ship, into `target/dist`, and packs them into
//! `target/lifecycle-<version>.tgz` for builder tools and, as an image, into `target/lifecycle-<version>.oci.tar`.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use drydock_package::archive::{self, Content, Entry};
use drydock_package::compile::{EXECUTABLES, Folders, LIFECYCLE, PHASES};
use drydock_package::dependencies::Dependencies;
use drydock_package::descriptor::Descriptor;
use drydock_package::sbom::{self, Subject};
use drydock_package::{cargo, compile, image, workspace};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is no other place to tell it.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let workspace = workspace();
    let target = cargo::target_dir(&workspace)?;
    let dist = target.join("dist");
    compile::compile(&Folders::new(&workspace, &target, &cargo::home()?)?, &dist)?;

    let (descriptor, entries) = entries(&workspace, &dist)?;
    let layout = image::layout(&descriptor, &entries)?;
    let path = |kind: &str| target.join(format!("lifecycle-{}.{kind}", descriptor.version()));
    let (image, archive) = (path("oci.tar"), path("tgz"));
    archive::write_file(&image, &archive::tar(&layout)?)?;
    archive::write_file(&archive, &archive::gzip(&archive::tar(&entries)?)?)?;

    let mut out = std::io::stdout();
    for Entry { path, content } in &entries {
        if let Content::Executable(bytes) = content {
            writeln!(out, "{path}: {} KiB", bytes.len().div_ceil(1024))?;
        }
    }
    writeln!(out, "{}\n{}\n{}", dist.display(), image.display(), archive.display())?;
    Ok(())
}

/// What goes into the archive.
fn entries(workspace: &Path, dist: &Path) -> Result<(Descriptor, Vec<Entry>)> {
    let entry = |name: &str, content| Entry { path: format!("lifecycle/{name}"), content };
    let mut version = String::new();
    let mut files = Vec::new();
    for executable in EXECUTABLES {
        let name = executable.name;
        let path = dist.join(name);
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let dependencies = Dependencies::of(executable, workspace)?;
        if executable == LIFECYCLE {
            version.clone_from(&dependencies.root.version);
        }
        let subject = Subject { name, sha256: sbom::sha256(&bytes), dependencies };
        files.push(entry(name, Content::Executable(bytes)));
        for (format, document) in sbom::FORMATS {
            let mut text = serde_json::to_vec_pretty(&document(&subject)).context("write JSON")?;
            text.push(b'\n');
            files.push(entry(&format!("{name}.sbom.{format}.json"), Content::File(text)));
        }
    }
    files.extend(PHASES.map(|phase| entry(phase, Content::Link(LIFECYCLE.name.to_owned()))));
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let descriptor = Descriptor::new(&version);
    let toml = Content::File(descriptor.toml()?.into_bytes());
    let mut entries = vec![
        Entry { path: "lifecycle.toml".to_owned(), content: toml },
        Entry { path: "lifecycle".to_owned(), content: Content::Dir },
    ];
    entries.extend(files);
    Ok((descriptor, entries))
}
