//! References, and where the images that they name would lie.

use std::path::{Component, Path};

use drydock_model::digest::Digest;
use drydock_model::reference::{ImageRef, LayoutDir, ReferenceError};

use super::Target;

pub(crate) const TARGET: Target = Target {
    name: "reference",
    longest: 600,
    words: &[
        b"/",
        b"//",
        b"..",
        b"/../",
        b".",
        b":",
        b"@",
        b"[",
        b"]",
        b"[::1]",
        b"localhost",
        b"docker.io",
        b"library/",
        b"sha256:",
        b"/layouts",
        b"/layouts/",
        b":5000",
        b"\0",
        b"\xe2\x80\xae",
        b"%2e",
    ],
    can_use: |_, _| false,
    run,
};

fn run(input: &[u8]) -> String {
    let Ok(text) = str::from_utf8(input) else { return "no text".into() };
    let digest = text.parse::<Digest>().inspect(|digest| assert_eq!(digest.to_string(), text)).is_ok();
    let parsed = text.parse::<ImageRef>();
    if let Ok(reference) = &parsed {
        assert_eq!(reference.to_string().parse::<ImageRef>().as_ref(), Ok(reference));
    }
    let dir = LayoutDir::new(Path::new("/layouts")).expect("an absolute path without `..`");
    let resolved = dir.resolve(text);
    if let Ok(layout) = &resolved {
        let below =
            layout.path().strip_prefix("/layouts").expect("nothing leads out of the layout directory");
        assert!(below.components().next().is_some() && is_plain(below), "{layout}");
    }
    let identified = dir.resolve_identifier(text);
    if let Ok((layout, digest)) = &identified {
        assert!(is_plain(layout.path()), "{layout}");
        assert!(text.ends_with(&digest.to_string()));
    }
    let parsed =
        parsed.map(|reference| reference.registry() == "index.docker.io").map_err(|error| reason(&error));
    let resolved = resolved
        .map(|layout| (layout.digest().is_some(), text.starts_with('/')))
        .map_err(|error| reason(&error));
    let identified = identified.map(|_| text.starts_with("/layouts/")).map_err(|error| reason(&error));
    format!("{digest} {parsed:?} {resolved:?} {identified:?}")
}

/// What is wrong with a text, without the text.
fn reason(error: &ReferenceError) -> String {
    let message = error.to_string();
    message.rsplit("`: ").next().unwrap_or_default().replace('`', "")
}

/// Whether every part of a path is a name.
fn is_plain(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::RootDir))
}
