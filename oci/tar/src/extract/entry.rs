//! Entries as they are read: ustar, with pax extended headers and GNU long names.

use super::ExtractError;
use super::input::{Input, ended_early};
use crate::write::BLOCK;

use std::io::Read;

/// Extended headers and long names that are larger are refused, so that they cannot fill the memory.
const MAX_EXTENSION: u64 = 1 << 20;

/// One entry; a file's contents are next in the input.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    /// Of a symlink or hard link.
    pub(super) target: Vec<u8>,
    pub(super) kind: Kind,
    /// With setuid, setgid and sticky bits.
    pub(super) mode: u32,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File {
        /// Of the contents.
        size: u64,
    },
    HardLink,
    Symlink,
    Device,
    #[default]
    Dir,
    Fifo,
}

/// What extended headers say about the entry that follows them.
#[derive(Debug, Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
}

/// Reads the next entry into `entry`; false at the end of the archive.
pub(super) fn read_entry(input: &mut Input<impl Read>, entry: &mut Entry) -> Result<bool, ExtractError> {
    let mut extensions = Extensions::default();
    loop {
        let offset = input.offset();
        let malformed = |reason| ExtractError::Malformed { offset, reason };
        let Some(block) = input.block()? else {
            // Some writers leave out the blocks of zeros.
            return if extensions.is_empty() { Ok(false) } else { Err(ended_early()) };
        };
        if block.iter().all(|&byte| byte == 0) {
            return match input.block()? {
                Some(next) if next.iter().any(|&byte| byte != 0) => {
                    Err(malformed("a block of zeros stands alone"))
                }
                _ if extensions.is_empty() => Ok(false),
                _ => Err(malformed("an extended header belongs to no entry")),
            };
        }
        check_sum(block).map_err(malformed)?;
        let type_flag = block[156];
        let size = number(&block[124..136]).map_err(malformed)?;
        match type_flag {
            b'x' => {
                let records = extension(input, size, malformed)?;
                extensions.add_records(&records).map_err(malformed)?;
            }
            // Global headers have nothing that matters here.
            b'g' => input.contents(size, |_| Ok(()))?,
            b'L' => extensions.name = Some(until_nul(&extension(input, size, malformed)?).to_vec()),
            b'K' => extensions.target = Some(until_nul(&extension(input, size, malformed)?).to_vec()),
            _ => {
                parse(block, extensions, size, entry).map_err(malformed)?;
                return Ok(true);
            }
        }
    }
}

/// The contents of an extended header.
fn extension(
    input: &mut Input<impl Read>,
    size: u64,
    malformed: impl Fn(&'static str) -> ExtractError,
) -> Result<Vec<u8>, ExtractError> {
    if size > MAX_EXTENSION {
        return Err(malformed("an extended header is larger than 1 MiB"));
    }
    let mut contents = Vec::new();
    input.contents(size, |piece| {
        contents.extend_from_slice(&piece);
        Ok(())
    })?;
    Ok(contents)
}

impl Extensions {
    fn is_empty(&self) -> bool {
        self.name.is_none() && self.target.is_none() && self.size.is_none()
    }

    /// Takes what matters from pax records: `<length> <key>=<value>\n`, where the length is the whole record's.
    fn add_records(&mut self, mut records: &[u8]) -> Result<(), &'static str> {
        const MALFORMED: &str = "an extended header has a malformed record";
        while !records.is_empty() {
            let space = records.iter().position(|&byte| byte == b' ').ok_or(MALFORMED)?;
            let length: usize =
                decimal(&records[..space]).and_then(|n| n.try_into().ok()).ok_or(MALFORMED)?;
            let (record, rest) = records.split_at_checked(length).ok_or(MALFORMED)?;
            let record =
                record.get(space + 1..).and_then(|record| record.strip_suffix(b"\n")).ok_or(MALFORMED)?;
            let equals = record.iter().position(|&byte| byte == b'=').ok_or(MALFORMED)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                // An empty value takes back what an earlier header said.
                b"path" => self.name = Some(value.to_vec()).filter(|name| !name.is_empty()),
                b"linkpath" => self.target = Some(value.to_vec()).filter(|target| !target.is_empty()),
                b"size" => self.size = Some(decimal(value).ok_or(MALFORMED)?),
                _ if key.starts_with(b"GNU.sparse.") => return Err("sparse files are not supported"),
                _ => {}
            }
            records = rest;
        }
        Ok(())
    }
}

fn parse(
    block: &[u8; BLOCK],
    extensions: Extensions,
    size: u64,
    entry: &mut Entry,
) -> Result<(), &'static str> {
    entry.name.clear();
    if let Some(name) = extensions.name {
        entry.name = name;
    } else {
        let prefix = if block[257..263] == *b"ustar\0" { until_nul(&block[345..500]) } else { b"" };
        if !prefix.is_empty() {
            entry.name.extend_from_slice(prefix);
            entry.name.push(b'/');
        }
        entry.name.extend_from_slice(until_nul(&block[..100]));
    }
    entry.target.clear();
    match extensions.target {
        Some(target) => entry.target = target,
        None => entry.target.extend_from_slice(until_nul(&block[157..257])),
    }
    entry.mode = (number(&block[100..108])? & 0o7777) as u32;
    entry.kind = match block[156] {
        // Before ustar, directories were files whose names end in a slash.
        0 if entry.name.ends_with(b"/") => Kind::Dir,
        0 | b'0' | b'7' => Kind::File { size: extensions.size.unwrap_or(size) },
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' | b'4' => Kind::Device,
        b'5' => Kind::Dir,
        b'6' => Kind::Fifo,
        b'S' => return Err("sparse files are not supported"),
        _ => return Err("an entry is of an unknown type"),
    };
    Ok(())
}

/// Checks the sum of all bytes, counting the checksum's own as spaces. Some old writers took bytes as signed.
fn check_sum(block: &[u8; BLOCK]) -> Result<(), &'static str> {
    let expected = number(&block[148..156])?;
    let field: u64 = block[148..156].iter().map(|&byte| u64::from(byte)).sum();
    let sum = block.iter().map(|&byte| u64::from(byte)).sum::<u64>() - field + 8 * u64::from(b' ');
    let negative = |bytes: &[u8]| bytes.iter().filter(|byte| !byte.is_ascii()).count() as u64;
    let signed = sum.wrapping_sub(256 * (negative(block) - negative(&block[148..156])));
    if expected == sum || expected == signed { Ok(()) } else { Err("a header has a wrong checksum") }
}

/// A number in octal digits between spaces and NULs, or in base 256 after a byte of 0x80.
fn number(field: &[u8]) -> Result<u64, &'static str> {
    const MALFORMED: &str = "a header has a malformed number";
    if field[0] >= 0x80 {
        let (first, rest) = field.split_first().ok_or(MALFORMED)?;
        return rest.iter().try_fold(u64::from(first & 0x7f), |number, &byte| {
            if number >> 55 == 0 { Ok(number << 8 | u64::from(byte)) } else { Err(MALFORMED) }
        });
    }
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    if !digits[end..].iter().all(blank) {
        return Err(MALFORMED);
    }
    digits[..end].iter().try_fold(0, |number, &digit| match digit {
        b'0'..=b'7' => Ok(number << 3 | u64::from(digit - b'0')),
        _ => Err(MALFORMED),
    })
}

fn decimal(text: &[u8]) -> Option<u64> {
    str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or(field)
}
