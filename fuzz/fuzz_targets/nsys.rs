//! Any bytes as a SQLite export of Nsight Systems. SQLite reads files, so that each input becomes one.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use stepscope_profiler::explain::page::trace_page;
use stepscope_profiler::timeline;

static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    std::env::temp_dir().join(format!("stepscope-fuzz-{}.sqlite", std::process::id()))
});

fuzz_target!(|bytes: &[u8]| {
    let mut file = b"SQLite format 3\0".to_vec();
    file.extend_from_slice(bytes.get(file.len()..).unwrap_or_default());
    std::fs::write(&*FILE, file).expect("the folder for temporary files can be written");
    if let Ok(trace) = timeline::read(&FILE) {
        let analysis = timeline::analyse(&trace);
        let _ = timeline::text(&analysis);
        let _ = trace_page(&trace, &analysis, None);
    }
});
