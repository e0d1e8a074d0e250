//! Layers that somebody else compressed.

use std::io::Read as _;

use drydock_encode::compress::{Format, decompressed};

use super::{Target, roughly};

pub(crate) const TARGET: Target = Target {
    name: "compression",
    longest: 1 << 16,
    words: &[
        b"\x1f\x8b\x08\0",
        b"\x1f\x8b\x08\x1f",
        b"\x28\xb5\x2f\xfd",
        b"\x50\x2a\x4d\x18",
        b"\0\0\xff\xff",
        b"\x03\0",
    ],
    can_use: |_, bytes| bytes.starts_with(&[0x1f, 0x8b]) || bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]),
    run,
};

/// No more than this is read of what comes out.
const MOST: u64 = 1 << 22;

fn run(input: &[u8]) -> String {
    let read = |format| {
        let reader = decompressed(input, format).expect("there is memory for it");
        let mut buffer = Vec::new();
        let outcome = reader.take(MOST).read_to_end(&mut buffer);
        if format == Format::Plain {
            assert!(buffer == input);
        }
        format!("{} {:?};", roughly(buffer.len()), outcome.err())
    };
    [Format::Plain, Format::Gzip, Format::Zstd].map(read).concat()
}
