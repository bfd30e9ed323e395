//! The events that a kernel wrote while it ran, and a trace of them: lanes of each multiprocessor.
//!
//! `timeline.cuh` has the other half. **Invariant:** the times of an emulated device are none; whoever writes a trace has asked before.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use stepscope_device::driver::{Module, Stream};

use crate::Error;

/// What kernels include as `timeline.cuh`.
pub const HEADER: &str = stepscope_kernels::cuda::catalog::TIMELINE_TEXT;
/// Events that there is room for: `TIMELINE_CAPACITY` of the header.
const CAPACITY: usize = 65_536;
const EVENTS: &str = "stepscope_timeline_events";
const COUNT: &str = "stepscope_timeline_count";

/// Something that a warp did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// `%globaltimer`, nanoseconds.
    pub time_ns: u64,
    /// The block, x fastest.
    pub block: u32,
    /// The multiprocessor.
    pub sm: u16,
    /// The warp of the block.
    pub warp: u8,
    /// What it does.
    pub role: u8,
    /// Whether it ends.
    pub is_end: bool,
}

/// All events of a launch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Events {
    /// In the order in which they were written.
    pub events: Vec<Event>,
    /// Events for which there was no room.
    pub lost: usize,
}

/// A part of a warp's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its beginning.
    pub begin: Event,
    /// Its end, ns.
    pub end_ns: u64,
}

/// Events put together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spans {
    /// In the order of their ends.
    pub spans: Vec<Span>,
    /// Events without their other half.
    pub unpaired: usize,
}

impl Events {
    /// Forgets the events so far.
    ///
    /// # Errors
    /// The module was built without events, or the device failed.
    pub fn clear(module: &Module, stream: &Stream) -> Result<(), Error> {
        module
            .write_global(stream, COUNT, &[0_u32])
            .map_err(without)
    }

    /// The events that the kernels of `module` wrote.
    ///
    /// # Errors
    /// As [`Events::clear`].
    pub fn read(module: &Module, stream: &Stream) -> Result<Events, Error> {
        let mut count = [0_u32];
        module
            .read_global(stream, COUNT, &mut count)
            .map_err(without)?;
        let written = count[0] as usize;
        let mut words = vec![[0_u64; 2]; written.min(CAPACITY)];
        module.read_global(stream, EVENTS, &mut words)?;
        Ok(Events {
            events: words.into_iter().map(Event::of_words).collect(),
            lost: written.saturating_sub(CAPACITY),
        })
    }

    /// Each beginning with its end: those of a warp lie within one another.
    pub fn spans(&self) -> Spans {
        let mut open: BTreeMap<(u32, u8), Vec<Event>> = BTreeMap::new();
        let mut spans = Spans::default();
        for event in &self.events {
            let stack = open.entry((event.block, event.warp)).or_default();
            if !event.is_end {
                stack.push(*event);
                continue;
            }
            match stack.pop_if(|begin| begin.role == event.role) {
                Some(begin) => spans.spans.push(Span {
                    begin,
                    end_ns: event.time_ns,
                }),
                None => spans.unpaired += 1,
            }
        }
        spans.unpaired += open.values().map(Vec::len).sum::<usize>();
        spans
    }
}

fn without(error: stepscope_device::Error) -> Error {
    Error::Unusable(format!(
        "the kernel writes no events: #include \"timeline.cuh\" and call timeline_begin and timeline_end ({error})"
    ))
}

impl Event {
    /// As the header's struct lies in memory.
    fn of_words([time_ns, rest]: [u64; 2]) -> Event {
        let what = (rest >> 56) as u8;
        Event {
            time_ns,
            block: rest as u32,
            sm: (rest >> 32) as u16,
            warp: (rest >> 48) as u8,
            role: what / 2,
            is_end: what % 2 == 1,
        }
    }
}

/// What a role is called.
pub fn role_name(roles: &[(u8, String)], role: u8) -> String {
    let known = roles.iter().find(|(number, _)| *number == role);
    known.map_or_else(|| format!("role {role}"), |(_, name)| name.clone())
}

/// A trace for Perfetto or chrome://tracing: a process for each multiprocessor, in it a lane for each warp of each block. Times begin
/// with the first event.
pub fn chrome_trace(spans: &Spans, roles: &[(u8, String)], what: &str) -> Value {
    let first = spans
        .spans
        .iter()
        .map(|span| span.begin.time_ns)
        .min()
        .unwrap_or(0);
    let micros = |ns: u64| (ns - first) as f64 / 1e3;
    let mut events = Vec::new();
    let mut lanes: BTreeMap<(u16, u32, u8), usize> = BTreeMap::new();
    for span in &spans.spans {
        let lane = (span.begin.sm, span.begin.block, span.begin.warp);
        lanes.insert(lane, 0);
    }
    for (index, (&(sm, block, warp), lane)) in lanes.iter_mut().enumerate() {
        *lane = index;
        events.push(
            json!({ "name": "thread_name", "ph": "M", "pid": sm, "tid": index,
            "args": { "name": format!("block {block} warp {warp}") } }),
        );
        events.push(
            json!({ "name": "thread_sort_index", "ph": "M", "pid": sm, "tid": index,
            "args": { "sort_index": index } }),
        );
        events.push(json!({ "name": "process_name", "ph": "M", "pid": sm,
            "args": { "name": format!("SM {sm}") } }));
    }
    for span in &spans.spans {
        let begin = span.begin;
        events.push(json!({
            "name": role_name(roles, begin.role),
            "ph": "X",
            "pid": begin.sm,
            "tid": lanes[&(begin.sm, begin.block, begin.warp)],
            "ts": micros(begin.time_ns),
            "dur": span.end_ns.saturating_sub(begin.time_ns) as f64 / 1e3,
            "args": { "block": begin.block, "warp": begin.warp },
        }));
    }
    json!({
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": { "what": what, "clock": "%globaltimer", "unpaired_events": spans.unpaired },
    })
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    fn event(time_ns: u64, block: u32, warp: u8, role: u8, is_end: bool) -> Event {
        Event {
            time_ns,
            block,
            sm: (block % 2) as u16,
            warp,
            role,
            is_end,
        }
    }

    #[test]
    fn words_are_the_fields_of_the_header() {
        let rest = 7 | 3 << 32 | 2 << 48 | 5 << 56;
        assert_eq!(
            Event::of_words([99, rest]),
            Event {
                time_ns: 99,
                block: 7,
                sm: 3,
                warp: 2,
                role: 2,
                is_end: true
            }
        );
    }

    #[test]
    fn beginnings_find_their_ends_within_a_warp() {
        let events = Events {
            events: vec![
                event(100, 0, 0, 0, false),
                event(110, 0, 0, 1, false),
                event(115, 0, 1, 1, false),
                event(120, 0, 0, 1, true),
                event(130, 0, 0, 0, true),
                event(140, 1, 0, 0, true),
            ],
            lost: 0,
        };
        let spans = events.spans();
        let times: Vec<_> = spans
            .spans
            .iter()
            .map(|s| (s.begin.role, s.begin.time_ns, s.end_ns))
            .collect();
        assert_eq!(times, [(1, 110, 120), (0, 100, 130)]);
        assert_eq!(spans.unpaired, 2); // a beginning of warp 1, an end of block 1
    }

    #[test]
    fn a_trace_has_a_process_for_each_multiprocessor() {
        let events = Events {
            events: vec![
                event(1000, 0, 0, 0, false),
                event(1500, 1, 0, 0, false),
                event(2000, 0, 0, 0, true),
                event(2500, 1, 0, 0, true),
            ],
            lost: 0,
        };
        let roles = [(0, "load".to_owned())];
        let trace = chrome_trace(&events.spans(), &roles, "test");
        let all = trace["traceEvents"].as_array().unwrap();
        let spans: Vec<_> = all.iter().filter(|e| e["ph"] == "X").collect();
        assert_eq!(spans.len(), 2);
        assert_eq!(
            (spans[1]["ts"].as_f64(), spans[1]["dur"].as_f64()),
            (Some(0.5), Some(1.0))
        );
        assert_eq!(
            (spans[1]["pid"].as_u64(), spans[1]["name"].as_str()),
            (Some(1), Some("load"))
        );
        assert_eq!(
            all.iter().filter(|e| e["name"] == "process_name").count(),
            2
        );
    }
}
