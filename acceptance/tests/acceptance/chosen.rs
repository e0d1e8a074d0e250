//! What users choose of a build: which buildpacks, from where, who they are, whose phases, and where the source comes from.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::layout::Layout;
use drydock_acceptance::project::{self, succeed};
use drydock_acceptance::sandboxed::{BUILDER, House, Who};
use drydock_acceptance::stage::copy;
use libtest_mimic::Trial;
use rawzip::ZipArchiveWriter;
use serde_json::{Value, json};

use crate::Built;
use crate::building::{GREETER, Houses, with_houses, write_buildpack};
use crate::drydock::builders::{change, relabel};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>, houses: &Arc<Houses>) -> Vec<Trial> {
    with_houses(
        executables,
        houses,
        [
            ("chosen::buildpacks_from_everywhere", buildpacks_from_everywhere),
            ("chosen::buildpacks_that_do_harm", buildpacks_that_do_harm),
            ("chosen::buildpacks_of_a_project", buildpacks_of_a_project),
            ("chosen::sources_in_archives", sources_in_archives),
            ("chosen::settled_for_all_builds", settled_for_all_builds),
            ("chosen::users_and_platforms", users_and_platforms),
            ("chosen::the_lifecycle_of_the_builder", the_lifecycle_of_the_builder),
        ],
    )
}

/// Writes a buildpack into `home` that says when it builds.
fn write_own(house: &House, name: &str, further: &str) -> Result<()> {
    let dir = house.path("home").join(name);
    fs::create_dir_all(dir.join("bin"))?;
    let toml = format!("api = '0.10'\n[buildpack]\nid = 'me/{name}'\nversion = '1'\n{further}");
    for (file, text) in [
        ("buildpack.toml", toml),
        ("bin/detect", "#!/bin/sh\n".to_owned()),
        ("bin/build", format!("#!/bin/sh\necho built by {name}\n")),
    ] {
        fs::write(dir.join(file), text)?;
    }
    if further.contains("order") {
        fs::remove_dir_all(dir.join("bin"))?;
    }
    Ok(())
}

/// What it said that builds, in its order.
fn builders(text: &str) -> String {
    let lines = text.lines().filter_map(|line| match line {
        "Making a greeter" | "The greeter came back" => Some("greeter"),
        line => line.strip_prefix("built by "),
    });
    lines.collect::<Vec<_>>().join(" ")
}

/// Gives every request a file; the address of it.
fn serve(content: Vec<u8>) -> Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen")?;
    let address = listener.local_addr()?.to_string();
    // It ends with the tests.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let length = content.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            // Who does not wait for the answer does not want it.
            let _ = (&stream).write_all(head.as_bytes()).and_then(|()| (&stream).write_all(&content));
        }
    });
    Ok(address)
}

fn buildpacks_from_everywhere(built: &Built, houses: &Houses) -> Result<()> {
    for who in [Who::Root, Who::Ordinary] {
        let house = houses.with_script(built, who, GREETER)?;
        write_own(&house, "x", "")?;
        write_own(&house, "y", "")?;
        let order = "[[order]]\n[[order.group]]\nid = 'me/y'\nversion = '1'\n[[order.group]]\nid = 'me/x'\nversion = '1'\n";
        write_own(&house, "both", order)?;
        house.write(
            "home/both/package.toml",
            "[[dependencies]]\nuri = '../x'\n[[dependencies]]\nuri = '../y'\n",
        )?;
        house.own()?;
        for arguments in [
            &["buildpack", "package", "home/x", "-o", "home/x.cnb"][..],
            &["buildpack", "package", "home/both", "-o", "home/both.cnb"],
            &["buildpack", "package", "home/both", "me/both:2"],
        ] {
            succeed(&mut house.patient(arguments))?;
        }
        succeed(Command::new("tar").args(["-czf", "y.tgz", "-C", "y", "."]).current_dir(house.path("home")))?;
        let address = serve(fs::read(house.path("home/x.cnb"))?)?;
        house.write("home/sources.toml", &format!("[host.'{address}']\nplain-http = true\n"))?;
        let url = format!("http://{address}/x.cnb?token=secret");
        for (arguments, want) in [
            (&["-b", "home/x", "-b", "acme/a"][..], "x greeter"),
            (&["-b", "acme/a@1,home/y.tgz"], "greeter y"),
            (&["-b", "home/x.cnb", "-b", "from=builder"], "x greeter"),
            (&["-b", "home/both.cnb"], "y x"),
            (&["-b", "me/both:2", "--trust-builder"], "y x"),
            (&["-b", "oci:layout-repo/index.docker.io/me/both/2"], "y x"),
            (&["--pre-buildpack", "home/y", "--post-buildpack", "home/x.cnb"], "y greeter x"),
            (&["-b", &url, "--sources", "home/sources.toml"], "x"),
        ] {
            let output = house.built(arguments)?;
            ensure!(builders(&output.text()) == want, "{who:?} {arguments:?}: {}", output.text());
            ensure!(!output.text().contains("secret"), "{}", output.text());
        }
        let output = house.build(&["-b", &url])?;
        ensure!(
            output.exit == 4 && output.text().contains("plain HTTP"),
            "{}: {}",
            output.exit,
            output.text()
        );
        house.write("home/sources.toml", "strict = true\n")?;
        let output = house.build(&["-b", &url, "--sources", "home/sources.toml"])?;
        ensure!(output.exit != 0 && !output.text().contains("secret"), "{}: {}", output.exit, output.text());
        house.is_clean()?;
    }
    Ok(())
}

/// Nothing of the machine is seen by a buildpack that is given.
fn buildpacks_that_do_harm(built: &Built, houses: &Houses) -> Result<()> {
    let house = houses.with_script(built, Who::Ordinary, GREETER)?;
    write_own(&house, "x", "")?;
    house.own()?;
    succeed(&mut house.patient(&["buildpack", "package", "home/x", "me/x"]))?;
    house.write("home/secret", "secret\n")?;
    let spy =
        format!("#!/bin/sh\ncat {} \"$(dirname \"$0\")/../link\"\n", house.path("home/secret").display());
    fs::write(house.path("home/x/bin/build"), spy)?;
    symlink(house.path("home/secret"), house.path("home/x/link"))?;
    let output = house.build(&["-b", "home/x"])?;
    ensure!(output.exit == 51 && !output.text().contains("secret\n"), "{}: {}", output.exit, output.text());

    // A package whose labels say nothing of a layer that has a link in the place of the buildpacks.
    let layout = Layout::new(house.path("layout-repo/index.docker.io/me/x/latest"));
    let tar = "mkdir -p t/cnb && ln -s \"$PWD/home\" t/cnb/buildpacks && tar -cf layer.tar -C t cnb";
    succeed(Command::new("sh").args(["-c", tar]).current_dir(house.path("")))?;
    add_layer(&layout, &fs::read(house.path("layer.tar"))?)?;
    house.own()?;
    fs::create_dir_all(house.path("home/me_x"))?;
    fs::rename(house.path("home/x"), house.path("home/me_x/1"))?;
    let output = house.build(&["-b", "me/x"])?;
    fs::rename(house.path("home/me_x/1"), house.path("home/x"))?;
    ensure!(
        output.exit != 0 && output.text().contains("no folder in its package"),
        "{}: {}",
        output.exit,
        output.text()
    );

    succeed(Command::new("mkfifo").arg(house.path("home/fifo")))?;
    succeed(Command::new("mkfifo").arg(house.path("home/x/fifo")))?;
    house.write("home/text", "no archive")?;
    for (given, says) in [
        ("home/fifo", "not a regular file"),
        ("home/x", "neither a file nor a folder"),
        ("home/text", "home/text"),
        ("home/none.cnb", "has no buildpack"),
        ("./home/none.cnb", "cannot find"),
        ("urn:cnb:registry:me/x", "no registry of buildpacks"),
    ] {
        let output = house.build(&["-b", given])?;
        ensure!(output.exit != 0 && output.text().contains(says), "{given}: {}", output.text());
    }
    house.is_clean()
}

/// Adds a layer to the one image of a layout.
fn add_layer(layout: &Layout, tar: &[u8]) -> Result<()> {
    let digest = drydock_acceptance::sha256(tar);
    fs::write(layout.blob_path(&digest), tar).context("write a blob")?;
    let layer =
        json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": tar.len()});
    change(layout, |config, manifest| {
        config["history"] = json!([]);
        for (list, item) in
            [(&mut config["rootfs"]["diff_ids"], json!(digest)), (&mut manifest["layers"], layer)]
        {
            list.as_array_mut().expect("an image has layers").push(item);
        }
    })
}

/// `project.toml`: buildpacks within it, by URIs, before and after the others; the command line wins.
fn buildpacks_of_a_project(built: &Built, houses: &Houses) -> Result<()> {
    let house = houses.with_script(built, Who::Ordinary, GREETER)?;
    write_own(&house, "x", "")?;
    write_own(&house, "y", "")?;
    house.own()?;
    let script =
        "id = 'me/inline'\n[io.buildpacks.pre.group.script]\napi = '0.10'\ninline = 'echo built by inline'\n";
    let version = "[_]\nschema-version = '0.2'\n";
    let both = format!(
        "{version}[[io.buildpacks.pre.group]]\n{script}[[io.buildpacks.post.group]]\nuri = '../home/x'\n"
    );
    let group = format!(
        "{version}[[io.buildpacks.group]]\nid = 'acme/a'\n[[io.buildpacks.group]]\n{}",
        script.replace("pre.group", "group")
    );
    let old = "[[build.buildpacks]]\nuri = '../home/x'\n[[build.buildpacks]]\nid = 'acme/a'\nversion = '1'\n";
    for (text, arguments, want) in [
        (both.as_str(), &[][..], "inline greeter x"),
        (&both, &["--pre-buildpack", "home/y"], "y greeter x"),
        (&both, &["-b", "home/x"], "x"),
        (&group, &[], "greeter inline"),
        (old, &[], "x greeter"),
    ] {
        house.write("app/project.toml", text)?;
        let output = house.build(arguments)?;
        ensure!(
            output.exit == 0 && builders(&output.text()) == want,
            "{text} {arguments:?}: {}",
            output.text()
        );
    }
    house.is_clean()
}

/// The same image comes of a folder and of archives of it.
fn sources_in_archives(built: &Built, houses: &Houses) -> Result<()> {
    let house = houses.with_script(built, Who::Ordinary, GREETER)?;
    house.write("app/script", "#!/bin/sh\n")?;
    house.own()?;
    succeed(Command::new("chmod").arg("-R").arg("u=rwX,go=rX").arg(house.path("app")))?;
    succeed(Command::new("tar").args(["-czf", "app.tgz", "-C", "app", "."]).current_dir(house.path("")))?;
    succeed(
        Command::new("tar").args(["-cf", "bad.tar", "-P", "app/../app/name"]).current_dir(house.path("")),
    )?;
    let mut zip = ZipArchiveWriter::new(Vec::new());
    for name in ["name", "script"] {
        let (mut entry, config) = zip.new_file(name).unix_permissions(0o644).start()?;
        let mut writer = config.wrap(&mut entry);
        writer.write_all(&fs::read(house.path("app").join(name))?)?;
        let (_, written) = writer.finish()?;
        entry.finish(written)?;
    }
    fs::write(house.path("app.jar"), zip.finish()?)?;
    house.built(&[])?;
    let want = house.image()?.diff_ids()?;
    let from = |source: &str| -> Result<_> {
        let arguments = house.build_arguments(&[])?;
        let arguments: Vec<&str> =
            arguments.into_iter().map(|word| if word == "app" { source } else { word }).collect();
        // The name of the image comes before the source.
        project::run(&mut house.patient(&[&["build", "app"], &arguments[2..]].concat()))
    };
    for archive in ["app.tgz", "app.jar"] {
        let output = from(archive)?;
        ensure!(output.exit == 0, "{archive}: {}", output.text());
        ensure!(house.image()?.diff_ids()? == want, "{archive}: the image is another one");
    }
    succeed(Command::new("mkfifo").arg(house.path("fifo")))?;
    for (archive, exit, says) in [
        ("bad.tar", 1, "has a `..`"),
        ("fifo", 4, "not a regular file"),
        ("app/name", 2, "is no folder"),
        ("none", 4, "cannot find"),
    ] {
        let output = from(archive)?;
        ensure!(
            output.exit == exit && output.text().contains(says),
            "{archive}: {} {}",
            output.exit,
            output.text()
        );
    }
    house.is_clean()
}

/// `config.toml`: a builder where none is named, and which builders are trusted.
fn settled_for_all_builds(built: &Built, houses: &Houses) -> Result<()> {
    let house = houses.with_script(built, Who::Ordinary, GREETER)?;
    let usual = house.build_arguments(&["--json"])?;
    let usual: Vec<&str> = usual.into_iter().filter(|word| !["--builder", BUILDER].contains(word)).collect();
    fs::create_dir_all(house.path("home/.config/drydock"))?;
    for (text, phases) in [
        ("default-builder = 'acme/builder'\n", 5),
        ("default-builder = 'acme/builder:latest'\ntrusted-builders = ['acme/builder']\n", 1),
    ] {
        house.write("home/.config/drydock/config.toml", text)?;
        let answer = succeed(&mut house.patient(&usual))?;
        let answer: Value = serde_json::from_slice(&answer.stdout).with_context(|| answer.text())?;
        ensure!(answer["phases"].as_array().map(Vec::len) == Some(phases), "{text}: {answer}");
    }
    house.write("home/.config/drydock/config.toml", "default_builder = 'acme/builder'\n")?;
    let output = project::run(&mut house.patient(&usual))?;
    ensure!(output.exit != 0 && output.text().contains("unknown field"), "{}", output.text());
    house.is_clean()
}

fn users_and_platforms(built: &Built, houses: &Houses) -> Result<()> {
    for who in [Who::Root, Who::Ordinary] {
        let house = houses.with_script(
            built,
            who,
            &format!("{GREETER}echo \"user $(id -u):$(id -g)\"\ntouch mark\n"),
        )?;
        let output = house.built(&["--uid", "1234", "--gid", "2345"])?;
        ensure!(output.text().lines().any(|line| line == "user 1234:2345"), "{who:?}: {}", output.text());
        let other = if cfg!(target_arch = "aarch64") { "linux/amd64" } else { "linux/arm64" };
        for (arguments, says) in [
            (&["--uid", "0"][..], "--uid"),
            (&["--platform", other], "build on a machine of that kind"),
            (&["--platform", "plan9/amd64"], "build on a machine of that kind"),
            (&["--lifecycle", "builder"], "--trust-builder"),
        ] {
            let mut arguments =
                [&["build", "app", "--builder", BUILDER, "--path", "app"], arguments].concat();
            if !arguments.contains(&"--lifecycle") {
                let usual = house.build_arguments(&[])?;
                arguments.extend(usual.into_iter().skip_while(|word| *word != "--lifecycle"));
            }
            let output = project::run(&mut house.patient(&arguments))?;
            ensure!(output.exit == 2 && output.text().contains(says), "{arguments:?}: {}", output.text());
        }
        house.built(&[
            "--platform",
            if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" },
        ])?;
        // An extension that nobody here has heard of takes part.
        let extension = house.path("home/e");
        fs::create_dir_all(extension.join("bin"))?;
        for (file, text) in [
            ("extension.toml", "api = '0.10'\n[extension]\nid = 'me/e'\nversion = '1'\n"),
            ("bin/detect", "#!/bin/sh\n"),
            ("bin/generate", "#!/bin/sh\n"),
        ] {
            fs::write(extension.join(file), text)?;
        }
        house.own()?;
        let output = house.built(&["--extension", "home/e"])?;
        ensure!(output.text().contains("me/e"), "{who:?}: {}", output.text());
        house.is_clean()?;
    }
    Ok(())
}

/// The phases that the builder has, if it is trusted.
fn the_lifecycle_of_the_builder(built: &Built, houses: &Houses) -> Result<()> {
    let dir = tempfile::tempdir().context("make a folder")?;
    let (cnb, app) = (dir.path().join("cnb"), dir.path().join("app"));
    write_buildpack(&cnb, GREETER)?;
    copy(&houses.lifecycle()?, &cnb.join("lifecycle"))?;
    fs::create_dir(&app)?;
    fs::write(app.join("name"), "the app\n")?;
    for who in [Who::Root, Who::Ordinary] {
        let house = houses.house(built, who, &cnb, &app)?;
        house.built(&["--trust-builder"])?;
        let want = house.image()?.diff_ids()?;
        let arguments = [
            "build",
            "app",
            "--builder",
            BUILDER,
            "--path",
            "app",
            "--lifecycle",
            "builder",
            "--trust-builder",
        ];
        let output = project::run(&mut house.patient(&arguments))?;
        ensure!(
            output.exit != 0 && output.text().contains("io.buildpacks.lifecycle.apis"),
            "{}",
            output.text()
        );
        let apis = r#"{"platform":{"supported":["0.11","0.12","0.13"]}}"#;
        let layout = Layout::new(house.path("layout-repo/index.docker.io/acme/builder/latest"));
        relabel(&layout, &json!({"io.buildpacks.lifecycle.apis": apis}))?;
        house.own()?;
        succeed(&mut house.patient(&arguments))?;
        ensure!(house.image()?.diff_ids()? == want, "{who:?}: the image is another one");
        house.is_clean()?;
    }
    Ok(())
}
