//! How many octets of heap the code of one thread holds: an allocator that counts, for tests that memory stays flat.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, which counts for each thread what it gave and took back. Memory that another thread frees is counted
/// there, so count only what lives and dies on one thread.
pub struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

/// What this thread holds now, as far as it allocated it itself.
pub fn held() -> isize {
    HELD.with(Cell::get)
}

fn count(octets: usize, sign: isize) {
    let octets = isize::try_from(octets).unwrap_or(isize::MAX);
    // A thread that ends frees what belongs to it when the count is gone already.
    let _ = HELD.try_with(|held| held.set(held.get().wrapping_add(sign * octets)));
}

// SAFETY: every call goes to the system's allocator as it came; the count is a number of this thread and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}
