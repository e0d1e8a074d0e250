//! Exports onto a run image with a user land, and has other people's programs read the result: what they unpack must be
//! what went in.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::layout::Layout;
use drydock_acceptance::project::{APP_IMAGE, APP_LAYOUT, Project, RUN_LAYOUT, succeed};
use drydock_acceptance::run_image::{self, RunImage};
use drydock_acceptance::scenario::User;
use drydock_acceptance::stage::{GID, UID};
use drydock_acceptance::tools::{BUILDAH, Image, SKOPEO, UMOCI};
use drydock_acceptance::tree::{self, Kind, Node, Tree};
use libtest_mimic::Trial;
use ocipkg::image::{Image as _, OciDir};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};

use crate::{Built, with_executables};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("real_image::everyone_unpacks_what_went_in", everyone_unpacks_what_went_in),
            ("real_image::other_compressions_are_read", other_compressions_are_read),
        ],
    )
}

/// A project on the run image, with the launcher that was built here.
fn project(executables: &Path) -> Result<(Project, RunImage)> {
    let project = Project::new(executables, User::Root)?;
    fs::remove_dir_all(project.path(RUN_LAYOUT)).context("remove the recorded run image")?;
    let run_image = run_image::write(&project.path(RUN_LAYOUT))?;
    fs::copy(executables.join("launcher"), project.path("cnb/launcher")).context("copy the launcher")?;
    let command = r#"["/bin/sh", "-c", "id -u; pwd; cat message; echo $LANG $GREETING"]"#;
    project.write(
        "layers/config/metadata.toml",
        format!(
            "[[buildpacks]]\nid = \"acme/a\"\nversion = \"1\"\napi = \"0.10\"\n\n\
             [[processes]]\ntype = \"web\"\ncommand = {command}\ndirect = true\nbuildpack-id = \"acme/a\"\n"
        ),
    )?;
    project.write("app/message", "the app's\n")?;
    project.write_layer("lib", "launch = true", "library\n")?;
    project.write("layers/acme_a/lib/env.launch/GREETING", "Grüße")?;
    project.write("layers/sbom/launch/acme_a/lib/sbom.cdx.json", "{}")?;
    Ok((project, run_image))
}

fn everyone_unpacks_what_went_in(executables: &Built) -> Result<()> {
    let (project, run_image) = project(executables.get()?.dir())?;
    fill_app(&project.path("app"))?;
    // The build user's, as after a build.
    for tree in ["app", "layers"] {
        for entry in walkdir::WalkDir::new(project.path(tree)) {
            std::os::unix::fs::lchown(entry?.path(), Some(UID), Some(GID)).context("give a file away")?;
        }
    }
    set_odd_modes(&project.path("app"))?;
    let ids = ["-uid", &UID.to_string(), "-gid", &GID.to_string()];
    succeed(project.analyzer()?.args(ids).arg(APP_IMAGE))?;
    succeed(project.exporter()?.args(ids).args(["-process-type", "web"]).arg(APP_IMAGE))?;

    let expected = expected(&project, &run_image)?;
    ensure!(expected.len() > 3000, "there are only {} files", expected.len());
    let scratch = tempfile::tempdir()?;
    let image = Image::new(&project.path(APP_LAYOUT), "latest", scratch.path())?;
    image.judge(&expected)?;

    let config = image.config()?;
    ensure!(config["config"]["Entrypoint"] == json!(["/cnb/process/web"]), "skopeo reads {config}");
    config_survives(&project.layout(APP_LAYOUT), &run_image.config, &project)?;
    libraries_agree(&project.layout(APP_LAYOUT))?;

    let other = tempfile::tempdir()?;
    let container = Image::new(&project.path(APP_LAYOUT), "latest", other.path())?.container()?;
    let printed = String::from_utf8(container.run(&["/cnb/process/web"])?)?;
    let wanted = format!("1000\n{}\nthe app's\nC.UTF-8 Grüße\n", project.path("app").display());
    ensure!(printed == wanted, "the app printed {printed:?}, not {wanted:?}");
    Ok(())
}

/// Some thousand files, with all kinds of names, sizes and links.
fn fill_app(app: &Path) -> Result<()> {
    let line = b"The quick brown fox jumps over the lazy dog, again and again.\n";
    for dir in 0..50_u8 {
        let dir_path = app.join(format!("modules/package-{dir}/lib"));
        fs::create_dir_all(&dir_path)?;
        for file in 0..60_usize {
            let size = (usize::from(dir) * 61 + file * 7919) % 6000;
            let content: Vec<u8> =
                line.iter().copied().cycle().skip(file).take(size).map(|b| b ^ (dir & 3)).collect();
            fs::write(dir_path.join(format!("file-{file}.js")), content)?;
        }
    }
    // Around the sizes of a tar's blocks, and one file of many.
    for size in [0, 1, 511, 512, 513, 1 << 20, 5_000_001] {
        fs::write(
            app.join(format!("size-{size}")),
            line.iter().copied().cycle().take(size).collect::<Vec<_>>(),
        )?;
    }
    let names: [&[u8]; 10] = [
        b"two words",
        b" leading and trailing ",
        "naïve-日本語-🚢".as_bytes(),
        b"quote'\"`$(x);&|<>*?[a]",
        b"back\\slash",
        b"line\nfeed",
        b"-dash",
        b".hidden",
        b"~tilde",
        b"%41+@:=,",
    ];
    for name in names {
        fs::write(app.join(OsStr::from_bytes(name)), name)?;
    }
    // Around the lengths that a tar's header holds, and the longest that there are.
    for length in [99, 100, 101, 154, 155, 156, 255] {
        fs::write(app.join("n".repeat(length)), "")?;
    }
    let deep = app.join(["d".repeat(90), "é".repeat(60), "f".repeat(200)].iter().collect::<PathBuf>());
    fs::create_dir_all(&deep)?;
    fs::write(deep.join("long"), "deep")?;
    fs::create_dir(app.join("empty"))?;
    for (name, target) in [
        ("link", "size-1"),
        ("link-up", "../layers/./group.toml"),
        ("link-dangling", "/nowhere/at/all"),
        ("link-to-dir", "modules/"),
        ("link-ünicode", "naïve-日本語-🚢"),
    ] {
        symlink(target, app.join(name))?;
    }
    symlink("t".repeat(101), app.join("link-long"))?;
    symlink(format!("{}/é", "u/".repeat(150)), app.join("link-longer"))?;
    fs::hard_link(app.join("size-513"), app.join("second-name"))?;
    mknodat(CWD, app.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o640), 0)?;
    UnixListener::bind(app.join("socket")).context("make a socket")?;
    Ok(())
}

/// After the files were given away: that takes setuid bits from them.
fn set_odd_modes(app: &Path) -> Result<()> {
    for (name, mode) in [
        ("size-0", 0o4755),
        ("size-1", 0o2750),
        ("size-511", 0o6711),
        ("size-512", 0o400),
        (".hidden", 0o666),
        ("empty", 0o1777),
        ("modules", 0o2775),
        ("modules/package-7", 0o700),
        ("modules/package-7/lib/file-7.js", 0o1755),
    ] {
        fs::set_permissions(app.join(name), Permissions::from_mode(mode))
            .with_context(|| format!("chmod {name}"))?;
    }
    Ok(())
}

/// The run image's files, and above them what must be in the layers.
fn expected(project: &Project, run_image: &RunImage) -> Result<Tree> {
    let mut expected = run_image.tree.clone();
    for dir in ["app", "layers/acme_a/lib", "layers/config", "layers/sbom/launch"] {
        let dir = project.path(dir);
        // Folders that lead there keep their owners.
        for parent in dir.ancestors().skip(1).filter(|parent| parent.parent().is_some()) {
            let metadata = parent.metadata()?;
            let (uid, gid, mode) = (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777);
            expected.insert(in_image(parent), Node { kind: Kind::Dir, mode, uid, gid });
        }
        let root = Node { kind: Kind::Dir, mode: dir.metadata()?.mode() & 0o7777, uid: UID, gid: GID };
        expected.insert(in_image(&dir), root);
        let files = tree::read(&dir)?;
        for (path, node) in &files {
            let kind = match &node.kind {
                Kind::Socket => continue,
                Kind::HardLink(first) => files[first].kind.clone(),
                kind => kind.clone(),
            };
            expected.insert(in_image(&dir.join(path)), Node { kind, uid: UID, gid: GID, ..*node });
        }
    }
    let launcher = fs::read(project.path("cnb/launcher"))?;
    let launcher_kind = Kind::File(launcher.len() as u64, drydock_acceptance::sha256(&launcher));
    for (path, mode, kind) in [
        ("cnb", 0o755, Kind::Dir),
        ("cnb/lifecycle", 0o755, Kind::Dir),
        ("cnb/lifecycle/launcher", 0o755, launcher_kind),
        ("cnb/process", 0o755, Kind::Dir),
        ("cnb/process/web", 0o777, Kind::Symlink("/cnb/lifecycle/launcher".into())),
    ] {
        expected.insert(path.into(), Node { kind, mode, uid: 0, gid: 0 });
    }
    Ok(expected)
}

fn in_image(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

/// Whatever the run image's config has and the export has no say in is in the app image's.
fn config_survives(layout: &Layout, base: &Value, project: &Project) -> Result<()> {
    let found = &layout.images()?[0].config;
    for (of, ours) in [
        ("", ["created", "history", "rootfs", "config", ""]),
        ("/config", ["Env", "Labels", "Cmd", "WorkingDir", ""]),
    ] {
        let (base, found) = (base.pointer(of).context("base")?, found.pointer(of).context("found")?);
        for (key, value) in base.as_object().context("an object")? {
            let is_kept = ours.contains(&key.as_str()) || found[key] == *value;
            ensure!(is_kept, "{of}/{key} was {value} and is {}", found[key]);
        }
    }
    let (base, found) = (&base["config"], &found["config"]);
    for (key, value) in base["Labels"].as_object().context("labels")? {
        ensure!(found["Labels"][key] == *value, "label {key} was {value} and is {}", found["Labels"][key]);
    }
    for key in
        ["io.buildpacks.lifecycle.metadata", "io.buildpacks.build.metadata", "io.buildpacks.project.metadata"]
    {
        let label = found["Labels"][key].as_str().with_context(|| format!("label {key}"))?;
        serde_json::from_str::<Value>(label).with_context(|| format!("label {key}"))?;
    }
    let app = project.path("app").display().to_string();
    let env = json!([
        "PATH=/cnb/process:/cnb/lifecycle:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG=C.UTF-8",
        format!("CNB_LAYERS_DIR={}", project.path("layers").display()),
        format!("CNB_APP_DIR={app}"),
        "CNB_PLATFORM_API=0.14",
        "CNB_DEPRECATION_MODE=quiet",
    ]);
    ensure!(found["Env"] == env, "the environment is {}", found["Env"]);
    ensure!(found["WorkingDir"] == json!(app) && found["Cmd"] != base["Cmd"], "the config is {found}");
    Ok(())
}

/// Rust's types for OCI images read the layout, and see the same in it.
fn libraries_agree(layout: &Layout) -> Result<()> {
    use oci_spec::image::{Arch, ImageConfiguration, ImageIndex, ImageManifest, Os};

    let index = ImageIndex::from_file(layout.dir().join("index.json")).context("oci-spec reads the index")?;
    let descriptor = index.manifests().first().context("the index lists an image")?;
    let platform = descriptor.platform().as_ref().context("the descriptor has a platform")?;
    let arch = if cfg!(target_arch = "aarch64") { Arch::ARM64 } else { Arch::Amd64 };
    ensure!(*platform.os() == Os::Linux && *platform.architecture() == arch, "the platform is {platform:?}");
    let blob = |digest: &dyn ToString| layout.blob_path(&digest.to_string());
    let manifest =
        ImageManifest::from_file(blob(descriptor.digest())).context("oci-spec reads the manifest")?;
    let config = ImageConfiguration::from_file(blob(manifest.config().digest()))
        .context("oci-spec reads the config")?;
    ensure!(config.rootfs().diff_ids().len() == manifest.layers().len(), "layers and diff IDs differ");
    let history = config.history().as_ref().context("the config has a history")?;
    let with_layer = history.iter().filter(|entry| entry.empty_layer() != Some(true));
    ensure!(with_layer.count() == manifest.layers().len(), "layers and history differ");

    let mut dir = OciDir::new(layout.dir()).context("ocipkg opens the layout")?;
    let same = dir.get_manifest().context("ocipkg reads the manifest")?;
    ensure!(same.layers().len() == manifest.layers().len(), "ocipkg sees {} layers", same.layers().len());
    for layer in same.layers() {
        let blob = dir.get_blob(layer.digest()).context("ocipkg reads a layer")?;
        ensure!(blob.len() as u64 == layer.size(), "{} has {} bytes", layer.digest(), blob.len());
    }
    Ok(())
}

fn other_compressions_are_read(executables: &Built) -> Result<()> {
    let (project, _) = project(executables.get()?.dir())?;
    succeed(project.analyzer()?.arg(APP_IMAGE))?;
    let mut unpacked = Vec::new();
    for (compression, media_type) in [("gzip:6", "tar+gzip"), ("none", "tar"), ("zstd", "tar+zstd")] {
        let tag = compression.replace(':', "-");
        succeed(project.exporter()?.args(["-layer-compression", compression, &format!("app:{tag}")]))?;
        let layout = project.layout(&format!("layout-repo/index.docker.io/library/app/{tag}"));
        let image = layout.verify()?.remove(0);
        for layer in &image.layers[2..] {
            let wanted = format!("application/vnd.oci.image.layer.v1.{media_type}");
            ensure!(layer.media_type == wanted, "{compression}: a layer is {}", layer.media_type);
        }
        let faults = layout.faults()?;
        ensure!(faults.is_empty(), "{compression}: {}", faults.join("\n"));

        let scratch = tempfile::tempdir()?;
        let judged = Image::new(layout.dir(), &tag, scratch.path())?;
        judged.archive("oci-archive").with_context(|| format!("{compression} by {}", SKOPEO.name))?;
        let root =
            judged.container()?.mount().with_context(|| format!("{compression} by {}", BUILDAH.name))?;
        unpacked.push(tree::read(&root)?);
        // Debian's umoci knows no zstd: it came with umoci 0.4.8.
        let by_umoci = judged.unpack();
        if compression == "zstd" {
            let error = by_umoci.err().map(|error| error.to_string()).unwrap_or_default();
            ensure!(error.contains("mediatype"), "{} reads zstd now: judge by it: {error}", UMOCI.name);
        } else {
            unpacked.push(tree::read(&by_umoci?)?);
        }
    }
    for other in &unpacked[1..] {
        let found = tree::differences(&unpacked[0], other);
        ensure!(found.is_empty(), "layers unpack to something else:\n{}", found.join("\n"));
    }
    Ok(())
}
