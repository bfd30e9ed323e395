//! What is kept of a trace: GPU activities, the calls that launched them, annotations, and what was wrong.

use std::collections::HashMap;

use serde::Serialize;

/// A trace as read, its times in nanoseconds of the trace's own clock.
#[derive(Debug, Clone)]
pub struct Trace {
    /// What a person calls it: the path, as given.
    pub name: String,
    /// Which program wrote it.
    pub format: Format,
    /// Names of kernels, calls and annotations.
    pub names: Names,
    /// The GPUs that it names; an activity's GPU may be missing here.
    pub devices: Vec<Device>,
    /// What the GPUs did, by start.
    pub activities: Vec<Activity>,
    /// Launches, copies and waits on the host, by start.
    pub calls: Vec<Call>,
    /// Annotated ranges on the host and on GPUs, by start.
    pub annotations: Vec<Annotation>,
    /// What is missing or was left out.
    pub damage: Damage,
    /// Whether any time stamp was written with decimals, which is what makes Holistic Trace Analysis round.
    pub has_decimals: bool,
}

impl Trace {
    pub(crate) fn new(name: &str, format: Format) -> Trace {
        Trace {
            name: name.to_owned(),
            format,
            names: Names::default(),
            devices: Vec::new(),
            activities: Vec::new(),
            calls: Vec::new(),
            annotations: Vec::new(),
            damage: Damage::default(),
            has_decimals: false,
        }
    }

    /// The memory that the kept events and names take, in bytes, by their sizes and lengths.
    pub fn kept_bytes(&self) -> u64 {
        (size_of_val(self.activities.as_slice())
            + size_of_val(self.calls.as_slice())
            + size_of_val(self.annotations.as_slice())) as u64
            + self.names.bytes
    }

    /// Orders events by their start, which everything after reading relies on.
    pub(crate) fn sort(&mut self) {
        self.activities.sort_by_key(|a| (a.start_ns, a.end_ns()));
        self.calls.sort_by_key(|c| (c.start_ns, c.end_ns()));
        // Of two that start together the longer one comes first, because it encloses the other.
        self.annotations
            .sort_by_key(|a| (a.start_ns, std::cmp::Reverse(a.end_ns())));
    }
}

/// Who wrote a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// PyTorch's profiler (kineto), as Chrome trace events.
    Kineto,
    /// `stepscope trace`.
    Stepscope,
    /// `nsys export --type sqlite`.
    Nsys,
}

impl Format {
    /// What people call it.
    pub fn label(self) -> &'static str {
        match self {
            Format::Kineto => "a trace of PyTorch's profiler",
            Format::Stepscope => "a trace of stepscope",
            Format::Nsys => "an export of Nsight Systems",
        }
    }
}

/// A GPU that a trace names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Its number in the trace.
    pub id: u32,
    /// Its name; empty where the trace has none.
    pub name: String,
    /// Streaming multiprocessors or compute units.
    pub multiprocessors: Option<u64>,
    /// Its memory.
    pub memory_bytes: Option<u64>,
}

/// A name, as an index into [`Names`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NameId(pub(crate) u32);

/// Every distinct name once.
#[derive(Debug, Clone, Default)]
pub struct Names {
    texts: Vec<std::sync::Arc<str>>,
    ids: HashMap<std::sync::Arc<str>, NameId>,
    bytes: u64,
}

impl Names {
    /// What a name costs besides its text: its places in the list and in the map, and two counts.
    const OVERHEAD: u64 = 64;

    /// The id of `text`, a new one if it is new.
    pub fn intern(&mut self, text: &str) -> NameId {
        if let Some(&id) = self.ids.get(text) {
            return id;
        }
        let id = NameId(self.texts.len() as u32);
        let shared: std::sync::Arc<str> = text.into();
        self.bytes += text.len() as u64 + Names::OVERHEAD;
        self.texts.push(shared.clone());
        self.ids.insert(shared, id);
        id
    }

    /// The text of a name.
    pub fn get(&self, id: NameId) -> &str {
        self.texts.get(id.0 as usize).map_or("", |text| text)
    }

    /// How many distinct names there are.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }
}

/// What a GPU did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activity {
    /// When it started, on the trace's clock.
    pub start_ns: i64,
    /// How long it took; zero is possible.
    pub duration_ns: u64,
    /// The number it shares with the call that launched it; 0 if it has none.
    pub correlation: u64,
    /// The kernel's or the copy's name.
    pub name: NameId,
    /// The stream; negative ones and those without a number are `u32::MAX`.
    pub stream: u32,
    /// The GPU.
    pub device: u32,
    /// What it is.
    pub kind: ActivityKind,
}

impl Activity {
    /// When it ended.
    pub fn end_ns(&self) -> i64 {
        self.start_ns.saturating_add_unsigned(self.duration_ns)
    }
}

/// What an activity is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ActivityKind {
    /// A kernel.
    Kernel,
    /// A copy by a copy engine.
    Copy,
    /// Memory set to a value.
    Set,
    /// A graph replay recorded as a whole, its kernels not told apart.
    Graph,
    /// An operation of stepscope's own trace.
    Operation,
}

/// A call on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// When it was entered.
    pub start_ns: i64,
    /// How long it took.
    pub duration_ns: u64,
    /// The number it shares with what it launched; 0 if it has none.
    pub correlation: u64,
    /// The thread, numbered by the trace.
    pub thread: u32,
    /// Its name.
    pub name: NameId,
    /// What it does.
    pub kind: CallKind,
}

impl Call {
    /// When it returned.
    pub fn end_ns(&self) -> i64 {
        self.start_ns.saturating_add_unsigned(self.duration_ns)
    }
}

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// Launches a kernel.
    Launch,
    /// Launches a graph.
    GraphLaunch,
    /// Enqueues a copy or a set; some of these wait for its end.
    Memory,
    /// Waits for a stream, an event or the device.
    Wait,
}

impl CallKind {
    /// The kind of a call by its name in CUDA's or HIP's runtime or driver; `None` if it has no part in launching or waiting.
    pub fn of(name: &str) -> Option<CallKind> {
        let launches = name.contains("Launch") && !name.contains("LaunchHostFunc");
        if launches && name.contains("Graph") {
            Some(CallKind::GraphLaunch)
        } else if launches {
            Some(CallKind::Launch)
        } else if name.contains("Memcpy") || name.contains("Memset") {
            Some(CallKind::Memory)
        } else if name.contains("Synchronize") {
            Some(CallKind::Wait)
        } else {
            None
        }
    }
}

/// An annotated range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Annotation {
    /// When it began.
    pub start_ns: i64,
    /// How long it lasted.
    pub duration_ns: u64,
    /// Its text.
    pub name: NameId,
    /// Where it stands.
    pub place: Place,
    /// The batch size, where the writer gives it as a number (stepscope's own traces do).
    pub batch: Option<u32>,
}

impl Annotation {
    /// When it ended.
    pub fn end_ns(&self) -> i64 {
        self.start_ns.saturating_add_unsigned(self.duration_ns)
    }

    /// Whether `other` lies within it, at the same place.
    pub(crate) fn encloses(&self, other: &Annotation) -> bool {
        self.place == other.place
            && self.start_ns <= other.start_ns
            && other.end_ns() <= self.end_ns()
    }
}

/// Where an annotation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// On a thread of the host, numbered by the trace.
    Host(u32),
    /// On a GPU.
    Device(u32),
}

/// What is missing from a trace or was left out of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// Why reading stopped before the end, and where.
    pub broken_off: Option<String>,
    /// GPU activities or calls without a start or a duration.
    pub without_time: u64,
    /// Those with a negative duration.
    pub negative: u64,
    /// Those whose times are beyond what a clock can have counted.
    pub out_of_range: u64,
    /// GPU activities of no duration; they are kept.
    pub zero_duration: u64,
    /// Events that are no objects or have no name.
    pub malformed: u64,
    /// Numbers that were NaN or infinite.
    pub not_numbers: u64,
    /// Begin and end events, which nothing here is read from.
    pub begin_end: u64,
    /// Whether time stamps are so large that a double holds them to a quarter of a microsecond only.
    pub is_coarse: bool,
    /// Performance-counter ranges, which carry no time of a kernel.
    pub counter_ranges: u64,
    /// What the recorder itself said went wrong.
    pub diagnostics: Vec<String>,
}

/// The latest time that is believed: 100 years in nanoseconds, so that sums and differences cannot overflow.
const LATEST_NS: f64 = 3.2e18;
/// The longest duration that is believed: 12 days, in nanoseconds.
const LONGEST_NS: f64 = 1e15;

impl Damage {
    /// Start and duration of an event in nanoseconds, or a count of why not.
    pub(crate) fn span(
        &mut self,
        start_ns: Option<f64>,
        duration_ns: Option<f64>,
    ) -> Option<(i64, u64)> {
        let (Some(start), Some(duration)) = (start_ns, duration_ns) else {
            self.without_time += 1;
            return None;
        };
        if duration < 0.0 {
            self.negative += 1;
            return None;
        }
        if start.abs() > LATEST_NS || duration > LONGEST_NS {
            self.out_of_range += 1;
            return None;
        }
        Some((start.round() as i64, duration.round() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_kept_in_forty_bytes() {
        assert_eq!(size_of::<Activity>(), 40);
        assert_eq!(size_of::<Call>(), 40);
        assert_eq!(size_of::<Annotation>(), 40);
    }

    #[test]
    fn calls_by_name() {
        assert_eq!(CallKind::of("hipGraphLaunch"), Some(CallKind::GraphLaunch));
        assert_eq!(
            CallKind::of("cudaGraphLaunch_v10000"),
            Some(CallKind::GraphLaunch)
        );
        assert_eq!(CallKind::of("cuLaunchKernelEx"), Some(CallKind::Launch));
        assert_eq!(CallKind::of("hipMemcpyWithStream"), Some(CallKind::Memory));
        assert_eq!(CallKind::of("cudaStreamSynchronize"), Some(CallKind::Wait));
        assert_eq!(CallKind::of("cudaFuncSetAttribute"), None);
        assert_eq!(CallKind::of("cudaLaunchHostFunc"), None);
    }

    #[test]
    fn times_that_cannot_be_are_counted() {
        let mut damage = Damage::default();
        assert_eq!(damage.span(Some(1.5), Some(2.0)), Some((2, 2)));
        assert_eq!(damage.span(None, Some(2.0)), None);
        assert_eq!(damage.span(Some(1.0), Some(-2.0)), None);
        assert_eq!(damage.span(Some(1e300), Some(2.0)), None);
        assert_eq!(
            (damage.without_time, damage.negative, damage.out_of_range),
            (1, 1, 1)
        );
    }
}
