//! Users and groups as the file system of an image has them.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use drydock_io::read;
use drydock_tar::{Owner, split_leaf};

use super::scope::Scope;

/// Bytes in `/etc/passwd` and `/etc/group`.
const MAX_FILE: u64 = 4 << 20;

/// Who runs a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User and group.
    pub owner: Owner,
    /// Further groups.
    pub groups: Vec<u32>,
    /// The user's folder.
    pub home: String,
}

struct User {
    name: String,
    owner: Owner,
    home: String,
}

/// Who `USER` means in the file system at `root`.
pub fn identify(root: &Path, text: &str) -> Result<Identity> {
    identify_in(&mut Scope::open(root)?, text)
}

/// The user and maybe the group of `USER`: names or numbers. A number needs no entry in `/etc/passwd`; it is then of group 0.
pub(super) fn identify_in(scope: &mut Scope, text: &str) -> Result<Identity> {
    let (user, group) = parts(text);
    let found = find_user(scope, user)?;
    let number = number(user);
    let owner = found.as_ref().map(|user| user.owner).or(number.map(|uid| Owner { uid, gid: 0 }));
    let owner = owner.ok_or_else(|| unknown("user", user, "/etc/passwd"))?;
    let home = found.as_ref().map_or("/", |user| &user.home);
    let home = if home.is_empty() { "/" } else { home }.to_owned();
    let (gid, groups) = if let Some(group) = group {
        (find_group(scope, group)?, Vec::new())
    } else {
        let groups = found.map(|user| groups_with(scope, &user.name)).transpose()?;
        (owner.gid, groups.unwrap_or_default())
    };
    Ok(Identity { owner: Owner { gid, ..owner }, groups, home })
}

/// The owner of `--chown`. A number without a group is the group's, too.
pub(super) fn owner(scope: &mut Scope, text: &str) -> Result<Owner> {
    let (user, group) = parts(text);
    let owner = match (number(user), find_user(scope, user)?) {
        (Some(number), _) => Owner { uid: number, gid: number },
        (None, Some(user)) => user.owner,
        (None, None) => return Err(unknown("user", user, "/etc/passwd")),
    };
    match group {
        Some(group) => Ok(Owner { gid: find_group(scope, group)?, ..owner }),
        None => Ok(owner),
    }
}

/// User and group; root where there is no user.
fn parts(text: &str) -> (&str, Option<&str>) {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    (if user.is_empty() { "0" } else { user }, group.filter(|group| !group.is_empty()))
}

/// The number of a user or a group. The largest is nobody's: it asks the kernel to leave the one that is.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number != u32::MAX)
}

fn unknown(what: &str, name: &str, file: &str) -> anyhow::Error {
    anyhow!("`{name}` is no {what} of the image: {file} has no such name; add it before, or give a number")
}

/// The user of this name or number: a name is no number.
fn find_user(scope: &mut Scope, user: &str) -> Result<Option<User>> {
    let asked = number(user);
    let find = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, ref rest @ ..] = fields[..] else { return None };
        let home = rest.get(1).copied().unwrap_or_default();
        let owner = Owner { uid: number(uid)?, gid: number(gid)? };
        let is_asked_for = asked.map_or(name == user, |uid| owner.uid == uid);
        is_asked_for.then(|| User { name: name.to_owned(), owner, home: home.to_owned() })
    };
    Ok(database(scope, "etc/passwd")?.lines().find_map(find))
}

fn find_group(scope: &mut Scope, group: &str) -> Result<u32> {
    if let Some(number) = number(group) {
        return Ok(number);
    }
    let find = |line: &str| {
        let mut fields = line.split(':');
        (fields.next()? == group).then(|| number(fields.nth(1)?)).flatten()
    };
    database(scope, "etc/group")?.lines().find_map(find).ok_or_else(|| unknown("group", group, "/etc/group"))
}

/// The groups that have this member.
fn groups_with(scope: &mut Scope, name: &str) -> Result<Vec<u32>> {
    let gid = |line: &str| {
        let mut fields = line.split(':').skip(2);
        let gid = number(fields.next()?)?;
        fields.next()?.split(',').any(|member| member.trim() == name).then_some(gid)
    };
    let mut groups: Vec<u32> = database(scope, "etc/group")?.lines().filter_map(gid).collect();
    groups.sort_unstable();
    groups.dedup();
    Ok(groups)
}

/// The text of a file; empty if there is none.
fn database(scope: &mut Scope, path: &str) -> Result<String> {
    let resolved = scope.resolve(path.as_bytes(), true)?;
    let mut read = || {
        let (parent, leaf) = split_leaf(&resolved);
        let leaf = std::ffi::OsStr::new(std::str::from_utf8(leaf).map_err(std::io::Error::other)?);
        read::read_all(read::open_at(scope.dir(parent)?, leaf.as_ref())?, MAX_FILE)
    };
    match read() {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(String::new())
        }
        Err(error) => Err(error).with_context(|| format!("cannot read `/{path}` of the image")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    #[test]
    fn names_and_numbers() {
        let temp = tempfile::tempdir().unwrap();
        let mut scope = Scope::open(temp.path()).unwrap();
        let told = |scope: &mut Scope, text| {
            identify_in(scope, text)
                .map(|it| (it.owner.uid, it.owner.gid, it.groups, it.home))
                .map_err(|error| error.to_string())
        };
        assert_eq!(told(&mut scope, "5"), Ok((5, 0, vec![], "/".into())));
        assert_eq!(told(&mut scope, ""), Ok((0, 0, vec![], "/".into())));
        assert!(told(&mut scope, "root").unwrap_err().contains("`root` is no user of the image"));
        fs::create_dir(temp.path().join("etc")).unwrap();
        fs::write(
            temp.path().join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nbroken\ncnb:x:1000:1001::/home/cnb:/bin/sh\n7:x:9:9::/home/7:\nshort:x:5:4\n",
        )
        .unwrap();
        fs::write(temp.path().join("etc/group"), "root:x:0:\ndisk:x:6:a,cnb\nweb:x:33:cnb\nbroken\n")
            .unwrap();
        for (text, want) in [
            ("cnb", (1000, 1001, vec![6, 33], "/home/cnb")),
            ("1000", (1000, 1001, vec![6, 33], "/home/cnb")),
            ("cnb:web", (1000, 33, vec![], "/home/cnb")),
            ("short", (5, 4, vec![], "/")),
            ("cnb:5", (1000, 5, vec![], "/home/cnb")),
            ("7:web", (7, 33, vec![], "/")),
            ("7", (7, 0, vec![], "/")),
            (":web", (0, 33, vec![], "/root")),
            ("", (0, 0, vec![], "/root")),
        ] {
            let want = (want.0, want.1, want.2, want.3.to_owned());
            assert_eq!(told(&mut scope, text), Ok(want), "{text}");
        }
        for (text, want) in
            [("cnb", (1000, 1001)), ("1000", (1000, 1000)), ("7:web", (7, 33)), (":6", (0, 6))]
        {
            let Owner { uid, gid } = owner(&mut scope, text).unwrap();
            assert_eq!((uid, gid), want, "{text}");
        }
        assert!(owner(&mut scope, "nobody").is_err());
        // To the kernel, this number means that nothing changes: root would stay root.
        for text in ["4294967295", "4294967295:5", "5:4294967295"] {
            assert!(told(&mut scope, text).unwrap_err().contains("of the image"), "{text}");
            assert!(owner(&mut scope, text).is_err(), "{text}");
        }
        assert!(told(&mut scope, "cnb:nogroup").unwrap_err().contains("no group of the image"));
        // Whoever opened it would wait for ever.
        let passwd = temp.path().join("etc/passwd");
        fs::remove_file(&passwd).unwrap();
        mkfifoat(CWD, &passwd, Mode::RWXU).unwrap();
        assert_eq!(told(&mut scope, "7"), Err("cannot read `/etc/passwd` of the image".to_owned()));
    }
}
