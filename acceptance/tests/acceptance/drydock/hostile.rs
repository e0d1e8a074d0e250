//! Layers that were made to do harm.

use std::fs;
use std::sync::Arc;

use anyhow::{Result, ensure};
use drydock_acceptance::{sha256, tools, tree};
use libtest_mimic::Trial;
use tar::EntryType as Type;

use super::{Entry, Repository, tar_of};
use crate::{Built, with_executables};

/// This module's tests.
pub(super) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("drydock::hostile_entries_are_refused", hostile_entries_are_refused),
            ("drydock::malformed_layers_are_refused", malformed_layers_are_refused),
            ("drydock::links_lead_nowhere_else", links_lead_nowhere_else),
            (
                "drydock::nothing_from_an_image_reaches_the_terminal",
                nothing_from_an_image_reaches_the_terminal,
            ),
        ],
    )
}

fn refused(repository: &Repository, says: &str) -> Result<()> {
    for arguments in
        [&["tree", "bad"][..], &["diff", "bad", "good"], &["flatten", "bad", "new"], &["flatten", "bad"]]
    {
        repository.refused(1, says, arguments)?;
    }
    Ok(())
}

fn with_good(executables: &Built) -> Result<Repository> {
    let repository = Repository::new(executables)?;
    repository.write_image("good", &[tar_of(&[(Type::Directory, "d/", "")])?])?;
    Ok(repository)
}

fn hostile_entries_are_refused(executables: &Built) -> Result<()> {
    let entries: [(&[Entry<'_>], &str); 7] = [
        (&[(Type::Regular, "../../etc/cron.d/x", "x")], "has a `..`"),
        (&[(Type::Regular, "d/../../x", "x")], "has a `..`"),
        (&[(Type::Link, "x", "../../../etc/shadow")], "has a `..`"),
        (&[(Type::Link, "x", "/etc/shadow")], "is a hard link to something that is not there"),
        (&[(Type::Regular, "f", "x"), (Type::Regular, "f/x", "x")], "lies in something that is no folder"),
        (&[(Type::Symlink, "l", "l"), (Type::Regular, "l/x", "x")], "symlinks without end"),
        (&[(Type::Regular, "", "x")], "has no name"),
    ];
    for (entries, says) in entries {
        let repository = with_good(executables)?;
        repository.write_image("bad", &[tar_of(entries)?])?;
        refused(&repository, says)?;
        // As blobs, they are what they should be.
        repository.refused(0, "whole", &["verify", "bad"])?;
    }
    Ok(())
}

fn malformed_layers_are_refused(executables: &Built) -> Result<()> {
    let whole = tar_of(&[(Type::Regular, "a", "content of a")])?;
    let huge = {
        let mut header = tar::Header::new_gnu();
        header.set_path("huge")?;
        header.set_size(u64::MAX >> 1);
        header.set_entry_type(Type::Regular);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    for (tar, says) in [
        (whole[..600].to_vec(), "cannot be read"),
        (huge, "cannot be read"),
        (vec![b'x'; 2048], "is malformed"),
        (whole[512..].to_vec(), "cannot be read"),
    ] {
        let repository = with_good(executables)?;
        repository.write_image("bad", &[tar])?;
        refused(&repository, says)?;
    }
    // A layer that is said to be compressed, and is not.
    let repository = with_good(executables)?;
    repository.write_image("bad", &[whole])?;
    let dir = repository.path("bad");
    let mut index: serde_json::Value = repository.layout("bad").json("index.json")?;
    let digest =
        |value: &serde_json::Value| value["digest"].as_str().unwrap_or_default().replace("sha256:", "");
    let manifest = fs::read_to_string(dir.join("blobs/sha256").join(digest(&index["manifests"][0])))?;
    let manifest = manifest.replace("layer.v1.tar\"", "layer.v1.tar+gzip\"");
    let new = sha256(manifest.as_bytes());
    fs::write(dir.join("blobs/sha256").join(new.replace("sha256:", "")), &manifest)?;
    index["manifests"][0]["digest"] = new.into();
    index["manifests"][0]["size"] = manifest.len().into();
    fs::write(dir.join("index.json"), index.to_string())?;
    refused(&repository, "cannot be")?;
    repository.refused(1, "cannot be decompressed", &["verify", "bad"])
}

/// Absolute names and links are taken as of the image; what is there twice is the last of them.
fn links_lead_nowhere_else(executables: &Built) -> Result<()> {
    let repository = Repository::new(executables)?;
    let outside = tempfile::tempdir()?;
    let target = outside.path().display().to_string();
    let lower = tar_of(&[
        (Type::Symlink, "out", &target),
        (Type::Symlink, "up", "../../../.."),
        (Type::Regular, "/absolute", "in the image\n"),
        (Type::Regular, "twice", "first\n"),
        (Type::Regular, "twice", "second\n"),
    ])?;
    let through = format!("{}/x", "out");
    let upper = tar_of(&[(Type::Regular, &through, "x\n"), (Type::Regular, "up/y", "y\n")])?;
    repository.write_image("links", &[lower, upper])?;
    repository.text(&["flatten", "links", "flat"])?;
    ensure!(tree::read(outside.path())?.is_empty(), "something was written outside");
    let scratch = tempfile::tempdir()?;
    let files =
        tree::read(&tools::Image::new(&repository.path("flat"), "latest", scratch.path())?.unpack()?)?;
    let there = |path: &str| files.contains_key(std::path::Path::new(path));
    ensure!(
        there("y") && there("absolute") && there(&format!("{}/x", target.trim_start_matches('/'))),
        "{files:?}"
    );
    let is_second = |kind: &tree::Kind| matches!(kind, tree::Kind::File(7, _));
    ensure!(files.get(std::path::Path::new("twice")).is_some_and(|node| is_second(&node.kind)), "{files:?}");
    Ok(())
}

fn nothing_from_an_image_reaches_the_terminal(executables: &Built) -> Result<()> {
    let repository = with_good(executables)?;
    repository.write_image("bad", &[tar_of(&[(Type::Regular, "a\x1b[2J\nb", "x")])?])?;
    for arguments in [&["tree", "bad"][..], &["diff", "bad", "good"]] {
        let output = repository.run(arguments)?;
        ensure!(
            output.text().contains("a\\u{1b}[2J\\nb") && !output.text().contains('\x1b'),
            "{}",
            output.text()
        );
    }
    Ok(())
}
