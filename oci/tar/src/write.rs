//! Entries as bytes: POSIX ustar, with a pax extended header before an entry that ustar cannot express.
//!
//! Every choice that the formats leave open is made as Go's `archive/tar` makes it, since a layer's diff ID depends on
//! each byte: which names are split into prefix and name, what the extended header is called, what the fields hold that
//! it overrides. Extended attributes are records called `SCHILY.xattr.<name>`, as GNU tar and container tools have them.

use std::io::{self, ErrorKind};

use drydock_io::sink::Sink;

use crate::entry::{Device, Entry, Kind, Owner, Time};
use crate::pax::{XATTR, push_record, time_to_text};

/// Headers and padded contents come in blocks of this many bytes.
pub(crate) const BLOCK: usize = 512;

const NAME_SIZE: usize = 100;
const PREFIX_SIZE: usize = 155;

const ZEROS: [u8; BLOCK] = [0; BLOCK];

impl Entry<'_> {
    /// Writes the entry's header, preceded by an extended one if need be. A file's contents come next, and their padding.
    ///
    /// An extended attribute's name that is empty or has a `=` is an error ([`ErrorKind::InvalidInput`]).
    pub fn write(&self, out: &mut dyn Sink) -> io::Result<()> {
        let records = self.extended_records()?;
        if records.is_empty() {
            let (prefix, name) = split_name(self.name).unwrap_or((b"", self.name));
            let mut block = self.block(name, self.target());
            block[345..][..prefix.len()].copy_from_slice(prefix);
            out.write_all(&seal(block))
        } else {
            write_extended(self.name, &records, out)?;
            out.write_all(&seal(self.block(&ascii(self.name), &ascii(self.target()))))
        }
    }

    fn target(&self) -> &[u8] {
        match self.kind {
            Kind::Symlink { target } | Kind::HardLink { target } => target,
            _ => b"",
        }
    }

    fn size(&self) -> u64 {
        match self.kind {
            Kind::File { size } => size,
            _ => 0,
        }
    }

    /// The pax records, in order of their keys, for what the ustar header cannot hold; empty if it holds everything.
    fn extended_records(&self) -> io::Result<Vec<u8>> {
        let mut records = Vec::new();
        let long = |text: &[u8]| text.len() > NAME_SIZE || !text.is_ascii();
        let (long_name, long_target) = (long(self.name), long(self.target()));
        let Owner { uid, gid } = self.owner;
        let (uid_fits, gid_fits) = (fits_octal(8, uid.into()), fits_octal(8, gid.into()));
        let (size_fits, time_fits) = (fits_octal(12, self.size()), time_fits_octal(self.modified));
        let name_fits = !long_name || split_name(self.name).is_some();
        if name_fits
            && !long_target
            && uid_fits
            && gid_fits
            && size_fits
            && time_fits
            && self.xattrs.is_empty()
        {
            return Ok(records);
        }
        for (name, value) in self.xattrs {
            if name.is_empty() || name.contains(&b'=') {
                let name = String::from_utf8_lossy(name);
                let message = format!("a tar cannot have an extended attribute called `{name}`");
                return Err(io::Error::new(ErrorKind::InvalidInput, message));
            }
            push_record(&mut records, &[XATTR, name].concat(), value);
        }
        if !gid_fits {
            push_record(&mut records, b"gid", gid.to_string().as_bytes());
        }
        if long_target {
            push_record(&mut records, b"linkpath", self.target());
        }
        if !time_fits {
            push_record(&mut records, b"mtime", time_to_text(self.modified).as_bytes());
        }
        // Also a name that could be split: an extended header, once there, takes all that is long.
        if long_name {
            push_record(&mut records, b"path", self.name);
        }
        if !size_fits {
            push_record(&mut records, b"size", self.size().to_string().as_bytes());
        }
        if !uid_fits {
            push_record(&mut records, b"uid", uid.to_string().as_bytes());
        }
        Ok(records)
    }

    /// All fields but prefix and checksum.
    fn block(&self, name: &[u8], target: &[u8]) -> [u8; BLOCK] {
        let none = Device { major: 0, minor: 0 };
        let (kind, Device { major, minor }) = match self.kind {
            Kind::File { .. } => (b'0', none),
            Kind::HardLink { .. } => (b'1', none),
            Kind::Symlink { .. } => (b'2', none),
            Kind::CharDevice(device) => (b'3', device),
            Kind::BlockDevice(device) => (b'4', device),
            Kind::Dir => (b'5', none),
            Kind::Fifo => (b'6', none),
        };
        let modified = u64::try_from(self.modified.seconds).unwrap_or(0);
        let mut block = minimal_block(name, kind, self.size(), modified);
        put_octal(&mut block[100..108], self.mode.into());
        put_octal(&mut block[108..116], self.owner.uid.into());
        put_octal(&mut block[116..124], self.owner.gid.into());
        put_text(&mut block[157..257], target);
        put_octal(&mut block[329..337], major.into());
        put_octal(&mut block[337..345], minor.into());
        block
    }
}

/// Writes zeros after `size` bytes of contents, up to the next block.
pub fn write_padding(size: u64, out: &mut dyn Sink) -> io::Result<()> {
    match usize::try_from(size % BLOCK as u64).expect("is less than a block") {
        0 => Ok(()),
        over => out.write_all(&ZEROS[over..]),
    }
}

/// Ends the archive: two blocks of zeros, and no padding to a record of twenty.
pub fn write_end(out: &mut dyn Sink) -> io::Result<()> {
    out.write_all(&ZEROS)?;
    out.write_all(&ZEROS)
}

/// The extended header: an entry of its own, with `records` as its contents.
fn write_extended(name: &[u8], records: &[u8], out: &mut dyn Sink) -> io::Result<()> {
    let base = name.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let mut extended = name[..base].to_vec();
    extended.extend_from_slice(b"PaxHeaders.0");
    if base < name.len() {
        extended.push(b'/');
        extended.extend_from_slice(&name[base..]);
    }
    let mut extended = ascii(&extended);
    extended.truncate(NAME_SIZE);
    while extended.last() == Some(&b'/') {
        extended.pop();
    }
    out.write_all(&seal(minimal_block(&extended, b'x', records.len() as u64, 0)))?;
    out.write_all(records)?;
    write_padding(records.len() as u64, out)
}

/// A header block with name, kind, size and time; mode and owner are 0, the other fields are empty.
fn minimal_block(name: &[u8], kind: u8, size: u64, modified: u64) -> [u8; BLOCK] {
    let mut block = ZEROS;
    put_text(&mut block[..NAME_SIZE], name);
    put_octal(&mut block[100..108], 0);
    put_octal(&mut block[108..116], 0);
    put_octal(&mut block[116..124], 0);
    put_octal(&mut block[124..136], size);
    put_octal(&mut block[136..148], modified);
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    block
}

/// Fills in the checksum: the sum of all bytes, counting the checksum's own as spaces.
fn seal(mut block: [u8; BLOCK]) -> [u8; BLOCK] {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    put_octal(&mut block[148..155], sum.into());
    block
}

/// Splits a name that is too long for its field at the last slash that leaves at most 155 bytes before it, if then at
/// most 100 remain after it.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= NAME_SIZE || !name.is_ascii() {
        return None;
    }
    let head = &name[..name.len().min(PREFIX_SIZE + 1)];
    let slash = head.iter().rposition(|&byte| byte == b'/')?;
    let rest = &name[slash + 1..];
    (slash > 0 && (1..=NAME_SIZE).contains(&rest.len())).then_some((&name[..slash], rest))
}

/// Without the bytes that are not ASCII.
fn ascii(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(u8::is_ascii).collect()
}

/// Puts as much of `text` as the field holds. Where that would end in a slash, the name ends before it, because some
/// readers would take the entry for a directory.
fn put_text(field: &mut [u8], text: &[u8]) {
    let n = text.len().min(field.len());
    field[..n].copy_from_slice(&text[..n]);
    if text.len() > field.len() && field.ends_with(b"/") {
        let end = field.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
        field[end] = 0;
    }
}

/// Whether the field for the time can hold it: no parts of a second, and nothing before 1970 or far away.
fn time_fits_octal(Time { seconds, nanoseconds }: Time) -> bool {
    nanoseconds == 0 && u64::try_from(seconds).is_ok_and(|seconds| fits_octal(12, seconds))
}

/// Whether `number` fits into a field of `size` bytes, the last of which is NUL.
fn fits_octal(size: usize, number: u64) -> bool {
    number >> (3 * (size - 1)) == 0
}

/// Puts a number with leading zeros and a NUL at the end; 0 if it doesn't fit (an extended header has it then).
fn put_octal(field: &mut [u8], number: u64) {
    let mut rest = if fits_octal(field.len(), number) { number } else { 0 };
    let (nul, digits) = field.split_last_mut().expect("fields are not empty");
    *nul = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest & 7) as u8;
        rest >>= 3;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{NO_XATTRS, Xattrs};
    use drydock_io::sink::MemorySink;
    use drydock_model::digest::Digest;

    const ROOT: Owner = Owner::ROOT;

    /// The beginning of the digest of the blocks that are written for a header.
    fn digest(name: impl AsRef<[u8]>, kind: Kind<'_>, mode: u32, owner: Owner) -> String {
        let modified = Time { seconds: 315_532_801, nanoseconds: 0 };
        digest_of(Entry { name: name.as_ref(), kind, mode, owner, modified, xattrs: NO_XATTRS })
    }

    fn digest_of(entry: Entry<'_>) -> String {
        let mut out = MemorySink::default();
        entry.write(&mut out).unwrap();
        Digest::of(&out.into_bytes()).hex()[..16].to_owned()
    }

    fn file(size: u64) -> Kind<'static> {
        Kind::File { size }
    }

    fn symlink(target: &str) -> Kind<'_> {
        Kind::Symlink { target: target.as_bytes() }
    }

    /// The digests are those of what Go's `archive/tar` writes for the same headers.
    #[test]
    fn headers_are_those_of_go() {
        let table = [
            (digest("/a", file(0), 0o644, ROOT), "827efd5f0a41e4a6"),
            (
                digest("/a", file((8 << 30) - 1), 0o6755, Owner { uid: 0o7_777_777, gid: 0o7_777_777 }),
                "eb8940aadc650992",
            ),
            (
                digest("/a", file(8 << 30), 0o644, Owner { uid: 0o10_000_000, gid: u32::MAX }),
                "d5687f946eb91ed0",
            ),
            (digest("/", Kind::Dir, 0o755, Owner { uid: 0o10_000_000, gid: 0 }), "67c7df6cc37d3d1c"),
            (digest(format!("/{}", "a".repeat(99)), Kind::Dir, 0o1777, ROOT), "b72f3defa93abd6e"),
            (digest(format!("/{}", "a".repeat(100)), Kind::Dir, 0o755, ROOT), "fe0b769a767b80a1"),
            (
                digest(format!("/{}/{}", "a".repeat(154), "b".repeat(100)), Kind::Dir, 0o755, ROOT),
                "a2e5b7d3d26b28ac",
            ),
            (
                digest(format!("/{}/{}", "a".repeat(155), "b".repeat(100)), Kind::Dir, 0o755, ROOT),
                "6ff87b7715188b42",
            ),
            (
                digest(format!("/{}/{}", "a".repeat(154), "b".repeat(101)), Kind::Dir, 0o755, ROOT),
                "32fd8e95133a3623",
            ),
            (digest("/abcdefg".repeat(40), Kind::Dir, 0o755, ROOT), "52ae8b73b46ed3e0"),
            (digest("/naïve", file(0), 0o644, ROOT), "00b727441e6f29ba"),
            (
                digest([b"/\xff\xfe/", "é".repeat(99).as_bytes()].concat(), file(0), 0o644, ROOT),
                "5883eee2ebf237b1",
            ),
            (digest(format!("/{}é/ü/bcd", "a".repeat(97)), file(0), 0o644, ROOT), "a276abe0230735b2"),
            (
                digest(format!("/{}{}/x", "a".repeat(90), "/é".repeat(20)), file(0), 0o644, ROOT),
                "cbb5eb22ec5e97ac",
            ),
            (digest("/l", symlink(&"b".repeat(100)), 0o777, ROOT), "12098f7f426a1b8d"),
            (digest("/l", symlink(&"b".repeat(101)), 0o777, ROOT), "3703bce469157167"),
            (
                digest(
                    format!("/{}/{}", "a".repeat(60), "b".repeat(60)),
                    symlink(&format!("{}/////x", "b".repeat(95))),
                    0o777,
                    ROOT,
                ),
                "ecde84687afdd9dd",
            ),
            (digest("/l", symlink("日本"), 0o777, ROOT), "9ce681584a4a2c43"),
            (
                digest("/d", Kind::CharDevice(Device { major: 4095, minor: 1_048_575 }), 0o600, ROOT),
                "27a4b03cbfedb999",
            ),
            (digest("/d", Kind::BlockDevice(Device { major: 7, minor: 3 }), 0o600, ROOT), "70066ff4a53be7f7"),
            (digest("/f", Kind::Fifo, 0o600, ROOT), "51bf5b10cd72d516"),
        ];
        for (number, (digest, expected)) in table.iter().enumerate() {
            assert_eq!(digest, expected, "case {number}");
        }
    }

    /// Likewise.
    #[test]
    fn what_layers_do_not_have_is_written_as_go_writes_it() {
        let plain = Entry {
            name: b"d/",
            kind: Kind::Dir,
            mode: 0o755,
            owner: ROOT,
            modified: Time { seconds: 315_532_801, nanoseconds: 0 },
            xattrs: NO_XATTRS,
        };
        let at = |seconds, nanoseconds| Entry { modified: Time { seconds, nanoseconds }, ..plain };
        let xattrs = |all: &[(&str, &[u8])]| -> Xattrs {
            all.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect()
        };
        let link = Kind::HardLink { target: b"/layers/a" };
        let program = xattrs(&[("security.capability", b"\x01\0\0\x02\0 \0\0\n="), ("user.a", b"x")]);
        let two = xattrs(&[("user.z", b"1"), ("user.b", b"2")]);
        let long = "abc/".repeat(30) + "f";
        for (number, (entry, expected)) in [
            (Entry { name: b"/h", kind: link, mode: 0o644, ..plain }, "2bbe2b321f74253d"),
            (Entry { name: b"usr/bin/ping", kind: file(3), xattrs: &program, ..plain }, "8ec9928ca9ad6a56"),
            (at(1_700_000_000, 123_456_000), "17f08de4c64dd3d6"),
            (at(-2, 500_000_000), "7caf0b276005550d"),
            (at(1 << 33, 0), "c7795d1de21fb50a"),
            (
                Entry {
                    name: long.as_bytes(),
                    kind: file(0),
                    mode: 0o644,
                    owner: Owner { uid: 3_000_000, gid: 0 },
                    xattrs: &two,
                    ..at(1, 1)
                },
                "15a6977b1f7911b5",
            ),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(digest_of(entry), expected, "case {number}");
        }
    }

    #[test]
    fn contents_end_on_a_block() {
        for (size, padding) in [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511), (1 << 40, 0)] {
            let mut out = MemorySink::default();
            write_padding(size, &mut out).unwrap();
            assert_eq!(out.into_bytes(), vec![0; padding], "{size}");
        }
    }
}
