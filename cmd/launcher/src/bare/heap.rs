//! The allocator. Memory is handed out from one end to the other and never taken back, but for the last piece handed
//! out, which can grow, shrink and go: the launcher lives for a moment, and most of what it allocates until the end.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use core::ptr::{copy_nonoverlapping, null_mut};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// The least that is asked of the kernel at a time. It costs nothing before it is used.
const CHUNK: usize = 1 << 20;

/// The addresses of the part of the newest chunk that is free.
pub(crate) struct Heap {
    next: Cell<usize>,
    end: Cell<usize>,
}

// SAFETY: it is for processes of one thread only.
unsafe impl Sync for Heap {}

// SAFETY: every piece lies within a chunk that is never unmapped, has the alignment asked for, and overlaps no other,
// as `next` only moves back over the piece that was handed out last, when that is freed or shrunk.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(piece) = self.take(layout) {
            return piece;
        }
        let Some(size) = layout.size().checked_add(layout.align()) else { return null_mut() };
        let size = size.max(CHUNK);
        // SAFETY: a new mapping, at an address of the kernel's choice, takes nothing from anyone.
        let chunk = unsafe {
            mmap_anonymous(null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        };
        let Ok(chunk) = chunk else { return null_mut() };
        self.next.set(chunk.expose_provenance());
        self.end.set(chunk.expose_provenance() + size);
        self.take(layout).unwrap_or(null_mut())
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        if self.is_last(piece, layout) {
            self.next.set(piece.addr());
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if self.is_last(piece, layout) && size <= self.end.get() - piece.addr() {
            self.next.set(piece.addr() + size);
            return piece;
        }
        // SAFETY: the caller has made sure that `size` makes a valid layout, and that `piece` has `layout`; the new
        // piece overlaps no other.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                copy_nonoverlapping(piece, new, layout.size().min(size));
            }
            new
        }
    }
}

impl Heap {
    /// A heap that has no chunk yet.
    pub(crate) const fn new() -> Self {
        Self { next: Cell::new(0), end: Cell::new(0) }
    }

    /// The next piece, if the chunk has room for it.
    fn take(&self, layout: Layout) -> Option<*mut u8> {
        let start = self.next.get().checked_next_multiple_of(layout.align())?;
        let end = start.checked_add(layout.size()).filter(|end| start != 0 && *end <= self.end.get())?;
        self.next.set(end);
        Some(core::ptr::with_exposed_provenance_mut(start))
    }

    fn is_last(&self, piece: *mut u8, layout: Layout) -> bool {
        piece.addr() + layout.size() == self.next.get()
    }
}
