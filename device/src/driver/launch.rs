use std::mem::MaybeUninit;

use cudarc::driver::sys::{
    CUlaunchAttribute, CUlaunchAttributeID, CUlaunchAttributeValue, CUlaunchConfig, CUstream,
};

use super::Device;

/// The shape of a launch.
///
/// ```
/// use stepscope_device::driver::Launch;
///
/// let launch = Launch::of_blocks(132, 256).with_shared_bytes(64 * 1024).in_clusters([2, 1, 1]);
/// assert_eq!(launch.block_threads(), 256);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block. More than 48 KiB must be allowed first: see
    /// [`Function::allow_shared_bytes`](super::Function::allow_shared_bytes).
    pub shared_bytes: u32,
    /// Blocks of a cluster in x, y and z (compute capability 9.0 and newer).
    pub cluster: Option<[u32; 3]>,
    /// Whether the kernel may start before the one before it in the stream has ended, up to its `griddepcontrol.wait`
    /// (programmatic dependent launch, compute capability 9.0 and newer).
    pub overlaps_previous: bool,
    /// Whether all blocks run at the same time, so that they can wait for each other.
    pub is_cooperative: bool,
}

impl Launch {
    /// `blocks` blocks of `threads` threads, both in x.
    pub fn of_blocks(blocks: u32, threads: u32) -> Launch {
        Launch::of_grid([blocks, 1, 1], [threads, 1, 1])
    }

    /// `grid` blocks of `block` threads.
    pub fn of_grid(grid: [u32; 3], block: [u32; 3]) -> Launch {
        Launch {
            grid,
            block,
            shared_bytes: 0,
            cluster: None,
            overlaps_previous: false,
            is_cooperative: false,
        }
    }

    /// With this much dynamic shared memory per block.
    #[must_use]
    pub fn with_shared_bytes(self, shared_bytes: u32) -> Launch {
        Launch {
            shared_bytes,
            ..self
        }
    }

    /// With blocks in clusters of this shape.
    #[must_use]
    pub fn in_clusters(self, cluster: [u32; 3]) -> Launch {
        Launch {
            cluster: Some(cluster),
            ..self
        }
    }

    /// Allowed to start before the kernel before it has ended.
    #[must_use]
    pub fn overlapping_previous(self) -> Launch {
        Launch {
            overlaps_previous: true,
            ..self
        }
    }

    /// With all blocks at the same time.
    #[must_use]
    pub fn cooperative(self) -> Launch {
        Launch {
            is_cooperative: true,
            ..self
        }
    }

    /// Threads of a block.
    pub fn block_threads(&self) -> u64 {
        volume(self.block)
    }

    /// Calls `use_it` with the driver's form of this launch in `stream`.
    #[inline]
    pub(super) fn with_config<R>(
        &self,
        stream: CUstream,
        use_it: impl FnOnce(&CUlaunchConfig) -> R,
    ) -> R {
        let mut attributes =
            [attribute(CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_IGNORE, |_| ()); 3];
        let mut count = 0;
        let mut push = |attribute| {
            attributes[count] = attribute;
            count += 1;
        };
        if let Some([x, y, z]) = self.cluster {
            push(attribute(
                CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
                |value| {
                    // Writing a union's field needs no look at what is there.
                    value.clusterDim.x = x;
                    value.clusterDim.y = y;
                    value.clusterDim.z = z;
                },
            ));
        }
        if self.overlaps_previous {
            let id = CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
            push(attribute(id, |value| {
                value.programmaticStreamSerializationAllowed = 1
            }));
        }
        if self.is_cooperative {
            push(attribute(
                CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_COOPERATIVE,
                |value| value.cooperative = 1,
            ));
        }
        use_it(&CUlaunchConfig {
            gridDimX: self.grid[0],
            gridDimY: self.grid[1],
            gridDimZ: self.grid[2],
            blockDimX: self.block[0],
            blockDimY: self.block[1],
            blockDimZ: self.block[2],
            sharedMemBytes: self.shared_bytes,
            hStream: stream,
            attrs: attributes.as_mut_ptr(),
            numAttrs: count as u32,
        })
    }

    /// Why `device` would refuse this launch, as far as can be told without knowing the kernel.
    pub(super) fn complaint(&self, device: &Device) -> Option<String> {
        let limits = &device.limits;
        let threads = self.block_threads();
        if self.grid.contains(&0) || self.block.contains(&0) {
            return Some(format!(
                "grid {:?} of blocks {:?} is empty",
                self.grid, self.block
            ));
        }
        if threads > u64::from(limits.threads_per_block) {
            return Some(format!(
                "a block of {threads} threads, but the device allows {}",
                limits.threads_per_block
            ));
        }
        if self.shared_bytes > limits.shared_bytes_per_block_opt_in {
            return Some(format!(
                "{} bytes of dynamic shared memory per block, but the device has {}",
                self.shared_bytes, limits.shared_bytes_per_block_opt_in
            ));
        }
        if self.grid[1].max(self.grid[2]) > 65_535 || self.grid[0] > i32::MAX.unsigned_abs() {
            return Some(format!(
                "grid {:?}, but y and z go up to 65535, x up to 2147483647",
                self.grid
            ));
        }
        if let Some(cluster) = self.cluster {
            if !limits.can_form_clusters {
                return Some("blocks in clusters, which this device does not form".to_owned());
            }
            let divides = self
                .grid
                .iter()
                .zip(cluster)
                .all(|(blocks, size)| size > 0 && blocks % size == 0);
            if !divides {
                return Some(format!(
                    "grid {:?} is no multiple of cluster {cluster:?}",
                    self.grid
                ));
            }
            if volume(cluster) > 8 {
                return Some(format!(
                    "clusters of {} blocks, but 8 is the most that every device forms",
                    volume(cluster)
                ));
            }
        }
        if self.is_cooperative && !limits.can_launch_cooperatively {
            return Some("a cooperative launch, which this device does not have".to_owned());
        }
        None
    }
}

fn volume(shape: [u32; 3]) -> u64 {
    shape
        .into_iter()
        .map(u64::from)
        .fold(1, u64::saturating_mul)
}

fn attribute(
    id: CUlaunchAttributeID,
    fill: impl FnOnce(&mut CUlaunchAttributeValue),
) -> CUlaunchAttribute {
    // SAFETY: every member of the union is made of integers and pointers, for which zeroes are valid.
    let mut value: CUlaunchAttributeValue = unsafe { MaybeUninit::zeroed().assume_init() };
    fill(&mut value);
    CUlaunchAttribute {
        id,
        pad: [0; 4],
        value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Limits;

    fn device() -> Device {
        Device {
            ordinal: 0,
            name: "GPU".to_owned(),
            uuid: String::new(),
            compute_capability: [9, 0],
            memory_bytes: 0,
            limits: Limits {
                multiprocessors: 132,
                l2_bytes: 0,
                threads_per_block: 1024,
                threads_per_multiprocessor: 2048,
                registers_per_multiprocessor: 65_536,
                shared_bytes_per_block: 49_152,
                shared_bytes_per_block_opt_in: 232_448,
                shared_bytes_per_multiprocessor: 233_472,
                clock_khz: 0,
                memory_clock_khz: 0,
                memory_bus_bits: 0,
                can_launch_cooperatively: true,
                can_form_clusters: true,
                has_memory_pools: true,
            },
        }
    }

    #[test]
    fn complaints_name_both_numbers() {
        let check = |launch: Launch, expected: Option<&str>| {
            assert_eq!(launch.complaint(&device()).as_deref(), expected);
        };
        check(Launch::of_blocks(132, 256), None);
        check(
            Launch::of_blocks(0, 256),
            Some("grid [0, 1, 1] of blocks [256, 1, 1] is empty"),
        );
        check(
            Launch::of_grid([1, 1, 1], [64, 32, 1]),
            Some("a block of 2048 threads, but the device allows 1024"),
        );
        check(
            Launch::of_blocks(1, 1).with_shared_bytes(300_000),
            Some("300000 bytes of dynamic shared memory per block, but the device has 232448"),
        );
        check(
            Launch::of_blocks(33, 1).in_clusters([2, 1, 1]),
            Some("grid [33, 1, 1] is no multiple of cluster [2, 1, 1]"),
        );
        check(
            Launch::of_grid([1, 70_000, 1], [1, 1, 1]),
            Some("grid [1, 70000, 1], but y and z go up to 65535, x up to 2147483647"),
        );
    }

    #[test]
    fn attributes_are_those_asked_for() {
        let ids = |launch: Launch| {
            launch.with_config(std::ptr::null_mut(), |config| {
                // SAFETY: the driver's form points at as many attributes as it says.
                let attributes =
                    unsafe { std::slice::from_raw_parts(config.attrs, config.numAttrs as usize) };
                attributes
                    .iter()
                    .map(|attribute| attribute.id as u32)
                    .collect::<Vec<_>>()
            })
        };
        let launch = Launch::of_blocks(2, 32);
        assert_eq!(ids(launch), Vec::<u32>::new());
        assert_eq!(ids(launch.cooperative()), [2]);
        assert_eq!(
            ids(launch
                .in_clusters([2, 1, 1])
                .overlapping_previous()
                .cooperative()),
            [4, 6, 2]
        );
    }
}
