//! Archives as a stream of entries: ustar, with pax extended headers and GNU's long names.
//!
//! Sparse files are refused. Global headers are passed over: what writers put into them is a comment.

use std::io::{self, BufRead, ErrorKind, Read};

use crate::entry::{Device, Entry, Kind, Owner, Time, Xattrs};
use crate::error::ArchiveError;
use crate::pax::{XATTR, decimal, take_record, time_from_text};
use crate::write::BLOCK;

/// Extended headers and long names of one entry may have so many bytes together: they are kept in memory.
const MAX_EXTENSIONS: u64 = 1 << 20;

/// An archive that is read from its beginning to its end.
#[derive(Debug)]
pub struct Archive<R> {
    rest: Rest<R>,
    headers: Headers,
}

/// An entry that was read.
#[derive(Debug)]
pub struct Member<'a, R> {
    /// What the archive says of it.
    pub entry: Entry<'a>,
    /// What is in it, if it is a file. What is not read is passed over.
    pub contents: Contents<'a, R>,
}

/// The contents of a file. That the archive ends within them is an error ([`ErrorKind::UnexpectedEof`]).
#[derive(Debug)]
pub struct Contents<'a, R> {
    rest: &'a mut Rest<R>,
}

/// What has not been read yet.
#[derive(Debug)]
struct Rest<R> {
    input: R,
    /// Bytes that came before.
    offset: u64,
    /// Bytes that are left of the current entry's contents.
    contents: u64,
    /// Bytes between these and the next header.
    padding: u64,
}

/// The headers of the current entry.
#[derive(Debug)]
struct Headers {
    extensions: Extensions,
    block: [u8; BLOCK],
    /// The name in the block, put together.
    name: Vec<u8>,
}

/// What extended headers say of the entry that follows them.
#[derive(Debug, Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    modified: Option<Time>,
    xattrs: Xattrs,
    /// Bytes in them all.
    length: u64,
}

impl<R: BufRead> Archive<R> {
    /// From the beginning of `input` on.
    pub fn new(input: R) -> Self {
        let rest = Rest { input, offset: 0, contents: 0, padding: 0 };
        let headers = Headers { extensions: Extensions::default(), block: [0; BLOCK], name: Vec::new() };
        Self { rest, headers }
    }

    /// The next entry; none at the end of the archive.
    pub fn read_next(&mut self) -> Result<Option<Member<'_, R>>, ArchiveError> {
        let Self { rest, headers } = self;
        rest.take(rest.contents + rest.padding, |_| {})?;
        if !headers.read(rest)? {
            return Ok(None);
        }
        let offset = rest.offset - BLOCK as u64;
        let entry = headers.entry().map_err(|reason| ArchiveError::Malformed { offset, reason })?;
        let size = if let Kind::File { size } = entry.kind { size } else { 0 };
        (rest.contents, rest.padding) = (size, padding(size));
        Ok(Some(Member { entry, contents: Contents { rest } }))
    }

    /// The input, from where reading the archive has come to.
    pub fn into_inner(self) -> R {
        self.rest.input
    }
}

impl<R: BufRead> BufRead for Contents<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let Rest { input, contents, .. } = &mut *self.rest;
        if *contents == 0 {
            return Ok(&[]);
        }
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(&buffer[..at_most(buffer.len(), *contents)])
    }

    fn consume(&mut self, n: usize) {
        self.rest.consume(n);
        self.rest.contents -= n as u64;
    }
}

impl<R: BufRead> Read for Contents<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

impl<R: BufRead> Rest<R> {
    fn consume(&mut self, n: usize) {
        self.input.consume(n);
        self.offset += n as u64;
    }

    /// How many bytes can be had at once; 0 at the end of the input.
    fn available(&mut self) -> Result<usize, ArchiveError> {
        loop {
            match self.input.fill_buf() {
                Ok(buffer) => return Ok(buffer.len()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(ArchiveError::Read(error)),
            }
        }
    }

    /// Reads `n` bytes and gives them to `taker`, piece by piece.
    fn take(&mut self, mut n: u64, mut taker: impl FnMut(&[u8])) -> Result<(), ArchiveError> {
        while n > 0 {
            let length = at_most(self.available()?, n);
            if length == 0 {
                return Err(ended_early());
            }
            taker(&self.input.fill_buf().map_err(ArchiveError::Read)?[..length]);
            self.consume(length);
            n -= length as u64;
        }
        Ok(())
    }

    /// Reads a block; false at the end of the input.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, ArchiveError> {
        if self.available()? == 0 {
            return Ok(false);
        }
        let mut filled = 0;
        self.take(BLOCK as u64, |piece| {
            block[filled..][..piece.len()].copy_from_slice(piece);
            filled += piece.len();
        })?;
        Ok(true)
    }
}

impl Headers {
    /// Reads the next entry's headers; false at the end of the archive.
    fn read(&mut self, rest: &mut Rest<impl BufRead>) -> Result<bool, ArchiveError> {
        self.extensions = Extensions::default();
        loop {
            let offset = rest.offset;
            let malformed = |reason| ArchiveError::Malformed { offset, reason };
            let is_extended = self.extensions.length > 0;
            if !rest.read_block(&mut self.block)? {
                // Some writers leave out the blocks of zeros.
                return if is_extended { Err(ended_early()) } else { Ok(false) };
            }
            if is_zero(&self.block) {
                if is_extended {
                    return Err(malformed("an extended header belongs to no entry"));
                }
                let is_alone = rest.read_block(&mut self.block)? && !is_zero(&self.block);
                return if is_alone { Err(malformed("a block of zeros stands alone")) } else { Ok(false) };
            }
            check_sum(&self.block).map_err(malformed)?;
            let size = unsigned(&self.block[124..136]).map_err(malformed)?;
            match self.block[156] {
                b'g' => rest.take(size.saturating_add(padding(size)), |_| {})?,
                type_flag @ (b'x' | b'L' | b'K') => {
                    self.extensions.length = self.extensions.length.saturating_add(size.max(1));
                    if self.extensions.length > MAX_EXTENSIONS {
                        return Err(malformed("extended headers are larger than 1 MiB"));
                    }
                    let mut contents = Vec::new();
                    rest.take(size, |piece| contents.extend_from_slice(piece))?;
                    rest.take(padding(size), |_| {})?;
                    self.extensions.add(type_flag, &contents).map_err(malformed)?;
                }
                _ => return Ok(true),
            }
        }
    }

    /// What the headers say.
    fn entry(&mut self) -> Result<Entry<'_>, &'static str> {
        let Self { extensions, block, name: in_block } = self;
        in_block.clear();
        if block[257..263] == *b"ustar\0" && block[345] != 0 {
            in_block.extend_from_slice(until_nul(&block[345..500]));
            in_block.push(b'/');
        }
        in_block.extend_from_slice(until_nul(&block[..100]));
        let name = extensions.name.as_deref().unwrap_or(in_block);
        let target = extensions.target.as_deref().unwrap_or_else(|| until_nul(&block[157..257]));
        // The largest number is nobody's: to system calls it means to leave the owner as it is.
        let id = |extended: Option<u64>, field| {
            let id = u32::try_from(extended.map_or_else(|| unsigned(field), Ok)?).ok();
            id.filter(|id| *id != u32::MAX).ok_or("an owner has too large a number")
        };
        let device = || -> Result<Device, &'static str> {
            let number =
                |field| u32::try_from(unsigned(field)?).map_err(|_| "a device has too large a number");
            Ok(Device { major: number(&block[329..337])?, minor: number(&block[337..345])? })
        };
        let kind = match block[156] {
            // Before ustar, directories were files whose names end in a slash.
            0 if name.ends_with(b"/") => Kind::Dir,
            0 | b'0' | b'7' => {
                Kind::File { size: extensions.size.map_or_else(|| unsigned(&block[124..136]), Ok)? }
            }
            b'1' => Kind::HardLink { target },
            b'2' => Kind::Symlink { target },
            b'3' => Kind::CharDevice(device()?),
            b'4' => Kind::BlockDevice(device()?),
            b'5' => Kind::Dir,
            b'6' => Kind::Fifo,
            b'S' => return Err("sparse files are not supported"),
            _ => return Err("an entry is of an unknown type"),
        };
        let modified = match extensions.modified {
            Some(modified) => modified,
            None => Time { seconds: number(&block[136..148])?, nanoseconds: 0 },
        };
        Ok(Entry {
            name,
            kind,
            mode: (unsigned(&block[100..108])? & 0o7777) as u32,
            owner: Owner {
                uid: id(extensions.uid, &block[108..116])?,
                gid: id(extensions.gid, &block[116..124])?,
            },
            modified,
            xattrs: &extensions.xattrs,
        })
    }
}

impl Extensions {
    /// Takes what an extended header says.
    fn add(&mut self, type_flag: u8, contents: &[u8]) -> Result<(), &'static str> {
        match type_flag {
            b'L' => self.name = Some(until_nul(contents).to_vec()),
            b'K' => self.target = Some(until_nul(contents).to_vec()),
            _ => {
                let mut records = contents;
                while !records.is_empty() {
                    self.add_record(&mut records).ok_or("an extended header has a malformed record")??;
                }
            }
        }
        Ok(())
    }

    /// Takes the first of pax records; none if it is malformed.
    fn add_record(&mut self, records: &mut &[u8]) -> Option<Result<(), &'static str>> {
        let (key, value) = take_record(records)?;
        // An empty value takes back what an earlier header said.
        let text = || (!value.is_empty()).then(|| value.to_vec());
        let number = || if value.is_empty() { Some(None) } else { decimal(value).map(Some) };
        match key {
            b"path" => self.name = text(),
            b"linkpath" => self.target = text(),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" if value.is_empty() => self.modified = None,
            b"mtime" => self.modified = Some(time_from_text(value)?),
            _ if key.starts_with(b"GNU.sparse.") => return Some(Err("sparse files are not supported")),
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.xattrs.insert(name.to_vec(), value.to_vec());
                }
            }
        }
        Some(Ok(()))
    }
}

fn ended_early() -> ArchiveError {
    ArchiveError::Read(ErrorKind::UnexpectedEof.into())
}

fn at_most(available: usize, most: u64) -> usize {
    usize::try_from(most).map_or(available, |most| available.min(most))
}

/// Bytes after contents of `size` bytes, up to the next block.
fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

fn is_zero(block: &[u8; BLOCK]) -> bool {
    block.iter().all(|&byte| byte == 0)
}

/// Checks the sum of all bytes, counting the checksum's own as spaces. Some old writers took bytes as signed.
fn check_sum(block: &[u8; BLOCK]) -> Result<(), &'static str> {
    let expected = number(&block[148..156])?;
    let sum = |value: fn(u8) -> i64| {
        let others = block[..148].iter().chain(&block[156..]);
        8 * i64::from(b' ') + others.map(|&byte| value(byte)).sum::<i64>()
    };
    let is_right = expected == sum(i64::from) || expected == sum(|byte| i64::from(byte.cast_signed()));
    if is_right { Ok(()) } else { Err("a header has a wrong checksum") }
}

fn unsigned(field: &[u8]) -> Result<u64, &'static str> {
    number(field)?.try_into().map_err(|_| "a header has a negative number")
}

/// A number in octal digits between spaces and NULs, or in base 256 if the highest bit says so.
fn number(field: &[u8]) -> Result<i64, &'static str> {
    const MALFORMED: &str = "a header has a malformed number";
    let (&first, rest) = field.split_first().ok_or(MALFORMED)?;
    if first >= 0x80 {
        // In two's complement, of which the highest bit is the second.
        let sign = i128::from((first << 1).cast_signed() >> 1);
        let number = rest.iter().fold(sign, |number, &byte| number << 8 | i128::from(byte));
        return number.try_into().map_err(|_| MALFORMED);
    }
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    if !digits[end..].iter().all(blank) {
        return Err(MALFORMED);
    }
    digits[..end].iter().try_fold(0, |number, &digit| match digit {
        b'0'..=b'7' => Ok(number << 3 | i64::from(digit - b'0')),
        _ => Err(MALFORMED),
    })
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or(field)
}

#[cfg(test)]
mod tests;
