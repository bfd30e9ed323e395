//! Names of errors, and functions by name.

use std::ffi::{c_char, c_void};

use super::abi::functions;
use super::argument::{Out, Text};
use super::status::Status;

/// Names whose newest form is not simply the one that ends in `_v2`, or came so late that programs ask for older ones:
/// for each, since which version of CUDA a name means which function. From the `#define`s of cuda.h and cudaTypedefs.h.
const RENAMED: [(&str, &[(i32, &str)]); 22] = [
    (
        "cuCtxCreate",
        &[
            (3020, "cuCtxCreate_v2"),
            (11_040, "cuCtxCreate_v3"),
            (12_050, "cuCtxCreate_v4"),
        ],
    ),
    (
        "cuCtxGetDevice",
        &[(2000, "cuCtxGetDevice"), (13_000, "cuCtxGetDevice_v2")],
    ),
    (
        "cuCtxSynchronize",
        &[(2000, "cuCtxSynchronize"), (13_000, "cuCtxSynchronize_v2")],
    ),
    (
        "cuDeviceGetUuid",
        &[(9020, "cuDeviceGetUuid"), (11_040, "cuDeviceGetUuid_v2")],
    ),
    (
        "cuEventElapsedTime",
        &[
            (2000, "cuEventElapsedTime"),
            (12_080, "cuEventElapsedTime_v2"),
        ],
    ),
    (
        "cuGetProcAddress",
        &[
            (11_030, "cuGetProcAddress"),
            (12_000, "cuGetProcAddress_v2"),
        ],
    ),
    (
        "cuGraphAddDependencies",
        &[
            (10_000, "cuGraphAddDependencies"),
            (12_030, "cuGraphAddDependencies_v2"),
        ],
    ),
    (
        "cuGraphAddKernelNode",
        &[
            (10_000, "cuGraphAddKernelNode"),
            (12_000, "cuGraphAddKernelNode_v2"),
        ],
    ),
    (
        "cuGraphExecKernelNodeSetParams",
        &[
            (10_010, "cuGraphExecKernelNodeSetParams"),
            (12_000, "cuGraphExecKernelNodeSetParams_v2"),
        ],
    ),
    (
        "cuGraphExecUpdate",
        &[
            (10_020, "cuGraphExecUpdate"),
            (12_000, "cuGraphExecUpdate_v2"),
        ],
    ),
    (
        "cuGraphGetEdges",
        &[(10_000, "cuGraphGetEdges"), (12_030, "cuGraphGetEdges_v2")],
    ),
    (
        "cuGraphInstantiate",
        &[
            (10_000, "cuGraphInstantiate_v2"),
            (12_000, "cuGraphInstantiateWithFlags"),
        ],
    ),
    (
        "cuGraphKernelNodeGetParams",
        &[
            (10_000, "cuGraphKernelNodeGetParams"),
            (12_000, "cuGraphKernelNodeGetParams_v2"),
        ],
    ),
    (
        "cuGraphKernelNodeSetParams",
        &[
            (10_000, "cuGraphKernelNodeSetParams"),
            (12_000, "cuGraphKernelNodeSetParams_v2"),
        ],
    ),
    (
        "cuGraphNodeGetDependencies",
        &[
            (10_000, "cuGraphNodeGetDependencies"),
            (12_030, "cuGraphNodeGetDependencies_v2"),
        ],
    ),
    (
        "cuGraphNodeGetDependentNodes",
        &[
            (10_000, "cuGraphNodeGetDependentNodes"),
            (12_030, "cuGraphNodeGetDependentNodes_v2"),
        ],
    ),
    (
        "cuGraphRemoveDependencies",
        &[
            (10_000, "cuGraphRemoveDependencies"),
            (12_030, "cuGraphRemoveDependencies_v2"),
        ],
    ),
    (
        "cuMemAdvise",
        &[(8000, "cuMemAdvise"), (12_020, "cuMemAdvise_v2")],
    ),
    (
        "cuMemPrefetchAsync",
        &[
            (8000, "cuMemPrefetchAsync"),
            (12_020, "cuMemPrefetchAsync_v2"),
        ],
    ),
    (
        "cuStreamBeginCapture",
        &[(10_000, "cuStreamBeginCapture_v2")],
    ),
    (
        "cuStreamGetCaptureInfo",
        &[
            (10_010, "cuStreamGetCaptureInfo"),
            (11_030, "cuStreamGetCaptureInfo_v2"),
            (12_030, "cuStreamGetCaptureInfo_v3"),
        ],
    ),
    (
        "cuStreamUpdateCaptureDependencies",
        &[
            (11_030, "cuStreamUpdateCaptureDependencies"),
            (12_030, "cuStreamUpdateCaptureDependencies_v2"),
        ],
    ),
];

/// `CUdriverProcAddressQueryResult`.
const FOUND: u32 = 0;
const NOT_FOUND: u32 = 1;
const VERSION_TOO_LOW: u32 = 2;

/// The function that a program for this version of CUDA means by a name.
fn meant(name: &str, version: i32) -> Result<*const c_void, u32> {
    if let Some((_, names)) = RENAMED.iter().find(|(own, _)| *own == name) {
        let newest = names.iter().rev().find(|(since, _)| *since <= version);
        let (_, newest) = newest.ok_or(VERSION_TOO_LOW)?;
        return super::symbol(newest).ok_or(NOT_FOUND);
    }
    super::symbol(&format!("{name}_v2"))
        .or_else(|| super::symbol(name))
        .ok_or(NOT_FOUND)
}

fn proc_address(
    name: Text,
    function: Out<*const c_void>,
    version: i32,
    status: Out<u32>,
) -> Result<(), Status> {
    match meant(&name.get()?, version) {
        Ok(found) => {
            status.set_if_wanted(FOUND);
            function.set(found)
        }
        Err(reason) => {
            function.set(std::ptr::null())?;
            // The second version of the call says so in its status, and succeeds.
            if status.is_null() {
                return Err(Status::NOT_FOUND);
            }
            status.set(reason)
        }
    }
}

functions! {
    fn cuGetErrorName(code: u32, name: Out<*const c_char>) {
        let texts = Status::texts(code);
        name.set(texts.map_or(std::ptr::null(), |(name, _)| name.as_ptr().cast()))?;
        texts.map(drop).ok_or(Status::INVALID_VALUE)
    }

    fn cuGetErrorString(code: u32, text: Out<*const c_char>) {
        let texts = Status::texts(code);
        text.set(texts.map_or(std::ptr::null(), |(_, text)| text.as_ptr().cast()))?;
        texts.map(drop).ok_or(Status::INVALID_VALUE)
    }

    fn cuGetProcAddress(name: Text, function: Out<*const c_void>, version: i32, _flags: u64) {
        proc_address(name, function, version, Out::of(0))
    }

    // The flags ask for the variants of functions in which the null stream is the thread's own; streams are done in order here
    // whichever they are, so both variants are one.
    fn cuGetProcAddress_v2(
        name: Text, function: Out<*const c_void>, version: i32, _flags: u64, status: Out<u32>,
    ) {
        proc_address(name, function, version, status)
    }
}
