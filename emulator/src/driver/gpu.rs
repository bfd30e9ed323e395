//! The devices that the driver offers, and what it says about them.

use std::ffi::c_char;
use std::sync::{Arc, Mutex, OnceLock};

use super::abi::functions;
use super::argument::{Out, Text};
use super::config::Configuration;
use super::context::{Context, Primary};
use super::pool::Pool;
use super::registry::{Handle, lock};
use super::report::{LaunchReport, complain};
use super::status::Status;
use super::types::{DeviceNumber, Uuid};
use crate::count::occupancy::Capacity;
use crate::{Device, DeviceOptions};

/// CUDA 13.0.
const VERSION: i32 = 13_000;

/// A device.
pub(super) struct Gpu {
    pub(super) ordinal: usize,
    pub(super) device: Device,
    pub(super) capacity: Capacity,
    pub(super) primary: Mutex<Primary>,
    pub(super) default_pool: Arc<Pool>,
    pub(super) current_pool: Mutex<Arc<Pool>>,
    pub(super) reports: Mutex<Vec<LaunchReport>>,
}

/// All devices, and what the program wanted of them.
pub(super) struct Machine {
    pub(super) configuration: Configuration,
    pub(super) gpus: Vec<Arc<Gpu>>,
}

static MACHINE: OnceLock<Machine> = OnceLock::new();
static CONFIGURED: Mutex<Option<Configuration>> = Mutex::new(None);

/// Sets what the driver will offer, instead of the environment. See [`super::configure`].
pub(super) fn configure(configuration: Configuration) -> Result<(), String> {
    let mut configured = lock(&CONFIGURED);
    if MACHINE.get().is_some() {
        return Err("the emulated driver is initialised already".to_owned());
    }
    *configured = Some(configuration);
    Ok(())
}

/// What there is, once `cuInit` was called.
pub(super) fn machine() -> Result<&'static Machine, Status> {
    MACHINE.get().ok_or(Status::NOT_INITIALIZED)
}

/// The device of this ordinal.
pub(super) fn gpu(ordinal: DeviceNumber) -> Result<&'static Arc<Gpu>, Status> {
    let gpus = &machine()?.gpus;
    let ordinal = usize::try_from(ordinal).map_err(|_| Status::INVALID_DEVICE)?;
    gpus.get(ordinal).ok_or(Status::INVALID_DEVICE)
}

fn initialise() -> Result<(), Status> {
    let mut configured = lock(&CONFIGURED);
    if MACHINE.get().is_some() {
        return Ok(());
    }
    let configuration = match configured.take() {
        Some(configuration) => configuration,
        None => Configuration::from_environment().map_err(|message| {
            complain(&message);
            Status::INVALID_VALUE
        })?,
    };
    let (major, minor) = configuration.compute_capability;
    let Some(capacity) = Capacity::of((major, minor)) else {
        complain(&format!(
            "there is no emulated device of compute capability {major}.{minor}"
        ));
        return Err(Status::INVALID_VALUE);
    };
    let options = DeviceOptions {
        compute_capability: configuration.compute_capability,
        multiprocessors: configuration
            .multiprocessors
            .unwrap_or(capacity.multiprocessors),
        memory_bytes: configuration.memory_bytes,
    };
    let mut gpus: Vec<Arc<Gpu>> = Vec::new();
    for ordinal in 0..configuration.devices {
        // All devices lie in one address space: that is what unified addressing and peer access are made of.
        let device = match gpus.first() {
            Some(first) => first.device.beside(options),
            None => Device::new(options),
        };
        let pool = Pool::new(ordinal);
        gpus.push(Arc::new(Gpu {
            ordinal,
            device,
            capacity,
            primary: Mutex::new(Primary::new()),
            default_pool: Arc::clone(&pool),
            current_pool: Mutex::new(pool),
            reports: Mutex::new(Vec::new()),
        }));
    }
    // Only this function sets it, and the lock lets one thread in.
    let _ = MACHINE.set(Machine {
        configuration,
        gpus,
    });
    Ok(())
}

impl Gpu {
    pub(super) fn multiprocessors(&self) -> u32 {
        self.device.options().multiprocessors
    }

    fn capability(&self) -> (u32, u32) {
        self.device.options().compute_capability
    }

    /// It says that it is none of hardware, and that no time on it means anything.
    fn name(&self) -> String {
        let (major, minor) = self.capability();
        format!("Emulated sm_{major}{minor} (functional, no timing)")
    }

    fn uuid(&self) -> [u8; 16] {
        let mut uuid = *b"stepscope-emul\0\0";
        uuid[14] = self.capability().0 as u8 * 16 + self.capability().1 as u8;
        uuid[15] = self.ordinal as u8;
        uuid
    }

    fn bus_id(&self) -> String {
        format!("0000:{:02x}:00.0", self.ordinal + 1)
    }

    /// The attribute of this number in cuda.h's `CUdevice_attribute`. Clocks are 0: there is no time on this device.
    fn attribute(&self, attribute: i32) -> Result<i32, Status> {
        let capacity = &self.capacity;
        let (major, minor) = self.capability();
        let has_clusters = i32::from(major >= 9);
        Ok(match attribute {
            1..=3 => 1024, // threads of a block, and its x and y
            4 => 64,
            5 => i32::MAX,
            6 | 7 => 65_535,
            8 => 49_152, // shared memory of a block that did not opt in
            9 => 65_536, // constant memory
            10 => 32,    // warp
            11 => i32::MAX,
            12 | 82 => capacity.registers as i32,
            13 | 36 => 0, // clocks
            14 | 30 => 512,
            15 => 1,
            16 => self.multiprocessors() as i32,
            17 | 18 => 0, // no time limit, not integrated
            19 => 1,
            20 => 0,
            21 => 131_072,
            22 => 131_072,
            23 => 65_536,
            24..=26 => 16_384,
            27..=28 => 32_768,
            29 => 2_048,
            31 => 1, // concurrent kernels
            32 => 0, // ECC
            33 => self.ordinal as i32 + 1,
            34 | 35 | 50 => 0,
            37 => capacity.memory_bus_bits as i32,
            38 => capacity.l2_bytes as i32,
            39 => capacity.threads as i32,
            40 => 3,
            41 => 1, // unified addressing
            51 => 32,
            75 => major as i32,
            76 => minor as i32,
            78..=80 => 1,
            81 => capacity.shared_bytes as i32,
            83 => 1, // managed memory
            84 => 0,
            85 => self.ordinal as i32,
            86 => 0,
            87 => {
                if minor == 0 {
                    2
                } else {
                    64
                }
            }
            88 => 0,
            89 => 0, // the host and a kernel cannot use managed memory at once
            90 => 0,
            91 => 1,                  // registered host memory has one address
            92..=94 | 122 | 123 => 0, // values that streams wait for
            95 => 1,                  // cooperative launches
            96 => 0,
            97 => capacity.shared_bytes_per_block as i32,
            98 => 0,
            99 => 1,
            100..=105 => 0, // no virtual memory management
            106 => capacity.blocks as i32,
            107..=110 => 0,
            111 => capacity.reserved_shared_bytes as i32,
            112 | 114 => 0,
            113 => 1,
            115 => 1, // memory pools
            116..=119 => 0,
            120 => has_clusters,
            121 => 0,
            126 => 1,
            127 => has_clusters, // tensor maps
            129 => 1,
            131 | 134 => -1,
            // The others: textures, surfaces, and what cards share with other programs.
            other if (1..=151).contains(&other) => 0,
            _ => return Err(Status::INVALID_VALUE),
        })
    }
}

functions! {
    fn cuInit(flags: u32) {
        if flags != 0 {
            return Err(Status::INVALID_VALUE);
        }
        initialise()?;
        if machine()?.gpus.is_empty() {
            return Err(Status::NO_DEVICE);
        }
        Ok(())
    }

    fn cuDriverGetVersion(version: Out<i32>) {
        version.set(VERSION)
    }

    fn cuDeviceGet(device: Out<DeviceNumber>, ordinal: i32) {
        gpu(ordinal)?;
        device.set(ordinal)
    }

    fn cuDeviceGetCount(count: Out<i32>) {
        count.set(machine()?.gpus.len() as i32)
    }

    fn cuDeviceGetName(name: Out<c_char>, length: i32, device: DeviceNumber) {
        let room = usize::try_from(length).map_err(|_| Status::INVALID_VALUE)?;
        name.text(&gpu(device)?.name(), room)
    }

    fn cuDeviceGetUuid(uuid: Out<Uuid>, device: DeviceNumber) {
        uuid.set(Uuid(gpu(device)?.uuid()))
    }

    fn cuDeviceGetUuid_v2(uuid: Out<Uuid>, device: DeviceNumber) {
        uuid.set(Uuid(gpu(device)?.uuid()))
    }

    fn cuDeviceTotalMem_v2(bytes: Out<usize>, device: DeviceNumber) {
        bytes.set(gpu(device)?.device.memory_info().1 as usize)
    }

    fn cuDeviceGetAttribute(value: Out<i32>, attribute: i32, device: DeviceNumber) {
        value.set(gpu(device)?.attribute(attribute)?)
    }

    fn cuDeviceComputeCapability(major: Out<i32>, minor: Out<i32>, device: DeviceNumber) {
        let capability = gpu(device)?.capability();
        major.set(capability.0 as i32)?;
        minor.set(capability.1 as i32)
    }

    fn cuDeviceGetPCIBusId(id: Out<c_char>, length: i32, device: DeviceNumber) {
        let room = usize::try_from(length).map_err(|_| Status::INVALID_VALUE)?;
        id.text(&gpu(device)?.bus_id(), room)
    }

    fn cuDeviceGetByPCIBusId(device: Out<DeviceNumber>, id: Text) {
        let id = id.get()?.to_lowercase();
        let found = machine()?.gpus.iter().find(|gpu| gpu.bus_id().ends_with(&id));
        device.set(found.ok_or(Status::INVALID_DEVICE)?.ordinal as i32)
    }

    fn cuDeviceCanAccessPeer(can: Out<i32>, device: DeviceNumber, peer: DeviceNumber) {
        let (device, peer) = (gpu(device)?, gpu(peer)?);
        can.set(i32::from(device.ordinal != peer.ordinal))
    }

    fn cuDeviceGetP2PAttribute(value: Out<i32>, attribute: u32, device: DeviceNumber, peer: DeviceNumber) {
        let (device, peer) = (gpu(device)?, gpu(peer)?);
        if device.ordinal == peer.ordinal {
            return Err(Status::INVALID_DEVICE);
        }
        match attribute {
            1 => value.set(0), // rank of the link
            2 | 3 => value.set(1), // access, and atomics
            4 | 5 => value.set(0), // arrays
            _ => Err(Status::INVALID_VALUE),
        }
    }

    fn cuCtxEnablePeerAccess(peer: Handle<Context>, flags: u32) {
        let context = Context::current()?;
        let peer = peer.get()?;
        if flags != 0 {
            return Err(Status::INVALID_VALUE);
        }
        if context.gpu.ordinal == peer.gpu.ordinal {
            return Err(Status::INVALID_DEVICE);
        }
        if lock(&context.peers).insert(peer.gpu.ordinal) {
            Ok(())
        } else {
            Err(Status::PEER_ACCESS_ALREADY_ENABLED)
        }
    }

    fn cuCtxDisablePeerAccess(peer: Handle<Context>) {
        let context = Context::current()?;
        let peer = peer.get()?;
        if lock(&context.peers).remove(&peer.gpu.ordinal) {
            Ok(())
        } else {
            Err(Status::PEER_ACCESS_NOT_ENABLED)
        }
    }
}
