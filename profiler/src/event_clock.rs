//! Times on a GPU's own clock, by CUDA events in the stream.

use std::sync::Arc;

use stepscope_device::driver::{Event, Stream};

use crate::clock::DeviceClock;

/// Marks a stream with CUDA events, which are made once and used again in every step. Their resolution is about half a
/// microsecond; each costs the stream about as much.
#[derive(Debug)]
pub struct EventClock {
    stream: Arc<Stream>,
    events: Vec<Event>,
    used: usize,
}

impl EventClock {
    /// A clock for what runs in `stream`.
    pub fn new(stream: &Arc<Stream>) -> EventClock {
        EventClock {
            stream: Arc::clone(stream),
            events: Vec::new(),
            used: 0,
        }
    }
}

impl DeviceClock for EventClock {
    fn restart(&mut self) {
        self.used = 0;
    }

    fn mark(&mut self) -> Option<usize> {
        if self.used == self.events.len() {
            let event = Event::with_time(self.stream.context()).ok()?;
            self.events.push(event);
        }
        let index = self.used;
        self.events.get(index)?.record(&self.stream).ok()?;
        self.used += 1;
        Some(index)
    }

    fn elapsed_ns(&self, from: usize, to: usize) -> Option<u64> {
        let (from, to) = (self.events.get(from)?, self.events.get(to)?);
        let milliseconds = to.elapsed_ms(from).ok()?;
        Some((milliseconds * 1e6).round() as u64)
    }
}
