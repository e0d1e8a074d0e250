//! Files of an image's `/etc` that say who users are and what the system is.
//!
//! The parts of an input are `USER`, `/etc/passwd`, `/etc/group` and `/etc/os-release`.

use std::fs;

use drydock_extend::in_place::identify;
use drydock_phases::target;
use drydock_spec::analyzed;

use super::silent::Silent;
use super::{Target, parts, roughly};

pub(crate) const TARGET: Target = Target {
    name: "etc",
    longest: 1 << 11,
    words: &[
        b"\n====\n",
        b"root:x:0:0:root:/root:/bin/sh\n",
        b"u:x:1:2::/h:/s\n",
        b"g:x:3:u,v\n",
        b"u:g",
        b":",
        b",",
        b"4294967295",
        b"ID=debian\n",
        b"VERSION_ID=\"12\"\n",
        b"\r\n",
        b"\0",
    ],
    can_use: |_, _| false,
    run,
};

fn run(input: &[u8]) -> String {
    let dir = tempfile::tempdir().expect("there is room");
    let etc = dir.path().join("etc");
    fs::create_dir(&etc).expect("there is room");
    let mut parts = parts(input);
    let user = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let mut texts = Vec::new();
    for (name, part) in ["passwd", "group", "os-release"].into_iter().zip(parts) {
        fs::write(etc.join(name), part).expect("there is room");
        texts.push(String::from_utf8_lossy(part).into_owned());
    }
    let text = |number: usize| texts.get(number).map_or("", String::as_str);
    let said = match identify(dir.path(), &user) {
        Ok(identity) => {
            let (name, group) = user.split_once(':').unwrap_or((&user, ""));
            assert!(
                identity.owner.uid != u32::MAX && identity.owner.gid != u32::MAX,
                "{identity:?} is nobody"
            );
            // A number is that number, and a name is there.
            match (name, name.parse::<u32>()) {
                ("", _) => assert_eq!(identity.owner.uid, 0),
                (_, Ok(number)) => assert_eq!(identity.owner.uid, number),
                _ => assert!(text(0).contains(&format!("{name}:")), "there is no `{name}`"),
            }
            if let Ok(number) = group.parse::<u32>() {
                assert_eq!(identity.owner.gid, number);
            }
            assert!(group.is_empty() || identity.groups.is_empty(), "a group that is named is the only one");
            let lines = text(1).lines().count();
            assert!(identity.groups.len() <= lines, "{} groups of {lines}", identity.groups.len());
            assert!(!identity.home.is_empty() && !identity.home.contains(':'));
            format!("{}", roughly(identity.groups.len()))
        }
        Err(error) => format!("{error:#}"),
    };
    let found = target::complete(analyzed::Target::default(), &etc.join("os-release"), &Silent);
    let distro = found.distro.map(|distro| {
        for value in [&distro.name, &distro.version] {
            assert!(text(2).contains(value.as_str()) && !value.contains('\n'), "{value:?} is not there");
        }
        (distro.name.is_empty(), distro.version.is_empty())
    });
    format!("{said};{distro:?}").replace(&*dir.path().to_string_lossy(), "")
}
