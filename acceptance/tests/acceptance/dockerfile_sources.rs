//! `drydock import dockerfile:…`: images that are built from folders, archives and git repositories, as root and as an ordinary user.

mod git_server;
mod repositories;
mod said;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::layout::{Image, Layout};
use drydock_acceptance::project::{run, succeed};
use drydock_acceptance::run::Output;
use drydock_acceptance::sandboxed::{House, Who};
use drydock_acceptance::tools;
use drydock_acceptance::tree::{self, Kind};
use drydock_fake_registry::{Answer, Fake};
use libtest_mimic::Trial;
use serde_json::Value;

use self::git_server::{TOKEN, git};
use crate::drydock::served::Served;
use crate::{Built, with_executables};

/// What is built in most tests: a base of the repository, a file of the context, and a program.
const DOCKERFILE: &str = "FROM acme/run:base\nARG WHO=world\nENV WHO=$WHO\nUSER 0\nCOPY . /src/\n\
                          RUN echo \"hello $WHO\" >/greeting; cat /src/file\nCMD [\"cat\", \"/greeting\"]\n";

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    let mut trials = repositories::trials(executables);
    trials.extend(said::trials(executables));
    trials.extend(with_executables(
        executables,
        [
            ("dockerfile_sources::every_source_gives_the_same_image", every_source_gives_the_same_image),
            ("dockerfile_sources::others_read_what_was_built", others_read_what_was_built),
            ("dockerfile_sources::sources_say_what_may_be_built", sources_say_what_may_be_built),
            ("dockerfile_sources::bases_come_from_registries", bases_come_from_registries),
            (
                "dockerfile_sources::bases_are_for_the_platform_and_have_the_digest",
                bases_are_for_the_platform_and_have_the_digest,
            ),
            ("dockerfile_sources::nothing_leads_out_of_a_source", nothing_leads_out_of_a_source),
            ("dockerfile_sources::options_say_what_is_built", options_say_what_is_built),
            ("dockerfile_sources::what_fails_leaves_nothing", what_fails_leaves_nothing),
            ("dockerfile_sources::downloads_are_as_the_server_says", downloads_are_as_the_server_says),
            (
                "dockerfile_sources::what_changes_during_a_build_is_not_kept_as_what_it_was",
                what_changes_during_a_build_is_not_kept_as_what_it_was,
            ),
            ("dockerfile_sources::programs_have_their_users_groups", programs_have_their_users_groups),
            ("dockerfile_sources::downloads_end_when_the_time_is_over", downloads_end_when_the_time_is_over),
        ],
    ));
    trials
}

/// A house, and a source in its folder `app`.
struct Site {
    house: House,
}

impl Site {
    fn new(built: &Built, who: Who, files: &[(&str, &str)]) -> Result<Self> {
        let dir = tempfile::tempdir().context("make a folder")?;
        let (cnb, app) = (dir.path().join("cnb"), dir.path().join("app"));
        for folder in [&cnb, &app] {
            fs::create_dir(folder)?;
        }
        let drydock = built.for_everyone()?.join("drydock");
        let site = Self { house: House::new(&drydock, Path::new("/nowhere"), who, &cnb, &app)? };
        for folder in ["sessions", "builds"] {
            fs::create_dir_all(site.house.path("home/.cache/drydock").join(folder))?;
        }
        for (path, text) in files {
            site.put(path, text)?;
        }
        site.house.own()?;
        Ok(site)
    }

    fn app(&self, path: &str) -> PathBuf {
        self.house.path("app").join(path)
    }

    fn put(&self, path: &str, text: &str) -> Result<()> {
        let path = self.app(path);
        fs::create_dir_all(path.parent().context("it has a parent")?)?;
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// `drydock`, with a network for nobody if it builds.
    fn command(&self, arguments: &[&str]) -> Command {
        self.house.patient(arguments)
    }

    /// Imports, however it ends.
    fn import(&self, arguments: &[&str]) -> Result<Output> {
        run(&mut self.command(&[&["import"], arguments, &["--network", "none"]].concat()))
    }

    /// Imports; it must succeed, and leave nothing.
    fn imported(&self, arguments: &[&str]) -> Result<Output> {
        let output = self.import(arguments)?;
        ensure!(output.exit == 0, "{arguments:?}: exit code {}\n{}", output.exit, output.text());
        self.house.is_clean().with_context(|| output.text())?;
        Ok(output)
    }

    /// It must fail, say something, and leave nothing.
    fn refused(&self, exit: i32, says: &str, arguments: &[&str]) -> Result<String> {
        let output = self.import(arguments)?;
        let said = output.text();
        ensure!(
            output.exit == exit && said.contains(says),
            "{arguments:?}: {} but not `{says}`: {said}",
            output.exit
        );
        self.house.is_clean().with_context(|| said.clone())?;
        Ok(said)
    }

    fn layout(&self, name: &str) -> Layout {
        Layout::new(self.house.path("layout-repo/index.docker.io").join(name))
    }

    /// The image of a name, which must be whole and without faults.
    fn image(&self, name: &str) -> Result<Image> {
        let layout = self.layout(name);
        let faults = layout.faults()?;
        ensure!(faults.is_empty(), "the layout has faults:\n{}", faults.join("\n"));
        layout.verify()?.pop().context("the layout has an image")
    }

    /// The files of an image, as `drydock export` writes them.
    fn files(&self, name: &str, to: &str) -> Result<PathBuf> {
        let to = self.house.path("home").join(to);
        let target = format!("dir:{}", to.display());
        succeed(&mut self.command(&["export", name, &target]))?;
        Ok(to)
    }

    /// A repository with what is in `app`, committed to `main`.
    fn commit(&self, repository: &str) -> Result<String> {
        let dir = self.house.path(repository);
        succeed(Command::new("cp").arg("-r").arg(self.house.path("app")).arg(&dir))?;
        git(&dir, &["init", "--quiet"])?;
        git(&dir, &["add", "--all"])?;
        git(&dir, &["commit", "--quiet", "--message", "first"])?;
        self.house.own()?;
        git(&dir, &["rev-parse", "HEAD"])
    }
}

const EVERYBODY: [Who; 2] = [Who::Root, Who::Ordinary];

/// Packs a folder's files.
fn pack(from: &Path, to: &Path, how: &str) -> Result<()> {
    succeed(Command::new("tar").arg(how).arg("-cf").arg(to).arg("-C").arg(from).arg(".")).map(drop)
}

fn every_source_gives_the_same_image(built: &Built) -> Result<()> {
    for who in EVERYBODY {
        let site = Site::new(built, who, &[("Dockerfile", DOCKERFILE), ("file", "of the context\n")])?;
        let commit = site.commit("home/repo.git")?;
        let served = site.house.path("home");
        for (name, how) in [("a.tar", "--no-auto-compress"), ("a.tar.gz", "-z"), ("a.tar.zst", "--zstd")] {
            pack(&site.house.path("app"), &served.join(name), how)?;
        }
        site.house.own()?;
        let archive = fs::read(served.join("a.tar.gz"))?;
        let web = Fake::start(move |_, _| Answer::new(200, archive.clone()));
        let host = web.host.clone();
        site.house.write("sources.toml", &format!("[host.'{host}']\nplain-http = true\n"))?;
        let repository = format!("dockerfile:git+file://{}", served.join("repo.git").display());
        let mut configs = BTreeSet::new();
        for source in [
            "dockerfile:app".to_owned(),
            "dockerfile:home/a.tar".to_owned(),
            "dockerfile:home/a.tar.gz".to_owned(),
            "dockerfile:home/a.tar.zst".to_owned(),
            format!("dockerfile:http://{host}/a.tar.gz"),
            repository.clone(),
            format!("{repository}#main"),
            format!("{repository}#{commit}"),
            format!("{repository}#main@{commit}"),
        ] {
            let output = site.imported(&[
                &source,
                "acme/built:1",
                "--sources",
                "sources.toml",
                "--creation-time",
                "1000000000",
                "--no-cache",
            ])?;
            ensure!(output.text().contains("of the context"), "{who:?} {source}: {}", output.text());
            let image = site.image("acme/built/1")?;
            configs.insert(image.config.to_string());
            ensure!(configs.len() == 1, "{who:?} {source}: another image:\n{configs:#?}");
        }
        let printed = succeed(&mut site.command(&["run", "acme/built:1", "--network", "none"]))?;
        ensure!(printed.stdout == b"hello world\n", "{who:?}: {}", printed.text());
        if who == Who::Ordinary {
            let strangers = site.house.strangers()?;
            ensure!(strangers.is_empty(), "these belong to somebody else: {strangers:?}");
        }
    }
    Ok(())
}

fn others_read_what_was_built(built: &Built) -> Result<()> {
    let dockerfile = "FROM acme/run:base AS made\nUSER 0\nRUN mkdir /made && echo made >/made/file && chown 7:8 /made/file\n\
                      FROM acme/run:base\nUSER 0\nCOPY --from=made --chmod=640 /made /copied/\n\
                      COPY --chown=5:6 file /srv/\nRUN rm /usr/bin/env && ln -s file /srv/link\n\
                      LABEL of=tests\nEXPOSE 80\nWORKDIR /srv\nUSER 5\nENTRYPOINT [\"cat\"]\nCMD [\"file\"]\n";
    for who in EVERYBODY {
        let site = Site::new(built, who, &[("Dockerfile", dockerfile), ("file", "text\n")])?;
        for flags in [&[][..], &["--flatten", "--compression", "gzip:6"][..]] {
            site.imported(&[&["dockerfile:app", "acme/built:1", "--creation-time", "0"], flags].concat())?;
            let image = site.image("acme/built/1")?;
            let config = &image.config["config"];
            ensure!(config["User"] == "5" && config["WorkingDir"] == "/srv", "{who:?}: {config}");
            ensure!(
                config["Labels"]["of"] == "tests" && config["ExposedPorts"]["80/tcp"].is_object(),
                "{config}"
            );
            let history = image.config["history"].as_array().context("a history")?;
            let layers = history.iter().filter(|entry| entry["empty_layer"] != true).count();
            ensure!(layers == image.layers.len(), "{who:?}: {history:?}");
            ensure!(
                history
                    .iter()
                    .any(|entry| entry["created_by"].as_str().is_some_and(|by| by.contains("EXPOSE")))
            );
            ensure!(image.config["created"] == "1970-01-01T00:00:00Z", "{}", image.config["created"]);
            let scratch = tempfile::tempdir()?;
            let judged = tools::Image::new(site.layout("acme/built/1").dir(), "1", scratch.path())?;
            // It leaves out what it does not know.
            let read = judged.config()?;
            for (place, key) in [
                ("/config", "User"),
                ("/config", "Cmd"),
                ("/config", "Labels"),
                ("", "rootfs"),
                ("", "created"),
            ] {
                let of = |config: &Value| config.pointer(place).map(|found| found[key].clone());
                ensure!(of(&read) == of(&image.config), "{who:?}: skopeo reads another `{key}`: {read}");
            }
            judged.archive("docker-archive")?;
            let found = tree::read(&judged.unpack()?)?;
            for (path, mode, owner) in [("copied/file", 0o640, (7, 8)), ("srv/file", 0o644, (5, 6))] {
                let node = found.get(Path::new(path)).with_context(|| format!("{path} is missing"))?;
                ensure!(
                    (node.mode & 0o7777, (node.uid, node.gid)) == (mode, owner),
                    "{who:?} {path}: {node:?}"
                );
            }
            ensure!(!found.contains_key(Path::new("usr/bin/env")), "{who:?}: what was removed is there");
            ensure!(!found.contains_key(Path::new("made")), "{who:?}: another stage's files are there");
            ensure!(
                matches!(&found[Path::new("srv/link")].kind, Kind::Symlink(to) if to == Path::new("file"))
            );
        }
    }
    Ok(())
}

fn with_rules<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &["--sources", "sources.toml"]].concat()
}

fn sources_say_what_may_be_built(built: &Built) -> Result<()> {
    let site = Site::new(
        built,
        Who::Ordinary,
        &[("shop/Dockerfile", "FROM scratch\nCOPY . /\n"), ("old/Dockerfile", "FROM scratch\n")],
    )?;
    site.commit("home/repo")?;
    pack(&site.app("shop"), &site.app("shop.tar.gz"), "-z")?;
    let archive = fs::read(site.app("shop.tar.gz"))?;
    let web = Fake::start(move |_, _| Answer::new(200, archive.clone()));
    let (host, home, app) = (&web.host, site.house.path("home"), site.house.path("app"));
    let (home, app) = (home.display(), app.display());
    let rules = format!(
        "strict = true\n[source.ctx]\nkind = 'dockerfile'\nlocation = 'app'\ndeny = ['old']\nimages = ['shop', 'shop.tar.gz']\n\
         [source.web]\nkind = 'dockerfile'\nlocation = 'http://{host}/ctx'\n\
         [source.code]\nkind = 'git'\nlocation = 'file://{home}'\nmirrors = ['file://{home}/gone']\nallow = ['repo#main']\n\
         images = ['repo#main:shop']\n[host.'{host}']\nplain-http = true\n"
    );
    site.house.write("sources.toml", &rules)?;
    for (source, name) in [
        ("dockerfile:app/shop", "acme/x:1"),
        ("dockerfile:app/shop.tar.gz", "acme/x:1"),
        ("ctx/shop", "acme/x:1"),
        ("ctx/shop.tar.gz", "acme/x:1"),
        (&format!("dockerfile:http://{host}/ctx/shop.tar.gz"), "acme/x:1"),
        ("web/shop.tar.gz", "acme/x:1"),
        (&format!("dockerfile:git+file://{home}/repo#main:shop"), "acme/x:1"),
        ("code/repo#main:shop", "acme/x:1"),
    ] {
        site.imported(&with_rules(&[source, name])).with_context(|| source.to_owned())?;
    }
    site.imported(&with_rules(&["--all"]))?;
    for name in ["ctx/shop/latest", "code/repo/shop/main"] {
        site.image(name)?;
    }
    symlink(site.house.path("home/repo"), site.app("link"))?;
    for (exit, says, source) in [
        (4, "`old` is in its `deny`", "dockerfile:app/old"),
        (4, "`old` is in its `deny`", "ctx/old"),
        (4, "the file of sources is strict", "dockerfile:home/repo/shop"),
        (4, "the file of sources is strict", "dockerfile:app/link"),
        (4, "the file of sources is strict", &format!("dockerfile:http://{host}/other/shop.tar.gz")),
        (4, "nothing in its `allow`", &format!("dockerfile:git+file://{home}/repo")),
        (4, "nothing in its `allow`", "code/repo#other"),
        (4, "the file of sources is strict", &format!("dockerfile:git+file://{app}/repo")),
        (2, "it must be a path", "ctx/../home"),
        (2, "has no tag", "ctx/shop:1"),
    ] {
        site.refused(exit, says, &with_rules(&[source, "acme/y:1"]))?;
    }
    site.refused(2, "what is built has no name", &["dockerfile:app/shop"])?;
    site.refused(2, "--target is for what is built", &["oci:app", "acme/y:1", "--target", "x"])?;
    ensure!(!site.layout("acme/y/1").dir().exists(), "something is there");
    Ok(())
}

fn bases_come_from_registries(built: &Built) -> Result<()> {
    let site = Site::new(built, Who::Ordinary, &[])?;
    let base = Served::image(&site.layout("acme/run/base"))?;
    let asked = Arc::new(AtomicBool::new(false));
    let note = Arc::clone(&asked);
    let registry = Fake::start(move |request, _| {
        note.store(true, Ordering::Relaxed);
        match request.header("authorization") {
            Some("Basic dXNlcjpvcGVuIHNlc2FtZQ==") => base.answer(request),
            _ => Answer::new(401, "").with("WWW-Authenticate", "Basic realm=\"x\""),
        }
    });
    let (host, app) = (&registry.host, site.house.path("app"));
    let app = app.display();
    site.put(
        "Dockerfile",
        &format!("FROM {host}/x/y\nUSER 0\nRUN touch /here\nCOPY --from={host}/x/y /bin/busybox /copy\n"),
    )?;
    site.house.own()?;
    let rules = |more: &str| {
        format!(
            "strict = true\n[source.ctx]\nkind = 'dockerfile'\nlocation = '{app}'\n[source.hub]\nkind = 'registry'\n\
             location = '{host}'\nauth = {{ env = 'TOKEN' }}\n{more}\n[host.'{host}']\nplain-http = true\n"
        )
    };
    let import = |more: &[&str]| -> Result<Output> {
        let arguments =
            ["import", "dockerfile:app", "acme/x:1", "--sources", "home/sources.toml", "--network", "none"];
        run(site.command(&[&arguments, more].concat()).env("TOKEN", format!("user:{TOKEN}")))
    };
    site.house.write("home/sources.toml", &rules("deny = ['x/*']"))?;
    let output = import(&[])?;
    let said = output.text();
    ensure!(
        output.exit == 4 && said.contains("Dockerfile: line 1") && said.contains("`x/*` is in its `deny`"),
        "{said}"
    );
    ensure!(!asked.load(Ordering::Relaxed), "the registry was asked all the same");
    site.house.write("home/sources.toml", &rules("allow = ['x/*']"))?;
    let output = import(&["--locked"])?;
    ensure!(output.exit == 4 && output.text().contains("is not in the lock file"), "{}", output.text());
    let output = import(&["--lock"])?;
    ensure!(output.exit == 0, "{}", output.text());
    site.house.is_clean()?;
    ensure!(
        fs::read_to_string(site.house.path("home/sources.lock"))?.contains("hub/x/y:latest"),
        "it is not locked"
    );
    // It is in the repository now.
    asked.store(false, Ordering::Relaxed);
    let output = import(&[])?;
    ensure!(output.exit == 0 && !asked.load(Ordering::Relaxed), "{}", output.text());
    let output = import(&["--locked"])?;
    ensure!(output.exit == 0 && asked.load(Ordering::Relaxed), "{}", output.text());
    let manifest: Value = {
        let layout = site.layout("acme/x/1");
        serde_json::from_slice(&fs::read(layout.blob_path(&site.image("acme/x/1")?.descriptor.digest))?)?
    };
    let name = manifest["annotations"]["org.opencontainers.image.base.name"].as_str().unwrap_or_default();
    ensure!(name == format!("{host}/x/y:latest"), "{manifest}");
    site.put("Dockerfile", "FROM acme/none\n")?;
    let output = import(&[])?;
    let said = output.text();
    ensure!(
        output.exit == 4 && said.contains("line 1: image `acme/none`") && said.contains("strict"),
        "{said}"
    );
    Ok(())
}

/// Images of the repository, for which nothing is asked from outside.
fn bases_are_for_the_platform_and_have_the_digest(built: &Built) -> Result<()> {
    let site = Site::new(built, Who::Ordinary, &[("Dockerfile", "FROM acme/run:base\nCOPY Dockerfile /\n")])?;
    site.house
        .write("sources.toml", "strict = true\n[source.ctx]\nkind = 'dockerfile'\nlocation = 'app'\n")?;
    let arguments = with_rules(&["dockerfile:app", "acme/x:1"]);
    site.imported(&arguments)?;
    site.refused(
        4,
        "the file of sources is strict",
        &[&arguments[..], &["--platform", "linux/s390x"]].concat(),
    )?;
    let digest = site.image("acme/run/base")?.descriptor.digest;
    for (name, is_there) in [
        (format!("acme/run:base@{digest}"), true),
        (format!("acme/run:base@sha256:{}", "0".repeat(64)), false),
        (format!("acme/run@{digest}"), false),
    ] {
        site.put("Dockerfile", &format!("FROM {name}\nCOPY Dockerfile /\n"))?;
        if is_there {
            site.imported(&arguments)?;
        } else {
            site.refused(4, "the file of sources is strict", &arguments)?;
        }
    }
    Ok(())
}

fn nothing_leads_out_of_a_source(built: &Built) -> Result<()> {
    let site = Site::new(
        built,
        Who::Root,
        &[("ctx/Dockerfile", "FROM scratch\nCOPY . /\n"), ("ctx/file", "inside")],
    )?;
    site.house.write("outside", "outside\n")?;
    site.house.write("Dockerfile", "FROM scratch\nCOPY outside /\n")?;
    let inner = site.app("ctx");
    symlink("../..", inner.join("up"))?;
    symlink(site.house.path(""), inner.join("house"))?;
    symlink("../../outside", inner.join("file-link"))?;
    pack(&inner, &site.app("ctx.tar"), "--no-auto-compress")?;
    let dir = site.house.path("home/repo");
    succeed(Command::new("cp").arg("-a").arg(&inner).arg(&dir))?;
    git(&dir, &["init", "--quiet"])?;
    git(&dir, &["add", "--all"])?;
    git(&dir, &["commit", "--quiet", "--message", "links"])?;
    let git = format!("dockerfile:git+file://{}", dir.display());
    for source in ["dockerfile:app/ctx", "dockerfile:app/ctx.tar", &git] {
        for arguments in [
            ["--context", ".."],
            ["--context", "up"],
            ["--context", "house"],
            ["--context", "up/home"],
            ["--file", "../../Dockerfile"],
            ["--file", "up/Dockerfile"],
            ["--file", "house/Dockerfile"],
            ["--file", "/etc/passwd"],
        ] {
            site.refused(4, "leads out of the source", &[&[source, "acme/x:1"], &arguments[..]].concat())?;
        }
        // A link is copied as one, and what it leads to is not.
        site.imported(&[source, "acme/x:1"])?;
        let files = site.files("acme/x:1", "files")?;
        ensure!(fs::read_link(files.join("up"))? == Path::new("../.."), "{source}");
        fs::remove_dir_all(&files)?;
    }
    site.put("ctx/leads", "FROM scratch\nCOPY file-link /\n")?;
    let output = site.import(&["dockerfile:app/ctx", "acme/y:1", "--file", "leads"])?;
    ensure!(output.exit != 0, "{}", output.text());
    ensure!(!site.layout("acme/y/1").dir().exists(), "something is there");
    Ok(())
}

fn options_say_what_is_built(built: &Built) -> Result<()> {
    let dockerfile = "ARG BASE=acme/run:base\nFROM $BASE AS one\nARG A=1\nARG B=2\nARG C\nUSER 0\nRUN echo \"$A $B $C\" >/args\n\
                      FROM one AS two\nRUN exit 3\n";
    let site = Site::new(
        built,
        Who::Ordinary,
        &[
            ("own/build", dockerfile),
            ("ctx/Dockerfile", "FROM scratch\nCOPY . /\n"),
            ("ctx/a", "a"),
            ("ctx/b", "b"),
            ("ctx/.dockerignore", "b\nDockerfile\n.dockerignore\n"),
            ("ctx/other", "FROM scratch\nCOPY . /\n"),
            ("ctx/other.dockerignore", "a\n"),
        ],
    )?;
    let mut command = site.command(&[
        "import",
        "dockerfile:app",
        "acme/x:1",
        "--file",
        "own/build",
        "--target",
        "one",
        "--build-arg",
        "A=x=y",
        "--build-arg",
        "C",
        "--build-arg",
        "NOT_SET",
        "--network",
        "none",
        "--quiet",
    ]);
    let output = succeed(command.env("C", "of the environment"))?;
    let digest = site.image("acme/x/1")?.descriptor.digest;
    ensure!(
        output.stdout == format!("{digest}\n").as_bytes() && output.stderr.is_empty(),
        "{}",
        output.text()
    );
    let files = site.files("acme/x:1", "files")?;
    ensure!(fs::read_to_string(files.join("args"))? == "x=y 2 of the environment\n");
    let common = ["dockerfile:app", "acme/y:1", "--file", "own/build"];
    let refused = |exit, says: &str, more: &[&str]| site.refused(exit, says, &[&common, more].concat());
    let said = refused(4, "exit code 3", &["--quiet"])?;
    ensure!(said.contains("own/build: line 9"), "{said}");
    refused(4, "there is no stage `three`", &["--target", "three"])?;
    refused(2, "expected `id=ID`", &["--secret", "nothing"])?;
    refused(2, "no --volume", &["--volume", "/:/x"])?;
    site.put("own/bad", "FROM scratch\nCOPY\n")?;
    site.refused(4, "own/bad: line 2", &["dockerfile:app", "acme/y:1", "--file", "own/bad"])?;
    site.refused(4, "there is no `Dockerfile` in the source", &["dockerfile:app", "acme/y:1"])?;
    site.put("text", "no archive")?;
    site.refused(2, "neither a folder nor a tar", &["dockerfile:app/text", "acme/y:1"])?;
    for (more, there) in
        [(&["--context", "ctx"][..], "a"), (&["--context", "ctx", "--file", "ctx/other"][..], "b")]
    {
        fs::remove_dir_all(site.house.path("home/files"))?;
        site.imported(&[&["dockerfile:app", "acme/z:1"], more].concat())?;
        let files = site.files("acme/z:1", "files")?;
        let found: Vec<bool> = ["a", "b"].iter().map(|name| files.join(name).exists()).collect();
        ensure!(found == [there == "a", there == "b"], "{more:?}: {found:?}");
    }
    Ok(())
}

fn what_fails_leaves_nothing(built: &Built) -> Result<()> {
    for who in EVERYBODY {
        let site =
            Site::new(built, who, &[("Dockerfile", "FROM acme/run:base\nUSER 0\nRUN echo one >/one\n")])?;
        site.imported(&["dockerfile:app", "acme/x:1"])?;
        let before = site.image("acme/x/1")?.descriptor.digest;
        site.put("Dockerfile", "FROM acme/run:base\nUSER 0\nRUN echo two >/one\nRUN echo why >&2; exit 7\n")?;
        let said = site.refused(4, "exit code 7", &["dockerfile:app", "acme/x:1"])?;
        ensure!(said.contains("Dockerfile: line 4") && said.contains("why"), "{who:?}: {said}");
        ensure!(site.image("acme/x/1")?.descriptor.digest == before, "{who:?}: the image is another one");
        site.put("Dockerfile", "FROM acme/run:base\nUSER 0\nRUN sleep 100\n")?;
        site.refused(4, "--timeout", &["dockerfile:app", "acme/x:1", "--timeout", "2s"])?;
        ensure!(site.image("acme/x/1")?.descriptor.digest == before, "{who:?}: the image is another one");
        let arguments = ["dockerfile:app", "acme/none:1", "--file", "failing"];
        site.refused(4, "there is no `failing`", &arguments)?;
        ensure!(!site.layout("acme/none/1").dir().exists(), "{who:?}: a folder is left");
    }
    Ok(())
}

fn downloads_are_as_the_server_says(built: &Built) -> Result<()> {
    let web = Fake::start(|request, _| match &*request.path {
        "/old" => Answer::new(200, "old").with("Last-Modified", "Tue, 15 Nov 1994 12:45:26 GMT"),
        _ => Answer::new(200, "new"),
    });
    let host = &web.host;
    let dockerfile = format!("FROM scratch\nADD http://{host}/old /d/\nADD http://{host}/ /index\n");
    let site = Site::new(built, Who::Ordinary, &[("Dockerfile", &dockerfile)])?;
    site.house.write("sources.toml", &format!("[host.'{host}']\nplain-http = true\n"))?;
    let before = SystemTime::now() - Duration::from_secs(2);
    site.imported(&with_rules(&["dockerfile:app", "acme/x:1"]))?;
    let files = site.files("acme/x:1", "files")?;
    let modified = |path: &str| Ok::<_, anyhow::Error>(fs::metadata(files.join(path))?.modified()?);
    ensure!(modified("d/old")? == UNIX_EPOCH + Duration::from_secs(784_903_526), "{:?}", modified("d/old")?);
    ensure!(modified("index")? > before, "{:?}", modified("index")?);
    site.put("Dockerfile", &format!("FROM scratch\nADD http://{host}/old /d/\nADD http://{host}/ /d\n"))?;
    site.refused(4, "no file's name at its end", &with_rules(&["dockerfile:app", "acme/x:1"])).map(drop)
}

fn what_changes_during_a_build_is_not_kept_as_what_it_was(built: &Built) -> Result<()> {
    let site = Site::new(built, Who::Ordinary, &[("file", "old")])?;
    let (path, is_first) = (site.app("file"), AtomicBool::new(true));
    // What is downloaded is asked for when the file beside it was looked at already.
    let web = Fake::start(move |_, _| {
        let done = !is_first.swap(false, Ordering::SeqCst) || fs::write(&path, "new").is_ok();
        Answer::new(if done { 200 } else { 500 }, "")
    });
    let host = &web.host;
    site.put("Dockerfile", &format!("FROM scratch\nADD file http://{host}/x /\n"))?;
    site.house.write("sources.toml", &format!("[host.'{host}']\nplain-http = true\n"))?;
    for (tag, text) in [("1", "new"), ("2", "old"), ("3", "new")] {
        let name = format!("acme/x:{tag}");
        site.imported(&with_rules(&["dockerfile:app", &name]))?;
        let found = fs::read_to_string(site.files(&name, tag)?.join("file"))?;
        ensure!(found == text, "{name}: {found}");
        site.put("file", if text == "new" { "old" } else { "new" })?;
    }
    Ok(())
}

fn programs_have_their_users_groups(built: &Built) -> Result<()> {
    const DOCKERFILE: &str = "FROM acme/run:base\nUSER 0\nRUN echo me:x:7:8::/: >/etc/passwd && \
                              echo extra:x:1500:me >/etc/group\nUSER me\nRUN id -G >/tmp/groups\nCMD id -G; cat /tmp/groups\n";
    for who in EVERYBODY {
        let site = Site::new(built, who, &[("Dockerfile", DOCKERFILE)])?;
        site.imported(&["dockerfile:app", "acme/x:1"])?;
        let groups = succeed(&mut site.command(&["run", "acme/x:1"]))?;
        ensure!(groups.stdout == b"8 1500\n8 1500\n", "{who:?}: {}", groups.text());
    }
    Ok(())
}

fn downloads_end_when_the_time_is_over(built: &Built) -> Result<()> {
    let web = Fake::start(|_, _| Answer::new(200, "begin").announcing(1000).stalling());
    let host = &web.host;
    for who in EVERYBODY {
        let site =
            Site::new(built, who, &[("add", &format!("FROM acme/run:base\nADD http://{host}/x /x\n"))])?;
        site.put("base", &format!("FROM {host}/x/y\n"))?;
        site.house.write("sources.toml", &format!("[host.'{host}']\nplain-http = true\n"))?;
        let (tar, git) =
            (format!("dockerfile:http://{host}/a.tar"), format!("dockerfile:git+http://{host}/a.git"));
        for (source, file) in
            [("dockerfile:app", "add"), ("dockerfile:app", "base"), (&*tar, "add"), (&*git, "add")]
        {
            let arguments = [source, "acme/x:1", "--file", file, "--timeout", "1s"];
            site.refused(4, "its time is over (--timeout)", &with_rules(&arguments))?;
        }
    }
    Ok(())
}
