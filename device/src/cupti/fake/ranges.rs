//! The counters of a GPU that a test makes up: the host interface and the range profiler.
//!
//! What must come before what is asserted, and so are the sizes of the structs, as `cupti_range_profiler.h` of CUDA 12.9 computes
//! them. The images are the caller's memory: what was counted goes through it.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use super::{Fake, give, with};

/// The metrics that the chip has.
const METRICS: [&CStr; 3] = [
    c"gpu__time_duration.sum",
    c"dram__bytes_read.sum",
    c"lts__t_sectors.sum",
];

const HOST: usize = 0x7000;
const OBJECT: usize = 0x8000;
/// What the config image begins with: metrics follow.
const CONFIG: u8 = 0xc0;
/// Bytes of a range in the counter data image, behind one of 8 bytes with their number.
const RANGE: usize = 8 * METRICS.len();

#[derive(Default)]
pub(in crate::cupti) struct Ranges {
    pub(in crate::cupti) is_initialised: bool,
    pub(in crate::cupti) hosts: usize,
    /// The metrics that a host object counts.
    added: Vec<usize>,
    pub(in crate::cupti) context: usize,
    /// Ranges that the image has room for, and where it is.
    room: usize,
    image: usize,
    image_bytes: usize,
    is_configured: bool,
    pub(in crate::cupti) is_running: bool,
    /// What was counted of each launch.
    launches: Vec<[f64; METRICS.len()]>,
    /// The last pass is missing.
    pub(in crate::cupti) is_incomplete: bool,
    /// Ranges are kept in this order, by their number.
    pub(in crate::cupti) order: Option<Vec<usize>>,
    /// Texts that were given away.
    names: Vec<Vec<u8>>,
    /// What ranges are called instead of by their number.
    pub(in crate::cupti) name: Option<&'static str>,
    pub(in crate::cupti) calls: Vec<&'static str>,
}

impl Fake {
    /// A kernel is launched: what is counted of it, if anybody counts.
    pub(in crate::cupti) fn count(&mut self, values: [f64; METRICS.len()]) {
        if self.ranges.is_running {
            self.ranges.launches.push(values);
        }
    }
}

/// A parameter struct of NVIDIA's: its size, and fields at offsets.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Parameters(*mut u8);

impl Parameters {
    /// The struct, which must say that it is `bytes` long.
    fn of(self, bytes: usize) -> Parameters {
        assert_eq!(self.get::<usize>(0), bytes, "structSize");
        assert_eq!(self.get::<usize>(8), 0, "pPriv");
        self
    }

    fn get<T: Copy>(self, at: usize) -> T {
        // SAFETY: the caller's struct has a field of this type there.
        unsafe { self.0.add(at).cast::<T>().read() }
    }

    fn set<T>(self, at: usize, value: T) {
        // SAFETY: as above.
        unsafe { self.0.add(at).cast::<T>().write(value) }
    }

    /// The struct of a call on the enabled object.
    fn of_object(self, bytes: usize) -> Parameters {
        assert_eq!(self.get::<usize>(16), OBJECT, "pRangeProfilerObject");
        self.of(bytes)
    }

    /// The texts at a pointer to a list, and their number.
    fn texts(self, list: usize, count: usize) -> Vec<String> {
        let (list, count) = (self.get::<*const *const c_char>(list), self.get(count));
        let text = |index| {
            // SAFETY: the caller has so many names there.
            unsafe { CStr::from_ptr(list.add(index).read()) }
                .to_string_lossy()
                .into_owned()
        };
        (0usize..count).map(text).collect()
    }

    /// The indices of the metrics that it names.
    fn metrics(self, list: usize, count: usize) -> Option<Vec<usize>> {
        let known = |name: &String| {
            METRICS
                .iter()
                .position(|metric| metric.to_str() == Ok(name.as_str()))
        };
        self.texts(list, count).iter().map(known).collect()
    }

    /// The image at a pointer, and its length.
    fn image(self, pointer: usize, bytes: usize) -> &'static mut [u8] {
        // SAFETY: the caller has so many bytes there, and nobody else looks at them during the call.
        unsafe { std::slice::from_raw_parts_mut(self.get(pointer), self.get(bytes)) }
    }
}

fn done(ranges: &mut Ranges, name: &'static str) -> u32 {
    ranges.calls.push(name);
    0
}

fn number(image: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(image[at..at + 8].try_into().unwrap())
}

fakes! {
    found by find_of_ranges;
    cuptiProfilerInitialize(parameters: Parameters) |fake| {
        parameters.of(16);
        assert!(!fake.ranges.is_initialised);
        fake.ranges.is_initialised = true;
        done(&mut fake.ranges, "initialise")
    };
    cuptiProfilerDeInitialize(parameters: Parameters) |fake| {
        parameters.of(16);
        let ranges = &mut fake.ranges;
        assert!(ranges.is_initialised && ranges.context == 0 && ranges.hosts == 0);
        ranges.is_initialised = false;
        done(ranges, "deinitialise")
    };
    cuptiDeviceGetChipName(parameters: Parameters) |fake| {
        assert_eq!(parameters.of(32).get::<usize>(16), 0, "deviceIndex");
        parameters.set(24, c"GH100".as_ptr());
        done(&mut fake.ranges, "chip")
    };
    cuptiProfilerHostGetSupportedChips(parameters: Parameters) |_fake| {
        parameters.of(32).set(16, 0_usize);
        parameters.set(24, ptr::null::<c_void>());
        0
    };
    cuptiProfilerHostInitialize(parameters: Parameters) |fake| {
        assert_eq!(parameters.of(48).get::<u32>(16), 0, "a range profiler");
        // SAFETY: the caller has a name there.
        let chip = unsafe { CStr::from_ptr(parameters.get(24)) };
        if chip != c"GH100" {
            return 1;
        }
        assert_eq!(fake.ranges.hosts, 0, "there is one at a time");
        fake.ranges.hosts += 1;
        fake.ranges.added.clear();
        parameters.set(40, HOST);
        0
    };
    cuptiProfilerHostDeinitialize(parameters: Parameters) |fake| {
        assert_eq!(parameters.of(24).get::<usize>(16), HOST);
        fake.ranges.hosts -= 1;
        0
    };
    cuptiProfilerHostConfigAddMetrics(parameters: Parameters) |fake| {
        match parameters.of(40).metrics(24, 32) {
            Some(metrics) => { fake.ranges.added.extend(metrics); 0 }
            None => 1,
        }
    };
    cuptiProfilerHostGetConfigImageSize(parameters: Parameters) |fake| {
        parameters.of(32).set(24, 1 + fake.ranges.added.len());
        0
    };
    cuptiProfilerHostGetConfigImage(parameters: Parameters) |fake| {
        let image = parameters.of(40).image(32, 24);
        image[0] = CONFIG;
        for (byte, metric) in image[1..].iter_mut().zip(&fake.ranges.added) {
            *byte = *metric as u8;
        }
        0
    };
    cuptiProfilerHostGetNumOfPasses(parameters: Parameters) |_fake| {
        let image = parameters.of(40).image(24, 16);
        assert_eq!(image[0], CONFIG);
        // The last metric takes a second pass.
        parameters.set(32, 1 + usize::from(image[1..].contains(&2)));
        0
    };
    cuptiRangeProfilerEnable(parameters: Parameters) |fake| {
        let ranges = &mut fake.ranges;
        assert!(ranges.is_initialised && ranges.context == 0);
        ranges.context = parameters.of(32).get(16);
        assert_ne!(ranges.context, 0);
        parameters.set(24, OBJECT);
        done(ranges, "enable")
    };
    cuptiRangeProfilerDisable(parameters: Parameters) |fake| {
        parameters.of_object(24);
        let ranges = &mut fake.ranges;
        assert!(ranges.context != 0 && !ranges.is_running);
        ranges.context = 0;
        done(ranges, "disable")
    };
    cuptiRangeProfilerGetCounterDataSize(parameters: Parameters) |fake| {
        let parameters = parameters.of_object(64);
        if parameters.metrics(24, 32).is_none() {
            return 1;
        }
        let room: usize = parameters.get(40);
        assert_eq!(parameters.get::<u32>(48) as usize, room, "maxNumRangeTreeNodes");
        fake.ranges.room = room;
        parameters.set(56, 8 + room * RANGE);
        done(&mut fake.ranges, "size")
    };
    cuptiRangeProfilerCounterDataImageInitialize(parameters: Parameters) |fake| {
        let image = parameters.of_object(40).image(32, 24);
        assert_eq!(image.len(), 8 + fake.ranges.room * RANGE);
        image.fill(0);
        (fake.ranges.image, fake.ranges.image_bytes) = (image.as_ptr() as usize, image.len());
        done(&mut fake.ranges, "image")
    };
    cuptiRangeProfilerSetConfig(parameters: Parameters) |fake| {
        let parameters = parameters.of_object(90);
        let ranges = &mut fake.ranges;
        assert_eq!(parameters.image(32, 24)[0], CONFIG);
        let image = parameters.image(48, 40);
        assert_eq!([image.as_ptr() as usize, image.len()], [ranges.image, ranges.image_bytes]);
        assert_eq!(parameters.get::<[u32; 2]>(56), [1, 2], "automatic ranges, kernel replay");
        assert_eq!(parameters.get::<usize>(64), ranges.room, "maxRangesPerPass");
        assert_eq!(parameters.get::<[u16; 2]>(72), [1, 1], "nesting levels");
        assert_eq!(parameters.get::<usize>(80), 0, "passIndex");
        assert_eq!(parameters.get::<u16>(88), 1, "targetNestingLevel");
        ranges.is_configured = true;
        done(ranges, "configure")
    };
    cuptiRangeProfilerStart(parameters: Parameters) |fake| {
        parameters.of_object(24);
        let ranges = &mut fake.ranges;
        assert!(ranges.is_configured && !ranges.is_running);
        ranges.is_running = true;
        done(ranges, "start")
    };
    cuptiRangeProfilerStop(parameters: Parameters) |fake| {
        let parameters = parameters.of_object(41);
        let ranges = &mut fake.ranges;
        assert!(ranges.is_running);
        ranges.is_running = false;
        parameters.set(40, u8::from(!ranges.is_incomplete));
        done(ranges, "stop")
    };
    cuptiRangeProfilerDecodeData(parameters: Parameters) |fake| {
        let parameters = parameters.of_object(32);
        let ranges = &mut fake.ranges;
        assert!(!ranges.is_running && !ranges.launches.is_empty());
        let kept = ranges.launches.len().min(ranges.room);
        parameters.set(24, ranges.launches.len() - kept);
        // SAFETY: it is the image that was set, which stays where it is.
        let image = unsafe { std::slice::from_raw_parts_mut(ranges.image as *mut u8, ranges.image_bytes) };
        image[..8].copy_from_slice(&(kept as u64).to_ne_bytes());
        let order = ranges.order.clone().unwrap_or_else(|| (0..kept).collect());
        for (range, launch) in order.into_iter().enumerate() {
            for (metric, value) in ranges.launches[launch].iter().enumerate() {
                let at = 8 + range * RANGE + 8 * metric;
                image[at..at + 8].copy_from_slice(&value.to_ne_bytes());
            }
        }
        done(ranges, "decode")
    };
    cuptiRangeProfilerGetCounterDataInfo(parameters: Parameters) |_fake| {
        let image = parameters.of(40).image(16, 24);
        parameters.set(32, number(image, 0) as usize);
        0
    };
    cuptiRangeProfilerCounterDataGetRangeInfo(parameters: Parameters) |fake| {
        let image = parameters.of(56).image(16, 24);
        let range: usize = parameters.get(32);
        assert!((range as u64) < number(image, 0));
        let launch = fake.ranges.order.as_ref().map_or(range, |order| order[range]);
        let name = fake.ranges.name.map_or_else(|| launch.to_string(), str::to_owned);
        fake.ranges.names.push((name + "\0").into_bytes());
        parameters.set(48, fake.ranges.names.last().map_or(ptr::null(), |name| name.as_ptr()));
        0
    };
    cuptiProfilerHostEvaluateToGpuValues(parameters: Parameters) |fake| {
        let parameters = parameters.of(72);
        assert_eq!((parameters.get::<usize>(16), fake.ranges.hosts), (HOST, 1));
        let image = parameters.image(24, 32);
        let range: usize = parameters.get(40);
        let values: *mut f64 = parameters.get(64);
        let Some(metrics) = parameters.metrics(48, 56) else { return 1 };
        for (index, metric) in metrics.into_iter().enumerate() {
            let bits = number(image, 8 + range * RANGE + 8 * metric);
            // SAFETY: the caller has a place for each of its names.
            give(unsafe { values.add(index) }, f64::from_bits(bits));
        }
        0
    };
}
