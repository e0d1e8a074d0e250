//! Layouts as others write them: what is looked at, listed, checked, built on and carried on of an image that is whole, and says anything.
//!
//! The parts of an input are a configuration, a manifest, an index and a log, each with its digests in place of `CONFIG`, `LAYER`, `MANIFEST` and
//! `LOG`, and their sizes in place of `1111`, `2222`, `3333` and `4444`. What is missing is plain.

use std::borrow::Cow;
use std::fs::{self, File};
use std::num::NonZeroUsize;

use anyhow::Result;
use drydock_encode::compress::Compression;
use drydock_images::import::{self, Opened};
use drydock_images::log::Next;
use drydock_images::verify::{Proven, Status};
use drydock_images::watch::Nobody;
use drydock_images::{
    Name, Repository, builder, diff, export, flatten, inspect, list, log, sbom, tree, verify,
};
use drydock_layout::{Durability, Layout};
use drydock_model::digest::Digest;
use drydock_model::platform::Platform;

use super::{Target, parts, roughly};

pub(crate) const TARGET: Target = Target {
    name: "image",
    longest: 1 << 14,
    words: &[
        b"\n====\n",
        b"null",
        b"\"\"",
        b"[]",
        b"{}",
        b"MANIFEST",
        b"CONFIG",
        b"LAYER",
        b"\"LOG\"",
        b"\"size\":2222",
        b"\"subject\":{\"digest\":\"MANIFEST\",\"size\":3333,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\"}",
        b"\"artifactType\":\"application/vnd.drydock.build-log.v1+json\"",
        b"\"annotations\":{\"org.opencontainers.image.ref.name\":\"a\"}",
        b"\"platform\":{\"os\":\"linux\",\"architecture\":\"amd64\"}",
        b"\"Labels\":{\"io.buildpacks.lifecycle.metadata\":\"{\\\"app\\\":[]}\"}",
        b"\"io.buildpacks.build.metadata\":\"{\\\"processes\\\":[]}\"",
        b"\"io.buildpacks.builder.metadata\":\"{}\"",
        b"\"io.buildpacks.buildpack.order\":\"[{\\\"group\\\":[]}]\"",
        b"\"history\":[{\"empty_layer\":true}]",
        b"\"Env\":[\"A=b\"]",
        b"application/vnd.docker.distribution.manifest.v2+json",
        b"application/vnd.oci.image.index.v1+json",
        b"\\u001b[2J",
        b"{\"time\":\"2026-01-01T00:00:00.000Z\",\"stream\":\"stdout\",\"text\":\"x\"}",
    ],
    can_use: |path, bytes| bytes.first() == Some(&b'{') && path.components().any(|part| part.as_os_str() == "blobs"),
    run,
};

const CONFIG: &str =
    r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["LAYER"]}}"#;
const MANIFEST: &str = r#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"CONFIG","size":1111},
    "layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"LAYER","size":2222}]}"#;
const INDEX: &str = r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"MANIFEST","size":3333}]}"#;

/// A tar without files.
const LAYER: [u8; 1024] = [0; 1024];

fn run(input: &[u8]) -> String {
    let dir = tempfile::tempdir().expect("there is room");
    let repository = Repository::new(dir.path()).expect("it is a path");
    let name = repository.locate("a").expect("it is a name");
    let blobs = name.path().path().join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("there is room");
    let mut known: Vec<(&str, &str, String, usize)> = Vec::new();
    let put = |known: &mut Vec<_>, name: &'static str, size: &'static str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).expect("there is room");
        known.push((name, size, digest.to_string(), bytes.len()));
    };
    let filled = |known: &[(&str, &str, String, usize)], text: &str| {
        known.iter().fold(text.to_owned(), |text, (name, size_name, digest, size)| {
            text.replace(name, digest).replace(size_name, &size.to_string())
        })
    };
    let mut parts = parts(input);
    let mut part = |plain: &'static str| {
        let part = parts.next().filter(|part| !part.is_empty());
        part.map_or(Cow::Borrowed(plain), String::from_utf8_lossy)
    };
    put(&mut known, "LAYER", "2222", &LAYER);
    let [config, manifest, index, lines] = [part(CONFIG), part(MANIFEST), part(INDEX), part("")];
    put(&mut known, "LOG", "4444", lines.as_bytes());
    let config = filled(&known, &config);
    put(&mut known, "CONFIG", "1111", config.as_bytes());
    let manifest = filled(&known, &manifest);
    put(&mut known, "MANIFEST", "3333", manifest.as_bytes());
    fs::write(name.path().path().join("index.json"), filled(&known, &index)).expect("there is room");
    fs::write(name.path().path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
        .expect("there is room");
    looked_at(&repository).replace(&*dir.path().to_string_lossy(), "")
}

/// Everything that only looks. No error is a panic, and nothing is printed that steers a terminal but what JSON escapes.
fn looked_at(repository: &Repository) -> String {
    let mut said = Vec::new();
    let listed = list::list(repository, None).map(|listed| format!("{}", listed.len()));
    said.push(listed.unwrap_or_else(|error| format!("{error:#}")));
    let mut proven = Proven::default();
    let names = [repository.locate("a").expect("it is a name")];
    let verified = verify::verify(&names, NonZeroUsize::MIN, &mut proven, &Nobody, &|_| Ok(()))
        .expect("nobody stops it")
        .remove(0);
    let is_whole = verified.status == Status::Whole;
    said.push(verified.problems.first().cloned().unwrap_or_else(|| format!("{:?}", verified.status)));
    let platform = Platform::linux("amd64");
    let opened = repository.open("a").map_err(|error| format!("{error:#}"));
    let image = opened
        .as_ref()
        .map_err(Clone::clone)
        .and_then(|(_, layout): &(_, Layout)| layout.image(&platform).map_err(|error| error.to_string()));
    let (Ok((name, layout)), Ok(image)) = (&opened, &image) else {
        said.extend(opened.err().into_iter().chain(image.err()));
        return said.join(";");
    };
    let inspected = inspect::inspect(name, layout, image, &Nobody);
    said.push(inspected.map_or_else(
        |error| format!("{error:#}"),
        |inspected| {
            let json = serde_json::to_string(&inspected).expect("an answer is JSON");
            assert!(!json.contains('\u{1b}'), "{json}");
            format!("{}{}", roughly(inspected.problems.len()), roughly(inspected.processes.len()))
        },
    ));
    said.push(
        tree::tree(image, None, &Nobody).map_or_else(|error| format!("{error:#}"), |_| "a tree".into()),
    );
    said.push(
        sbom::files(image, &Nobody, &|_| true).map_or_else(|error| format!("{error:#}"), |_| "SBOMs".into()),
    );
    let same = diff::diff(image, image, &Nobody);
    said.push(same.map_or_else(
        |error| format!("{error:#}"),
        |diff| {
            assert!(diff.is_empty(), "an image differs from itself: {diff:?}");
            "the same".into()
        },
    ));
    let inspected = builder::inspect::inspect(name, image);
    said.push(
        inspected.map_or_else(|error| format!("{error:#}"), |found| format!("{}", found.problems.len())),
    );
    said.push(carried(repository, name, layout, is_whole).unwrap_or_else(|error| format!("{error:#}")));
    said.push(logged(repository, &platform));
    said.join(";")
}

/// What is whole can be carried to another name, and is the same there.
fn carried(repository: &Repository, name: &Name, layout: &Layout, is_whole: bool) -> Result<String> {
    let exported = export::select(name, layout, None)?;
    let file = repository.dir().path().join("archive.tar");
    export::oci_archive(name.path().path(), &exported, "a", File::create(&file)?, &Nobody)?;
    let opened = Opened::archive(&file, None, repository.dir().path(), &Nobody)?;
    let write = flatten::Options {
        compression: Compression::default(),
        threads: NonZeroUsize::MIN,
        durability: Durability::InMemory,
    };
    let options = import::Options { platforms: Vec::new(), flatten: false, write };
    let to = repository.locate("b")?;
    let imported = import::import(&opened, repository, &to, &options, &Nobody)?;
    if is_whole && exported.made.is_none() {
        assert_eq!(imported.digest, exported.root.digest, "what was imported is something else");
    }
    Ok("carried".to_owned())
}

fn logged(repository: &Repository, platform: &Platform) -> String {
    let mut log = match log::find(repository, "a", false, platform) {
        Ok(Some(log)) => log,
        Ok(None) => return "no log".into(),
        Err(error) => return format!("{error:#}"),
    };
    let mut lines = 0;
    loop {
        match log.next_line() {
            Ok(Next::Line(_)) => lines += 1,
            Ok(next) => {
                assert_eq!(next, Next::End, "no build runs");
                return format!("{}{}", roughly(lines), roughly(usize::try_from(log.others()).unwrap_or(0)));
            }
            Err(error) => return format!("{error:#}"),
        }
    }
}
