//! Files of sources, their patterns, and the names that are looked up in them.

use std::path::Path;

use drydock_registry::sources::{Kind, Place, Sources};
use drydock_registry::{Options, Registry};

use super::Target;

pub(crate) const TARGET: Target = Target {
    name: "sources",
    longest: 1 << 12,
    words: &[
        b"[source.a]\n",
        b"[host.'h']\n",
        b"kind = 'registry'\n",
        b"location = 'h/x'\n",
        b"mirrors = ['m']\n",
        b"allow = ['**']\n",
        b"deny = ['*']\n",
        b"strict = true\n",
        b"platforms = ['linux/amd64']\n",
        b"require-digest = true\n",
        b"auth = { env = 'X' }\n",
        b"plain-http = true\n",
        b"ca-file = 'x'\n",
        b"images = ['y:z']\n",
        b"**/",
        b"[!a]",
        b"@sha256:",
    ],
    can_use: |_, _| false,
    run,
};

fn run(input: &[u8]) -> String {
    let Ok(text) = str::from_utf8(input) else { return "no text".into() };
    let sources = match Sources::parse(text, Path::new("/sources")) {
        Ok(sources) => sources,
        // The last line says what is wrong, names quoted; before it are the line and a place in it.
        Err(error) => {
            let line = error.lines().last().unwrap_or_default();
            return line
                .split('`')
                .find(|part| !part.is_empty())
                .unwrap_or_default()
                .chars()
                .take(40)
                .collect();
        }
    };
    let mut said = String::new();
    let listed: Vec<String> = sources.images().collect();
    let others = ["a/y:z", "docker://h/x/y:z", "h/x/y@sha256:0", "../y", "a/../../etc", "a//", ""];
    for name in listed.iter().map(String::as_str).chain(others) {
        match sources.find(name, None) {
            Ok(found) => {
                assert!(!found.places.is_empty(), "what is found is somewhere");
                for place in &found.places {
                    if let (Place::Path(path, _), Some(source)) = (place, found.source) {
                        let is_inside =
                            |location: &String| path.starts_with(Path::new("/sources").join(location));
                        let mut locations = source.mirrors.iter().chain([&source.location]);
                        assert!(locations.any(is_inside), "{} is elsewhere", path.display());
                    }
                }
                said.push('f');
            }
            // The kind alone: names are different each time.
            Err(error) => said.extend(format!("{error:?}").chars().take_while(char::is_ascii_alphabetic)),
        }
    }
    for kind in [Kind::Registry, Kind::Archive, Kind::Layout, Kind::Rootfs] {
        for place in ["/sources/x", "https://h/x.tar", "h/x/y"] {
            said.push(if sources.permit(kind, place).is_ok() { 'p' } else { 'r' });
        }
    }
    for source in sources.sources.values().map(Some).chain([None]) {
        let options = Options { hosts: sources.hosts(source), ..Options::default() };
        said.push(if Registry::new(&options).is_ok() { 'o' } else { 'e' });
    }
    said
}
