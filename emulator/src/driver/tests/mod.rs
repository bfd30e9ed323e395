//! The C functions, called as a program would.

mod graphs;
mod launches;
mod memories;
mod modules;
mod objects;

use std::ffi::CString;
use std::sync::Once;

use super::argument::{In, Out, Text};
use super::config::Configuration;
use super::context::{self, Context};
use super::function::Function;
use super::module::{self, Module};
use super::registry::Handle;
use super::stream::{self, Stream};
use super::{configure, gpu};

/// Calls a C function.
macro_rules! call {
    ($function:path $(, $argument:expr)* $(,)?) => {{
        // SAFETY: the arguments are places of the test, of the types that the function asks for.
        unsafe { $function($($argument),*) }
    }};
}
pub(super) use call;

/// Adds one to each of `n` numbers; `fail` traps.
pub(super) const KERNELS: &str = r#"
.version 8.0
.target sm_80
.address_size 64
.global .align 4 .b8 table[64];

.visible .entry add_one(.param .u64 x, .param .u32 n)
{
    .reg .pred %p<2>;
    .reg .b32 %r<7>;
    .reg .b64 %rd<5>;
    ld.param.u64 %rd1, [x];
    ld.param.u32 %r1, [n];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p1, %r5, %r1;
    @%p1 bra $DONE;
    cvta.to.global.u64 %rd2, %rd1;
    mul.wide.u32 %rd3, %r5, 4;
    add.s64 %rd4, %rd2, %rd3;
    ld.global.u32 %r6, [%rd4];
    add.s32 %r6, %r6, 1;
    st.global.u32 [%rd4], %r6;
$DONE:
    ret;
}

.visible .entry small() .maxntid 64, 1, 1
{
    ret;
}

.visible .entry fail()
{
    trap;
    ret;
}
"#;

/// The thread's own context on the first of two devices.
pub(super) fn context() -> Handle<Context> {
    static START: Once = Once::new();
    START.call_once(|| {
        let configuration = Configuration {
            devices: 2,
            memory_bytes: 1 << 30,
            keep_reports: true,
            ..Configuration::default()
        };
        configure(configuration).unwrap();
        assert_eq!(call!(gpu::cuInit, 0), 0);
    });
    let mut context = Handle::NULL;
    assert_eq!(
        call!(context::cuCtxCreate_v2, Out::to(&mut context), 0, 0),
        0
    );
    context
}

pub(super) fn new_stream() -> Handle<Stream> {
    let mut stream = Handle::NULL;
    assert_eq!(call!(stream::cuStreamCreate, Out::to(&mut stream), 1), 0);
    stream
}

pub(super) fn load(text: &str) -> Result<Handle<Module>, u32> {
    let text = CString::new(text).unwrap();
    let mut module = Handle::NULL;
    let image = In::of(text.as_ptr().expose_provenance());
    match call!(module::cuModuleLoadData, Out::to(&mut module), image) {
        0 => Ok(module),
        code => Err(code),
    }
}

pub(super) fn function_of(module: Handle<Module>, name: &str) -> Result<Handle<Function>, u32> {
    let name = CString::new(name).unwrap();
    let mut function = Handle::NULL;
    match call!(
        module::cuModuleGetFunction,
        Out::to(&mut function),
        module,
        Text::from(&name)
    ) {
        0 => Ok(function),
        code => Err(code),
    }
}

pub(super) fn kernel(name: &str) -> Handle<Function> {
    function_of(load(KERNELS).unwrap(), name).unwrap()
}
