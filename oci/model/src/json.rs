//! JSON that others wrote, within the memory that its values take.
//!
//! A byte is soon written and may become many: each object that is kept as it came takes some 700 bytes, each list 150. So
//! what a text may take is reckoned before it is read, in one pass.

use serde::de::{DeserializeOwned, Error as _};

/// Bytes that the values of one text may take in memory, as is reckoned here. An index of 20,000 manifests, each with a
/// platform, does not take more.
pub const MAX_WEIGHT: usize = 48 << 20;

/// Understands a text, if its values do not take more than [`MAX_WEIGHT`].
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    from_slice_within(text, MAX_WEIGHT)
}

/// Understands a text, if its values do not take more than so many bytes of memory.
pub fn from_slice_within<T: DeserializeOwned>(text: &[u8], most: usize) -> serde_json::Result<T> {
    if weight(text) > most {
        return Err(serde_json::Error::custom(format!("its values take more than {} MiB", most >> 20)));
    }
    serde_json::from_slice(text)
}

/// Bytes of memory that the values of a text take at most, but for what is in strings.
fn weight(text: &[u8]) -> usize {
    let mut weight = 0;
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        weight += match byte {
            b'{' => 704,
            b'[' => 160,
            b',' => 80,
            b':' => 64,
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => drop(bytes.next()),
                        _ => {}
                    }
                }
                0
            }
            _ => 0,
        };
    }
    weight
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    #[test]
    fn values_count_and_what_is_in_strings_does_not() {
        for (text, want) in [
            ("", 0),
            ("1", 0),
            (r#"{"a": [1, 2], "b": {}}"#, 2 * 704 + 160 + 2 * 80 + 2 * 64),
            (r#""[{,:\"[{,:\\""#, 0),
            (r#"["\\", "\""]"#, 160 + 80),
            (r#"["never ends, \"#, 160),
        ] {
            assert_eq!(weight(text.as_bytes()), want, "{text}");
        }
    }

    #[test]
    fn what_takes_too_much_is_refused_and_long_texts_are_not() {
        for unit in ["0,", "{},", r#"{"a":0},"#, "[[[0]]],"] {
            let text = format!("[{}0]", unit.repeat((8 << 20) / unit.len()));
            let error = from_slice::<Json>(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("more than 48 MiB"), "{unit}: {error}");
        }
        let digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let manifest = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1,
            "platform": {"os": "linux", "architecture": "amd64", "variant": "v1"}, "annotations": {"a": "b", "c": "d"}});
        let index = json!({"schemaVersion": 2, "manifests": vec![manifest; 10_000]}).to_string();
        let label = json!({"config": {"Labels": {"label": "[{,:".repeat(1 << 20)}}}).to_string();
        for text in [index, label] {
            assert!(from_slice::<Json>(text.as_bytes()).is_ok(), "{text:.20}");
        }
    }
}
