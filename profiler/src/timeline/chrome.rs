//! Chrome trace events, read one by one.

use std::fmt;
use std::io::{BufRead, BufReader, Read};

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::events::{
    Activity, ActivityKind, Annotation, Call, CallKind, Device, Format, Place, Trace,
};
use super::lenient::Lenient;
use super::values::{Label, Number, Text, Written, keys};
use crate::Error;

/// What reading may keep before it stops and says so: some ten million kernels.
const KEPT_LIMIT: u64 = 1 << 30;
/// A double holds the nanoseconds of times up to this many microseconds (2⁵³ ns, 104 days).
const EXACT_US: f64 = 9.007_199e12;

/// Reads a Chrome trace, gzip or not, from anything; `name` is what messages call it.
///
/// # Errors
/// When there is no trace in it. One that breaks off is kept as far as it goes.
pub fn from_json(reader: impl Read, name: &str) -> Result<Trace, Error> {
    from_reader(reader, name)
}

pub(super) fn from_reader(reader: impl Read, name: &str) -> Result<Trace, Error> {
    let mut reader = BufReader::with_capacity(1 << 16, reader);
    let start = reader
        .fill_buf()
        .map_err(|e| Error::read(std::path::Path::new(name), e))?;
    if start.starts_with(&[0x1f, 0x8b]) {
        let plain = flate2::bufread::MultiGzDecoder::new(reader);
        return events(BufReader::with_capacity(1 << 16, plain), name, KEPT_LIMIT);
    }
    if let Some(what) = foreign_container(start) {
        return Err(not_a_trace(name, what));
    }
    // A byte order mark, which JSON does not know.
    if start.starts_with(&[0xef, 0xbb, 0xbf]) {
        reader.consume(3);
    }
    events(reader, name, KEPT_LIMIT)
}

fn not_a_trace(name: &str, why: &str) -> Error {
    Error::content(format!(
        "{name} is no trace that stepscope reads: {why}; it reads PyTorch's Chrome traces (.json, .json.gz) and SQLite exports \
         of Nsight Systems (nsys export --type sqlite)"
    ))
}

fn foreign_container(start: &[u8]) -> Option<&'static str> {
    match start {
        [] => Some("the file is empty"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("it is compressed with zstd: decompress it first"),
        [b'P', b'K', 3, 4, ..] => Some("it is a zip archive: unpack it first"),
        [0xfd, b'7', b'z', ..] => Some("it is compressed with xz: decompress it first"),
        [b'N', b'V', b'R', ..] => Some("it looks like an .nsys-rep report: export it first"),
        _ => None,
    }
}

fn events(reader: impl BufRead, name: &str, limit_bytes: u64) -> Result<Trace, Error> {
    let mut lenient = Lenient::new(reader);
    let mut builder = Builder {
        trace: Trace::new(name, Format::Kineto),
        scratch: Scratch::default(),
        threads: std::collections::HashMap::new(),
        seen: 0,
        has_list: false,
        own_events: 0,
        limit_bytes,
    };
    let outcome = {
        let mut json =
            serde_json::Deserializer::from_reader(BufReader::with_capacity(1 << 16, &mut lenient));
        Whole(&mut builder)
            .deserialize(&mut json)
            .and_then(|()| json.end())
    };
    let Builder {
        mut trace,
        seen,
        has_list,
        own_events,
        ..
    } = builder;
    trace.damage.not_numbers = lenient.not_numbers();
    if let Err(error) = outcome {
        if seen == 0 {
            let why = if has_list {
                format!("its events cannot be read ({error})")
            } else {
                format!("it is not JSON with a list `traceEvents` ({error})")
            };
            return Err(not_a_trace(name, &why));
        }
        trace.damage.broken_off = Some(error.to_string());
    } else if !has_list {
        return Err(not_a_trace(name, "it is JSON without a list `traceEvents`"));
    } else if seen == 0 {
        return Err(not_a_trace(name, "its list of events holds none"));
    }
    if own_events > 0 {
        trace.format = Format::Stepscope;
    }
    trace.sort();
    Ok(trace)
}

/// The trace while it is read.
struct Builder {
    trace: Trace,
    scratch: Scratch,
    /// Processes and threads as written, to our numbers.
    threads: std::collections::HashMap<(Label, Label), u32>,
    /// Events read, of whatever kind.
    seen: u64,
    has_list: bool,
    /// Events of stepscope's own traces.
    own_events: u64,
    /// What may be kept.
    limit_bytes: u64,
}

/// The fields of one event that anything is made of.
#[derive(Debug, Default)]
struct Scratch {
    phase: u8,
    category: Category,
    name: String,
    process: Label,
    thread: Label,
    start_us: Option<f64>,
    duration_us: Option<f64>,
    correlation: Option<u64>,
    stream: Option<f64>,
    device: Option<u64>,
    batch: Option<u64>,
    kernel: String,
    is_object: bool,
    starts_with_decimals: bool,
}

impl Scratch {
    fn clear(&mut self) {
        let mut name = std::mem::take(&mut self.name);
        let mut kernel = std::mem::take(&mut self.kernel);
        name.clear();
        kernel.clear();
        *self = Scratch {
            name,
            kernel,
            ..Scratch::default()
        };
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Category {
    #[default]
    Other,
    Kernel,
    Copy,
    Set,
    Call,
    HostAnnotation,
    DeviceAnnotation,
    CounterRange,
    OwnStep,
    OwnOperation,
}

impl Category {
    /// kineto's categories, in the spellings of its versions, and those of our own traces.
    fn of(text: &str) -> Category {
        match text {
            "kernel" | "Kernel" => Category::Kernel,
            "gpu_memcpy" | "Memcpy" => Category::Copy,
            "gpu_memset" | "Memset" => Category::Set,
            "cuda_runtime" | "cuda_driver" | "hip_runtime" | "hip_driver" | "Runtime" => {
                Category::Call
            }
            "user_annotation" => Category::HostAnnotation,
            "gpu_user_annotation" => Category::DeviceAnnotation,
            "cuda_profiler_range" => Category::CounterRange,
            "step" => Category::OwnStep,
            "operation" => Category::OwnOperation,
            _ => Category::Other,
        }
    }
}

impl Builder {
    fn thread(&mut self) -> u32 {
        let next = self.threads.len() as u32;
        let key = (self.scratch.process, self.scratch.thread);
        *self.threads.entry(key).or_insert(next)
    }

    /// Takes the event in `scratch` over into the trace.
    fn finish_event(&mut self) {
        self.seen += 1;
        if !self.scratch.is_object {
            self.trace.damage.malformed += 1;
            return;
        }
        self.trace.has_decimals |= self.scratch.starts_with_decimals;
        match self.scratch.phase {
            b'X' => {}
            b'B' | b'E' => {
                self.trace.damage.begin_end += 1;
                return;
            }
            _ => return,
        }
        let category = self.scratch.category;
        if category == Category::Other {
            return;
        }
        if category == Category::CounterRange {
            self.trace.damage.counter_ranges += 1;
            return;
        }
        let call = (category == Category::Call).then(|| CallKind::of(&self.scratch.name));
        if call == Some(None) {
            return;
        }
        if self.scratch.name.is_empty() {
            self.trace.damage.malformed += 1;
            return;
        }
        let nanoseconds = |us: Option<f64>| us.map(|us| us * 1e3);
        let span = self.trace.damage.span(
            nanoseconds(self.scratch.start_us),
            nanoseconds(self.scratch.duration_us),
        );
        let Some((start_ns, duration_ns)) = span else {
            return;
        };
        self.trace.damage.is_coarse |= self.scratch.starts_with_decimals
            && self.scratch.start_us.is_some_and(|us| us.abs() > EXACT_US);
        let correlation = self.scratch.correlation.unwrap_or(0);
        let thread = self.thread();
        let name = match category {
            Category::OwnOperation if !self.scratch.kernel.is_empty() => {
                let text = format!("{} ({})", self.scratch.name, self.scratch.kernel);
                self.trace.names.intern(&text)
            }
            _ => self.trace.names.intern(&self.scratch.name),
        };
        let device = self.scratch.device.unwrap_or(self.scratch.process) as u32;
        let activity = |kind, device| Activity {
            start_ns,
            duration_ns,
            correlation,
            name,
            stream: match self.scratch.stream {
                Some(stream) if stream >= 0.0 => stream as u32,
                _ => u32::MAX,
            },
            device,
            kind,
        };
        let annotation = |place, batch| Annotation {
            start_ns,
            duration_ns,
            name,
            place,
            batch,
        };
        let batch = self.scratch.batch.and_then(|b| u32::try_from(b).ok());
        let new = match category {
            Category::Kernel => Kept::Activity(activity(ActivityKind::Kernel, device)),
            Category::Copy => Kept::Activity(activity(ActivityKind::Copy, device)),
            Category::Set => Kept::Activity(activity(ActivityKind::Set, device)),
            Category::Call => Kept::Call(Call {
                start_ns,
                duration_ns,
                correlation,
                thread,
                name,
                kind: match call.flatten() {
                    Some(kind) => kind,
                    None => return,
                },
            }),
            Category::HostAnnotation => Kept::Annotation(annotation(Place::Host(thread), None)),
            Category::DeviceAnnotation => Kept::Annotation(annotation(Place::Device(device), None)),
            Category::OwnStep => {
                self.own_events += 1;
                let place = Place::Device(self.scratch.process as u32);
                Kept::Annotation(annotation(place, batch))
            }
            Category::OwnOperation => {
                self.own_events += 1;
                let device = self.scratch.process as u32;
                Kept::Activity(activity(ActivityKind::Operation, device))
            }
            Category::Other | Category::CounterRange => return,
        };
        match new {
            Kept::Activity(activity) => {
                self.trace.damage.zero_duration += u64::from(activity.duration_ns == 0);
                self.trace.activities.push(activity);
            }
            Kept::Call(call) => self.trace.calls.push(call),
            Kept::Annotation(annotation) => self.trace.annotations.push(annotation),
        }
    }
}

enum Kept {
    Activity(Activity),
    Call(Call),
    Annotation(Annotation),
}

/// The document: an object with `traceEvents`, or the list alone.
struct Whole<'a>(&'a mut Builder);

impl<'de> DeserializeSeed<'de> for Whole<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Whole<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a Chrome trace: an object with `traceEvents`, or a list of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        self.0.has_list = true;
        List(self.0).visit_seq(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "traceEvents" => map.next_value_seed(List(self.0))?,
                "deviceProperties" => {
                    let properties: Value = map.next_value()?;
                    self.0.trace.devices = devices(&properties);
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// kineto's `deviceProperties`; some entries may be empty.
fn devices(properties: &Value) -> Vec<Device> {
    let entries = properties.as_array().map_or(&[][..], Vec::as_slice);
    entries
        .iter()
        .take(1024)
        .filter_map(|entry| {
            Some(Device {
                id: entry.get("id")?.as_u64()? as u32,
                name: entry
                    .get("name")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .trim()
                    .to_owned(),
                multiprocessors: entry.get("numSms").and_then(Value::as_u64),
                memory_bytes: entry.get("totalGlobalMem").and_then(Value::as_u64),
            })
        })
        .collect()
}

/// `traceEvents`.
struct List<'a>(&'a mut Builder);

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.0.has_list = true;
        while seq.next_element_seed(Event(&mut self.0.scratch))?.is_some() {
            self.0.finish_event();
            if self.0.trace.kept_bytes() > self.0.limit_bytes {
                return Err(de::Error::custom(format_args!(
                    "the limit of {} bytes of kernels, calls and annotations is reached",
                    self.0.limit_bytes
                )));
            }
        }
        Ok(())
    }
}

/// One event.
struct Event<'a>(&'a mut Scratch);

impl<'de> DeserializeSeed<'de> for Event<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.0.clear();
        deserializer.deserialize_any(self)
    }
}

/// Values of another type than the one wanted are passed over.
macro_rules! pass_over {
    ($($method:ident: $type:ty),*) => {
        $(fn $method<E>(self, _: $type) -> Result<(), E> { Ok(()) })*
    };
}

impl<'de> Visitor<'de> for Event<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an event")
    }

    pass_over!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let scratch = self.0;
        scratch.is_object = true;
        while let Some(key) = map.next_key_seed(Key)? {
            match key {
                Field::Phase => {
                    scratch.phase =
                        map.next_value_seed(Text(None, |text: &str| match text.as_bytes() {
                            [phase] => *phase,
                            _ => 0,
                        }))?;
                }
                Field::Category => {
                    scratch.category = map.next_value_seed(Text(None, Category::of))?;
                }
                Field::Name => map.next_value_seed(Text(Some(&mut scratch.name), |_: &str| ()))?,
                Field::Process => scratch.process = map.next_value_seed(Number)?.label(),
                Field::Thread => scratch.thread = map.next_value_seed(Number)?.label(),
                Field::Start => {
                    let number = map.next_value_seed(Number)?;
                    scratch.starts_with_decimals = matches!(number, Written::Float(_));
                    scratch.start_us = number.float();
                }
                Field::Duration => scratch.duration_us = map.next_value_seed(Number)?.float(),
                Field::Args => map.next_value_seed(Args(scratch))?,
                Field::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// `args` of an event.
struct Args<'a>(&'a mut Scratch);

impl<'de> DeserializeSeed<'de> for Args<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Args<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("arguments of an event")
    }

    pass_over!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let scratch = self.0;
        while let Some(key) = map.next_key_seed(ArgKey)? {
            match key {
                Arg::Correlation => scratch.correlation = map.next_value_seed(Number)?.whole(),
                Arg::Stream => scratch.stream = map.next_value_seed(Number)?.float(),
                Arg::Device => scratch.device = map.next_value_seed(Number)?.whole(),
                Arg::Batch => scratch.batch = map.next_value_seed(Number)?.whole(),
                Arg::Kernel => {
                    map.next_value_seed(Text(Some(&mut scratch.kernel), |_: &str| ()))?
                }
                Arg::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

enum Field {
    Phase,
    Category,
    Name,
    Process,
    Thread,
    Start,
    Duration,
    Args,
    Other,
}

enum Arg {
    Correlation,
    Stream,
    Device,
    Batch,
    Kernel,
    Other,
}

keys!(Key -> Field {
    "ph" => Phase, "cat" => Category, "name" => Name, "pid" => Process, "tid" => Thread,
    "ts" => Start, "dur" => Duration, "args" => Args
});
keys!(ArgKey -> Arg {
    "correlation" => Correlation, "stream" => Stream, "device" => Device, "batch_size" => Batch, "kernel" => Kernel
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_keeps_what_was_read() {
        let kernel = r#"{"ph": "X", "cat": "kernel", "name": "k", "ts": 1, "dur": 1}"#;
        let json = format!("[{}]", [kernel; 100].join(","));
        let trace = events(json.as_bytes(), "t", 40 * 50 + 65).unwrap();
        assert_eq!(trace.activities.len(), 51);
        assert!(
            trace
                .damage
                .broken_off
                .unwrap()
                .contains("the limit of 2065 bytes")
        );
        assert_eq!(
            events(json.as_bytes(), "t", 1 << 20)
                .unwrap()
                .activities
                .len(),
            100
        );
    }

    #[test]
    fn a_byte_order_mark_is_passed_over() {
        let json = b"\xef\xbb\xbf[{\"ph\": \"X\", \"cat\": \"kernel\", \"name\": \"k\", \"ts\": 1, \"dur\": 1}]";
        assert_eq!(from_json(&json[..], "t").unwrap().activities.len(), 1);
    }
}
