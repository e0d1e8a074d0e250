//! The bytes of blobs, pinned: whoever changes them changes the digest of every image, and has to know it.
//!
//! Gzip's level 1 is our encoder; its bytes may never change without need. Those of the other levels, and of
//! zstd, come with the libraries: an upgrade that changes them is a note in the change log.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

use std::num::NonZeroUsize;
use std::{io, slice};

use drydock_encode::compress::{CHUNK, Compression};
use drydock_encode::pipeline::{self, Job, Settings};
use drydock_io::dir::Place;
use drydock_io::sink::Sink;
use drydock_model::digest::Digest;

/// Numbers without a pattern, the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % below
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        std::iter::repeat_with(|| u8::try_from(self.next(256)).unwrap()).take(n).collect()
    }
}

/// Lines of words, some of them much more common than others, as in source code.
fn text(n: usize) -> Vec<u8> {
    let mut numbers = Numbers(1);
    let mut word = || {
        let length = 1 + numbers.next(9);
        let letters = std::iter::repeat_with(|| char::from(b"etaoinsrhldcum_("[numbers.next(16)]));
        letters.take(length).collect::<String>()
    };
    let words: Vec<String> = std::iter::repeat_with(&mut word).take(700).collect();
    let mut text = Vec::new();
    while text.len() < n {
        let indent = numbers.next(5) * 4;
        text.extend(std::iter::repeat_n(b' ', indent));
        for _ in 0..=numbers.next(9) {
            let most = 1 + numbers.next(words.len());
            text.extend_from_slice(words[numbers.next(most)].as_bytes());
            text.push(b' ');
        }
        text.push(b'\n');
    }
    text.truncate(n);
    text
}

/// Records of addresses that grow, flags and padding, with code of few opcodes between them, as in a library.
fn binary(n: usize) -> Vec<u8> {
    let mut numbers = Numbers(2);
    let mut binary = Vec::new();
    let mut address = 0x40_0000_u32;
    while binary.len() < n {
        for _ in 0..numbers.next(200) {
            address += u32::try_from(16 * numbers.next(40)).unwrap();
            binary.extend(address.to_le_bytes());
            binary.extend([u8::try_from(numbers.next(4)).unwrap(), 0, 0, 0, 0x12, 0, 0x0b, 0]);
        }
        for _ in 0..numbers.next(3000) {
            binary.extend([b"\x48\x89", b"\x48\x8b", b"\x0f\x84", b"\xe8\x00"][numbers.next(4)]);
            let operands = numbers.next(4);
            binary.extend(numbers.bytes(operands));
        }
        binary.resize(binary.len().next_multiple_of(512), 0);
    }
    binary.truncate(n);
    binary
}

fn inputs() -> [(&'static str, Vec<u8>); 7] {
    [
        ("nothing", Vec::new()),
        ("one byte", vec![b'x']),
        ("zeros", vec![0; 2 * CHUNK]),
        ("noise", Numbers(3).bytes(CHUNK + 1)),
        ("text", text(2 * CHUNK + 12_345)),
        ("binary", binary(3 * CHUNK - 1)),
        (
            "all",
            [text(200_000), vec![0; 300_000], binary(100_000), Numbers(4).bytes(70_000), text(90_000)]
                .concat(),
        ),
    ]
}

/// The blobs that the pipeline makes of the inputs.
fn blobs(inputs: &[(&str, Vec<u8>)], compression: Compression) -> Vec<Digest> {
    let dir = tempfile::tempdir().unwrap();
    let sources: Vec<_> = inputs
        .iter()
        .map(|(_, bytes)| |sink: &mut dyn Sink| -> io::Result<()> { sink.write_all(bytes) })
        .collect();
    let place = Place::by_path(&dir.path().join("layer"));
    let blob = Some(&place);
    let jobs: Vec<_> = sources.iter().map(|source| Job { source, known: None, blob, copy: None }).collect();
    let settings = Settings { threads: NonZeroUsize::new(3).unwrap(), compression, write_out: false };
    let done = pipeline::run(&jobs, settings).unwrap();
    done.into_iter().map(|layer| layer.blob.unwrap().digest).collect()
}

#[test]
fn the_default_has_the_bytes_it_always_had() {
    let inputs = inputs();
    let made = blobs(&inputs, Compression::FAST_GZIP);
    let made: Vec<_> =
        inputs.iter().zip(made).map(|((name, _), digest)| format!("{name} {digest}")).collect();
    assert_eq!(made, GZIP_1);
}

#[test]
fn the_libraries_have_the_bytes_that_they_had() {
    let [.., all] = inputs();
    let gzip = (2..=9).map(|level| format!("gzip:{level}"));
    let zstd = (1..=19).map(|level| format!("zstd:{level}"));
    let digest = |text: String| {
        let made = blobs(slice::from_ref(&all), text.parse().unwrap());
        format!("{text} {}", made[0])
    };
    assert_eq!(gzip.chain(zstd).map(digest).collect::<Vec<_>>(), LIBRARIES);
}

/// Blobs of all inputs.
const GZIP_1: [&str; 7] = [
    "nothing sha256:5056f057a3db1a5d162027040c57ea09d087dee3cda8ba2d42d0f556b7e7f007",
    "one byte sha256:23e98d768523ea609575a0c6ca7470d1c2f32e084d587bfadbf796221955d721",
    "zeros sha256:3bd476bcee9bba210a31c7d1f998c73e52d442df2711f3860baddf7d22f10c12",
    "noise sha256:2367f8de8f8b8ad9de172434f1189220bd0cb117d83268aa2d697903f9004af3",
    "text sha256:f2a3f69fe25ca11712a201faae7c7b6ae407edad1925bbda81bd0426ed5a2b77",
    "binary sha256:78011b5ab309460280ff38373df044c3d44053e55f60f2f8f2fe443a7a944483",
    "all sha256:9e768021e93953a4845ac35354fad51f146d5a0cec82eb701a6100b2ca310ff5",
];

/// Blobs of the last input.
const LIBRARIES: [&str; 27] = [
    "gzip:2 sha256:8f6a7188dca915ddcfb54f9f5c4fd415ac7f6a3420020c119a544a1a215d6489",
    "gzip:3 sha256:c6a782fdc148a9a84ef4a0e9ad6162faf7535cd2494e7f7d4265b85e6312e4fd",
    "gzip:4 sha256:5af486e6085e151bf728089dae3e67a0c15380180126b169fef346c4f7fec947",
    "gzip:5 sha256:8564816da1570398933e0f84b703d98fc8a34df18abdfc3b8ce7f5e21cfe2273",
    "gzip:6 sha256:566d69a59376118ef5e69bae230b258c7ed13c7d29c135d1e68bcf5ba21bae0c",
    "gzip:7 sha256:f34e1e9aa28fb58209c86e98ba553343fde40ef24383f49733a6f22457a3b651",
    "gzip:8 sha256:aba4d9bc1a08816260e4c403e0d214836afd0e2d8bc3656c4315195ba51229be",
    "gzip:9 sha256:f6f01762d5b34d1e01b667963eb2e6b937a9634ac3879c12641a2648cae68a34",
    "zstd:1 sha256:f6a6cebe12e1ef88a03d7c51f2eada3b466c87b36e180574bcc3dc6ba84adb2c",
    "zstd:2 sha256:a229a30cc56e06d3472a6c56aef2180f154df4ef4b2e071e753a69d13aeb6806",
    "zstd:3 sha256:24506c7d339226e6c9daa08e328bda43b6890165f83bd7f0e9c075ef0e4404e9",
    "zstd:4 sha256:c9b2a780d722633f06c2dae12185f529f6431527ab208504d8d85b411b1d6e9f",
    "zstd:5 sha256:1b83b3c2cd1ae30b0efa76ff06bd8d1232fb87e4775bcf2c9a3306efe3155444",
    "zstd:6 sha256:51a75afe1183d9c657e8645d1b788dfc01fabcb498c72f00b487e5ea794dde36",
    "zstd:7 sha256:11b5aea834c4c00df317bd939d5e5e7be5d2fd472997cd4d644e83e6ed157145",
    "zstd:8 sha256:04065f7bbd6b3d22180b7ca28ce1051a3ffd6ef1bcb7f478889a940ee8d1fc05",
    "zstd:9 sha256:02150f6f620f7b0d204cb9d19c08ecafc788c9ef77110cc46ef8535957511064",
    "zstd:10 sha256:2a7d5cbe07d6720431a21386964a9fe6a28d98a763c8b9708d63f6244bd12ed8",
    "zstd:11 sha256:ec1ec97879c52b6d2e4078b8d250dc155c0481b539caafe80a84ff6b928b0d0b",
    "zstd:12 sha256:cfa75f739e8dda95722ed2e3165546f0816f6ae720f2e885647927f1a4fec08f",
    "zstd:13 sha256:841f127c99ef5374f557e64f363884eff6372bde412774ef5a8babcb2e14b5ff",
    "zstd:14 sha256:192e4e8e295dab1cf2feb258482785566cfc2cfc4d3097a2264861d31a3df937",
    "zstd:15 sha256:aed97770d102b3a62ea4c96735d31585b70fbb929d8017a98f272a5a28cea42e",
    "zstd:16 sha256:bc5284554968b8abad51432063833f8249e59f0515dca492abfc0ae7f693d02b",
    "zstd:17 sha256:964bbfd326e2d7ca8b21848433cdce73af5761f04cb1b0b215866011ea9357b3",
    "zstd:18 sha256:02c4fbbc268e96d6d2a30bb1ab3765267cf169f5cf99e476ebdf499f602de7d5",
    "zstd:19 sha256:e8d62a8a48a5dbd8a27d2e9e9e63082153b81ca61a771fd13feea70d94736d2c",
];
