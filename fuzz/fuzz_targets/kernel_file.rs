//! Any text as a kernel of the laboratory, and the launches that its comments say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stepscope_microbench::lab::KernelFile;
use stepscope_microbench::operations;

fuzz_target!(|text: &str| {
    let Ok(gemm) = operations::find("gemm") else { return };
    let Ok(shape) = gemm.shape("") else { return };
    let Ok(file) = KernelFile::parse("k.cu", text.to_owned(), gemm) else { return };
    for point in file.points() {
        let _ = file.kernels(&point, shape.dtype());
        let _ = file.geometry(&point, &shape, 132);
    }
});
