//! File trees as images, and images as file trees: `import rootfs:` and `export … dir:`.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project::succeed;
use drydock_acceptance::{tools, tree};
use libtest_mimic::Trial;
use tar::EntryType as Type;

use super::carrying::{compressed, digest, text};
use super::{Repository, tar_of};
use crate::{Built, with_executables};

/// This module's tests.
pub(super) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("drydock::file_trees_become_images", file_trees_become_images),
            ("drydock::file_trees_keep_links_and_attributes", file_trees_keep_links_and_attributes),
            ("drydock::images_become_file_trees", images_become_file_trees),
            ("drydock::hostile_layers_are_not_unpacked", hostile_layers_are_not_unpacked),
        ],
    )
}

fn file_trees_become_images(executables: &Built) -> Result<()> {
    let repository = Repository::new(executables)?;
    let dir = tempfile::tempdir()?;
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("etc/empty"))?;
    fs::write(root.join("etc/motd"), "hello\n")?;
    fs::write(root.join("empty"), "")?;
    symlink("/etc/motd", root.join("link"))?;
    succeed(Command::new("mkfifo").arg(root.join("fifo")))?;
    let tar = dir.path().join("root.tar");
    let mut archive = Command::new("tar");
    succeed(archive.args(["--owner=0", "--group=0", "-C"]).arg(&root).arg("-cf").arg(&tar).arg("."))?;
    let expected = tree::read(&root)?;
    for (number, path) in [&root, &tar, &compressed(&tar, "gzip", "tgz")?].into_iter().enumerate() {
        let name = format!("tree:{number}");
        repository.text(&["import", &format!("rootfs:{}", text(path)), &name])?;
        let scratch = tempfile::tempdir()?;
        let tag = number.to_string();
        let unpacked = tools::Image::new(&repository.path(&name), &tag, scratch.path())?.unpack()?;
        let found = tree::differences(&expected, &tree::read(&unpacked)?);
        ensure!(found.is_empty(), "{name}: {}", found.join("\n"));
        let again = format!("again:{number}");
        repository.text(&["import", &format!("rootfs:{}", text(path)), &again])?;
        ensure!(digest(&repository, &name)? == digest(&repository, &again)?, "the same tree, other bytes");
    }
    repository.refused(2, "what it is to be called", &["import", &format!("rootfs:{}", text(&root))])?;
    let above =
        format!("rootfs:{}", text(repository.path("x").ancestors().nth(4).context("folders above it")?));
    repository.refused(4, "choose a layout repository outside", &["import", &above, "x"])?;
    fs::write(root.join(".wh.file"), "")?;
    repository.refused(
        4,
        "has the name of a whiteout",
        &["import", &format!("rootfs:{}", text(&root)), "x"],
    )?;
    fs::remove_file(root.join(".wh.file"))?;
    let _listens = UnixListener::bind(root.join("socket"))?;
    let output = repository.run(&["import", &format!("rootfs:{}", text(&root)), "x"])?;
    ensure!(output.exit == 0 && output.text().contains("it is a socket"), "{}", output.text());
    for (entries, says) in [
        (&[(Type::Regular, "../x", "x")][..], "has a `..`"),
        (&[(Type::Link, "x", "/etc/shadow")], "is a hard link to something that is not there"),
    ] {
        fs::write(&tar, tar_of(entries)?)?;
        repository.refused(1, says, &["import", &format!("rootfs:{}", text(&tar)), "bad"])?;
    }
    let whole = tar_of(&[(Type::Regular, "f", &"x".repeat(5000))])?;
    fs::write(&tar, &whole[..3000])?;
    repository.refused(1, "cannot read the tar", &["import", &format!("rootfs:{}", text(&tar)), "bad"])
}

/// A folder becomes an image and a folder again: files with several names stay such, and have their attributes.
fn file_trees_keep_links_and_attributes(executables: &Built) -> Result<()> {
    let repository = Repository::new(executables)?;
    let dir = tempfile::tempdir()?;
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("d"))?;
    fs::write(root.join("d/first"), "content\n")?;
    fs::hard_link(root.join("d/first"), root.join("a-second"))?;
    fs::hard_link(root.join("d/first"), root.join("d/third"))?;
    fs::write(root.join("apart"), "content\n")?;
    let set = |path: &Path, name: &str, value: &[u8]| {
        rustix::fs::setxattr(path, name, value, rustix::fs::XattrFlags::empty())
    };
    let get = |path: &Path, name: &str| -> Option<Vec<u8>> {
        let mut value = vec![0; 1000];
        let length = rustix::fs::getxattr(path, name, &mut value[..]).ok()?;
        value.truncate(length);
        Some(value)
    };
    set(&root.join("d/third"), "user.note", b"a\0b")?;
    set(&root.join("d"), "user.of-folder", b"x")?;
    set(&root.join("d"), "user.drydock.index", b"not this")?;
    // CAP_NET_BIND_SERVICE, which only root may give.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let has_capability = set(&root.join("apart"), "security.capability", &capability).is_ok();
    repository.text(&["import", &format!("rootfs:{}", text(&root)), "tree"])?;
    let listed = repository.json(0, &["tree", "tree"])?.to_string();
    ensure!(listed.contains("d/third"), "{listed}");
    let out = dir.path().join("out");
    repository.text(&["export", "tree", &format!("dir:{}", text(&out))])?;
    let inode = |name: &str| -> Result<u64> { Ok(fs::metadata(out.join(name))?.ino()) };
    ensure!(inode("a-second")? == inode("d/first")? && inode("d/third")? == inode("d/first")?);
    ensure!(inode("apart")? != inode("d/first")?);
    ensure!(get(&out.join("a-second"), "user.note").as_deref() == Some(&b"a\0b"[..]));
    ensure!(get(&out.join("d"), "user.of-folder").as_deref() == Some(&b"x"[..]));
    ensure!(get(&out.join("d"), "user.drydock.index").is_none(), "what is about one disk is carried");
    let carried = get(&out.join("apart"), "security.capability");
    ensure!(carried.as_deref() == has_capability.then_some(&capability[..]), "{carried:?}");
    ensure!(repository.json(0, &["verify"])?[0]["status"] == "whole");
    let scratch = tempfile::tempdir()?;
    let unpacked = tools::Image::new(&repository.path("tree"), "latest", scratch.path())?.unpack()?;
    let found = tree::differences(&tree::read(&root)?, &tree::read(&unpacked)?);
    ensure!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

fn images_become_file_trees(executables: &Built) -> Result<()> {
    let repository = Repository::with(executables, &["run", "run-v2"])?;
    let lower = tar_of(&[
        (Type::Directory, "d/", ""),
        (Type::Regular, "d/a", "old\n"),
        (Type::Link, "d/b", "d/a"),
        (Type::Symlink, "l", "d"),
        (Type::Regular, "gone", "gone\n"),
        (Type::Directory, "opaque/", ""),
        (Type::Regular, "opaque/x", "gone\n"),
        (Type::Fifo, "fifo", ""),
    ])?;
    let upper = tar_of(&[
        (Type::Regular, "d/a", "new\n"),
        (Type::Regular, ".wh.gone", ""),
        (Type::Regular, "l/through", "a link\n"),
        (Type::Regular, "opaque/.wh..wh..opq", ""),
        (Type::Regular, "opaque/y", "y\n"),
    ])?;
    repository.write_image("layers", &[lower, upper])?;
    let out = tempfile::tempdir()?;
    for name in ["run", "run-v2", "layers"] {
        let dir = out.path().join(name);
        let scratch = tempfile::tempdir()?;
        let expected = tools::Image::new(&repository.path(name), "latest", scratch.path())?.unpack()?;
        repository.text(&["export", name, &format!("dir:{}", text(&dir))])?;
        let found = tree::differences(&tree::read(&expected)?, &tree::read(&dir)?);
        ensure!(found.is_empty(), "{name}: umoci unpacks something else:\n{}", found.join("\n"));
        // Not over what is there.
        let target = format!("dir:{}", text(&dir));
        repository.refused(4, "is not an empty folder", &["export", name, &target])?;
    }
    ensure!(
        fs::metadata(out.path().join("layers/d/a"))?.nlink() == 1,
        "the new file has the old one's names"
    );
    ensure!(fs::read_dir(out.path())?.count() == 3, "something is left");
    Ok(())
}

fn hostile_layers_are_not_unpacked(executables: &Built) -> Result<()> {
    let outside = tempfile::tempdir()?;
    let secret = outside.path().join("secret");
    fs::write(&secret, "secret\n")?;
    let out = outside.path().join("out");
    let target = format!("dir:{}", text(&out));
    let before = tree::read(outside.path())?;
    for (entries, says) in [
        (&[(Type::Regular, "../x", "x")][..], "has a `..`"),
        (&[(Type::Link, "x", text(&secret))], "is a hard link to something that is not there"),
        (&[(Type::Link, "x", "../secret")], "has a `..`"),
        (&[(Type::Regular, "f", "x"), (Type::Regular, "f/x", "x")], "lies in something that is no folder"),
    ] {
        let repository = Repository::new(executables)?;
        repository.write_image("bad", &[tar_of(entries)?])?;
        repository.refused(1, says, &["export", "bad", &target])?;
        ensure!(tree::read(outside.path())? == before, "something was made: {says}");
    }
    // Links stay within the new folder, wherever they seem to lead.
    let repository = Repository::new(executables)?;
    let to = text(outside.path());
    let through = [
        (Type::Symlink, "l", to),
        (Type::Regular, "l/secret", "overwritten\n"),
        (Type::Symlink, "up", "../../.."),
        (Type::Regular, "up/x", "x\n"),
    ];
    repository.write_image("links", &[tar_of(&through)?])?;
    repository.text(&["export", "links", &target])?;
    ensure!(fs::read_to_string(&secret)? == "secret\n", "a file outside was written");
    let inside = out.join(secret.strip_prefix("/")?);
    ensure!(fs::read_to_string(inside)? == "overwritten\n");
    ensure!(fs::read_to_string(out.join("x"))? == "x\n");
    Ok(())
}
