//! Folders that another user exchanges with links, again and again, while root works in them: what the links lead to keeps
//! its owner, its mode and its content.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project::{self, APP_IMAGE, APP_LAYOUT, Project, RUN_IMAGE, RUN_LAYOUT};
use drydock_acceptance::scenario::User;
use drydock_acceptance::sha256;
use drydock_acceptance::stage::{GID, UID};
use drydock_acceptance::tree::{self, Tree};
use libtest_mimic::Trial;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use walkdir::WalkDir;

use crate::{Built, rounds, with_executables};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("swapped::root_gives_nothing_else_away", root_gives_nothing_else_away),
            ("swapped::root_makes_nothing_elsewhere", root_makes_nothing_elsewhere),
            ("swapped::root_stays_in_the_repository", root_stays_in_the_repository),
            ("swapped::root_hands_out_nothing_private", root_hands_out_nothing_private),
            ("swapped::root_tells_nothing_of_files_behind_links", root_tells_nothing),
        ],
    )
}

const FOR_CNB: [(&str, &str); 2] = [("CNB_USER_ID", "1000"), ("CNB_GROUP_ID", "1000")];

/// Rounds, unless `DRYDOCK_TEST_ROUNDS` says how many.
const ROUNDS: u32 = 3;

/// What is root's alone, and what the user would like to have of it.
struct Scene {
    project: Project,
    before: Tree,
}

impl Scene {
    fn new(executables: &Built) -> Result<Self> {
        let project = Project::new(executables.for_everyone()?, User::Root)?;
        for name in ["file", "latest/file", "app/latest/file", "sha256/file", "committed/file"] {
            project.write(&format!("outside/treasure/{name}"), "root's\n")?;
        }
        for entry in WalkDir::new(project.path("outside/treasure")) {
            let entry = entry?;
            let mode = if entry.file_type().is_dir() { 0o700 } else { 0o600 };
            fs::set_permissions(entry.path(), Permissions::from_mode(mode)).context("chmod")?;
        }
        let before = tree::read(&project.path("outside"))?;
        Ok(Self { project, before })
    }

    /// As root made it, for that is when root gives it away; with what earlier phases removed.
    fn lay(&self) -> Result<()> {
        self.project.write("layers/acme_a/lib.toml", "[types]\nlaunch = true\ncache = true\n")?;
        self.project.write("layers/acme_a/lib/file", "library\n")?;
        self.project.write("cache/committed/old", "")?;
        for name in ["layers", "cache", "layout-repo/index.docker.io"] {
            for entry in WalkDir::new(self.project.path(name)).into_iter().flatten() {
                lchown(entry.path(), Some(0), Some(0)).context("take it back")?;
            }
        }
        Ok(())
    }

    /// Whether what was at the place before is now where the link, or the other name, was planted.
    fn is_swapped(planted: &Path) -> Result<bool> {
        let facts = fs::symlink_metadata(planted).context("look at what was planted")?;
        Ok(facts.is_dir() || facts.is_file() && facts.nlink() == 1)
    }

    fn is_unharmed(&self) -> Result<()> {
        let changed = tree::differences(&self.before, &tree::read(&self.project.path("outside"))?);
        ensure!(changed.is_empty(), "root has changed what is its own:\n{}", changed.join("\n"));
        Ok(())
    }

    /// Runs the phases one after the other, however they end: first with `planted` in the place of what is at `path`, then
    /// while both are exchanged with each other.
    fn run(&self, path: &str, planted: &Path) -> Result<()> {
        let place = self.project.path(path);
        let phases = [Project::analyzer, Project::restorer, Project::exporter];
        for round in 0..=rounds(ROUNDS)? {
            for (phase, command) in ["analyzer", "restorer", "exporter"].into_iter().zip(phases) {
                self.lay()?;
                let mut command = command(&self.project)?;
                command.envs(FOR_CNB).args(["-cache-dir", "cache"]);
                if phase != "restorer" {
                    command.arg(APP_IMAGE);
                }
                if !place.exists() {
                    fs::create_dir_all(&place).context("make a folder")?;
                }
                self.disturb(&mut command, &place, planted, round > 0)
                    .with_context(|| format!("{phase}, {path}"))?;
            }
        }
        Ok(())
    }

    /// Runs a command, however it ends, with `planted` in the place of what is there, or while both are exchanged.
    fn disturb(
        &self,
        command: &mut Command,
        place: &Path,
        planted: &Path,
        again_and_again: bool,
    ) -> Result<()> {
        exchange(place, planted)?;
        let swapper = again_and_again.then(|| Swapper::start(place, planted));
        let output = project::run(command)?;
        swapper.map(Swapper::stop).transpose()?;
        self.is_unharmed().with_context(|| output.text())?;
        // A link that is a name goes as such.
        if Self::is_swapped(planted)? && place.symlink_metadata().is_ok() {
            exchange(place, planted)?;
        }
        Ok(())
    }
}

fn exchange(one: &Path, other: &Path) -> Result<()> {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)
        .with_context(|| format!("exchange {} and {}", one.display(), other.display()))
}

/// Exchanges two names, again and again.
struct Swapper {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Swapper {
    fn start(one: &Path, other: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (one, other, stopped) = (one.to_owned(), other.to_owned(), Arc::clone(&stop));
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // A phase may have removed one of them.
                let _ = exchange(&one, &other);
                let _ = tell.send(());
            }
        });
        // From now on it does.
        let _ = told.recv();
        Self { stop, thread }
    }

    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the swapper panicked"))
    }
}

/// A link of the user's.
fn link(scene: &Scene, target: &str) -> Result<PathBuf> {
    let path = scene.project.path("planted");
    symlink(scene.project.path(target), &path).context("plant a link")?;
    lchown(&path, Some(UID), Some(GID)).context("give it away")?;
    Ok(path)
}

fn root_gives_nothing_else_away(executables: &Built) -> Result<()> {
    for path in ["layers", "layers/acme_a", "cache", "cache/committed"] {
        let scene = Scene::new(executables)?;
        let planted = link(&scene, "outside/treasure")?;
        scene.run(path, &planted)?;
    }
    // Another name of a file that is not the user's.
    let scene = Scene::new(executables)?;
    let planted = scene.project.path("planted");
    fs::hard_link(scene.project.path("outside/treasure/file"), &planted).context("plant a name")?;
    scene.run("layers/acme_a/lib/file", &planted)
}

fn root_makes_nothing_elsewhere(executables: &Built) -> Result<()> {
    let blobs = format!("{APP_LAYOUT}/blobs");
    for path in ["layout-repo/index.docker.io", "layout-repo/index.docker.io/library", APP_LAYOUT, &blobs] {
        let scene = Scene::new(executables)?;
        let planted = link(&scene, "outside/treasure")?;
        scene.run(path, &planted)?;
    }
    Ok(())
}

/// Of `drydock`, in a repository that is a user's: where the link leads, all is as where it is planted, with what root would
/// remove.
fn root_stays_in_the_repository(executables: &Built) -> Result<()> {
    let library = "layout-repo/index.docker.io/library";
    let blobs = ["blobs", "blobs/sha256"].map(|name| format!("{APP_LAYOUT}/{name}"));
    for path in [library, APP_LAYOUT].into_iter().chain(blobs.iter().map(String::as_str)) {
        for round in 0..=rounds(ROUNDS)? {
            let executables = executables.for_everyone()?;
            let project = Project::new(executables, User::Cnb)?;
            let drydock = drydock(executables, &project);
            project::succeed(&mut drydock(&["tag", RUN_IMAGE, APP_IMAGE]))?;
            project::succeed(&mut drydock(&["export", RUN_IMAGE, "oci:source"]))?;
            project.write("context/Dockerfile", format!("FROM {RUN_IMAGE}\nCOPY . /\n"))?;
            let (place, treasure) = (project.path(path), project.path("outside/treasure"));
            fs::create_dir(project.path("outside")).context("make a folder")?;
            project::succeed(Command::new("cp").arg("-a").arg(&place).arg(&treasure))?;
            for entry in WalkDir::new(&treasure) {
                let entry = entry?;
                if entry.file_type().is_dir() {
                    fs::write(entry.path().join(".drydock-1-0"), "left\n")?;
                }
            }
            let before = tree::read(&project.path("outside"))?;
            let scene = Scene { project, before };
            let planted = link(&scene, "outside/treasure")?;
            let commands: [&[&str]; 6] = [
                &["tag", RUN_IMAGE, APP_IMAGE],
                &["flatten", RUN_IMAGE, APP_IMAGE],
                &["import", "oci:source", APP_IMAGE],
                &["import", "dockerfile:context", APP_IMAGE, "--network", "none"],
                &["gc"],
                &["rm", APP_IMAGE],
            ];
            for words in commands {
                scene
                    .disturb(&mut drydock(words), &place, &planted, round > 0)
                    .with_context(|| format!("{words:?}, {path}"))?;
            }
        }
    }
    Ok(())
}

/// Starts `drydock` in a project's folder.
fn drydock(executables: &Path, project: &Project) -> impl Fn(&[&str]) -> Command + use<> {
    let executable = executables.join("drydock");
    let [repository, kept, root] = ["layout-repo", "kept", ""].map(|name| project.path(name));
    move |words| {
        let mut command = Command::new(&executable);
        command.args(words).env_clear().env("CNB_OCI_LAYOUT_PATH", &repository);
        command.env("XDG_CACHE_HOME", &kept).current_dir(&root);
        command
    }
}

/// Of `drydock`, in a repository that is a user's: a link leads to an image that root keeps to itself. What is made of the user's
/// own image by that name is made of that, or is not made.
fn root_hands_out_nothing_private(executables: &Built) -> Result<()> {
    let places = ["", "/index.json", "/blobs", "/blobs/sha256"].map(|name| format!("{APP_LAYOUT}{name}"));
    let copy = "layout-repo/index.docker.io/library/copy/latest";
    for place in &places {
        let executables = executables.for_everyone()?;
        let scene = Scene { project: Project::new(executables, User::Cnb)?, before: Tree::new() };
        let project = &scene.project;
        let drydock = drydock(executables, project);
        project.write("files/secret", "root's\n")?;
        project::succeed(&mut drydock(&["import", "rootfs:files", "private"]))?;
        fs::create_dir(project.path("outside")).context("make a folder")?;
        let treasure = project.path("outside/treasure");
        fs::rename(project.path("layout-repo/index.docker.io/library/private/latest"), &treasure)?;
        fs::set_permissions(project.path("outside"), Permissions::from_mode(0o700)).context("chmod")?;
        project::succeed(&mut drydock(&["tag", RUN_IMAGE, APP_IMAGE]))?;
        let target = place.replacen(APP_LAYOUT, "outside/treasure", 1);
        let before = tree::read(&project.path("outside"))?;
        let scene = Scene { before, ..scene };
        let project = &scene.project;
        let planted = link(&scene, &target)?;
        let commands: [&[&str]; 3] = [
            &["tag", APP_IMAGE, "copy"],
            &["flatten", APP_IMAGE, "copy"],
            &["import", &format!("oci:{APP_LAYOUT}"), "copy"],
        ];
        for words in commands {
            // Where a source itself lies is for root to say, as with any tool that copies.
            if words[0] == "import" && *place == APP_LAYOUT {
                continue;
            }
            project::succeed(&mut drydock(words))?;
            let wanted = digests(project, copy)?;
            for round in 0..=rounds(ROUNDS)? {
                project::run(&mut drydock(&["rm", "copy"]))?;
                scene
                    .disturb(&mut drydock(words), &project.path(place), &planted, round > 0)
                    .and_then(|()| {
                        let found = digests(project, copy)?;
                        ensure!(found.is_empty() || found == wanted, "the copy is {found:?}, not {wanted:?}");
                        Ok(())
                    })
                    .with_context(|| format!("{words:?}, {place}"))?;
            }
        }
    }
    Ok(())
}

/// Of the images that a name stands for; none if it is not there.
fn digests(project: &Project, name: &str) -> Result<Vec<String>> {
    if !project.path(name).join("index.json").exists() {
        return Ok(Vec::new());
    }
    let images = project.layout(name).images()?;
    Ok(images.into_iter().map(|image| image.descriptor.digest).collect())
}

/// A link among blobs that only root may read: neither size nor digest of what it leads to is told.
fn root_tells_nothing(executables: &Built) -> Result<()> {
    let project = Project::new(executables.for_everyone()?, User::Root)?;
    let image = project.layout(RUN_LAYOUT).images()?.remove(0);
    let blob = project.path(RUN_LAYOUT).join("blobs").join(image.descriptor.digest.replacen(':', "/", 1));
    let size = fs::metadata(&blob)?.len();
    let secret = "s".repeat(usize::try_from(size)?);
    project.write("treasure", &secret)?;
    fs::set_permissions(project.path("treasure"), Permissions::from_mode(0o600)).context("chmod")?;
    fs::remove_file(&blob).context("remove the manifest")?;
    symlink(project.path("treasure"), &blob).context("plant a link")?;
    let mut analyzer = project.analyzer()?;
    let output = project::run(analyzer.envs(FOR_CNB).args(["-run-image", RUN_IMAGE, APP_IMAGE]))?;
    let digest = sha256(secret.as_bytes()).replace("sha256:", "");
    ensure!(output.exit != 0 && !output.text().contains(&digest), "{}", output.text());
    ensure!(output.text().contains("ermission denied"), "{}", output.text());
    Ok(())
}
