//! `drydock builder` and `drydock buildpack`: what they make, as others read it, and what they refuse.

mod refused;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::layout::Layout;
use drydock_acceptance::tools::{self, SKOPEO, Tool};
use drydock_acceptance::tree::{self, Kind, Tree};
use drydock_acceptance::{here, project, run_image};
use libtest_mimic::Trial;
use serde_json::Value;
use tempfile::TempDir;

use super::{Repository, copy};
use crate::{Built, with_executables};

/// This module's tests.
pub(super) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    let mut trials = refused::trials(executables);
    trials.extend(with_executables(
        executables,
        [
            ("drydock::builders_are_as_others_expect", builders_are_as_others_expect),
            ("drydock::builders_are_reproducible", builders_are_reproducible),
            ("drydock::builders_build", builders_build),
            ("drydock::links_in_buildpacks_are_kept", links_in_buildpacks_are_kept),
            ("drydock::composite_buildpacks_are_packaged", composite_buildpacks_are_packaged),
        ],
    ));
    trials
}

const LDD: Tool = Tool { name: "ldd", package: "libc-bin" };
const SAMPLE: &str = "sample/cnb/buildpacks/sample_hello/0.1.0";
const LIFECYCLE: [&str; 7] =
    ["analyzer", "builder", "creator", "detector", "exporter", "launcher", "restorer"];
const APIS: &str = "[apis.buildpack]\nsupported = ['0.7', '0.10', '0.12']\n[apis.platform]\nsupported = ['0.12', '0.14']\n\
    [lifecycle]\nversion = '1.2.3'\n";
const FILE: &str = "description = 'for tests'
[build]
image = 'run'
[[build.env]]
name = 'BP_DEBUG'
value = '1'
suffix = 'default'
[[run.images]]
image = 'run'
mirrors = ['example.com/run']
[[buildpacks]]
id = 'sample/hello'
uri = 'hello'
[[buildpacks]]
uri = 'new'
[[order]]
[[order.group]]
id = 'sample/hello'
version = '0.1.0'
[[order]]
[[order.group]]
id = 'acme/new'
[lifecycle]
uri = 'lifecycle'
";

/// A repository with a run image that is a build image too; beside it two buildpacks, a lifecycle that cannot run, and
/// `builder.toml`.
struct Made {
    repository: Repository,
}

impl Made {
    fn new(executables: &Built) -> Result<Self> {
        let repository = Repository::new(executables)?;
        run_image::write(&repository.path("run"))?;
        let made = Self { repository };
        copy(&here(SAMPLE), &made.path("hello"))?;
        made.repository.text(&["buildpack", "new", "new", "--id", "acme/new", "--version", "1.0.0"])?;
        for name in LIFECYCLE {
            made.write(&format!("lifecycle/lifecycle/{name}"), "#!/bin/sh\n")?;
        }
        made.write("lifecycle/lifecycle.toml", APIS)?;
        made.write("builder.toml", FILE)?;
        Ok(made)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.repository.dir.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let path = self.path(name);
        fs::create_dir_all(path.parent().context("it has a parent")?)?;
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))
    }

    fn create(&self, name: &str) -> Result<String> {
        let made = self.repository.json(0, &["builder", "create", name, "--config", "builder.toml"])?;
        Ok(made["digest"].as_str().context("a builder has a digest")?.to_owned())
    }

    /// With another text in `builder.toml`.
    fn create_from(&self, name: &str, from: &str, to: &str) -> Result<String> {
        ensure!(FILE.contains(from), "`{from}` is not in the file");
        self.write("builder.toml", FILE.replace(from, to))?;
        self.create(name)
    }

    /// Its executable is one that no lifecycle has been packed beside, in a folder of its own.
    fn without_lifecycle(&mut self) -> Result<TempDir> {
        let alone = tempfile::tempdir()?;
        let executable = alone.path().join("drydock");
        fs::copy(&self.repository.executable, &executable)?;
        self.repository.executable = executable;
        Ok(alone)
    }

    /// With another text in `builder.toml` none is made.
    fn refused(&self, exit: i32, says: &str, from: &str, to: &str) -> Result<()> {
        ensure!(FILE.contains(from), "`{from}` is not in the file");
        self.write("builder.toml", FILE.replace(from, to))?;
        self.repository.refused(exit, says, &["builder", "create", "bad", "-c", "builder.toml"])
    }
}

/// Its files as umoci unpacks them, and its configuration as skopeo reads it.
fn unpack(layout: &Path, scratch: &Path) -> Result<(PathBuf, Value)> {
    let image = tools::Image::new(layout, "latest", scratch)?;
    Ok((image.unpack()?, image.config()?))
}

fn label(config: &Value, key: &str) -> Result<Value> {
    let text =
        config["config"]["Labels"][key].as_str().with_context(|| format!("there is no label {key}"))?;
    serde_json::from_str(text).with_context(|| format!("{key}: {text}"))
}

fn labels_are_as_others_expect(config: &Value) -> Result<()> {
    let metadata = label(config, "io.buildpacks.builder.metadata")?;
    ensure!(metadata["description"] == "for tests", "{metadata}");
    ensure!(
        metadata["lifecycle"]["version"] == "1.2.3" && metadata["images"][0]["image"] == "run",
        "{metadata}"
    );
    ensure!(metadata["stack"]["runImage"]["mirrors"][0] == "example.com/run", "{metadata}");
    ensure!(metadata["buildpacks"][1]["id"] == "sample/hello", "{metadata}");
    let layers = label(config, "io.buildpacks.buildpack.layers")?;
    let ids = &config["rootfs"]["diff_ids"];
    let is_layer = |id: &Value| ids.as_array().is_some_and(|ids| ids.contains(id));
    ensure!(is_layer(&layers["sample/hello"]["0.1.0"]["layerDiffID"]), "{layers}");
    ensure!(layers["acme/new"]["1.0.0"]["api"] == "0.10", "{layers}");
    let order = label(config, "io.buildpacks.buildpack.order")?;
    ensure!(order[1]["group"][0]["version"] == "1.0.0", "{order}");
    ensure!(
        config["config"]["WorkingDir"] == "/layers" && config["config"]["User"] == "1000:1000",
        "{config}"
    );
    let env = config["config"]["Env"].as_array().context("there are variables")?;
    ensure!(env.contains(&"CNB_USER_ID=1000".into()) && env.contains(&"CNB_GROUP_ID=1000".into()), "{env:?}");
    Ok(())
}

fn builders_are_as_others_expect(executables: &Built) -> Result<()> {
    let made = Made::new(executables)?;
    made.create("builder")?;
    let layout = made.repository.layout("builder");
    layout.verify()?;
    let faults = layout.faults()?;
    ensure!(faults.is_empty(), "the layout has faults:\n{}", faults.join("\n"));
    let scratch = tempfile::tempdir()?;
    let (root, config) = unpack(layout.dir(), scratch.path())?;

    let files: Tree = tree::read(&root)?;
    let line = |(path, node): (&PathBuf, &tree::Node)| {
        let what = match &node.kind {
            Kind::Dir => "folder".to_owned(),
            Kind::Symlink(target) => format!("→ {}", target.display()),
            Kind::File(size, _) if *size < 30 => {
                fs::read_to_string(root.join(path)).unwrap_or_default().replace('\n', "↵")
            }
            _ => "file".to_owned(),
        };
        format!("{} {:o} {}:{} {what}", path.display(), node.mode, node.uid, node.gid)
    };
    let ours = ["cnb", "lifecycle", "layers", "workspace", "platform"];
    let is_ours = |path: &PathBuf| ours.iter().any(|top| path.starts_with(top));
    let found: Vec<String> = files.iter().filter(|(path, _)| is_ours(path)).map(line).collect();
    let mut want = vec![
        "cnb 755 0:0 folder",
        "cnb/build-config 755 0:0 folder",
        "cnb/build-config/env 755 0:0 folder",
        "cnb/build-config/env/BP_DEBUG.default 644 0:0 1",
        "cnb/buildpacks 755 0:0 folder",
        "cnb/buildpacks/acme_new 755 0:0 folder",
        "cnb/buildpacks/acme_new/1.0.0 755 0:0 folder",
        "cnb/buildpacks/acme_new/1.0.0/README.md 644 0:0 file",
        "cnb/buildpacks/acme_new/1.0.0/bin 755 0:0 folder",
        "cnb/buildpacks/acme_new/1.0.0/bin/build 755 0:0 file",
        "cnb/buildpacks/acme_new/1.0.0/bin/detect 755 0:0 file",
        "cnb/buildpacks/acme_new/1.0.0/buildpack.toml 644 0:0 file",
        "cnb/buildpacks/sample_hello 755 0:0 folder",
        "cnb/buildpacks/sample_hello/0.1.0 755 0:0 folder",
        "cnb/buildpacks/sample_hello/0.1.0/bin 755 0:0 folder",
        "cnb/buildpacks/sample_hello/0.1.0/bin/build 755 0:0 file",
        "cnb/buildpacks/sample_hello/0.1.0/bin/detect 755 0:0 file",
        "cnb/buildpacks/sample_hello/0.1.0/buildpack.toml 644 0:0 file",
        "cnb/extensions 755 0:0 folder",
        "cnb/lifecycle 755 0:0 folder",
    ];
    let executables: Vec<String> =
        LIFECYCLE.iter().map(|name| format!("cnb/lifecycle/{name} 644 0:0 #!/bin/sh↵")).collect();
    want.extend(executables.iter().map(String::as_str));
    want.extend([
        "cnb/order.toml 644 0:0 file",
        "cnb/run.toml 644 0:0 file",
        "cnb/stack.toml 644 0:0 file",
        "layers 755 1000:1000 folder",
        "lifecycle 777 0:0 → /cnb/lifecycle",
        "platform 755 0:0 folder",
        "platform/env 755 0:0 folder",
        "workspace 755 1000:1000 folder",
    ]);
    ensure!(found == want, "{found:#?}");
    for (name, want) in [
        (
            "order.toml",
            "[[order]]\n[[order.group]]\nid='sample/hello'\nversion='0.1.0'\n[[order]]\n[[order.group]]\nid='acme/new'\nversion='1.0.0'",
        ),
        ("run.toml", "[[images]]\nimage = 'run'\nmirrors = ['example.com/run']"),
        ("stack.toml", "[run-image]\nimage = 'run'\nmirrors = ['example.com/run']"),
    ] {
        let text = fs::read_to_string(root.join("cnb").join(name))?;
        ensure!(text.parse::<toml::Table>()? == want.parse()?, "{name}: {text}");
    }

    labels_are_as_others_expect(&config)?;
    let told = made.repository.json(0, &["builder", "inspect", "builder"])?;
    ensure!(told["lifecycle"]["apis"]["platform"]["supported"][1] == "0.14", "{told}");
    ensure!(
        told["order"][0]["group"][0]["id"] == "sample/hello" && told["problems"] == Value::Array(vec![]),
        "{told}"
    );
    ensure!(told["target"]["distro"] == "debian 12" && told["stack"] == "acme.stack", "{told}");
    let text = made.repository.text(&["builder", "inspect", "builder"])?;
    ensure!(text.contains("└ acme/new 1.0.0") && text.contains("(mirrors: example.com/run)"), "{text}");
    made.repository.refused(4, "`run` is no builder", &["builder", "inspect", "run"])
}

/// The same inputs in whatever form give the same digest; names that are there are replaced.
fn builders_are_reproducible(executables: &Built) -> Result<()> {
    let made = Made::new(executables)?;
    let digest = made.create("one")?;
    ensure!(made.create("one")? == digest, "made again, it is another one");
    for file in ["hello/buildpack.toml", "hello/bin/build"] {
        project::succeed(Command::new("touch").args(["-d", "2001-01-01"]).arg(made.path(file)))?;
        project::succeed(Command::new("chown").arg("7:7").arg(made.path(file)))?;
    }
    ensure!(made.create("touched")? == digest, "times and owners of files show");

    let repository = &made.repository;
    let packaged = repository.json(0, &["buildpack", "package", "hello", "-o", "hello.cnb"])?;
    let first = fs::read(made.path("hello.cnb"))?;
    repository.text(&["buildpack", "package", "hello", "--output", "hello.cnb"])?;
    ensure!(fs::read(made.path("hello.cnb"))? == first, "a package made twice is another one");
    // What is written into the folder is no part of it.
    for _ in 0..2 {
        let inside = repository.json(0, &["buildpack", "package", "hello", "-o", "hello/hello.cnb"])?;
        ensure!(inside["digest"] == packaged["digest"], "{inside} {packaged}");
    }
    fs::remove_file(made.path("hello/hello.cnb"))?;
    let image = repository.json(0, &["buildpack", "package", "hello", "acme/hello"])?;
    ensure!(image["digest"] == packaged["digest"], "{image} {packaged}");
    let path = format!("oci-archive:{}", made.path("hello.cnb").display());
    let config: Value =
        serde_json::from_slice(&SKOPEO.run(repository.dir.path(), &["inspect", "--config", &path])?)?;
    let metadata = label(&config, "io.buildpacks.buildpackage.metadata")?;
    ensure!(metadata["id"] == "sample/hello" && metadata["stacks"][0]["id"] == "*", "{metadata}");

    // As `pack` names files in packages.
    let rooted = made.path("rooted");
    fs::create_dir(&rooted)?;
    project::succeed(Command::new("tar").arg("-xf").arg(made.path("hello.cnb")).arg("-C").arg(&rooted))?;
    let tar = [
        "-cPf",
        "rooted.cnb",
        "--transform=s,^rooted/,/,",
        "rooted/oci-layout",
        "rooted/index.json",
        "rooted/blobs",
    ];
    project::succeed(Command::new("tar").args(tar).current_dir(repository.dir.path()))?;
    for (name, from, to) in [
        ("file", "uri = 'hello'", "uri = 'hello.cnb'"),
        ("rooted", "uri = 'hello'", "uri = 'rooted.cnb'"),
        ("image", "uri = 'hello'", "image = 'acme/hello'"),
        ("scheme", "uri = 'hello'", "uri = 'docker://acme/hello'"),
    ] {
        ensure!(made.create_from(name, from, to)? == digest, "of a package as {name}, it is another one");
    }
    project::succeed(
        Command::new("tar")
            .args(["-czf", "hello.tgz", "-C", "hello", "."])
            .current_dir(repository.dir.path()),
    )?;
    made.create_from("tgz", "uri = 'hello'", "uri = 'hello.tgz'")?;
    let archive = ["-czf", "lifecycle.tgz", "-C", "lifecycle", "lifecycle.toml", "lifecycle"];
    project::succeed(Command::new("tar").args(archive).current_dir(repository.dir.path()))?;
    made.create_from("lifecycle", "uri = 'lifecycle'", "uri = 'lifecycle.tgz'")?;
    let scratch = [tempfile::tempdir()?, tempfile::tempdir()?, tempfile::tempdir()?];
    let files = |name: &str, scratch: &Path| -> Result<Tree> {
        tree::read(&unpack(&repository.path(name), scratch)?.0)
    };
    let want = files("one", scratch[0].path())?;
    for (name, scratch) in ["tgz", "lifecycle"].iter().zip(&scratch[1..]) {
        let differences = tree::differences(&want, &files(name, scratch.path())?);
        ensure!(differences.is_empty(), "{name}: {}", differences.join("\n"));
    }
    Ok(())
}

/// Files of this machine that an executable needs.
fn libraries(executable: &Path) -> Result<Vec<PathBuf>> {
    let printed = LDD.run(Path::new("/"), &[executable.to_str().context("the path is UTF-8")?])?;
    let printed = String::from_utf8(printed)?;
    Ok(printed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

/// In the builder's own files, its lifecycle builds an app with the buildpacks.
fn builders_build(executables: &Built) -> Result<()> {
    let made = Made::new(executables)?;
    let from = executables.get()?.dir();
    fs::remove_dir_all(made.repository.path("run"))?;
    run_image::write_with(&made.repository.path("run"), &libraries(&from.join("creator"))?)?;
    for name in ["creator", "launcher"] {
        fs::remove_file(made.path(&format!("lifecycle/lifecycle/{name}")))?;
        project::succeed(Command::new("cp").arg(from.join(name)).arg(made.path("lifecycle/lifecycle")))?;
    }
    made.create("builder")?;
    for (files, says) in [
        (&[("greeting.txt", "Good morning.\n")][..], "sample/hello: Good morning."),
        (&[], "Hello from a buildpack."),
    ] {
        let scratch = tempfile::tempdir()?;
        let (root, config) = unpack(&made.repository.path("builder"), scratch.path())?;
        for (name, content) in files {
            fs::write(root.join("workspace").join(name), content)?;
        }
        copy(&made.repository.dir.path().join("index.docker.io"), &root.join("layout-repo/index.docker.io"))?;
        // What is nothing to read will do for a device, which only root of the machine can make.
        fs::write(root.join("dev/null"), "")?;
        let mut creator = inside(&root, &config)?;
        creator.args(["/cnb/lifecycle/creator", "-run-image", "run", "app"]);
        let log = project::succeed(&mut creator)?.text();

        let app = Layout::new(root.join("layout-repo/index.docker.io/library/app/latest"));
        app.verify()?;
        let scratch = tempfile::tempdir()?;
        let (root, config) = unpack(app.dir(), scratch.path())?;
        let mut web = inside(&root, &config)?;
        let said = project::succeed(web.args(["--wd", "/workspace", "/cnb/process/web"]))?.text();
        ensure!(said.trim_end() == says, "{said}\n{log}");
    }
    Ok(())
}

/// Starts something with an image's files as its root, and the image's variables.
fn inside(root: &Path, config: &Value) -> Result<Command> {
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--signal=KILL", "120", "unshare", "--root"]).arg(root);
    command
        .stdin(Stdio::null())
        .env_clear()
        .env("CNB_USE_OCI_LAYOUT", "true")
        .env("CNB_PLATFORM_API", "0.14");
    for variable in config["config"]["Env"].as_array().context("there are variables")? {
        let (name, value) =
            variable.as_str().and_then(|text| text.split_once('=')).context("a variable has a value")?;
        command.env(name, value);
    }
    Ok(command)
}

/// Gives the one image of a layout labels.
pub(crate) fn relabel(layout: &Layout, labels: &Value) -> Result<()> {
    change(layout, |config, _| config["config"]["Labels"] = labels.clone())
}

/// Changes the configuration and the manifest of the one image of a layout.
pub(crate) fn change(layout: &Layout, change: impl FnOnce(&mut Value, &mut Value)) -> Result<()> {
    let put = |value: &Value, descriptor: &mut Value| -> Result<()> {
        let text = value.to_string();
        descriptor["digest"] = drydock_acceptance::sha256(text.as_bytes()).into();
        descriptor["size"] = text.len().into();
        let path = layout.blob_path(descriptor["digest"].as_str().context("a digest is a text")?);
        fs::write(path, text).context("write a blob")
    };
    let get = |descriptor: &Value| -> Result<Value> {
        let digest = descriptor["digest"].as_str().context("a digest is a text")?;
        Ok(serde_json::from_slice(&layout.blob(digest)?.context("the blob is there")?)?)
    };
    let mut index: Value = layout.json("index.json")?;
    let mut manifest = get(&index["manifests"][0])?;
    let mut config = get(&manifest["config"])?;
    change(&mut config, &mut manifest);
    put(&config, &mut manifest["config"])?;
    put(&manifest, &mut index["manifests"][0])?;
    fs::write(layout.dir().join("index.json"), index.to_string()).context("write the index")
}

/// Nothing of the machine comes into an image by a link of a buildpack, and the links are what they were.
fn links_in_buildpacks_are_kept(executables: &Built) -> Result<()> {
    let made = Made::new(executables)?;
    let outside = tempfile::tempdir()?;
    fs::write(outside.path().join("secret"), "secret")?;
    symlink(outside.path(), made.path("new/folder"))?;
    symlink(outside.path().join("secret"), made.path("new/file"))?;
    symlink("../../../../../../etc/passwd", made.path("new/up"))?;
    made.create("builder")?;
    let scratch = tempfile::tempdir()?;
    let (root, _) = unpack(&made.repository.path("builder"), scratch.path())?;
    let files = tree::read(&root.join("cnb/buildpacks/acme_new/1.0.0"))?;
    for (name, target) in [
        ("folder", outside.path().to_owned()),
        ("file", outside.path().join("secret")),
        ("up", PathBuf::from("../../../../../../etc/passwd")),
    ] {
        let found = files.get(Path::new(name)).map(|node| &node.kind);
        ensure!(found == Some(&Kind::Symlink(target)), "{name}: {found:?}");
    }
    ensure!(!files.contains_key(Path::new("folder/secret")), "{files:?}");
    Ok(())
}

fn composite_buildpacks_are_packaged(executables: &Built) -> Result<()> {
    let made = Made::new(executables)?;
    let repository = &made.repository;
    made.write(
        "both/buildpack.toml",
        "api = '0.10'\n[buildpack]\nid = 'acme/both'\nversion = '1'\n[[order]]\n[[order.group]]\nid = 'sample/hello'\nversion = '0.1.0'\n\
         [[order.group]]\nid = 'acme/new'\nversion = '1.0.0'\noptional = true\n",
    )?;
    repository.refused(
        4,
        "`acme/both@1`, order[0].group[0].id `sample/hello` is not there",
        &["buildpack", "package", "both", "x"],
    )?;
    repository.text(&["buildpack", "package", "new", "acme/new:1"])?;
    let dependencies = "[[dependencies]]\nuri = '../hello'\n[[dependencies]]\nimage = 'acme/new:1'\n";
    made.write("both/package.toml", dependencies)?;
    let packaged = repository.json(0, &["buildpack", "package", "both", "-o", "both.cnb"])?;
    ensure!(
        packaged["modules"][0] == "acme/both@1" && packaged["modules"][2] == "sample/hello@0.1.0",
        "{packaged}"
    );

    // One entry of the file brings all three; the same that it brings otherwise are no others.
    made.create_from(
        "builder",
        "uri = 'new'\n[[order]]\n[[order.group]]\nid = 'sample/hello'\nversion = '0.1.0'",
        "uri = 'both.cnb'\n[[order]]\n[[order.group]]\nid = 'acme/both'",
    )?;
    let told = repository.json(0, &["builder", "inspect", "builder"])?;
    let names: BTreeMap<&str, &str> = told["buildpacks"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|it| Some((it["id"].as_str()?, it["version"].as_str()?)))
        .collect();
    ensure!(names == [("acme/both", "1"), ("acme/new", "1.0.0"), ("sample/hello", "0.1.0")].into(), "{told}");
    let inner = &told["order"][0]["group"][0]["order"][0]["group"];
    ensure!(inner[0]["id"] == "sample/hello" && inner[1]["optional"] == true, "{told}");

    made.write("both/package.toml", format!("{dependencies}[[dependencies]]\nuri = '../other'\n"))?;
    made.write("other/buildpack.toml", "api = '0.10'\n[buildpack]\nid = 'acme/other'\nversion = '1'\n")?;
    made.write("other/bin/build", "")?;
    repository.refused(
        4,
        "dependencies has `acme/other@1`, which is part of nothing in `acme/both@1`",
        &["buildpack", "package", "both", "x"],
    )
}
