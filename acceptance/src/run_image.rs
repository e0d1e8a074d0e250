//! A small but real run image: a busybox user land in two layers, with a config such as images in the wild have. The same
//! busybox gives the same bytes.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};

use crate::layout::REF_NAME;
use crate::stage::{GID, UID};
use crate::tools::BUSYBOX;
use crate::tree::{Kind, Node, Tree};

/// What was written.
#[derive(Debug)]
pub struct RunImage {
    /// The image config.
    pub config: Value,
    /// The manifest's digest.
    pub digest: String,
    /// The files that the layers amount to.
    pub tree: Tree,
}

/// The image's name in its layout's index.
pub const NAME: &str = "latest";

/// Writes the image as the one image of a layout in `dir`, a folder that does not exist yet.
pub fn write(dir: &Path) -> Result<RunImage> {
    write_with(dir, &[])
}

/// The same with a third layer: these files of this machine, at the same absolute paths. Links become what they lead to.
pub fn write_with(dir: &Path, files: &[PathBuf]) -> Result<RunImage> {
    let added = if files.is_empty() { None } else { Some(layer_of(files)?) };
    write_stack(dir, added, &[])
}

/// The same with `cnb`, a folder, as `/cnb`, and with what a builder says of its user.
pub fn write_builder(dir: &Path, cnb: &Path) -> Result<RunImage> {
    let ids = [format!("CNB_USER_ID={UID}"), format!("CNB_GROUP_ID={GID}")];
    write_stack(dir, Some(layer_of_folder(cnb, "cnb")?), &ids)
}

fn write_stack(dir: &Path, added: Option<Entries>, env: &[String]) -> Result<RunImage> {
    let mut stack = vec![base_layer()?, update_layer()];
    stack.extend(added);
    let mut tree = Tree::new();
    for (path, (node, _)) in stack.iter().flatten() {
        match removed_by(path) {
            Some(removed) => tree.remove(&removed),
            None => tree.insert(path.into(), node.clone()),
        };
    }
    let blobs = Blobs { dir: dir.join("blobs/sha256") };
    fs::create_dir_all(&blobs.dir).with_context(|| format!("make {}", blobs.dir.display()))?;
    let mut layers = Vec::new();
    let mut diff_ids = Vec::new();
    for entries in stack {
        let tar = tar_of(&entries)?;
        let mut gzip = GzBuilder::new().write(Vec::new(), Compression::default());
        gzip.write_all(&tar)?;
        diff_ids.push(crate::sha256(&tar));
        layers.push(blobs.add(&gzip.finish()?, "application/vnd.oci.image.layer.v1.tar+gzip")?);
    }
    let mut config = config(&diff_ids)?;
    if let Some(variables) = config["config"]["Env"].as_array_mut() {
        variables.extend(env.iter().map(|variable| json!(variable)));
    }
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blobs.add(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json")?,
        "layers": layers,
    });
    let mut descriptor =
        blobs.add(manifest.to_string().as_bytes(), "application/vnd.oci.image.manifest.v1+json")?;
    let digest = descriptor["digest"].as_str().context("a descriptor has a digest")?.to_owned();
    descriptor["platform"] = json!({"os": config["os"], "architecture": config["architecture"]});
    descriptor["annotations"] = json!({REF_NAME: NAME});
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [descriptor],
    });
    put(&dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    put(&dir.join("index.json"), index.to_string().as_bytes())?;
    Ok(RunImage { config, digest, tree })
}

/// A layer's entries, by path; a file's content, or nothing.
type Entries = BTreeMap<String, (Node, Vec<u8>)>;

fn add(entries: &mut Entries, path: &str, mode: u32, kind: Kind, content: &[u8]) {
    entries.insert(path.to_owned(), (Node { kind, mode, uid: 0, gid: 0 }, content.to_owned()));
}

fn add_file(entries: &mut Entries, path: &str, mode: u32, content: &[u8]) {
    add(entries, path, mode, Kind::File(content.len() as u64, crate::sha256(content)), content);
}

fn base_layer() -> Result<Entries> {
    let busybox = fs::read("/bin/busybox").map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            anyhow::anyhow!("busybox is missing: apt-get install {}", BUSYBOX.package)
        }
        _ => anyhow::Error::new(error).context("read /bin/busybox"),
    })?;
    let applets =
        String::from_utf8(BUSYBOX.run(Path::new("/"), &["--list"])?).context("read busybox's list")?;
    let mut entries = Entries::new();
    for (path, mode) in [
        ("bin", 0o755),
        ("dev", 0o755),
        ("etc", 0o755),
        ("home", 0o755),
        ("home/cnb", 0o755),
        ("proc", 0o555),
        ("root", 0o700),
        ("sys", 0o555),
        ("tmp", 0o1777),
        ("usr", 0o755),
        ("usr/bin", 0o755),
        ("var", 0o755),
        ("var/mail", 0o2775),
    ] {
        add(&mut entries, path, mode, Kind::Dir, b"");
    }
    add_file(&mut entries, "bin/busybox", 0o755, &busybox);
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        add(&mut entries, &format!("bin/{applet}"), 0o777, Kind::Symlink("busybox".into()), b"");
    }
    add(&mut entries, "usr/bin/env", 0o777, Kind::Symlink("../../bin/busybox".into()), b"");
    add(&mut entries, "usr/bin/userland", 0o755, Kind::HardLink("bin/busybox".into()), b"");
    add_file(&mut entries, "usr/bin/as-root", 0o4755, b"#!/bin/sh\nexec id -u\n");
    add_file(
        &mut entries,
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\ncnb:x:1000:1000::/home/cnb:/bin/sh\n",
    );
    add_file(&mut entries, "etc/group", 0o644, b"root:x:0:\ncnb:x:1000:\n");
    add_file(&mut entries, "etc/shadow", 0o640, b"root:*:19000:0:99999:7:::\n");
    add_file(&mut entries, "etc/os-release", 0o644, b"ID=debian\nVERSION_ID=\"12\"\n");
    add_file(&mut entries, "etc/issue", 0o644, b"the first layer's\n");
    add_file(&mut entries, "home/cnb/.profile", 0o644, b"umask 022\n");
    for (path, (node, _)) in &mut entries {
        if path.starts_with("home/cnb") {
            (node.uid, node.gid) = (UID, GID);
        }
    }
    Ok(entries)
}

/// A second layer that replaces a file, removes one and adds one.
fn update_layer() -> Entries {
    let mut entries = Entries::new();
    add(&mut entries, "etc", 0o755, Kind::Dir, b"");
    add_file(&mut entries, "etc/.wh.issue", 0o644, b"");
    add_file(
        &mut entries,
        "etc/os-release",
        0o644,
        b"ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n",
    );
    add_file(&mut entries, "etc/motd", 0o644, "Grüße\n".as_bytes());
    entries
}

/// A layer of files that are on this machine.
fn layer_of(files: &[PathBuf]) -> Result<Entries> {
    let mut entries = Entries::new();
    for file in files {
        let content = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        let mode = fs::metadata(file)?.permissions().mode() & 0o777;
        let in_image = file.strip_prefix("/").with_context(|| format!("{} is absolute", file.display()))?;
        for parent in in_image.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            add(&mut entries, parent.to_str().context("a path is UTF-8")?, 0o755, Kind::Dir, b"");
        }
        add_file(&mut entries, in_image.to_str().context("a path is UTF-8")?, mode, &content);
    }
    Ok(entries)
}

/// A layer of a folder's files, below another name.
fn layer_of_folder(folder: &Path, name: &str) -> Result<Entries> {
    let mut entries = Entries::new();
    for found in walkdir::WalkDir::new(folder) {
        let found = found.with_context(|| format!("list {}", folder.display()))?;
        let path = Path::new(name).join(found.path().strip_prefix(folder).context("a walk stays inside")?);
        let path = path.to_str().context("a path is UTF-8")?.trim_end_matches('/');
        let mode = found.metadata()?.permissions().mode() & 0o777;
        if found.file_type().is_dir() {
            add(&mut entries, path, mode, Kind::Dir, b"");
        } else {
            let content =
                fs::read(found.path()).with_context(|| format!("read {}", found.path().display()))?;
            add_file(&mut entries, path, mode, &content);
        }
    }
    Ok(entries)
}

/// The path that a whiteout removes; None when `path` is none.
fn removed_by(path: &str) -> Option<PathBuf> {
    let (dir, name) = path.rsplit_once('/')?;
    Some(Path::new(dir).join(name.strip_prefix(".wh.")?))
}

fn tar_of(entries: &Entries) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, (node, content)) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(node.mode);
        header.set_uid(node.uid.into());
        header.set_gid(node.gid.into());
        header.set_mtime(1);
        header.set_size(content.len() as u64);
        match &node.kind {
            Kind::Dir => {
                header.set_entry_type(tar::EntryType::Directory);
                archive.append_data(&mut header, format!("{path}/"), content.as_slice())?;
            }
            Kind::File(..) => archive.append_data(&mut header, path, content.as_slice())?,
            Kind::Symlink(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                archive.append_link(&mut header, path, target)?;
            }
            Kind::HardLink(target) => {
                header.set_entry_type(tar::EntryType::Link);
                archive.append_link(&mut header, path, target)?;
            }
            other => bail!("{path}: no run image has a {other:?}"),
        }
    }
    Ok(archive.into_inner()?)
}

/// A config with what the platform specification asks for, what Docker adds to OCI's fields, and what vendors add.
fn config(diff_ids: &[String]) -> Result<Value> {
    let architecture = match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("no name is known for the architecture {other}"),
    };
    let created = "2024-01-02T03:04:05Z";
    let mut history = vec![
        json!({"created": created, "created_by": "busybox --install"}),
        json!({"created": created, "created_by": "ENV LANG=C.UTF-8", "empty_layer": true}),
        json!({"created": created, "created_by": "update", "author": "Acme", "comment": "second layer"}),
    ];
    if diff_ids.len() > 2 {
        history.push(json!({"created": created, "created_by": "files of the machine"}));
    }
    Ok(json!({
        "created": created,
        "author": "Acme",
        "architecture": architecture,
        "os": "linux",
        "config": {
            "User": "1000:1000",
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
            "Cmd": ["/bin/sh"],
            "WorkingDir": "/home/cnb",
            "StopSignal": "SIGTERM",
            "Labels": {
                "io.buildpacks.base.id": "acme.run",
                "io.buildpacks.base.distro.name": "debian",
                "io.buildpacks.base.distro.version": "12",
                "io.buildpacks.base.homepage": "https://example.com/run",
                "io.buildpacks.stack.id": "acme.stack",
                "maintainer": "Acme <acme@example.com>",
            },
            "Healthcheck": {"Test": ["CMD", "/bin/true"], "Interval": 30_000_000_000_u64, "Retries": 3},
            "Shell": ["/bin/sh", "-ec"],
            "OnBuild": ["ENV BUILT_UPON=yes"],
            "ArgsEscaped": true,
            "com.example.vendor": {"kept": [1, 2.5, "three", null]},
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": history,
        "com.example.vendor": {"kept": true},
    }))
}

/// `blobs/sha256` of the layout.
struct Blobs {
    dir: PathBuf,
}

impl Blobs {
    /// Writes a blob; gives its descriptor.
    fn add(&self, bytes: &[u8], media_type: &str) -> Result<Value> {
        let digest = crate::sha256(bytes);
        put(&self.dir.join(&digest["sha256:".len()..]), bytes)?;
        Ok(json!({"mediaType": media_type, "digest": digest, "size": bytes.len()}))
    }
}

fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(0o644))
        .with_context(|| format!("chmod {}", path.display()))
}
