//! A pretend driver, built from C, with a state of its own for each test.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use libloading::os::unix::{Library, Symbol};
use stepscope_device::Error;
use stepscope_device::driver::{Context, Driver, Stream};

pub(crate) struct Pretend {
    library: Library,
    pub(crate) path: PathBuf,
    _folder: tempfile::TempDir,
}

/// The pretend driver, compiled with `flags`; `None`, with the reason printed, where there is no C compiler.
pub(crate) fn pretend(flags: &[&str]) -> Option<Pretend> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libcuda.so.1");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pretend/libcuda.c");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-w", "-o"])
        .arg(&path)
        .arg(source)
        .args(flags)
        .status();
    match compiled {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("cc cannot compile {source}: {status}"),
        Err(error) => {
            println!("skipped: no C compiler `cc` for the pretend driver: {error}");
            return None;
        }
    }
    // SAFETY: the library is ours, and has no initialisers.
    let library = unsafe { Library::new(&path) }.unwrap();
    Some(Pretend {
        library,
        path,
        _folder: folder,
    })
}

impl Pretend {
    pub(crate) fn driver(&self) -> Result<Arc<Driver>, Error> {
        Driver::open_file(&self.path)
    }

    pub(crate) fn context(&self) -> Arc<Context> {
        Context::new(&self.driver().unwrap(), 0).unwrap()
    }

    pub(crate) fn context_and_stream(&self) -> (Arc<Context>, Arc<Stream>) {
        let context = self.context();
        let stream = Stream::new(&context).unwrap();
        (context, stream)
    }

    /// The `n`-th call of `function` from now on answers `code`.
    pub(crate) fn fail(&self, function: &str, n: c_int, code: c_int) {
        let name = CString::new(function).unwrap();
        // SAFETY: this is the function's signature in libcuda.c.
        unsafe {
            let fail: Symbol<unsafe extern "C" fn(*const c_char, c_int, c_int)> =
                self.library.get(b"pretend_fail").unwrap();
            fail(name.as_ptr(), n, code);
        }
    }

    pub(crate) fn calls(&self, function: &str) -> c_int {
        let name = CString::new(function).unwrap();
        // SAFETY: as above.
        unsafe {
            let calls: Symbol<unsafe extern "C" fn(*const c_char) -> c_int> =
                self.library.get(b"pretend_calls").unwrap();
            calls(name.as_ptr())
        }
    }

    /// Handles and allocations that are not destroyed.
    pub(crate) fn live(&self) -> c_int {
        // SAFETY: as above.
        unsafe {
            let live: Symbol<unsafe extern "C" fn() -> c_int> =
                self.library.get(b"pretend_live").unwrap();
            live()
        }
    }

    /// The flags of the last pinned allocation.
    pub(crate) fn host_flags(&self) -> u32 {
        // SAFETY: as above.
        unsafe {
            let flags: Symbol<unsafe extern "C" fn() -> u32> =
                self.library.get(b"pretend_host_flags").unwrap();
            flags()
        }
    }

    /// One line per launch.
    pub(crate) fn launches(&self) -> Vec<String> {
        // SAFETY: as above; the text is terminated, and copied here.
        let text = unsafe {
            let launches: Symbol<unsafe extern "C" fn() -> *const c_char> =
                self.library.get(b"pretend_launches").unwrap();
            CStr::from_ptr(launches()).to_str().unwrap()
        };
        text.lines().map(str::to_owned).collect()
    }
}
