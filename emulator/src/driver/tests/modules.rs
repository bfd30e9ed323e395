//! Modules, libraries and functions.

use std::ffi::{CStr, c_char};

use super::*;
use crate::driver::argument::Text;
use crate::driver::function;
use crate::driver::occupancy;

fn ptx(version: &str, target: &str) -> String {
    KERNELS
        .replace(".version 8.0", version)
        .replace(".target sm_80", target)
}

#[test]
fn only_ptx_for_the_device_is_loaded() {
    context();
    assert!(load(&ptx(".version 8.0", ".target sm_90a")).is_ok());
    assert_eq!(load(&ptx(".version 8.0", ".target sm_100")), Err(209));
    assert_eq!(
        load(&ptx(".version 8.0", ".target sm_80a")),
        Err(209),
        "for another device alone"
    );
    assert_eq!(load(&ptx(".version 10.0", ".target sm_80")), Err(222));
    assert_eq!(load("no PTX"), Err(218));
    assert_eq!(load(""), Err(218));
    assert_eq!(load("\x7fELF…"), Err(209), "machine code");
    let mut module = Handle::NULL;
    assert_eq!(
        call!(module::cuModuleLoadData, Out::to(&mut module), In::of(0)),
        1
    );
}

#[test]
fn what_is_wrong_with_ptx_is_in_the_log() {
    context();
    let text = KERNELS.replace("add.s32 %r6, %r6, 1;", "frobnicate.s32 %r6, %r6, 1;");
    let text = CString::new(text).unwrap();
    let image = In::of(text.as_ptr().expose_provenance());
    let mut log = [0; 256];
    let options = [5, 6];
    let values = [log.as_mut_ptr().expose_provenance(), log.len()];
    let mut module = Handle::NULL;
    let (options, values) = (In::all(&options), In::all(&values));
    let code = call!(
        module::cuModuleLoadDataEx,
        Out::to(&mut module),
        image,
        2,
        options,
        values
    );
    assert_eq!(code, 218);
    let said: Vec<u8> = log
        .iter()
        .map(|c: &c_char| *c as u8)
        .take_while(|c| *c != 0)
        .collect();
    let said = String::from_utf8(said).unwrap();
    assert!(
        said.lines().next().unwrap().contains("frobnicate"),
        "{said}"
    );
}

#[test]
fn modules_have_kernels_and_variables() {
    context();
    let module = load(KERNELS).unwrap();
    assert_eq!(function_of(module, "subtract_one"), Err(500));
    let kernel = function_of(module, "add_one").unwrap();
    assert_eq!(function_of(module, "add_one"), Ok(kernel));
    let (mut address, mut bytes) = (0, 0);
    let found = call!(
        module::cuModuleGetGlobal_v2,
        Out::to(&mut address),
        Out::to(&mut bytes),
        module,
        Text::from(c"table")
    );
    assert_eq!((found, bytes), (0, 64));
    let mut name = std::ptr::null();
    assert_eq!(
        call!(function::cuFuncGetName, Out::to(&mut name), kernel),
        0
    );
    // SAFETY: the module is loaded, and with it its functions' names.
    assert_eq!(unsafe { CStr::from_ptr(name) }, c"add_one");
    let parameter = |index| {
        let (mut offset, mut bytes) = (0, 0);
        let places = (Out::to(&mut offset), Out::to(&mut bytes));
        let code = call!(
            function::cuFuncGetParamInfo,
            kernel,
            index,
            places.0,
            places.1
        );
        (code, offset, bytes)
    };
    assert_eq!(
        [parameter(0), parameter(1), parameter(2)],
        [(0, 0, 8), (0, 8, 4), (1, 0, 0)]
    );
    let mut count = 0;
    assert_eq!(
        call!(
            module::cuModuleGetFunctionCount,
            Out::to(&mut count),
            module
        ),
        0
    );
    let mut all = vec![Handle::NULL; 3];
    assert_eq!(
        call!(
            module::cuModuleEnumerateFunctions,
            Out::to_all(&mut all),
            count,
            module
        ),
        0
    );
    assert!(all.contains(&kernel));
    assert_eq!(call!(module::cuModuleUnload, module), 0);
    assert_eq!(
        call!(function::cuFuncGetName, Out::to(&mut name), kernel),
        400
    );
}

#[test]
fn functions_tell_and_take_attributes() {
    context();
    let small = kernel("small");
    let get = |number| {
        let mut value = 0;
        assert_eq!(
            call!(
                function::cuFuncGetAttribute,
                Out::to(&mut value),
                number,
                small
            ),
            0
        );
        value
    };
    assert_eq!(
        [get(0), get(1), get(5), get(6), get(8)],
        [64, 0, 80, 80, 49_152]
    );
    assert_eq!(call!(function::cuFuncSetAttribute, small, 8, 232_449), 1);
    assert_eq!(call!(function::cuFuncSetAttribute, small, 8, 232_448), 0);
    assert_eq!(get(8), 232_448);
    assert_eq!(call!(function::cuFuncSetAttribute, small, 4, 1), 1);
}

#[test]
fn libraries_are_functions_in_each_context() {
    context();
    let text = CString::new(KERNELS).unwrap();
    let image = In::of(text.as_ptr().expose_provenance());
    let (mut library, mut kernel) = (Handle::NULL, Handle::NULL);
    let none = In::of(0);
    let code = call!(
        module::cuLibraryLoadData,
        Out::to(&mut library),
        image,
        none,
        In::of(0),
        0,
        none,
        In::of(0),
        0
    );
    assert_eq!(code, 0);
    let name = Text::from(c"small");
    assert_eq!(
        call!(
            module::cuLibraryGetKernel,
            Out::to(&mut kernel),
            library,
            name
        ),
        0
    );
    let name = Text::from(c"large");
    assert_eq!(
        call!(
            module::cuLibraryGetKernel,
            Out::to(&mut kernel),
            library,
            name
        ),
        500
    );
    let mut here = Handle::NULL;
    assert_eq!(
        call!(function::cuKernelGetFunction, Out::to(&mut here), kernel),
        0
    );
    context();
    let mut there = Handle::NULL;
    assert_eq!(
        call!(function::cuKernelGetFunction, Out::to(&mut there), kernel),
        0
    );
    assert_ne!(here, there);
    let mut threads = 0;
    assert_eq!(
        call!(
            function::cuFuncGetAttribute,
            Out::to(&mut threads),
            0,
            kernel.cast()
        ),
        0
    );
    assert_eq!(threads, 64, "a kernel in a function's place");
    assert_eq!(call!(module::cuLibraryUnload, library), 0);
    assert_eq!(
        call!(function::cuKernelGetFunction, Out::to(&mut there), kernel),
        400
    );
}

#[test]
fn occupancy_is_that_of_the_calculator() {
    context();
    let kernel = kernel("add_one");
    let mut blocks = 0;
    let mut of = |threads, bytes| {
        let place = Out::to(&mut blocks);
        let code = call!(
            occupancy::cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags,
            place,
            kernel,
            threads,
            bytes,
            0
        );
        (code, blocks)
    };
    assert_eq!(of(256, 0), (0, 8));
    assert_eq!(of(256, 100 << 10), (0, 2));
    assert_eq!(of(0, 0).0, 1);
    let (mut grid, mut block) = (0, 0);
    let places = (Out::to(&mut grid), Out::to(&mut block));
    let code = call!(
        occupancy::cuOccupancyMaxPotentialBlockSize,
        places.0,
        places.1,
        kernel,
        None,
        0,
        0
    );
    assert_eq!((code, grid, block), (0, 264, 1024));
    let mut bytes = 0;
    let place = Out::to(&mut bytes);
    assert_eq!(
        call!(
            occupancy::cuOccupancyAvailableDynamicSMemPerBlock,
            place,
            kernel,
            2,
            256
        ),
        0
    );
    assert_eq!(bytes, 113 << 10, "half of 228 KiB, less 1 KiB");
}
