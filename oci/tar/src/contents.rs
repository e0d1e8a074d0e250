//! Contents of files on disk as contents of entries.

use std::os::fd::AsFd;
use std::path::PathBuf;

use drydock_io::sink::Sink;

use crate::ahead::{self, Origin};
use crate::error::TarError;
use crate::write::write_padding;

/// Writes the contents of a file, which must have exactly `size` bytes, and pads them. Tells where they came from.
///
/// `path` tells the file's path for an error.
pub fn write_contents(
    file: impl AsFd,
    size: u64,
    out: &mut dyn Sink,
    path: &dyn Fn() -> PathBuf,
) -> Result<Origin, TarError> {
    let mut left = size;
    // Whether it has been seen that nothing follows. An empty file is not read at all.
    let mut at_end = size == 0;
    let changed = || TarError::Changed(path());
    let mut origin = Origin::Memory;
    let mut read = |buffer: &mut [u8]| -> Result<usize, TarError> {
        let (n, found) = ahead::read(&file, buffer).map_err(|e| TarError::read("read", &path())(e))?;
        if found == Origin::Disk {
            origin = found;
        }
        Ok(n)
    };
    while left > 0 {
        let space = out.space().map_err(TarError::Write)?;
        // If there is room, one byte more than there should be: a second read to find the end is then not needed.
        let wanted = usize::try_from(left.saturating_add(1)).unwrap_or(usize::MAX).min(space.len());
        let n = read(&mut space[..wanted])?;
        if n == 0 || n as u64 > left {
            return Err(changed());
        }
        at_end = n as u64 == left && n < wanted;
        out.advance(n);
        left -= n as u64;
    }
    if !at_end && read(&mut [0])? > 0 {
        return Err(changed());
    }
    write_padding(size, out).map_err(TarError::Write)?;
    Ok(origin)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;

    use super::*;
    use drydock_io::sink::{MemorySink, WriterSink};

    /// Whether a file of 1000 bytes is taken for one of `size` bytes.
    fn taken_for(size: u64, sink: &mut dyn Sink, file: &Path) -> bool {
        let file = File::open(file).unwrap();
        match write_contents(&file, size, sink, &|| "the file".into()) {
            Ok(_) => true,
            Err(TarError::Changed(path)) => {
                assert_eq!(path, Path::new("the file"));
                false
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_file_that_shrinks_or_grows_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, [1; 1000]).unwrap();
        for (size, expected) in [(1000, true), (999, false), (1001, false), (100_000, false)] {
            assert_eq!(taken_for(size, &mut MemorySink::default(), &path), expected, "{size}");
            // Here the buffer ends where the file does.
            let mut sink = WriterSink::new(Vec::new());
            sink.write_all(&vec![0; (128 << 10) - 1000]).unwrap();
            assert_eq!(taken_for(size, &mut sink, &path), expected, "{size}");
        }
    }
}
