//! Any bytes as a buffer of CUPTI's: every record is read or counted.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use stepscope_device::cupti::Activity;

fuzz_target!(|bytes: &[u8]| {
    // How many records there are, where each begins, and then the buffer.
    let Some((&count, rest)) = bytes.split_first() else {
        return;
    };
    let Some((starts, buffer)) = rest.split_at_checked(2 * usize::from(count)) else {
        return;
    };
    let starts: Vec<usize> = starts
        .chunks_exact(2)
        .map(|two| usize::from(two[0]) | usize::from(two[1]) << 8)
        .collect();
    let mut activity = Activity::default();
    activity.add(buffer, &starts, |_| Arc::from("kernel"));
    let unknown: u64 = activity.unknown.values().sum();
    assert!(activity.len() as u64 + unknown + activity.malformed <= starts.len() as u64);
});
