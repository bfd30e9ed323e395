//! A CUPTI that records what a test tells it to: the functions of the library, over one state for the whole process.
//!
//! Like the real one, it holds a lock of its own while it calls back.

macro_rules! fakes {
    (
        found by $find:ident;
        $($name:ident($($argument:ident: $type:ty),*) |$fake:ident| $body:expr;)*
    ) => {
        $(
            #[allow(non_snake_case, reason = "the names are NVIDIA's")]
            unsafe extern "C" fn $name($($argument: $type),*) -> u32 {
                with(|$fake| match $fake.fails {
                    Some((function, status)) if function == stringify!($name) => status,
                    _ => $body,
                })
            }
        )*
        pub(super) fn $find(name: &str) -> Option<*const c_void> {
            match name {
                $( stringify!($name) => Some($name as *const c_void), )*
                _ => None,
            }
        }
    };
}

mod ranges;

use std::collections::BTreeSet;
use std::ffi::{CStr, c_void};
use std::mem::size_of;
use std::path::PathBuf;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Cupti;
use crate::Error;
use crate::library::Origin;

type Requested = unsafe extern "C" fn(*mut *mut u8, *mut usize, *mut usize);
type Completed = unsafe extern "C" fn(*mut c_void, u32, *mut u8, usize, usize);

/// Bytes of `CUpti_ActivityKernel9`, which CUPTI 12.9 writes.
pub(super) const KERNEL_BYTES: usize = 208;

#[derive(Default)]
pub(super) struct Fake {
    callbacks: Option<(Requested, Completed)>,
    pub(super) enabled: BTreeSet<u32>,
    pub(super) subscribers: usize,
    /// Records that are complete and not delivered.
    pending: Vec<Vec<u8>>,
    /// Records that come with a forced flush only.
    pub(super) incomplete: Vec<Vec<u8>>,
    pub(super) dropped: usize,
    pub(super) dropped_of_stream: usize,
    /// Records put into one buffer.
    pub(super) records_per_buffer: usize,
    pub(super) spans: Vec<u64>,
    pub(super) flushes: Vec<u32>,
    correlation: u32,
    pub(super) fails: Option<(&'static str, u32)>,
    pub(super) lacks: Option<&'static str>,
    pub(super) ranges: ranges::Ranges,
}

static FAKE: Mutex<Option<Fake>> = Mutex::new(None);

/// One test at a time: there is one CUPTI in a process.
static TURN: Mutex<()> = Mutex::new(());

/// A test's turn. The fake is fresh.
pub(super) fn turn() -> MutexGuard<'static, ()> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let fake = Fake {
        records_per_buffer: usize::MAX,
        ..Fake::default()
    };
    *FAKE.lock().unwrap_or_else(PoisonError::into_inner) = Some(fake);
    turn
}

pub(super) fn with<T>(f: impl FnOnce(&mut Fake) -> T) -> T {
    let mut fake = FAKE.lock().unwrap_or_else(PoisonError::into_inner);
    f(fake.as_mut().expect("a test has its turn"))
}

pub(super) fn open() -> Result<Arc<Cupti>, Error> {
    // SAFETY: the functions below have the signatures of CUPTI's headers.
    unsafe { Cupti::with_functions(PathBuf::from("fake"), Origin::Program, find) }
}

/// A record of `bytes` bytes with values at offsets.
pub(super) fn record(bytes: usize, fields: &[(usize, u64, usize)]) -> Vec<u8> {
    let mut record = vec![0; bytes];
    for &(at, value, width) in fields {
        record[at..at + width].copy_from_slice(&value.to_ne_bytes()[..width]);
    }
    record
}

pub(super) fn kernel(name: &'static CStr, start_ns: u64, end_ns: u64, correlation: u32) -> Vec<u8> {
    record(
        KERNEL_BYTES,
        &[
            (0, 10, 4),
            (6, 40, 2),
            (16, start_ns, 8),
            (24, end_ns, 8),
            (48, 7, 4),
            (52, 3, 4),
            (56, 2, 4),
            (60, 1, 4),
            (64, 128, 4),
            (68, 1, 4),
            (72, 1, 4),
            (76, 1024, 4),
            (80, 2048, 4),
            (92, u64::from(correlation), 4),
            (104, name.as_ptr() as u64, 8),
        ],
    )
}

impl Fake {
    pub(super) fn push(&mut self, record: Vec<u8>) {
        self.pending.push(record);
    }

    /// A launch, as CUPTI records one: which span, the call, and the kernel.
    pub(super) fn launch(&mut self, name: &'static CStr, start_ns: u64, end_ns: u64) -> u32 {
        self.correlation += 1;
        let correlation = self.correlation;
        if let Some(&span) = self.spans.last() {
            let fields = [
                (0, 39, 4),
                (4, 3, 4),
                (8, span, 8),
                (16, u64::from(correlation), 4),
            ];
            self.push(record(24, &fields));
        }
        let call = [
            (0, 4, 4),
            (4, 307, 4),
            (8, start_ns - 5, 8),
            (16, start_ns - 2, 8),
            (28, 99, 4),
            (32, u64::from(correlation), 4),
        ];
        self.push(record(40, &call));
        self.push(kernel(name, start_ns, end_ns, correlation));
        correlation
    }

    /// Delivers what is pending, as a flush or a full buffer does.
    pub(super) fn deliver(&mut self) {
        let Some((requested, completed)) = self.callbacks else {
            return;
        };
        let mut pending = std::mem::take(&mut self.pending).into_iter().peekable();
        while pending.peek().is_some() {
            let (mut buffer, mut bytes, mut most) = (ptr::null_mut(), 0, 1);
            // SAFETY: the places live through the call.
            unsafe { requested(&raw mut buffer, &raw mut bytes, &raw mut most) };
            assert!(!buffer.is_null() && (buffer as usize).is_multiple_of(8) && most == 0);
            let mut valid = 0;
            for _ in 0..self.records_per_buffer {
                let fits = |record: &Vec<u8>| valid + record.len() <= bytes;
                let Some(record) = pending.next_if(fits) else {
                    break;
                };
                // SAFETY: it fits.
                unsafe { buffer.add(valid).copy_from(record.as_ptr(), record.len()) };
                valid += record.len();
            }
            // SAFETY: the buffer is filled up to `valid`.
            unsafe { completed(ptr::null_mut(), 7, buffer, bytes, valid) };
        }
    }
}

/// The lengths of records in CUPTI 12.9.
fn length(kind: u32) -> usize {
    match kind {
        10 => KERNEL_BYTES,
        1 => 104,
        2 => 88,
        4 | 5 => 40,
        17 => 56,
        39 => 24,
        51 => 56,
        _ => 64,
    }
}

/// Writes where the caller has a place, and says that it went well.
fn give<T>(place: *mut T, value: T) -> u32 {
    // SAFETY: the callers are CUPTI's, and have places for what they ask.
    unsafe { place.write(value) };
    0
}

fn find(name: &str) -> Option<*const c_void> {
    if with(|fake| fake.lacks == Some(name)) {
        return None;
    }
    match name {
        "cuptiActivityGetNextRecord" => Some(next as *const c_void),
        _ => find_of_activity(name).or_else(|| ranges::find_of_ranges(name)),
    }
}

fakes! {
    found by find_of_activity;
    cuptiGetVersion(number: *mut u32) |_fake| give(number, 27);
    cuptiSubscribe(place: *mut usize, _callback: usize, _data: usize) |fake| {
        fake.subscribers += 1;
        give(place, 0x5000)
    };
    cuptiUnsubscribe(subscriber: usize) |fake| {
        assert_eq!(subscriber, 0x5000);
        fake.subscribers -= 1;
        0
    };
    cuptiGetTimestamp(place: *mut u64) |_fake| give(place, 123_456);
    cuptiActivityRegisterCallbacks(requested: Requested, completed: Completed) |fake| {
        fake.callbacks = Some((requested, completed));
        0
    };
    cuptiActivityEnable(kind: u32) |fake| { fake.enabled.insert(kind); 0 };
    cuptiActivityDisable(kind: u32) |fake| { assert!(fake.enabled.remove(&kind)); 0 };
    cuptiActivityFlushAll(flag: u32) |fake| {
        fake.flushes.push(flag);
        if flag == 1 {
            let incomplete = std::mem::take(&mut fake.incomplete);
            fake.pending.extend(incomplete);
        }
        fake.deliver();
        0
    };
    cuptiActivityGetNumDroppedRecords(_context: usize, stream: u32, place: *mut usize) |fake| {
        let count = match stream {
            0 => &mut fake.dropped,
            _ => &mut fake.dropped_of_stream,
        };
        give(place, std::mem::take(count))
    };
    cuptiActivityPushExternalCorrelationId(kind: u32, span: u64) |fake| {
        assert_eq!(kind, 3);
        fake.spans.push(span);
        0
    };
    cuptiActivityPopExternalCorrelationId(_kind: u32, place: *mut u64) |fake| {
        match fake.spans.pop() {
            Some(span) => give(place, span),
            None => 18,
        }
    };
}

/// `cuptiActivityGetNextRecord`, which looks at the buffer alone.
unsafe extern "C" fn next(buffer: *mut u8, valid: usize, record: *mut *mut u8) -> u32 {
    // SAFETY: the caller's place holds null or a record of this buffer; records begin with their kind.
    unsafe {
        let last = *record;
        let following = match last.is_null() {
            true => buffer,
            false => last.add(length(last.cast::<u32>().read())),
        };
        if following as usize + size_of::<u32>() > buffer as usize + valid {
            return 12;
        }
        *record = following;
    }
    0
}
