//! What has been read before, and need not be read again: digests of files and trees by how they look.
//!
//! A file looks as its device, inode, size, mode, owner, time of modification and time of change (ctime) say. The kernel sets the ctime
//! at every write, truncation, rename, link and change of mode, owner or times, and no call sets it to what a process wants. So a file that
//! looks as it did when its digest was found out has the same contents, if
//!
//! - its ctime was *settled* by then: before the tick of the kernel's clock in which its look was taken, by [`MARGIN`]. A later write in
//!   the same tick would leave the same ctime;
//! - the clock has not been set back since. The kernel's wall clock minus its time since boot changes when the clock is set, and only
//!   then: what was noted under another difference, or before another boot, is not believed ([`Era`]);
//! - the file system is a local one that keeps ctimes as nanoseconds ([`keeps_ctimes`]). Network file systems take the time of other
//!   machines, some others invent inodes; tmpfs lets a file that was mapped before be written without a trace;
//! - nobody writes through a shared mapping that was there and dirty before. What builds write has been written by then.
//!
//! A new file with the inode of a removed one has a new ctime, and so has a copy that an overlay makes of a file that is written. A hard link and a
//! rename change the ctime too: that is read again. Bind mounts show the same file.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;
use std::time::Duration;

use drydock_io::read;
use drydock_model::digest::Digest;
use drydock_model::hash::Hasher;
use rustix::fs::{Stat, fstat, fstatfs};
use rustix::time::{ClockId, clock_gettime};

/// A ctime is settled so much later: by more than an [`Era`] may be wrong, in nanoseconds.
const MARGIN: Time = 4 * Era::WRONG;

/// A point of the kernel's wall clock, in nanoseconds since 1970.
pub type Time = i128;

/// How something looks: equal prints, equal contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Print {
    hash: Digest,
    /// The latest ctime in it.
    changed: Time,
}

/// Puts together how several files look.
#[derive(Debug, Clone)]
pub struct Looks {
    hash: Hasher,
    changed: Time,
    /// Of all files; those of others cannot be judged.
    device: u64,
    is_one_device: bool,
}

impl Looks {
    /// Of files on the file system of `file`; none where ctimes tell nothing.
    pub fn on(file: impl AsFd) -> rustix::io::Result<Option<Self>> {
        if !keeps_ctimes(&file)? {
            return Ok(None);
        }
        let device = fstat(&file)?.st_dev;
        Ok(Some(Self { hash: Hasher::new(), changed: 0, device, is_one_device: true }))
    }

    /// Of none yet, on the same file system.
    #[must_use]
    pub fn emptied(&self) -> Self {
        Self { hash: Hasher::new(), changed: 0, device: self.device, is_one_device: true }
    }

    /// Another file.
    pub fn add(&mut self, stat: &Stat) {
        self.is_one_device &= stat.st_dev == self.device;
        let changed = time(stat.st_ctime, stat.st_ctime_nsec);
        self.changed = self.changed.max(changed);
        let modified = time(stat.st_mtime, stat.st_mtime_nsec);
        for number in [stat.st_dev, stat.st_ino, stat.st_size.cast_unsigned()] {
            self.hash.update(&number.to_le_bytes());
        }
        for number in [stat.st_mode, stat.st_uid, stat.st_gid] {
            self.hash.update(&number.to_le_bytes());
        }
        for time in [modified, changed] {
            self.hash.update(&time.to_le_bytes());
        }
    }

    /// Others on the same file system.
    pub fn add_print(&mut self, others: &Print) {
        self.changed = self.changed.max(others.changed);
        self.hash.update(others.hash.hex().as_bytes());
    }

    /// Something else that makes a difference.
    pub fn add_bytes(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
    }

    /// None if files of several devices were among them.
    pub fn finish(self) -> Option<Print> {
        let hash = Digest::from_hash(self.hash);
        self.is_one_device.then_some(Print { hash, changed: self.changed })
    }
}

impl Print {
    /// Whether nothing was changed after `until`.
    pub fn is_older_than(&self, until: Time) -> bool {
        self.changed <= until
    }

    /// Whether a change after `since` shows.
    pub fn is_settled(&self, since: Time) -> bool {
        self.changed + MARGIN < since
    }

    /// Of one open file; none where its ctime tells nothing.
    pub fn of(file: &File) -> io::Result<Option<Self>> {
        let Some(mut looks) = Looks::on(file)? else { return Ok(None) };
        looks.add_bytes(b"file");
        looks.add(&fstat(file)?);
        Ok(looks.finish())
    }
}

/// While the kernel's wall clock was not set.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Era {
    /// The kernel's name for the time since it was started.
    boot: [u8; Era::BOOT],
    /// The wall clock's time then, at most [`Era::WRONG`] wrong.
    began: Time,
}

impl Era {
    const BOOT: usize = 36;
    const WRONG: Time = 500_000;

    fn now() -> io::Result<Self> {
        let boot = read::read_to_string(Path::new("/proc/sys/kernel/random/boot_id"), 64)?;
        let boot = boot.trim().as_bytes().try_into().map_err(|_| io::ErrorKind::InvalidData)?;
        // Two clocks cannot be read at once: the attempt counts in which least time passed between them.
        let began = (0..8).map(|_| {
            let (before, since, after) =
                (now(ClockId::Realtime), now(ClockId::Boottime), now(ClockId::Realtime));
            (after - before, Time::midpoint(before, after) - since)
        });
        Ok(Self { boot, began: began.min().map_or(0, |(_, began)| began) })
    }

    fn goes_on(&self, other: &Self) -> bool {
        self.boot == other.boot && self.began.abs_diff(other.began) <= 2 * Self::WRONG.unsigned_abs()
    }
}

/// What is known in one era: that what looks so has this digest. Of each fact a hash is kept, for nobody asks but whoever knows both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// None: there is no telling, and nothing is noted.
    era: Option<Era>,
    facts: Vec<Fact>,
}

/// Half of a SHA-256.
type Fact = [u8; 16];

impl Seen {
    /// Nothing yet, from now on.
    pub fn nothing() -> Self {
        Self { era: Era::now().ok(), facts: Vec::new() }
    }

    /// From [`Seen::to_bytes`]; nothing, if that is of another era, or anything else.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let now = Self::nothing();
        match Self::parse(bytes) {
            Some(seen) if seen.is_of(&now) => seen,
            _ => now,
        }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (boot, rest) = bytes.split_first_chunk()?;
        let (began, rest) = rest.split_first_chunk()?;
        let (facts, []) = rest.as_chunks() else { return None };
        let era = Era { boot: *boot, began: Time::from_le_bytes(*began) };
        Some(Self { era: Some(era), facts: facts.to_vec() })
    }

    /// For a later process: at most so many bytes, what was noted first. Empty, if the clock was set meanwhile.
    pub fn to_bytes(&self, most: usize) -> Vec<u8> {
        let Some(era) = self.era.as_ref().filter(|_| self.is_of(&Self::nothing())) else { return Vec::new() };
        let head = [&era.boot[..], &era.began.to_le_bytes()].concat();
        let room = most.saturating_sub(head.len()) / size_of::<Fact>();
        [head, self.facts[..room.min(self.facts.len())].concat()].concat()
    }

    fn is_of(&self, other: &Self) -> bool {
        self.era.as_ref().zip(other.era.as_ref()).is_some_and(|(era, other)| era.goes_on(other))
    }

    /// Nothing, in the same era. Its beginning stays, so that steps too small to be told from errors do not add up.
    #[must_use]
    pub fn emptied(&self) -> Self {
        Self { era: self.era.clone(), facts: Vec::new() }
    }

    /// Whether what looks so is known to have this digest.
    pub fn knows(&self, print: &Print, digest: Digest) -> bool {
        self.knows_of(&print.hash, &digest)
    }

    /// Whether an open file is known to have this digest.
    pub fn knows_file(&self, file: &File, digest: Digest) -> bool {
        !self.facts.is_empty()
            && Print::of(file).ok().flatten().is_some_and(|print| self.knows(&print, digest))
    }

    /// Notes that what looked so, after `since`, has this digest, unless it was changed shortly before `since`.
    pub fn note(&mut self, print: &Print, digest: Digest, since: Time) {
        if print.is_settled(since) {
            self.note_of(&print.hash, &digest);
        }
    }

    /// Whether [`Seen::note_of`] was told this.
    pub fn knows_of(&self, one: &Digest, other: &Digest) -> bool {
        self.facts.contains(&fact(one, other))
    }

    /// Notes something else about a digest, that no write changes.
    pub fn note_of(&mut self, one: &Digest, other: &Digest) {
        if self.era.is_some() && !self.knows_of(one, other) {
            self.facts.push(fact(one, other));
        }
    }
}

fn fact(one: &Digest, other: &Digest) -> Fact {
    let mut hash = Hasher::new();
    hash.update(one.hex().as_bytes());
    hash.update(other.hex().as_bytes());
    let hash = hash.finish();
    std::array::from_fn(|at| hash[at])
}

/// The time that the kernel would give a file now.
pub fn file_time() -> Time {
    now(ClockId::RealtimeCoarse)
}

/// No file has a later time now.
pub fn present() -> Time {
    now(ClockId::Realtime)
}

/// Waits until what has been changed until now is settled: for a tick of the clock or two, however it is set meanwhile.
pub fn settle() {
    let now = present();
    for _ in 0..50 {
        if file_time() > now + MARGIN {
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn now(clock: ClockId) -> Time {
    let now = clock_gettime(clock);
    time(now.tv_sec, now.tv_nsec.cast_unsigned())
}

fn time(seconds: i64, nanoseconds: u64) -> Time {
    Time::from(seconds) * 1_000_000_000 + Time::from(nanoseconds)
}

/// Whether a file lies where its ctime tells of every change, in nanoseconds.
fn keeps_ctimes(file: impl AsFd) -> rustix::io::Result<bool> {
    /// From Linux's `magic.h`: ext2 to ext4, XFS, Btrfs, F2FS, overlayfs.
    const KINDS: [u32; 5] = [0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010, 0x794C_7630];
    let kind = u32::try_from(fstatfs(file)?.f_type);
    Ok(kind.is_ok_and(|kind| KINDS.contains(&kind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u8) -> Digest {
        Digest::of(&[number])
    }

    #[test]
    fn what_was_noted_is_known_in_its_era_only() {
        let mut seen = Seen::nothing();
        for number in 0..10 {
            seen.note_of(&digest(number), &digest(number + 1));
            seen.note_of(&digest(number), &digest(number + 1));
        }
        let bytes = seen.to_bytes(usize::MAX);
        assert_eq!(bytes.len(), 52 + 10 * 16);
        assert_eq!(Seen::from_bytes(&bytes), seen);
        let some = Seen::from_bytes(&seen.to_bytes(52 + 4 * 16 + 15));
        for number in 0..10 {
            assert_eq!(some.knows_of(&digest(number), &digest(number + 1)), number < 4);
            assert!(!seen.knows_of(&digest(number + 1), &digest(number)));
        }
        for at in [0, 35, 39, 51] {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert_eq!(Seen::from_bytes(&bytes).facts, [[0; 16]; 0], "byte {at}");
        }
        // As far away as times can be.
        let began = seen.era.as_ref().unwrap().began;
        for began in [Time::MIN, Time::MAX, began.wrapping_add(Time::MIN)] {
            let bytes = [&bytes[..36], &began.to_le_bytes(), &bytes[52..]].concat();
            assert_eq!(Seen::from_bytes(&bytes).facts, [[0; 16]; 0], "{began}");
        }
        for length in (0..bytes.len()).filter(|length| length % 16 != 52 % 16 || *length < 52) {
            assert_eq!(Seen::from_bytes(&bytes[..length]).facts, [[0; 16]; 0], "{length} bytes");
        }
        let elsewhere = Seen { era: None, facts: Vec::new() };
        assert!(elsewhere.to_bytes(usize::MAX).is_empty());
    }

    #[test]
    fn prints_are_of_settled_files() {
        let here = std::env::current_exe().unwrap();
        let dir = tempfile::tempdir_in(here.parent().unwrap()).unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "content").unwrap();
        let file = File::open(&path).unwrap();
        let (print, mut seen) =
            (Print::of(&file).unwrap().expect("tests are built on a disk"), Seen::nothing());
        assert!(print.is_older_than(present()) && !print.is_older_than(print.changed - 1));
        seen.note(&print, digest(1), print.changed + MARGIN);
        assert!(!seen.knows_file(&file, digest(1)));
        settle();
        seen.note(&print, digest(1), file_time());
        assert!(seen.knows_file(&file, digest(1)) && !seen.knows_file(&file, digest(2)));
        std::fs::hard_link(&path, dir.path().join("link")).unwrap();
        assert!(!seen.knows_file(&file, digest(1)), "a link changes the ctime");
        let memory = rustix::fs::memfd_create("memory", rustix::fs::MemfdFlags::empty()).unwrap();
        assert_eq!(Print::of(&File::from(memory)).unwrap(), None);
    }
}
