//! `drydock builder` and `drydock buildpack`: what they make, as others read it, and what they refuse.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::layout::Layout;
use drydock_acceptance::tools::{self, SKOPEO, Tool};
use drydock_acceptance::tree::{self, Kind, Tree};
use drydock_acceptance::{here, project, run_image};
use flate2::Compression;
use flate2::write::GzEncoder;
use libtest_mimic::Trial;
use serde_json::Value;
use tar::EntryType as Type;
use tempfile::TempDir;

use super::{Entry, Repository, copy, tar_of};
use crate::{Built, with_executables};

/// This module's tests.
pub(super) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("drydock::builders_are_as_others_expect", builders_are_as_others_expect),
            ("drydock::builders_are_reproducible", builders_are_reproducible),
            ("drydock::builders_build", builders_build),
            ("drydock::builders_of_wrong_files_are_refused", wrong_files_are_refused),
            ("drydock::buildpacks_that_do_harm_are_refused", buildpacks_that_do_harm_are_refused),
            ("drydock::packages_that_do_harm_are_refused", packages_that_do_harm_are_refused),
            ("drydock::links_in_buildpacks_are_kept", links_in_buildpacks_are_kept),
            ("drydock::composite_buildpacks_are_packaged", composite_buildpacks_are_packaged),
        ],
    )
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

    /// The same is refused.
    /// Its executable is one that no lifecycle has been packed beside, in a folder of its own.
    fn without_lifecycle(&mut self) -> Result<TempDir> {
        let alone = tempfile::tempdir()?;
        let executable = alone.path().join("drydock");
        fs::copy(&self.repository.executable, &executable)?;
        self.repository.executable = executable;
        Ok(alone)
    }

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

fn wrong_files_are_refused(executables: &Built) -> Result<()> {
    let mut made = Made::new(executables)?;
    let _alone = made.without_lifecycle()?;
    let toml = "api = '0.10'\n[buildpack]\nid = 'acme/m'\nversion = '1'\n";
    let group = |id: &str| format!("[[order]]\n[[order.group]]\nid = '{id}'\nversion = '1'\n");
    made.write("round/buildpack.toml", format!("{toml}{}", group("acme/m")))?;
    made.write("whole/buildpack.toml", format!("{toml}{}", group("acme/missing")))?;
    made.write("old/buildpack.toml", toml.replace("0.10", "0.2"))?;
    made.write("old/bin/build", "")?;
    made.write("other/buildpack.toml", format!("{toml}[[targets]]\nos = 'linux'\narch = 's390x'\n"))?;
    made.write("other/bin/build", "")?;
    made.write("stack/buildpack.toml", format!("{toml}[[stacks]]\nid = 'other.stack'\n"))?;
    made.write("stack/bin/build", "")?;
    made.write("idle/buildpack.toml", toml)?;
    made.write("bare/file", "")?;
    for (exit, says, from, to) in [
        (4, "builder.toml`: toml: line 2", "[build]", "[built]"),
        (3, "build.image `rum` cannot be used", "image = 'run'\n[[build", "image = 'rum'\n[[build"),
        (
            2,
            "run.images[0].image `RUN` cannot be the name",
            "image = 'run'\nmirrors",
            "image = 'RUN'\nmirrors",
        ),
        (4, "build.env[0].suffix `after` is not one of", "'default'", "'after'"),
        (4, "buildpacks[0] `nowhere` cannot be used", "uri = 'hello'", "uri = 'nowhere'"),
        (
            4,
            "buildpacks[0] `https://example.com/x.tgz` cannot be used",
            "uri = 'hello'",
            "uri = 'https://example.com/x.tgz'",
        ),
        (3, "buildpacks[0] `acme/hello` cannot be used", "uri = 'hello'", "image = 'acme/hello'"),
        (4, "it has no label `io.buildpacks.buildpack.layers`", "uri = 'hello'", "image = 'run'"),
        (4, "has both `uri` and `image`", "uri = 'hello'", "uri = 'hello'\nimage = 'x'"),
        (
            4,
            "asks for id `sample/hello`, but what is there has id `acme/new`",
            "uri = 'hello'",
            "uri = 'new'",
        ),
        (
            4,
            "order[0].group[0].version `0.2.0` of `sample/hello` is not there, but 0.1.0",
            "'0.1.0'",
            "'0.2.0'",
        ),
        (
            4,
            "order[1].group[0].id `acme/old` is not there, but acme/new@1.0.0, sample/hello@0.1.0",
            "id = 'acme/new'",
            "id = 'acme/old'",
        ),
        (4, "order of buildpacks is a cycle: `acme/m@1` → `acme/m@1`", "uri = 'new'", "uri = 'round'"),
        (4, "`acme/m@1`, order[0].group[0].id `acme/missing` is not there", "uri = 'new'", "uri = 'whole'"),
        (
            4,
            "buildpacks[1] `acme/m@1` has Buildpack API 0.2, but lifecycle 1.2.3 speaks 0.7, 0.10, 0.12",
            "uri = 'new'",
            "uri = 'old'",
        ),
        (
            4,
            "buildpacks[1] `acme/m@1` does not fit the build image: arch is `s390x`",
            "uri = 'new'",
            "uri = 'other'",
        ),
        (
            4,
            "`acme/m@1` is for the stacks other.stack, but the build image's is `acme.stack`",
            "uri = 'new'",
            "uri = 'stack'",
        ),
        (4, "`acme/m@1` has neither `bin/build` nor an order", "uri = 'new'", "uri = 'idle'"),
        (4, "it has no `buildpack.toml` at its top", "uri = 'new'", "uri = 'bare'"),
        (
            4,
            "targets do not fit the build image: arch is `s390x`",
            "[lifecycle]",
            "[[targets]]\nos = 'linux'\narch = 's390x'\n[lifecycle]",
        ),
        (
            4,
            "stack.id is `other`, but the build image's is `acme.stack`",
            "[lifecycle]",
            "[stack]\nid = 'other'\n[lifecycle]",
        ),
        (4, "lifecycle is missing: there is none in", "[lifecycle]\nuri = 'lifecycle'\n", ""),
        (4, "lifecycle.uri `hello` cannot be used", "uri = 'lifecycle'", "uri = 'hello'"),
        (
            4,
            "lifecycle.version cannot be there beside lifecycle.uri",
            "uri = 'lifecycle'",
            "uri = 'lifecycle'\nversion = '1'",
        ),
    ] {
        made.refused(exit, says, from, to)?;
    }
    made.repository.refused(2, "id `a_b` may have", &["buildpack", "new", "x", "--id", "a_b"])?;
    made.repository.refused(4, "is not empty", &["buildpack", "new", "hello", "--id", "a"])?;
    made.repository.refused(2, "required", &["buildpack", "package", "hello"])
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes)?;
    Ok(encoder.finish()?)
}

/// A buildpack in a tar, with these entries besides.
fn with_entries(entries: &[Entry<'_>]) -> Result<Vec<u8>> {
    let toml = "api = '0.10'\n[buildpack]\nid = 'acme/m'\nversion = '1'\n";
    let all =
        [&[(Type::Regular, "buildpack.toml", toml), (Type::Regular, "bin/build", "")], entries].concat();
    tar_of(&all)
}

fn buildpacks_that_do_harm_are_refused(executables: &Built) -> Result<()> {
    let made = Made::new(executables)?;
    let refused = |exit, says| made.refused(exit, says, "uri = 'new'", "uri = 'bad'");
    for (entry, says) in [
        ((Type::Regular, "../../../etc/passwd", "x"), "has a `..`"),
        ((Type::Link, "shadow", "/etc/shadow"), "is a hard link to something that is not there"),
        ((Type::Link, "shadow", "../../etc/shadow"), "has a `..`"),
        ((Type::Regular, ".wh.bin", ""), "has the name of a whiteout"),
        ((Type::Char, "null", ""), "is neither a file nor a folder nor a link"),
        ((Type::Fifo, "fifo", ""), "is neither a file nor a folder nor a link"),
        ((Type::Regular, "bin/build", "again"), "comes twice"),
        ((Type::Regular, "bin/build/x", "x"), "lies in something that is no folder"),
    ] {
        made.write("bad", with_entries(&[entry])?)?;
        refused(1, says)?;
    }
    made.write("bad", with_entries(&[(Type::Symlink, "etc", "/etc"), (Type::Regular, "etc/passwd", "x")])?)?;
    refused(1, "its entry `etc/passwd` lies in something that is no folder")?;
    let whole = gzip(&with_entries(&[(Type::Regular, "data", &"x".repeat(5000))])?)?;
    made.write("bad", &whole[..whole.len() - 9])?;
    refused(1, "it cannot be decompressed")?;
    made.write("bad", b"no tar at all, and longer than a block of one would be".repeat(20))?;
    refused(1, "cannot use")?;

    fs::remove_file(made.path("bad"))?;
    for (id, version, says) in [
        ("..", "1", "id `..` has a part that is empty or leads elsewhere"),
        ("a/../../b", "1", "id `a/../../b` has a part"),
        ("a", "..", "version `..` cannot be the name of a folder"),
        ("a", "../../../etc", "version `../../../etc` cannot be"),
    ] {
        let toml = format!("api = '0.10'\n[buildpack]\nid = '{id}'\nversion = '{version}'\n");
        made.write("bad/buildpack.toml", toml)?;
        made.write("bad/bin/build", "")?;
        refused(4, says)?;
        made.repository.refused(4, says, &["buildpack", "package", "bad", "x"])?;
    }
    made.write("bad/buildpack.toml", "x".repeat(5 << 20))?;
    refused(4, "`buildpack.toml` has more than")?;
    fs::copy(made.path("new/buildpack.toml"), made.path("bad/buildpack.toml"))?;
    project::succeed(Command::new("mkfifo").arg(made.path("bad/fifo")))?;
    made.repository.refused(1, "its entry `fifo` is neither", &["buildpack", "package", "bad", "x"])?;

    let outside = tempfile::tempdir()?;
    fs::copy(made.path("new/buildpack.toml"), outside.path().join("buildpack.toml"))?;
    // It has no blocks on the disk.
    File::create(outside.path().join("huge"))?.set_len(1 << 40)?;
    let outside = outside.path().to_str().context("the path is UTF-8")?;
    made.repository.refused(1, "its entry `huge` is too large", &["buildpack", "package", outside, "x"])
}

/// A layout in a tar whose one layer has what it must not have.
fn packages_that_do_harm_are_refused(executables: &Built) -> Result<()> {
    let dir = "cnb/buildpacks/acme_m/1";
    let toml = "api = '0.10'\n[buildpack]\nid = 'acme/m'\nversion = '1'\n";
    let files = [(format!("{dir}/buildpack.toml"), toml), (format!("{dir}/bin/build"), "")];
    let cases: [(&str, Type, &str, &str, &str); 6] = [
        (
            "acme/m",
            Type::Regular,
            "/etc/passwd",
            "x",
            "lies in no folder of a buildpack that the labels name",
        ),
        ("acme/m", Type::Regular, "cnb/lifecycle/creator", "x", "lies in no folder of a buildpack"),
        ("acme/m", Type::Symlink, "cnb/buildpacks/acme_m/2", "/", "lies in no folder of a buildpack"),
        ("acme/m", Type::Regular, "cnb/buildpacks/.wh.other", "", "has the name of a whiteout"),
        ("acme/m", Type::Regular, "cnb/buildpacks/acme_m/1/../../../x", "", "has a `..`"),
        ("../m", Type::Regular, "cnb/buildpacks/acme_m/1/x", "", "id `../m` has a part"),
    ];
    for (id, kind, name, content, says) in cases {
        let made = Made::new(executables)?;
        let own = files.iter().map(|(name, text)| (Type::Regular, name.as_str(), *text));
        let tar = tar_of(&own.chain([(kind, name, content)]).collect::<Vec<_>>())?;
        made.repository.write_image("bad", std::slice::from_ref(&tar))?;
        let layer = drydock_acceptance::sha256(&tar);
        let labels = serde_json::json!({
            "io.buildpacks.buildpackage.metadata": serde_json::json!({"id": id, "version": "1"}).to_string(),
            "io.buildpacks.buildpack.layers": serde_json::json!({id: {"1": {"layerDiffID": layer}}}).to_string(),
        });
        relabel(&made.repository.layout("bad"), &labels)?;
        let exit = if id == "acme/m" { 1 } else { 4 };
        made.refused(exit, says, "uri = 'new'", "image = 'bad'")?;
        let path = made.repository.path("bad");
        let tar = ["-cf", "bad.cnb", "-C", path.to_str().context("the path is UTF-8")?, "."];
        project::succeed(Command::new("tar").args(tar).current_dir(made.repository.dir.path()))?;
        made.refused(exit, says, "uri = 'new'", "uri = 'bad.cnb'")?;
    }
    Ok(())
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
