//! Our encoder, against two decoders that other people wrote.

use std::io::Read as _;

use drydock_encode::compress::{CHUNK, Compression, deflate};

use super::{Target, roughly};

pub(crate) const TARGET: Target =
    Target { name: "deflate", longest: 1 << 12, words: &[], can_use: |_, bytes| bytes.len() < 1 << 12, run };

fn run(input: &[u8]) -> String {
    let said = check_chunk(input) + &check_chunk(&expanded(input));
    let blob = Compression::FAST_GZIP.compress(input);
    let mut decoded = Vec::new();
    flate2::read::GzDecoder::new(&blob[..]).read_to_end(&mut decoded).expect("it is one gzip member");
    assert!(decoded == input, "the gzip member has other bytes");
    said
}

/// The bytes that an input tells to make, so that a few of them become chunks of all kinds, some of them long.
fn expanded(input: &[u8]) -> Vec<u8> {
    let most = CHUNK >> (input.len() % 10);
    let mut chunk: Vec<u8> = Vec::new();
    for &[what, a, b] in input.as_chunks().0 {
        if chunk.len() > most {
            break;
        }
        let length = 1_usize << (what % 18);
        match what / 18 {
            // What was there before, from so far back.
            0..6 if !chunk.is_empty() => {
                let distance = (1 + usize::from(u16::from_le_bytes([a, b]))).min(chunk.len());
                let start = chunk.len() - distance;
                let again: Vec<u8> = chunk[start..].iter().copied().cycle().take(length).collect();
                chunk.extend(again);
            }
            // Noise, of all bytes or of few.
            6..10 => {
                let mut state = u32::from_le_bytes([a, b, a, 1]);
                chunk.extend(
                    std::iter::repeat_with(|| {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        (state >> 24).to_le_bytes()[0] % (b | 1)
                    })
                    .take(length),
                );
            }
            10..12 => chunk.extend(std::iter::repeat_n(a, length)),
            _ => chunk.extend([what, a, b]),
        }
    }
    chunk.truncate(most);
    chunk
}

/// Compresses bytes, decodes them twice, and compares.
fn check_chunk(chunk: &[u8]) -> String {
    let mut out = vec![0; deflate::bound(chunk.len())];
    let length = deflate::Encoder::new().encode(chunk, &mut out);
    let form = out[0] >> 1 & 3;
    out.truncate(length);
    // A last block, which is empty.
    out.extend([3, 0]);
    let mut decoded = Vec::new();
    flate2::read::DeflateDecoder::new(&out[..]).read_to_end(&mut decoded).expect("zlib-rs can read it");
    assert!(decoded == chunk, "zlib-rs reads something else");
    let decoded = miniz_oxide::inflate::decompress_to_vec(&out).expect("miniz_oxide can read it");
    assert!(decoded == chunk, "miniz_oxide reads something else");

    format!("{}{}{};", roughly(form.into()), roughly(chunk.len()), roughly(16 * length / (1 + chunk.len())))
}
