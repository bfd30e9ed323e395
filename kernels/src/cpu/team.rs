//! The threads of a [`super::Cpu`].
//!
//! A decode step of a small model is some 270 operations in 12 ms, most of which last 20 to 200 µs: what it costs to
//! hand one to the other threads decides how fast the step is. A [`Team`] hands out tasks from a counter to whichever
//! thread is free, the calling one included. Its workers spin for a bounded time after a job, so that the next job
//! of the same step finds them awake, and park after that.

use std::any::Any;
use std::cell::UnsafeCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};

/// How long a worker looks for the next job before it parks.
const SPIN: Duration = Duration::from_micros(200);
/// A look at the state that took this long means that another thread had our core meanwhile. Parking then lets the
/// system wake us on a free one: it does not move threads that only spin (Linux 6.18: not within seconds).
const LOST: Duration = Duration::from_micros(20);

/// Two cache lines: x86 prefetches them in pairs.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Padded<T>(T);

/// A fixed set of threads that work on one job at a time.
#[derive(Debug)]
pub(crate) struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Whether a thread is inside [`Team::run`].
    busy: AtomicBool,
}

#[derive(Debug)]
struct Shared {
    /// `epoch << 32 | STOP | OPEN | workers inside the job`. Workers enter a job only while it is open, so that one that
    /// sleeps or lost its core delays nobody: the caller closes the job and waits for those inside.
    state: Padded<AtomicU64>,
    job: UnsafeCell<Option<Job>>,
    /// Whether worker `i` is parked, or about to be.
    parked: Vec<AtomicBool>,
    /// What a task panicked with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// What every thread of the team calls once per job.
#[derive(Clone, Copy)]
struct Job(*const (dyn Fn() + Sync));

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Job")
    }
}

// SAFETY: `job` is written only by the thread that holds `busy`, while the job is closed and no worker is inside.
// Workers read it only inside, which they enter by an exchange that acquires that thread's releasing store of `state`.
// The closure behind it is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; and the pointer is followed only between opening and closing, while its closure lives.
unsafe impl Send for Shared {}

const OPEN: u64 = 1 << 16;
const STOP: u64 = 1 << 17;
const INSIDE: u64 = OPEN - 1;
const EPOCH: u64 = 1 << 32;

impl Team {
    /// A team of `threads`, the calling one included.
    ///
    /// # Errors
    /// When the system starts no more threads.
    pub(crate) fn new(
        threads: usize,
        prepare: impl Fn() + Send + Copy + 'static,
    ) -> Result<Team, Error> {
        // The count of workers inside has 16 bits.
        let workers = threads.clamp(1, INSIDE as usize) - 1;
        let shared = Arc::new(Shared {
            state: Padded::default(),
            job: UnsafeCell::new(None),
            parked: (0..workers).map(|_| AtomicBool::new(false)).collect(),
            panic: Mutex::new(None),
        });
        let mut team = Team {
            shared,
            workers: Vec::with_capacity(workers),
            busy: AtomicBool::new(false),
        };
        for index in 0..workers {
            let shared = Arc::clone(&team.shared);
            let worker = thread::Builder::new()
                .name(format!("stepscope-cpu-{}", index + 1))
                .spawn(move || {
                    prepare();
                    shared.work(index);
                })
                .map_err(|e| ErrorKind::Threads(e.to_string()))?;
            team.workers.push(worker);
        }
        Ok(team)
    }

    /// Threads of the team, the calling one included.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task(i)` once for every `i < tasks`, on any thread, and returns when all calls have.
    ///
    /// Inside a task, or while another thread runs tasks of this team, it calls them all itself.
    pub(crate) fn run(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        let alone = self.workers.is_empty() || tasks < 2;
        if alone || self.busy.swap(true, Ordering::Acquire) {
            return (0..tasks).for_each(task);
        }
        let next = Padded(AtomicUsize::new(0));
        let share = || {
            loop {
                let i = next.0.fetch_add(1, Ordering::Relaxed);
                if i >= tasks {
                    break;
                }
                task(i);
            }
        };
        self.open(&share);
        let own = catch_unwind(AssertUnwindSafe(share));
        // No task is left to take once this thread found none; after a panic the rest is skipped.
        next.0.store(tasks, Ordering::Relaxed);
        self.close();
        let theirs = self
            .shared
            .panic
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        self.busy.store(false, Ordering::Release);
        if let Some(panic) = own.err().or(theirs) {
            resume_unwind(panic);
        }
    }

    fn open(&self, job: &(dyn Fn() + Sync)) {
        let job: *const (dyn Fn() + Sync + '_) = job;
        // SAFETY: only the lifetime changes. `run` closes the job, after which no worker follows the pointer, before
        // the closure goes out of scope.
        let job: *const (dyn Fn() + Sync + 'static) = unsafe { std::mem::transmute(job) };
        // SAFETY: this thread holds `busy`, and the job before was closed with nobody inside.
        unsafe { *self.shared.job.get() = Some(Job(job)) };
        let state = self.shared.state.0.load(Ordering::Relaxed);
        // SeqCst here and in `park`: either a worker that is about to park sees the open job, or this thread sees that
        // it is about to park.
        self.shared.state.0.store(
            (state & !INSIDE).wrapping_add(EPOCH) | OPEN,
            Ordering::SeqCst,
        );
        for (parked, worker) in self.shared.parked.iter().zip(&self.workers) {
            if parked.load(Ordering::SeqCst) && parked.swap(false, Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
    }

    fn close(&self) {
        let state = &self.shared.state.0;
        let mut inside = state.fetch_and(!OPEN, Ordering::AcqRel) & INSIDE;
        let mut spins = 0_u32;
        while inside != 0 {
            spins += 1;
            // A worker that lost its core in the middle of a task needs ours.
            if spins.is_multiple_of(256) {
                thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
            inside = state.load(Ordering::Acquire) & INSIDE;
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.state.0.fetch_or(STOP, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches the panics of tasks, and has none of its own.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn work(&self, index: usize) {
        let mut seen = 0;
        while let Some(epoch) = self.enter(index, seen) {
            seen = epoch;
            // SAFETY: this worker is inside the job, so that the caller does not write it.
            if let Some(Job(job)) = unsafe { *self.job.get() } {
                // SAFETY: the caller keeps the closure until nobody is inside.
                let job = unsafe { &*job };
                if let Err(panic) = catch_unwind(AssertUnwindSafe(job)) {
                    *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
                }
            }
            self.state.0.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits for an open job of another epoch than `seen` and enters it; `None` when the team stops.
    fn enter(&self, index: usize, seen: u64) -> Option<u64> {
        let mut spins = 0_u32;
        let mut since = Instant::now();
        let mut looked = since;
        loop {
            let state = self.state.0.load(Ordering::Acquire);
            if state & STOP != 0 {
                return None;
            }
            if is_new(state, seen) {
                let entered = self.state.0.compare_exchange_weak(
                    state,
                    state + 1,
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                );
                match entered {
                    Ok(_) => return Some(state / EPOCH),
                    Err(_) => continue,
                }
            }
            spins += 1;
            if !spins.is_multiple_of(64) {
                std::hint::spin_loop();
                continue;
            }
            // Where there are more threads than free cores, the one that has the work may be waiting for ours.
            thread::yield_now();
            let now = Instant::now();
            if now - since > SPIN || now - looked > LOST {
                self.park(index, seen);
                since = Instant::now();
            }
            looked = now;
        }
    }

    fn park(&self, index: usize, seen: u64) {
        self.parked[index].store(true, Ordering::SeqCst);
        let state = self.state.0.load(Ordering::SeqCst);
        if state & STOP == 0 && !is_new(state, seen) {
            thread::park();
        }
        self.parked[index].store(false, Ordering::SeqCst);
    }
}

fn is_new(state: u64, seen: u64) -> bool {
    state & OPEN != 0 && state / EPOCH != seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 5] {
            let team = Team::new(threads, || ()).unwrap();
            assert_eq!(team.threads(), threads);
            for tasks in [0, 1, 2, 3, 100, 1000] {
                let runs: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                team.run(tasks, |i| {
                    runs[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(runs.iter().all(|r| r.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn parked_workers_wake_up() {
        // Where other programs have the cores, both take as long as they take; a worker that never does either ends the test.
        const PATIENCE: Duration = Duration::from_secs(60);
        let team = Team::new(2, || ()).unwrap();
        for _ in 0..3 {
            let start = Instant::now();
            while !team.shared.parked[0].load(Ordering::SeqCst) && start.elapsed() < PATIENCE {
                thread::sleep(SPIN);
            }
            assert!(team.shared.parked[0].load(Ordering::SeqCst));
            let threads = Mutex::new(std::collections::HashSet::new());
            let start = Instant::now();
            team.run(2, |_| {
                threads.lock().unwrap().insert(thread::current().id());
                // The second task stays for the worker, which has to wake.
                while threads.lock().unwrap().len() < 2 && start.elapsed() < PATIENCE {
                    thread::yield_now();
                }
            });
            assert_eq!(threads.lock().unwrap().len(), 2);
        }
    }

    #[test]
    fn many_small_jobs_lose_no_task() {
        let team = Team::new(3, || ()).unwrap();
        let total = AtomicUsize::new(0);
        for _ in 0..20_000 {
            team.run(3, |i| {
                total.fetch_add(i, Ordering::Relaxed);
            });
        }
        assert_eq!(total.into_inner(), 60_000);
    }

    #[test]
    fn a_task_may_run_tasks_of_its_team() {
        let team = Team::new(2, || ()).unwrap();
        let total = AtomicUsize::new(0);
        team.run(4, |_| {
            team.run(4, |_| {
                total.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(total.into_inner(), 16);
    }

    #[test]
    fn threads_that_share_a_team_both_finish() {
        let team = Team::new(2, || ()).unwrap();
        let total = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        team.run(2, |_| {
                            total.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 8000);
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_leaves_the_team_whole() {
        let team = Team::new(2, || ()).unwrap();
        for bad in 0..8 {
            let run = || team.run(8, |i| assert!(i != bad, "task {i}"));
            let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
            assert_eq!(*panic.downcast::<String>().unwrap(), format!("task {bad}"));
        }
        let total = AtomicUsize::new(0);
        team.run(8, |_| {
            total.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(total.into_inner(), 8);
    }
}
