//! Memory that attention takes on the CPU: linear in the length of a sequence.
//!
//! A binary of its own, as it counts every allocation of the process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use warpwright::device::cpu::Cpu;
use warpwright::device::{Buffer, Class, Memory};
use warpwright::ops::attention::{Attended, Attention, AttentionOps, Packed};

/// The system's allocator, counting bytes that live and the most that ever did.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came; the counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: the caller's promise is handed on.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: the caller's promise is handed on.
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes that live at once in a forward and a backward over one sequence, beyond the
/// tensors that are given.
fn scratch(len: usize) -> usize {
    let at = Attention { heads: 2, head_dim: 16, causal: false, window: None, dropout: None };
    let dev = Cpu::<f32>::new();
    let width = at.heads * at.head_dim;
    let x = |n: usize| dev.x(Class::Scratch, len * n);
    let (mut qkv, mut o, d_o, mut dqkv) = (x(3 * width), x(width), x(width), x(3 * width));
    let waves: Vec<f64> = (0..qkv.len()).map(|i| (i as f64).sin()).collect();
    qkv.write(0, &waves);
    let mut lse = dev.acc(Class::Scratch, len * at.heads);
    let mut cu_seqlens = dev.int(Class::Batch, 2);
    let ends = [0, len as i32];
    cu_seqlens.write(0, &ends);
    let order = dev.int(Class::Batch, 1);
    let packed = || Packed { qkv: &qkv, cu_seqlens: &cu_seqlens, order: &order, ends: &ends };
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    dev.attention(&mut o, &mut lse, packed(), &at);
    dev.attention_backward(&mut dqkv, &d_o, Attended { o: &o, lse: &lse }, packed(), &at, None);
    PEAK.load(Ordering::Relaxed) - before
}

#[test]
fn attention_takes_memory_linear_in_the_sequence() {
    // One thread, so that no two heads live at once by chance; the first call fills the pools that
    // products keep.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| scratch(2048));
    let [short, middle, long] = [512, 1024, 2048].map(|len| pool.install(|| scratch(len)));
    for (a, b) in [(short, middle), (middle, long)] {
        let ratio = b as f64 / a as f64;
        assert!((1.7..2.3).contains(&ratio), "{short}, {middle}, {long} bytes");
    }
    assert!(long < 2048 * 2048 * 4, "{long} bytes: as much as a matrix of all scores");
}
