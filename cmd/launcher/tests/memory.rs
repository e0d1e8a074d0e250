//! The executable's memory functions against those of slices.
#![expect(unsafe_code, reason = "they take pointers")]

use std::cmp::Ordering;

use proptest::prelude::*;

#[path = "../src/bare/memory.rs"]
mod memory;

/// Two places in a buffer, and a number of bytes that fits from each.
fn places() -> impl Strategy<Value = (Vec<u8>, usize, usize, usize)> {
    prop::collection::vec(any::<u8>(), 0..80).prop_flat_map(|buffer| {
        let len = buffer.len();
        (0..=len, 0..=len).prop_flat_map(move |(from, to)| {
            (Just(buffer.clone()), Just(from), Just(to), 0..=len - from.max(to))
        })
    })
}

proptest! {
    #[test]
    fn copies((buffer, from, to, count) in places()) {
        let mut copy = buffer.clone();
        // SAFETY: both places are within their buffers, of which there are two.
        let result = unsafe { memory::memcpy(copy.as_mut_ptr().add(to), buffer.as_ptr().add(from), count) };
        prop_assert_eq!(result, copy[to..].as_mut_ptr());
        let mut expected = buffer.clone();
        expected.copy_within(from..from + count, to);
        prop_assert_eq!(copy, expected);
    }

    #[test]
    fn moves((mut buffer, from, to, count) in places()) {
        let mut expected = buffer.clone();
        expected.copy_within(from..from + count, to);
        let start = buffer.as_mut_ptr();
        // SAFETY: both places are within the buffer.
        let result = unsafe { memory::memmove(start.add(to), start.add(from), count) };
        prop_assert_eq!(result, buffer[to..].as_mut_ptr());
        prop_assert_eq!(buffer, expected);
    }

    #[test]
    fn fills((mut buffer, _, to, count) in places(), byte: i32) {
        let mut expected = buffer.clone();
        expected[to..to + count].fill(byte.to_le_bytes()[0]);
        // SAFETY: the place is within the buffer.
        let result = unsafe { memory::memset(buffer.as_mut_ptr().add(to), byte, count) };
        prop_assert_eq!(result, buffer[to..].as_mut_ptr());
        prop_assert_eq!(buffer, expected);
    }

    #[test]
    fn compares(left in prop::collection::vec(any::<u8>(), 0..20), at: prop::sample::Index, byte: u8) {
        let mut right = left.clone();
        if !right.is_empty() {
            let at = at.index(right.len());
            right[at] = byte;
        }
        // SAFETY: both buffers have as many bytes.
        let (order, equal) = unsafe {
            (
                memory::memcmp(left.as_ptr(), right.as_ptr(), left.len()),
                memory::bcmp(left.as_ptr(), right.as_ptr(), left.len()),
            )
        };
        prop_assert_eq!(order.cmp(&0), left.cmp(&right));
        prop_assert_eq!(equal.cmp(&0) == Ordering::Equal, left == right);
    }

    #[test]
    fn measures(text in prop::collection::vec(1_u8.., 0..20), rest: Vec<u8>) {
        let buffer = [&text[..], &[0], &rest].concat();
        // SAFETY: there is a null byte in the buffer.
        prop_assert_eq!(unsafe { memory::strlen(buffer.as_ptr()) }, text.len());
    }
}
