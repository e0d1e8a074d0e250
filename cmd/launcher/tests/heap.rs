//! The executable's allocator: pieces are aligned, apart from each other, and keep what is in them.
#![expect(unsafe_code, reason = "an allocator hands out pointers")]

use std::alloc::{GlobalAlloc, Layout};

use proptest::prelude::*;

#[path = "../src/bare/heap.rs"]
mod heap;

/// A piece that was handed out, every byte of which is set to `mark`.
#[derive(Clone, Copy)]
struct Piece {
    start: *mut u8,
    layout: Layout,
    mark: u8,
}

impl Piece {
    fn fill(self) -> Self {
        // SAFETY: the piece is as large as its layout.
        unsafe { self.start.write_bytes(self.mark, self.layout.size()) };
        self
    }

    /// Whether so many bytes at its start are still as they were.
    fn is_intact(self, size: usize) -> bool {
        // SAFETY: the piece is at least as large, and was filled.
        let bytes = unsafe { std::slice::from_raw_parts(self.start, size) };
        bytes.iter().all(|byte| *byte == self.mark)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Allocate { size: usize, align: u32 },
    Resize { which: prop::sample::Index, size: usize },
    Free { which: prop::sample::Index },
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![30 => 1..200_usize, 1 => 1..2_000_000_usize];
    let any_piece = any::<prop::sample::Index>;
    prop_oneof![
        3 => (size.clone(), 0..7_u32).prop_map(|(size, align)| Step::Allocate { size, align }),
        2 => (any_piece(), size).prop_map(|(which, size)| Step::Resize { which, size }),
        1 => any_piece().prop_map(|which| Step::Free { which }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn pieces_are_apart(steps in prop::collection::vec(step(), 1..100)) {
        let heap = heap::Heap::new();
        let mut pieces: Vec<Piece> = Vec::new();
        for (mark, step) in (0..).zip(steps) {
            match step {
                Step::Allocate { size, align } => {
                    let layout = Layout::from_size_align(size, 1 << align).unwrap();
                    // SAFETY: no size is 0.
                    let start = unsafe { heap.alloc(layout) };
                    prop_assert!(!start.is_null() && start.addr() % layout.align() == 0);
                    pieces.push(Piece { start, layout, mark }.fill());
                }
                Step::Resize { which, size } if !pieces.is_empty() => {
                    let old = pieces.swap_remove(which.index(pieces.len()));
                    // SAFETY: the piece was handed out with this layout, and no size is 0.
                    let start = unsafe { heap.realloc(old.start, old.layout, size) };
                    prop_assert!(!start.is_null() && start.addr() % old.layout.align() == 0);
                    let layout = Layout::from_size_align(size, old.layout.align()).unwrap();
                    let new = Piece { start, layout, mark: old.mark };
                    prop_assert!(new.is_intact(size.min(old.layout.size())));
                    pieces.push(new.fill());
                }
                Step::Free { which } if !pieces.is_empty() => {
                    let piece = pieces.swap_remove(which.index(pieces.len()));
                    // SAFETY: the piece was handed out with this layout, and is not used again.
                    unsafe { heap.dealloc(piece.start, piece.layout) };
                }
                Step::Resize { .. } | Step::Free { .. } => {}
            }
        }
        prop_assert!(pieces.iter().all(|piece| piece.is_intact(piece.layout.size())));
    }
}

#[test]
fn what_the_kernel_refuses_is_null() {
    let heap = heap::Heap::new();
    for size in [1 << 62, isize::MAX.cast_unsigned() - 4096] {
        // SAFETY: no size is 0.
        let start = unsafe { heap.alloc(Layout::from_size_align(size, 8).unwrap()) };
        assert!(start.is_null());
    }
}

#[test]
fn the_last_piece_grows_in_place_within_its_chunk() {
    let heap = heap::Heap::new();
    let layout = Layout::from_size_align(100, 8).unwrap();
    // SAFETY: every piece is given with the layout that it has by then, and no size is 0.
    unsafe {
        let piece = heap.alloc(layout);
        assert_eq!(heap.realloc(piece, layout, 1000), piece);
        let grown = Layout::from_size_align(1000, 8).unwrap();
        let moved = heap.realloc(piece, grown, 3_000_000);
        assert_ne!(moved, piece);
        let large = Layout::from_size_align(3_000_000, 8).unwrap();
        let next = heap.alloc(layout);
        assert_ne!(heap.realloc(moved, large, 3_000_001), moved);
        heap.dealloc(next, layout);
    }
}
