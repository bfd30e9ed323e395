//! Structures of cuda.h, as far as the driver reads or writes them. Fields have cuda.h's order, and names that say what they are.

use std::ffi::c_void;

use super::argument::{In, Out};
use super::context::Context;
use super::graph::Node;
use super::module::{Function, LibraryKernel};
use super::registry::Handle;
use super::stream::Stream;

/// `CUdevice`: an ordinal.
pub(super) type DeviceNumber = i32;

/// `CUhostFn`.
pub(super) type HostFunction = Option<unsafe extern "C" fn(*mut c_void)>;

/// `CUlaunchAttribute`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct LaunchAttribute {
    pub(super) id: u32,
    pub(super) pad: [u8; 4],
    /// The union, whose widest member has 64 bytes and asks for the alignment of a pointer.
    pub(super) value: [u64; 8],
}

impl LaunchAttribute {
    pub(super) const COOPERATIVE: u32 = 2;
    pub(super) const CLUSTER_DIMENSION: u32 = 4;

    /// The 32-bit word of this index of the union.
    pub(super) fn word(&self, index: usize) -> u32 {
        let pair = self.value[index / 2].to_ne_bytes();
        let half = &pair[index % 2 * 4..][..4];
        u32::from_ne_bytes([half[0], half[1], half[2], half[3]])
    }
}

/// `CUlaunchConfig`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct LaunchConfig {
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    pub(super) shared_bytes: u32,
    pub(super) stream: Handle<Stream>,
    pub(super) attributes: In<LaunchAttribute>,
    pub(super) attribute_count: u32,
}

/// `CUDA_MEMCPY2D`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Copy2D {
    pub(super) from: Side2D,
    pub(super) to: Side2D,
    pub(super) width: usize,
    pub(super) height: usize,
}

/// One side of a `CUDA_MEMCPY2D`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Side2D {
    pub(super) x_bytes: usize,
    pub(super) y: usize,
    pub(super) memory_type: u32,
    pub(super) host: usize,
    pub(super) device: u64,
    pub(super) array: usize,
    pub(super) pitch: usize,
}

/// `CUDA_MEMCPY3D`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Copy3D {
    pub(super) from: Side3D,
    pub(super) to: Side3D,
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) depth: usize,
}

/// One side of a `CUDA_MEMCPY3D`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Side3D {
    pub(super) x_bytes: usize,
    pub(super) y: usize,
    pub(super) z: usize,
    pub(super) lod: usize,
    pub(super) memory_type: u32,
    pub(super) host: usize,
    pub(super) device: u64,
    pub(super) array: usize,
    pub(super) reserved: usize,
    pub(super) pitch: usize,
    pub(super) height: usize,
}

/// `CUDA_KERNEL_NODE_PARAMS_v2`; the first version is its beginning.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct KernelNodeParams {
    pub(super) function: Handle<Function>,
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    pub(super) shared_bytes: u32,
    pub(super) parameters: In<In<u8>>,
    pub(super) extra: In<usize>,
    pub(super) kernel: Handle<LibraryKernel>,
    pub(super) context: Handle<Context>,
}

/// `CUDA_KERNEL_NODE_PARAMS_v1`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct KernelNodeParamsV1 {
    pub(super) function: Handle<Function>,
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    pub(super) shared_bytes: u32,
    pub(super) parameters: In<In<u8>>,
    pub(super) extra: In<usize>,
}

/// `CUDA_MEMSET_NODE_PARAMS`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct FillNodeParams {
    pub(super) address: u64,
    pub(super) pitch: usize,
    pub(super) value: u32,
    pub(super) element_bytes: u32,
    pub(super) width: usize,
    pub(super) height: usize,
}

/// `CUDA_HOST_NODE_PARAMS`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct HostNodeParams {
    pub(super) function: HostFunction,
    pub(super) argument: *mut c_void,
}

/// `CUgraphExecUpdateResultInfo`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct UpdateResult {
    pub(super) result: u32,
    pub(super) node: Handle<Node>,
    pub(super) from_node: Handle<Node>,
}

/// `CUDA_GRAPH_INSTANTIATE_PARAMS`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct InstantiateParams {
    pub(super) flags: u64,
    pub(super) upload_stream: Handle<Stream>,
    pub(super) error_node: Handle<Node>,
    pub(super) result: u32,
}

/// `CUgraphEdgeData`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct EdgeData {
    pub(super) from_port: u8,
    pub(super) to_port: u8,
    pub(super) kind: u8,
    pub(super) reserved: [u8; 5],
}

/// `CUmemLocation`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Location {
    pub(super) kind: u32,
    pub(super) id: i32,
}

/// `CUmemPoolProps`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct PoolProperties {
    pub(super) allocation_type: u32,
    pub(super) handle_types: u32,
    pub(super) location: Location,
    pub(super) security: usize,
    /// Largest size of the pool, usage, and reserved bytes.
    pub(super) rest: [u64; 8],
}

/// `CUtensorMap`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct TensorMapWords(pub(super) [u64; 16]);

/// `CUuuid`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Uuid(pub(super) [u8; 16]);

/// `CUoccupancyB2DSize`: the dynamic shared memory of a block of this many threads.
pub(super) type SharedOfBlock = Option<unsafe extern "C" fn(i32) -> usize>;

/// `CUstreamCallback`.
pub(super) type StreamCallback = Option<unsafe extern "C" fn(Handle<Stream>, u32, *mut c_void)>;

/// Where the values of `cuPointerGetAttributes` go.
pub(super) type Places = In<Out<u8>>;

#[cfg(test)]
mod tests {
    use std::mem::{align_of, offset_of, size_of};

    use cudarc::driver::sys;

    use super::*;

    macro_rules! same {
        ($Ours:ty = $Theirs:ty $(, $own:ident = $their:ident)*) => {
            assert_eq!(size_of::<$Ours>(), size_of::<$Theirs>(), stringify!($Theirs));
            assert!(align_of::<$Ours>() <= align_of::<$Theirs>());
            $( assert_eq!(offset_of!($Ours, $own), offset_of!($Theirs, $their), stringify!($their)); )*
        };
    }

    #[test]
    fn structures_lie_as_in_cuda_h() {
        same!(LaunchAttribute = sys::CUlaunchAttribute, value = value);
        same!(
            LaunchConfig = sys::CUlaunchConfig,
            block = blockDimX,
            shared_bytes = sharedMemBytes,
            stream = hStream,
            attributes = attrs,
            attribute_count = numAttrs
        );
        same!(
            Copy2D = sys::CUDA_MEMCPY2D,
            to = dstXInBytes,
            width = WidthInBytes,
            height = Height
        );
        assert_eq!(
            offset_of!(Side2D, device),
            offset_of!(sys::CUDA_MEMCPY2D, srcDevice)
        );
        assert_eq!(
            offset_of!(Side2D, pitch),
            offset_of!(sys::CUDA_MEMCPY2D, srcPitch)
        );
        same!(
            Copy3D = sys::CUDA_MEMCPY3D,
            to = dstXInBytes,
            width = WidthInBytes,
            depth = Depth
        );
        assert_eq!(
            offset_of!(Side3D, device),
            offset_of!(sys::CUDA_MEMCPY3D, srcDevice)
        );
        assert_eq!(
            offset_of!(Side3D, height),
            offset_of!(sys::CUDA_MEMCPY3D, srcHeight)
        );
        same!(
            KernelNodeParams = sys::CUDA_KERNEL_NODE_PARAMS,
            block = blockDimX,
            parameters = kernelParams,
            extra = extra,
            kernel = kern,
            context = ctx
        );
        same!(
            KernelNodeParamsV1 = sys::CUDA_KERNEL_NODE_PARAMS_v1,
            extra = extra
        );
        same!(
            FillNodeParams = sys::CUDA_MEMSET_NODE_PARAMS,
            value = value,
            element_bytes = elementSize,
            width = width,
            height = height
        );
        same!(HostNodeParams = sys::CUDA_HOST_NODE_PARAMS);
        same!(
            UpdateResult = sys::CUgraphExecUpdateResultInfo,
            node = errorNode,
            from_node = errorFromNode
        );
        same!(
            InstantiateParams = sys::CUDA_GRAPH_INSTANTIATE_PARAMS,
            upload_stream = hUploadStream,
            error_node = hErrNode_out,
            result = result_out
        );
        same!(EdgeData = sys::CUgraphEdgeData);
        same!(Location = sys::CUmemLocation);
        same!(PoolProperties = sys::CUmemPoolProps, location = location);
        same!(TensorMapWords = sys::CUtensorMap);
        same!(Uuid = sys::CUuuid);
    }

    #[test]
    fn attributes_of_launches_have_the_numbers_of_cuda_h() {
        use sys::CUlaunchAttributeID_enum as Id;
        assert_eq!(
            LaunchAttribute::COOPERATIVE,
            Id::CU_LAUNCH_ATTRIBUTE_COOPERATIVE as u32
        );
        assert_eq!(
            LaunchAttribute::CLUSTER_DIMENSION,
            Id::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION as u32
        );
    }
}
