//! The CPU device: the operations' references, on all cores.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod backend;
mod dots;
mod element;
mod kv_pool;
mod matrix;
mod memory;
pub(crate) mod paging;
mod roofs;
mod simd;
mod team;
mod tile;

pub(crate) use dots::{DOT_ROWS, DOT_STEP, arrange, dots};
pub(crate) use element::{Element, narrow, widen};
pub use kv_pool::CpuKvPool;
#[cfg(test)]
pub(crate) use kv_pool::KvLayer;
pub(crate) use kv_pool::{KvElement, KvLayerMut};
pub use matrix::CpuMatrix;
pub use memory::CpuBuffer;
pub use roofs::{HostRoofs, MemoryLevel, Traffic};
pub(crate) use simd::{Level, Op, Simd, exp};

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;

use crate::Error;
use team::Team;
pub(crate) use tile::{TILE_COLS, TILE_ROWS, Tile, ZEROES, pack_rows, run_tile};

/// The CPU of this machine: a team of threads, and the instruction set they use.
///
/// The methods of [`crate::Backend`] run an operation's `reference` on the team. Calling a `reference` directly runs it on
/// the calling thread alone, and inside [`Cpu::run`] on the team as well.
#[derive(Debug)]
pub struct Cpu {
    team: Team,
    level: Level,
}

/// What [`Cpu::run`] installs for the operations called inside it.
#[derive(Clone, Copy)]
struct Current {
    team: Option<NonNull<Team>>,
    level: Option<Level>,
}

thread_local! {
    static CURRENT: Cell<Current> = const { Cell::new(Current { team: None, level: None }) };
    static SCRATCH: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

impl Cpu {
    /// A device of `threads` threads, the calling one included; as many as this process may use when `None`.
    ///
    /// # Errors
    /// When the system starts no more threads.
    pub fn new(threads: Option<usize>) -> Result<Cpu, Error> {
        Cpu::with_level(threads, Level::detect())
    }

    /// The same, but with the code that runs on every processor, even where better code exists: to test that both agree.
    pub fn portable(threads: Option<usize>) -> Result<Cpu, Error> {
        Cpu::with_level(threads, Level::Portable)
    }

    fn with_level(threads: Option<usize>, level: Level) -> Result<Cpu, Error> {
        let available = || std::thread::available_parallelism().map_or(1, |n| n.get());
        let prepare = move || {
            CURRENT.set(Current {
                team: None,
                level: Some(level),
            });
        };
        let team = Team::new(threads.unwrap_or_else(available), prepare)?;
        Ok(Cpu { team, level })
    }

    /// Threads that work on an operation, the calling one included.
    pub fn threads(&self) -> usize {
        self.team.threads()
    }

    /// The instruction sets that the operations use, such as `avx2+fma+f16c` or `portable`.
    pub fn simd(&self) -> &'static str {
        self.level.name()
    }

    /// Runs `f` on the calling thread; the `reference` functions that it calls use this device's threads.
    pub fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        struct Restore(Current);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let _restore = Restore(CURRENT.replace(Current {
            team: Some(NonNull::from(&self.team)),
            level: Some(self.level),
        }));
        f()
    }
}

/// The instruction set of the device whose [`Cpu::run`] this is inside; outside, this processor's best.
pub(crate) fn level() -> Level {
    CURRENT.get().level.unwrap_or_else(Level::detect)
}

/// Threads that [`parallel`] would use.
pub(crate) fn threads() -> usize {
    with_team(|team| team.map_or(1, Team::threads))
}

/// Calls `task(i)` once for each `i < tasks`, on the threads of the device whose [`Cpu::run`] this is inside, the calling one
/// included; outside, and inside a task, on the calling thread.
pub(crate) fn parallel(tasks: usize, task: impl Fn(usize) + Sync) {
    with_team(|team| match team {
        Some(team) => team.run(tasks, task),
        None => (0..tasks).for_each(task),
    });
}

/// Calls `task` with ranges that together are `0 .. rows`, on all threads if the rows of `width` elements are many enough that
/// a thread works longer than another takes to wake.
pub(crate) fn parallel_rows(
    rows: usize,
    width: usize,
    task: impl Fn(std::ops::Range<usize>) + Sync,
) {
    // 8 Ki elements, read and written at 10 GB/s, take 6 µs: ten times what handing out a task costs.
    const TASK_ELEMENTS: usize = 8 << 10;
    let rows_per_task = TASK_ELEMENTS
        .div_ceil(width.max(1))
        .max(rows.div_ceil(8 * threads()));
    parallel(rows.div_ceil(rows_per_task), |i| {
        task(i * rows_per_task..rows.min((i + 1) * rows_per_task));
    });
}

fn with_team<R>(f: impl FnOnce(Option<&Team>) -> R) -> R {
    // SAFETY: `Cpu::run` borrows the device, and so its team, until it removes the pointer.
    f(CURRENT.get().team.map(|team| unsafe { team.as_ref() }))
}

/// Lends `f` `len` floats of this thread, aligned to 64 bytes, of any content. The memory is kept for later calls: once a
/// step has run, the next allocates none.
pub(crate) fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    const LINE: usize = 16;
    // A stack: calls nest, and the same depth asks for about the same length each time.
    let mut scratch = SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_default();
    if scratch.len() < len + LINE {
        scratch.resize(len + LINE, 0.0);
    }
    let skip = scratch.as_ptr().align_offset(64).min(LINE);
    let result = f(&mut scratch[skip..skip + len]);
    SCRATCH.with_borrow_mut(|stack| stack.push(scratch));
    result
}

/// A slice whose parts several tasks write at once.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    lifetime: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: hands out parts only through `slice`, whose callers keep them disjoint.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Shared<'a, T> {
        Shared {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            lifetime: std::marker::PhantomData,
        }
    }

    /// Elements `range`.
    ///
    /// # Safety
    /// Nobody else uses those elements while the result lives.
    #[allow(clippy::mut_from_ref)] // that is its purpose
    pub(crate) unsafe fn slice(&self, range: std::ops::Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: inside the borrowed slice, and unshared by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    pub(crate) fn as_ptr(&self) -> *mut T {
        self.start
    }
}
