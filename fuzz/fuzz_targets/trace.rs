//! Any bytes as a Chrome trace: read, taken apart, shown, and drawn.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stepscope_profiler::explain::page::trace_page;
use stepscope_profiler::timeline;

fuzz_target!(|bytes: &[u8]| {
    let Ok(trace) = timeline::from_json(bytes, "fuzz") else {
        return;
    };
    let analysis = timeline::analyse(&trace);
    for step in analysis.devices.iter().flat_map(|device| &device.steps) {
        assert_eq!(step.busy_ns + step.others_ns + step.idle_ns, step.span_ns);
    }
    let _ = timeline::text(&analysis);
    let _ = trace_page(&trace, &analysis, None);
    serde_json::from_str::<serde_json::Value>(&timeline::json(&analysis)).expect("JSON");
});
