//! Who owns what the phases write: started by root for a user, and started by that user.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project::{self, APP_IMAGE, APP_LAYOUT, Project, RUN_LAYOUT, succeed};
use drydock_acceptance::scenario::User;
use drydock_acceptance::stage::{GID, UID};
use drydock_acceptance::tree;
use libtest_mimic::Trial;

use crate::{Built, with_executables};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("owners::root_makes_folders_usable", root_makes_folders_usable),
            ("owners::root_leaves_usable_folders_alone", root_leaves_usable_folders_alone),
            ("owners::an_empty_folder_of_root_holds_no_image", an_empty_folder_of_root_holds_no_image),
            ("owners::a_tag_may_be_a_link", a_tag_may_be_a_link),
            ("owners::root_follows_no_link", root_follows_no_link),
            ("owners::root_reads_through_no_link", root_reads_through_no_link),
            ("owners::an_ordinary_user_needs_no_root", an_ordinary_user_needs_no_root),
        ],
    )
}

const FOR_CNB: [(&str, &str); 2] = [("CNB_USER_ID", "1000"), ("CNB_GROUP_ID", "1000")];

fn project(executables: &Built, user: User) -> Result<Project> {
    let project = Project::new(executables.for_everyone()?, user)?;
    project.write_layer("lib", "launch = true\ncache = true", "library\n")?;
    project.own()?;
    Ok(project)
}

/// Everything at and under a path must be the build user's, or else root's.
fn owned_by(project: &Project, path: &str, uid: u32, gid: u32) -> Result<()> {
    for entry in walkdir::WalkDir::new(project.path(path)) {
        let entry = entry?;
        let metadata = entry.metadata()?;
        ensure!(
            (metadata.uid(), metadata.gid()) == (uid, gid),
            "{} belongs to {}:{}, not {uid}:{gid}",
            entry.path().display(),
            metadata.uid(),
            metadata.gid()
        );
    }
    Ok(())
}

fn root_makes_folders_usable(executables: &Built) -> Result<()> {
    let project = project(executables, User::Root)?;
    // What orchestrators make as root: the output's folder, in one case with an image that root wrote.
    fs::create_dir_all(project.path(APP_LAYOUT)).context("make the output's folder")?;
    for image in [APP_IMAGE, "app:second", "new.example.com/team/app"] {
        succeed(project.analyzer()?.envs(FOR_CNB).arg(image))?;
        owned_by(&project, "layers", UID, GID)?;
        succeed(project.exporter()?.envs(FOR_CNB).args(["-cache-dir", "cache", image]))?;
    }
    owned_by(&project, APP_LAYOUT, UID, GID)?;
    owned_by(&project, "layout-repo/index.docker.io/library/app/second", UID, GID)?;
    owned_by(&project, "layout-repo/new.example.com", UID, GID)?;
    owned_by(&project, "cache", UID, GID)?;
    owned_by(&project, "layers", UID, GID)?;
    owned_by(&project, RUN_LAYOUT, 0, 0)?;
    owned_by(&project, "app", 0, 0)?;
    project.layout(APP_LAYOUT).verify()?;

    for entry in walkdir::WalkDir::new(project.path(APP_LAYOUT)) {
        lchown(entry?.path(), Some(0), Some(0)).context("give the image to root")?;
    }
    project.write("app/file", "another content\n")?;
    let before = project.layout(APP_LAYOUT).verify()?.remove(0).descriptor.digest;
    succeed(project.exporter()?.envs(FOR_CNB).arg(APP_IMAGE))?;
    ensure!(
        project.layout(APP_LAYOUT).verify()?.remove(0).descriptor.digest != before,
        "nothing was exported"
    );
    owned_by(&project, APP_LAYOUT, UID, GID)
}

/// An orchestrator with umask 077 made the output's folder: whether an image is there, only root can tell.
fn an_empty_folder_of_root_holds_no_image(executables: &Built) -> Result<()> {
    let project = project(executables, User::Root)?;
    fs::create_dir_all(project.path(APP_LAYOUT)).context("make the output's folder")?;
    fs::set_permissions(project.path(APP_LAYOUT), Permissions::from_mode(0o700)).context("chmod")?;
    let output = succeed(project.analyzer()?.envs(FOR_CNB).arg(APP_IMAGE))?;
    ensure!(output.text().contains("not found"), "{}", output.text());
    succeed(project.exporter()?.envs(FOR_CNB).arg(APP_IMAGE))?;
    project.layout(APP_LAYOUT).verify()?;
    Ok(())
}

/// What the user can write to, as owner, by group or as anybody, keeps its owner.
fn root_leaves_usable_folders_alone(executables: &Built) -> Result<()> {
    for (uid, gid, mode) in [(0, GID, 0o775), (0, 0, 0o777), (UID, 0, 0o755)] {
        let project = project(executables, User::Root)?;
        fs::create_dir_all(project.path(APP_LAYOUT)).context("make the output's folder")?;
        for path in ["layers", "cache", APP_LAYOUT] {
            lchown(project.path(path), Some(uid), Some(gid)).context("give the folder away")?;
            fs::set_permissions(project.path(path), Permissions::from_mode(mode)).context("chmod")?;
        }
        succeed(project.analyzer()?.envs(FOR_CNB).arg(APP_IMAGE))?;
        succeed(project.exporter()?.envs(FOR_CNB).args(["-cache-dir", "cache", APP_IMAGE]))?;
        for path in ["layers", "cache", APP_LAYOUT] {
            let metadata = project.path(path).metadata()?;
            let found = (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777);
            ensure!(found == (uid, gid, mode), "{path} was {:?} and is {found:?}", (uid, gid, mode));
        }
        owned_by(&project, &format!("{APP_LAYOUT}/index.json"), UID, GID)?;
        owned_by(&project, "layers/group.toml", 0, 0)?;
    }
    Ok(())
}

/// A tag that is a link to another: as whoever drops root, too.
fn a_tag_may_be_a_link(executables: &Built) -> Result<()> {
    let project = project(executables, User::Root)?;
    succeed(project.analyzer()?.envs(FOR_CNB).arg(APP_IMAGE))?;
    succeed(project.exporter()?.envs(FOR_CNB).arg(APP_IMAGE))?;
    symlink("latest", project.path(APP_LAYOUT).with_file_name("stable")).context("make a link")?;
    succeed(project.analyzer()?.envs(FOR_CNB).arg(APP_IMAGE))?;
    succeed(project.exporter()?.envs(FOR_CNB).args([APP_IMAGE, "app:stable"]))?;
    project.layout(APP_LAYOUT).verify()?;
    Ok(())
}

/// Below the layout directory the build user may have put links: root must not give away what they lead to.
fn root_follows_no_link(executables: &Built) -> Result<()> {
    for link in [APP_LAYOUT, "layout-repo/index.docker.io/library", "layout-repo/index.docker.io"] {
        let project = project(executables, User::Root)?;
        project.write("treasure/app/latest/file", "root's")?;
        let link = project.path(link);
        fs::create_dir_all(link.parent().context("it has a parent")?).context("make a folder")?;
        symlink(project.path("treasure"), &link).context("make a link")?;
        succeed(project.analyzer()?.envs(FOR_CNB).arg("elsewhere"))?;
        let before = tree::read(&project.path(""))?;
        let output = project::run(project.exporter()?.envs(FOR_CNB).arg(APP_IMAGE))?;
        ensure!(output.exit == 62, "exit code {}\n{}", output.exit, output.text());
        ensure!(output.text().contains(APP_LAYOUT), "the folder is not named:\n{}", output.text());
        let changed = tree::differences(&before, &tree::read(&project.path(""))?);
        ensure!(changed.is_empty(), "{}", changed.join("\n"));
    }
    Ok(())
}

/// Nor must it read what they lead to; the message says why root may not.
fn root_reads_through_no_link(executables: &Built) -> Result<()> {
    let project = project(executables, User::Root)?;
    let (link, private) = (project.path(RUN_LAYOUT), project.path("private"));
    fs::create_dir(&private).context("make a folder")?;
    fs::rename(&link, private.join("run")).context("move the run image")?;
    symlink(private.join("run"), &link).context("make a link")?;
    fs::set_permissions(&private, Permissions::from_mode(0o700)).context("close the folder")?;
    succeed(project.analyzer()?.envs(FOR_CNB).arg(APP_IMAGE))?;
    lchown(&link, Some(UID), Some(GID)).context("give the link away")?;
    let output = project::run(project.analyzer()?.envs(FOR_CNB).arg(APP_IMAGE))?;
    let text = output.text();
    ensure!(output.exit == 32 && text.contains(RUN_LAYOUT), "exit code {}\n{text}", output.exit);
    ensure!(text.contains("root follows no link there that others may have put on the way"), "{text}");
    Ok(())
}

fn an_ordinary_user_needs_no_root(executables: &Built) -> Result<()> {
    let project = project(executables, User::Cnb)?;
    for _ in 0..2 {
        project.analyze()?;
        succeed(project.exporter()?.args(["-cache-dir", "cache", APP_IMAGE, "new.example.com/team/app"]))?;
    }
    for path in ["layers", "layout-repo", "cache"] {
        owned_by(&project, path, UID, GID)?;
    }
    for layout in [APP_LAYOUT, "layout-repo/new.example.com/team/app/latest"] {
        project.layout(layout).verify()?;
        let faults = project.layout(layout).faults()?;
        ensure!(faults.is_empty(), "{}", faults.join("\n"));
    }
    Ok(())
}
