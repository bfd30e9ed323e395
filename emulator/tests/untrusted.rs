//! Small kernels of every kind of instruction, and every input that once went wrong, loaded and launched with small limits. The
//! fuzz target `ptx_execute` starts from the same files.

#[path = "support/untrusted.rs"]
mod untrusted;

use std::fs;
use std::path::Path;

#[test]
fn what_once_went_wrong_goes_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ptx");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        untrusted::execute(&text);
        count += 1;
    }
    assert!(count >= 12, "{count} files");
}
