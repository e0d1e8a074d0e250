//! What is large, long, many or deep: it works in bounded memory, or is refused in a few words.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project::{self, APP_IMAGE, APP_LAYOUT, Project, succeed};
use drydock_acceptance::run::Output;
use drydock_acceptance::scenario::User;
use drydock_acceptance::sha256;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::MIB;
use crate::{Built, with_executables};

/// This module's tests.
pub(super) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("bounds::sizes::deep_folders_and_long_paths", deep_folders_and_long_paths),
            ("bounds::sizes::many_files_and_large_ones", many_files_and_large_ones),
            ("bounds::sizes::hundreds_of_layers", hundreds_of_layers),
            ("bounds::sizes::a_thousand_manifests", a_thousand_manifests),
            ("bounds::sizes::documents_of_any_size_and_depth", documents_of_any_size_and_depth),
            ("bounds::sizes::documents_with_many_values", documents_with_many_values),
        ],
    )
}

/// Bytes of memory that a phase may take.
const MOST: u64 = 64 * MIB;

/// Runs a command, and says to a file how much memory it took, in KiB.
const PEAK: &str = "import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
with open(sys.argv[1], 'w') as file:
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=file)
sys.exit(code if code >= 0 else 128 - code)";

/// Goes down so many folders of one name, and writes a file there.
const DEEP: &str = "import os, sys
os.makedirs(sys.argv[1], exist_ok=True)
os.chdir(sys.argv[1])
for _ in range(int(sys.argv[3])):
    os.mkdir(sys.argv[2])
    os.chdir(sys.argv[2])
open('file', 'w').close()";

/// A project, and what runs on it.
struct Scene<'a> {
    project: Project,
    executables: &'a Path,
}

impl<'a> Scene<'a> {
    fn new(executables: &'a Built) -> Result<Self> {
        let executables = executables.get()?.dir();
        Ok(Self { project: Project::new(executables, User::Root)?, executables })
    }

    fn path(&self, path: &str) -> String {
        self.project.path(path).display().to_string()
    }

    /// Runs a phase with these arguments; it may take no more than [`MOST`].
    fn phase(&self, phase: &str, arguments: &[&str]) -> Result<Output> {
        let peak = self.path("peak");
        let starter =
            ["timeout", "--foreground", "--signal=KILL", "900", "python3", "-I", "-S", "-c", PEAK, &peak];
        let mut command = self.project.phase(&starter, phase)?;
        if phase == "exporter" {
            command.arg("-app").arg(self.project.path("app"));
            command.arg("-launcher").arg(self.project.path("cnb/launcher"));
        }
        self.bounded(command.args(arguments))
    }

    /// Runs `drydock` likewise.
    fn drydock(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new("timeout");
        command.args(["--foreground", "--signal=KILL", "900", "python3", "-I", "-S", "-c", PEAK]);
        command.arg(self.project.path("peak")).arg(self.executables.join("drydock")).args(arguments);
        command.current_dir(self.project.path("")).stdin(Stdio::null()).env_clear();
        command.env("PATH", "/usr/bin:/bin").env("LC_ALL", "C");
        command.env("CNB_OCI_LAYOUT_PATH", self.project.path("layout-repo"));
        command
            .env("XDG_CONFIG_HOME", self.project.path("config"))
            .env("XDG_CACHE_HOME", self.project.path("cache"))
            .env("DOCKER_CONFIG", self.project.path("docker"));
        self.bounded(&mut command)
    }

    fn bounded(&self, command: &mut Command) -> Result<Output> {
        let output = project::run(command)?;
        let text = output.text();
        let peak =
            fs::read_to_string(self.project.path("peak")).with_context(|| format!("{command:?}\n{text}"))?;
        let peak = peak.trim().parse::<u64>()? << 10;
        ensure!(peak <= MOST, "{command:?} took {} MiB\n{text:.2000}", peak / MIB);
        ensure!(
            output.exit < 100 && !text.contains("panicked"),
            "{command:?}: exit code {}\n{text}",
            output.exit
        );
        Ok(output)
    }
}

fn done(output: Result<Output>) -> Result<()> {
    let output = output?;
    ensure!(output.exit == 0, "exit code {}\n{}", output.exit, output.text());
    Ok(())
}

/// Fails, and says this.
fn refused(output: Result<Output>, says: &str) -> Result<()> {
    let (exit, text) = output.map(|output| (output.exit, output.text()))?;
    ensure!(exit != 0 && text.contains(says), "exit code {exit}, not `{says}`\n{text}");
    let longest = text.lines().map(str::len).max().unwrap_or_default();
    ensure!(longest < 5_000, "{longest} bytes in one line");
    Ok(())
}

fn deep_folders_and_long_paths(executables: &Built) -> Result<()> {
    // Folders of so long a name, so many; and whether all of it can be in an image and come back.
    for (length, count, fits) in [(1, 1900, true), (38, 100, true), (200, 1000, false)] {
        let scene = Scene::new(executables)?;
        let name = "n".repeat(length);
        let deep = |path: &str| {
            let mut command = Command::new("python3");
            command
                .args(["-I", "-S", "-c", DEEP])
                .arg(scene.project.path(path))
                .arg(&name)
                .arg(count.to_string());
            succeed(&mut command)
        };
        let gone = |path: &str| succeed(Command::new("rm").arg("-rf").arg(scene.project.path(path)));
        let (layer, cache) = ("layers/acme_a/deep", scene.path("cache"));
        scene.project.write_layer("deep", "launch = true\ncache = true", "")?;
        deep(layer)?;
        deep("app")?;
        let checked = || -> Result<()> {
            done(scene.phase("analyzer", &[APP_IMAGE]))?;
            done(scene.phase("exporter", &["-cache-dir", &cache, APP_IMAGE]))?;
            gone(layer)?;
            done(scene.phase("restorer", &["-cache-dir", &cache]))?;
            ensure!(scene.project.path(layer).exists() == fits, "the layer has come back: {}", !fits);
            done(scene.drydock(&["verify", APP_IMAGE]))?;
            let out = format!("dir:{}", scene.path("out"));
            for arguments in
                [&["tree", APP_IMAGE][..], &["flatten", APP_IMAGE, "flat"], &["export", APP_IMAGE, &out]]
            {
                let output = scene.drydock(arguments);
                if fits { done(output)? } else { refused(output, "more than 4096 bytes")? }
            }
            let output = scene.drydock(&["import", &format!("rootfs:{}", scene.path("app")), "tree"]);
            if fits { done(output) } else { refused(output, "more than 4096 bytes") }
        };
        let checked = checked().with_context(|| format!("{count} folders with names of {length} bytes"));
        // Only few programs can remove that.
        for path in [layer, "app", "out"] {
            gone(path)?;
        }
        checked?;
    }
    Ok(())
}

/// As much as takes a moment, unless `DRYDOCK_TEST_ROUNDS` says how many times that.
fn times() -> Result<u64> {
    #[expect(clippy::disallowed_methods, reason = "for runs by hand, which nothing else reads")]
    match std::env::var("DRYDOCK_TEST_ROUNDS") {
        Ok(text) => text.parse().context("DRYDOCK_TEST_ROUNDS is no number"),
        Err(_) => Ok(1),
    }
}

/// With 100 rounds, 300,000 files each in app and layer, and 5 GB in one file each.
fn many_files_and_large_ones(executables: &Built) -> Result<()> {
    let scene = Scene::new(executables)?;
    let cache = scene.path("cache");
    scene.project.write_layer("big", "launch = true\ncache = true", "")?;
    for dir in ["app/node_modules", "layers/acme_a/big/node_modules"] {
        for folder in 0..3 * times()? {
            let dir = scene.project.path(dir).join(format!("package-{folder}/lib/source/of/modules"));
            fs::create_dir_all(&dir)?;
            for file in 0..1000 {
                File::create(dir.join(format!("module-number-{file}.js")))?;
            }
        }
    }
    for path in ["app/large", "layers/acme_a/big/large"] {
        File::create(scene.project.path(path))?.set_len(50_000_000 * times()?)?;
    }
    done(scene.phase("analyzer", &[APP_IMAGE]))?;
    done(scene.phase("exporter", &["-cache-dir", &cache, APP_IMAGE]))?;
    fs::remove_dir_all(scene.project.path("layers/acme_a/big"))?;
    done(scene.phase("restorer", &["-cache-dir", &cache]))?;
    let restored = fs::metadata(scene.project.path("layers/acme_a/big/large"))?;
    ensure!(restored.len() == 50_000_000 * times()?, "{} bytes were restored", restored.len());
    done(scene.phase("exporter", &["-cache-dir", &cache, APP_IMAGE]))?;
    done(scene.phase("rebaser", &["-force", APP_IMAGE]))?;
    done(scene.drydock(&["verify", APP_IMAGE]))
}

fn hundreds_of_layers(executables: &Built) -> Result<()> {
    const LAYERS: usize = 500;
    let scene = Scene::new(executables)?;
    let cache = scene.path("cache");
    for number in 0..LAYERS {
        scene.project.write_layer(
            &format!("l{number}"),
            "launch = true\ncache = true",
            format!("{number}"),
        )?;
    }
    done(scene.phase("analyzer", &[APP_IMAGE]))?;
    done(scene.phase("exporter", &["-cache-dir", &cache, APP_IMAGE]))?;
    for number in 0..LAYERS {
        fs::remove_dir_all(scene.project.path(&format!("layers/acme_a/l{number}")))?;
    }
    done(scene.phase("analyzer", &[APP_IMAGE]))?;
    done(scene.phase("restorer", &["-cache-dir", &cache]))?;
    for number in 0..LAYERS {
        // As the buildpack says again.
        scene
            .project
            .write(&format!("layers/acme_a/l{number}.toml"), "[types]\nlaunch = true\ncache = true\n")?;
    }
    done(scene.phase("exporter", &["-cache-dir", &cache, APP_IMAGE]))?;
    done(scene.phase("rebaser", &["-force", APP_IMAGE]))?;
    let image = scene.project.layout(APP_LAYOUT).images()?.remove(0);
    ensure!(image.layers.len() > LAYERS, "{} layers", image.layers.len());
    let (out, archive) =
        (format!("dir:{}", scene.path("out")), format!("docker-archive:{}", scene.path("a.tar")));
    for arguments in [
        &["inspect", APP_IMAGE][..],
        &["tree", APP_IMAGE],
        &["verify", APP_IMAGE],
        &["flatten", APP_IMAGE, "flat"],
        &["export", APP_IMAGE, &out],
        &["export", APP_IMAGE, &archive],
        &["import", &archive, "again"],
        &["rm", "flat"],
        &["gc"],
    ] {
        done(scene.drydock(arguments)).with_context(|| format!("{arguments:?}"))?;
    }
    let last = scene.path("layers/acme_a/l499/file");
    let unpacked = fs::read_to_string(scene.path("out") + &last)?;
    ensure!(unpacked == "499", "the last layer has {unpacked}");
    Ok(())
}

/// An index of so many images, each for a platform of its own.
fn a_thousand_manifests(executables: &Built) -> Result<()> {
    let scene = Scene::new(executables)?;
    scene.project.analyze()?;
    scene.project.export()?;
    let layout = scene.project.layout(APP_LAYOUT);
    let mut index: Value = layout.json("index.json")?;
    let first = index["manifests"][0].clone();
    let digest = first["digest"].as_str().context("it has a digest")?;
    let manifest: Value = serde_json::from_slice(&fs::read(layout.blob_path(digest))?)?;
    let config: Value = serde_json::from_slice(&fs::read(
        layout.blob_path(manifest["config"]["digest"].as_str().context("it has one")?),
    )?)?;
    let put = |bytes: &[u8]| -> Result<Value> {
        let digest = sha256(bytes);
        fs::write(layout.blob_path(&digest), bytes).context("write a blob")?;
        Ok(json!({"digest": digest, "size": bytes.len()}))
    };
    let mut members = vec![first.clone()];
    for number in 1..1000 {
        let (mut config, mut manifest) = (config.clone(), manifest.clone());
        config["variant"] = format!("v{number}").into();
        let new = put(config.to_string().as_bytes())?;
        manifest["config"]["digest"] = new["digest"].clone();
        manifest["config"]["size"] = new["size"].clone();
        let mut member = put(manifest.to_string().as_bytes())?;
        member["mediaType"] = first["mediaType"].clone();
        member["platform"] = json!({"os": "linux", "architecture": "amd64", "variant": format!("v{number}")});
        members.push(member);
    }
    index["manifests"] = members.into();
    fs::write(scene.project.path(APP_LAYOUT).join("index.json"), index.to_string())?;
    for arguments in
        [&["ls"][..], &["inspect", APP_IMAGE], &["verify"], &["tag", APP_IMAGE, "other"], &["gc"]]
    {
        done(scene.drydock(arguments)).with_context(|| format!("{arguments:?}"))?;
    }
    // A build takes the place of its own.
    done(scene.phase("analyzer", &[APP_IMAGE]))?;
    done(scene.phase("exporter", &[APP_IMAGE]))?;
    let index: Value = layout.json("index.json")?;
    let members = index["manifests"].as_array().map_or(0, Vec::len);
    ensure!((1000..=1001).contains(&members), "{members} images are left");
    Ok(())
}

/// A document of a MB, of which each byte would take hundreds in memory.
fn wide(is_json: bool) -> String {
    if is_json {
        format!("[{}0]", "{\"a\":0},".repeat(125_000))
    } else {
        "[a.b.c.d.e.f.g.h]\n".repeat(55_000)
    }
}

/// Documents of phases; what they are if they are none is in `foreign_files`.
fn documents_with_many_values(executables: &Built) -> Result<()> {
    let scene = Scene::new(executables)?;
    let cache = scene.path("cache");
    scene.project.write_layer("lib", "launch = true\ncache = true", "library")?;
    scene.project.analyze()?;
    let export = || scene.phase("exporter", &["-cache-dir", &cache, APP_IMAGE]);
    for path in ["analyzed.toml", "group.toml", "config/metadata.toml", "acme_a/lib.toml"] {
        let path = format!("layers/{path}");
        let aside = fs::read(scene.project.path(&path))?;
        scene.project.write(&path, wide(false))?;
        let file = path.rsplit('/').next().unwrap_or_default();
        refused(export(), file).with_context(|| path.clone())?;
        scene.project.write(&path, aside)?;
    }
    let processes = (0..10_000).map(|number| {
        format!(
            "[[processes]]\ntype = \"p{number}\"\ncommand = [\"run\", \"-p\"]\nargs = [\"a\"]\ndirect = true\n\
             buildpack-id = \"acme/a\"\n"
        )
    });
    scene.project.write("layers/config/metadata.toml", processes.collect::<String>())?;
    done(export())?;
    scene.project.write("cache/committed/io.buildpacks.lifecycle.cache.metadata", wide(true))?;
    done(scene.phase("restorer", &["-cache-dir", &cache]))?;
    done(export())?;
    done(scene.phase("rebaser", &["-force", APP_IMAGE]))?;
    done(scene.drydock(&["inspect", APP_IMAGE]))
}

/// Documents that `drydock` reads; what phases read is above.
fn documents_of_any_size_and_depth(executables: &Built) -> Result<()> {
    let scene = Scene::new(executables)?;
    scene.project.analyze()?;
    scene.project.export()?;
    for (path, text) in [
        ("builder.toml", ""),
        ("sources.toml", ""),
        ("module/buildpack.toml", ""),
        ("module/bin/build", ""),
        ("module/package.toml", ""),
        ("config/drydock/config.toml", ""),
        ("docker/config.json", "{}"),
    ] {
        scene.project.write(path, text)?;
    }
    let index = format!("{APP_LAYOUT}/index.json");
    let build = ["build", "new", "--path", "app"];
    for (path, arguments) in [
        ("builder.toml", &["builder", "create", "new", "--config", "builder.toml"][..]),
        ("sources.toml", &["import", "--sources", "sources.toml", "docker://localhost:1/ab", "new"]),
        (
            "sources.lock",
            &["import", "--lock", "--sources", "sources.toml", "docker://localhost:1/ab", "new"],
        ),
        ("module/buildpack.toml", &["buildpack", "package", "module", "new"]),
        ("module/package.toml", &["buildpack", "package", "module", "new"]),
        ("app/project.toml", &build),
        ("config/drydock/config.toml", &build),
        ("docker/config.json", &["logout", "localhost:1"]),
        ("Dockerfile", &["import", "dockerfile:.", "new"]),
        (&index, &["inspect", APP_IMAGE]),
        (&index, &["import", &format!("oci:{APP_LAYOUT}"), "new"]),
    ] {
        let aside = fs::read(scene.project.path(path)).ok();
        let deep = if path.ends_with("json") {
            ["[".repeat(10_000), r#"{"a":"#.repeat(10_000)]
        } else {
            [format!("a = {}", "[".repeat(10_000)), format!("a{} = 1", ".a".repeat(10_000))]
        };
        for text in deep.into_iter().chain([wide(path.ends_with("json")), String::new()]) {
            scene.project.write(path, &text)?;
            if text.is_empty() {
                // It takes no room.
                File::options().write(true).open(scene.project.path(path))?.set_len(100 * MIB)?;
            }
            let file = path.rsplit('/').next().unwrap_or(path);
            refused(scene.drydock(arguments), file).with_context(|| format!("{path}: {text:.20}"))?;
        }
        match aside {
            Some(bytes) => fs::write(scene.project.path(path), bytes)?,
            None => fs::remove_file(scene.project.path(path))?,
        }
    }
    Ok(())
}
