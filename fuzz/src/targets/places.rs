//! Where things come from and go to, as people write it: sources and targets of images, git repositories, platforms, compression, modes.

use std::path::Path;

use drydock_encode::compress::Compression;
use drydock_extend::plan::Permissions;
use drydock_images::export::Target as To;
use drydock_images::import::Source;
use drydock_model::platform::Platform;
use drydock_registry::git::{GitAddress, GitUrl};
use drydock_spec::buildpack::ModuleKind;
use drydock_spec::module::{ModuleName, dir_name};

use super::Target;

pub(crate) const TARGET: Target = Target {
    name: "places",
    longest: 400,
    words: &[
        b"git+https://",
        b"git+ssh://git@",
        b"git+file:///",
        b"docker://",
        b"oci:",
        b"oci-archive:",
        b"rootfs:",
        b"dockerfile:",
        b"dir:",
        b"#main:dir",
        b"#refs/tags/v1",
        b"@0123456789012345678901234567890123456789",
        b"..",
        b"/",
        b":",
        b"#",
        b"%2e",
        b".git",
        b"[::1]",
        b":443",
        b"linux/arm64/v8",
        b"u=rwX,g-s,o+t",
        b"zstd:19",
        b"gzip:1",
    ],
    can_use: |_, _| false,
    run,
};

fn run(input: &[u8]) -> String {
    let Ok(text) = str::from_utf8(input) else { return "no text".into() };
    [address(text), ends(text), platform(text), compression(text), permissions(text), module(text)].join(";")
}

fn address(text: &str) -> String {
    let address = match text.parse::<GitAddress>() {
        Ok(address) => address,
        Err(error) => return error.reason,
    };
    let printed = address.to_string();
    assert_eq!(printed.parse::<GitAddress>().as_ref(), Ok(&address), "{printed}");
    assert!(!printed.contains(char::is_control), "{printed:?}");
    let inside = |path: &str| path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    assert!(address.folder.as_deref().is_none_or(inside), "{printed}");
    assert!(address.url.path.is_empty() || inside(&address.url.path), "{printed}");
    // What git is given can be no option, and no part of it a command.
    let url = address.url.to_string();
    assert!(!url.starts_with('-') && !url.contains(['\'', '"', '$', '`', ' ', ';', '|', '&']), "{url}");
    if let Ok(joined) = address.url.join("x") {
        assert_eq!(joined.below(&address.url), Some("x"), "{joined}");
    }
    assert!(url.parse::<GitUrl>().is_ok_and(|again| again == address.url));
    format!(
        "{:?} {:?} {}",
        address.url.scheme,
        std::mem::discriminant(&address.revision),
        address.folder.is_some()
    )
}

/// Both ends of what is carried. No error shows what steers a terminal.
fn ends(text: &str) -> String {
    let from = text.parse::<Source>().map(|source| std::mem::discriminant(&source));
    let to = text.parse::<To>().map(|target| std::mem::discriminant(&target));
    format!("{:?} {:?}", from.ok(), to.ok())
}

fn platform(text: &str) -> String {
    let Ok(platform) = text.parse::<Platform>() else { return "no platform".into() };
    let again = platform.to_string().parse::<Platform>().expect("what is printed can be read");
    assert!(again.is_same(&platform), "{platform} and {again}");
    "a platform".into()
}

fn compression(text: &str) -> String {
    format!("{:?}", text.parse::<Compression>().is_ok())
}

fn permissions(text: &str) -> String {
    let Ok(permissions) = Permissions::parse(text) else { return "no permissions".into() };
    for mode in [0, 0o644, 0o755, 0o7777] {
        for is_dir in [false, true] {
            let once = permissions.of(mode, is_dir);
            assert!(once <= 0o7777, "{once:o}");
        }
    }
    "permissions".into()
}

fn module(text: &str) -> String {
    let (id, version) = text.split_once('@').unwrap_or((text, "1"));
    assert!(!dir_name(id).contains('/'));
    let Ok(name) = ModuleName::new(id, version) else { return "no module".into() };
    let dir = name.dir(ModuleKind::Buildpack);
    let parts: Vec<_> = Path::new(&dir).components().collect();
    assert!(parts.len() == 4 && dir.split('/').count() == 4, "{dir}");
    assert_eq!(name.to_string(), text.contains('@').then(|| text.to_owned()).unwrap_or(format!("{text}@1")));
    "a module".into()
}
