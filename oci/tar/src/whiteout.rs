//! Whiteouts: empty files by which an image's layer says what of the layers below it is gone.
//!
//! Specification: OCI image-spec, `layer.md` § Whiteouts.

/// What an entry of a layer takes away, in the directory that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whiteout<'a> {
    /// What has this name, with all that is in it. Neither `.` nor `..`.
    Name(&'a [u8]),
    /// Everything that layers below have in it.
    Opaque,
}

const PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

impl<'a> Whiteout<'a> {
    /// What an entry means whose name in its directory is `leaf`; none if it is a file like any other.
    pub fn of(leaf: &'a [u8]) -> Option<Self> {
        if leaf == OPAQUE {
            return Some(Self::Opaque);
        }
        leaf.strip_prefix(PREFIX).filter(|name| !matches!(*name, b"" | b"." | b"..")).map(Self::Name)
    }

    /// The name, in its directory, of the entry that means this.
    pub fn leaf(&self) -> Vec<u8> {
        match self {
            Self::Name(name) => [PREFIX, name].concat(),
            Self::Opaque => OPAQUE.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_is_gone() {
        for (leaf, expected) in [
            (".wh.etc", Some(Whiteout::Name(b"etc"))),
            (".wh..hidden", Some(Whiteout::Name(b".hidden"))),
            (".wh..wh..opq", Some(Whiteout::Opaque)),
            (".wh.", None),
            (".wh..", None),
            (".wh...", None),
            (".whx", None),
            ("a.wh.b", None),
        ] {
            let whiteout = Whiteout::of(leaf.as_bytes());
            assert_eq!(whiteout, expected, "{leaf}");
            assert!(whiteout.is_none_or(|whiteout| whiteout.leaf() == leaf.as_bytes()), "{leaf}");
        }
    }
}
