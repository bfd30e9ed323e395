//! Times from CUPTI's records of every kernel.

use stepscope_device::cupti::{Activity, Graphs, Session};

use crate::activity::{Span, Trace, Tracer};

/// Takes the trace of each step from a recording of CUPTI's. Spans reach CUPTI as numbers that it keeps beside each call.
#[derive(Debug)]
pub struct CuptiTracer {
    recording: Box<dyn Recording>,
    step: u32,
    begin_ns: u64,
    /// Spans entered and not left.
    depth: usize,
    /// What went wrong first in this step.
    problem: Option<String>,
}

/// What of a [`Session`] a tracer needs; each error is a sentence.
trait Recording: std::fmt::Debug + Send {
    fn enter(&mut self, span: u64) -> Result<(), String>;
    fn leave(&mut self) -> Result<u64, String>;
    fn now_ns(&self) -> Result<u64, String>;
    fn take(&mut self) -> Result<Activity, String>;
    fn take_all(&mut self) -> Result<Activity, String>;
    fn set(&mut self, on: bool) -> Result<(), String>;
}

fn sentence<T>(outcome: Result<T, stepscope_device::Error>) -> Result<T, String> {
    outcome.map_err(|error| error.to_string())
}

impl Recording for Session {
    fn enter(&mut self, span: u64) -> Result<(), String> {
        sentence(Session::enter(self, span))
    }

    fn leave(&mut self) -> Result<u64, String> {
        sentence(Session::leave(self))
    }

    fn now_ns(&self) -> Result<u64, String> {
        sentence(Session::now_ns(self))
    }

    fn take(&mut self) -> Result<Activity, String> {
        sentence(Session::take(self))
    }

    fn take_all(&mut self) -> Result<Activity, String> {
        sentence(Session::take_all(self))
    }

    fn set(&mut self, on: bool) -> Result<(), String> {
        sentence(match on {
            true => self.resume(Graphs::Nodes),
            false => self.pause(),
        })
    }
}

impl CuptiTracer {
    /// A tracer of what `session` records.
    pub fn new(session: Session) -> CuptiTracer {
        CuptiTracer::of(Box::new(session))
    }

    fn of(recording: Box<dyn Recording>) -> CuptiTracer {
        CuptiTracer {
            recording,
            step: 0,
            begin_ns: 0,
            depth: 0,
            problem: None,
        }
    }

    /// The value, or nothing and a note of what went wrong.
    fn note<T>(&mut self, outcome: Result<T, String>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(why) => {
                self.problem.get_or_insert(why);
                None
            }
        }
    }

    /// Leaves what a step that failed has left open.
    fn leave_all(&mut self) {
        while self.depth > 0 {
            self.leave();
        }
    }
}

impl Tracer for CuptiTracer {
    fn begin(&mut self, step: u32) {
        self.leave_all();
        self.problem = None;
        self.step = step;
        self.enter(Span::Step);
        let now = self.recording.now_ns();
        self.begin_ns = self.note(now).unwrap_or(0);
    }

    fn enter(&mut self, span: Span) {
        let entered = self.recording.enter(span.pack(self.step));
        if self.note(entered).is_some() {
            self.depth += 1;
        }
    }

    fn leave(&mut self) {
        if self.depth == 0 {
            return; // it was not entered, which has been noted
        }
        self.depth -= 1;
        let left = self.recording.leave();
        self.note(left);
    }

    fn set_recording(&mut self, on: bool) -> Result<(), String> {
        self.leave_all();
        self.recording.set(on)
    }

    fn end(&mut self, launched: u64) -> Result<Trace, String> {
        let now = self.recording.now_ns();
        let end_ns = self.note(now).unwrap_or(self.begin_ns);
        self.leave_all();
        let taken = self.recording.take();
        let mut activity = self.note(taken).unwrap_or_default();
        // Kernels between the steps, which read the clock, are not of this one.
        let of_step = |start_ns: u64| start_ns == 0 || start_ns >= self.begin_ns;
        let kernels = activity.kernels.iter().filter(|k| of_step(k.start_ns));
        if (kernels.count() as u64) < launched {
            // A buffer with a record that is not complete stays behind.
            let rest = self.recording.take_all();
            activity.append(self.note(rest).unwrap_or_default());
        }
        match self.problem.take() {
            Some(problem) => Err(problem),
            None => Ok(Trace {
                activity,
                window_ns: [self.begin_ns, end_ns],
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use stepscope_device::cupti::Kernel;

    use super::*;

    #[derive(Debug, Default)]
    struct Seen {
        spans: Vec<u64>,
        entered: Vec<u64>,
        /// Kernels that come at once, and only when forced.
        kernels: [usize; 2],
        time: u64,
        /// Kernels begin so long before now.
        early: u64,
        fails: bool,
    }

    #[derive(Debug, Clone, Default)]
    struct Scripted(Arc<Mutex<Seen>>);

    impl Scripted {
        fn with<T>(&self, f: impl FnOnce(&mut Seen) -> T) -> T {
            f(&mut self.0.lock().unwrap())
        }

        fn kernels(&self, index: usize) -> Activity {
            let count = self.with(|seen| std::mem::take(&mut seen.kernels[index]));
            let start = self.with(|seen| seen.time - seen.early.min(seen.time - 1));
            let kernel = Kernel {
                name: Arc::from("k"),
                start_ns: start,
                end_ns: start + 1,
                device: 0,
                context: 0,
                stream: 0,
                grid: [1; 3],
                block: [1; 3],
                registers: 0,
                shared_bytes: [0; 2],
                correlation: 1,
                node: None,
            };
            Activity {
                kernels: vec![kernel; count],
                ..Activity::default()
            }
        }
    }

    impl Recording for Scripted {
        fn enter(&mut self, span: u64) -> Result<(), String> {
            self.with(|seen| {
                seen.entered.push(span);
                match seen.fails {
                    true => Err("CUPTI gave up".to_owned()),
                    false => {
                        seen.spans.push(span);
                        Ok(())
                    }
                }
            })
        }

        fn leave(&mut self) -> Result<u64, String> {
            self.with(|seen| seen.spans.pop())
                .ok_or("no span".to_owned())
        }

        fn now_ns(&self) -> Result<u64, String> {
            Ok(self.with(|seen| {
                seen.time += 100;
                seen.time
            }))
        }

        fn take(&mut self) -> Result<Activity, String> {
            Ok(self.kernels(0))
        }

        fn take_all(&mut self) -> Result<Activity, String> {
            Ok(self.kernels(1))
        }

        fn set(&mut self, _on: bool) -> Result<(), String> {
            Ok(())
        }
    }

    #[test]
    fn a_step_is_traced_between_its_ends_and_forced_only_where_kernels_are_missing() {
        let script = Scripted::default();
        let mut tracer = CuptiTracer::of(Box::new(script.clone()));
        for (kernels, launched, expected) in [([3, 1], 3, 3), ([2, 1], 3, 3), ([0, 0], 3, 0)] {
            script.with(|seen| seen.kernels = kernels);
            let before = script.with(|seen| seen.time);
            tracer.begin(9);
            tracer.enter(Span::Operation(0));
            tracer.leave();
            let trace = tracer.end(launched).unwrap();
            assert_eq!(trace.activity.kernels.len(), expected);
            assert_eq!(trace.window_ns, [before + 100, before + 200]);
            assert!(script.with(|seen| seen.spans.is_empty()));
        }
        // Kernels from before the step do not stand in for those that are missing.
        script.with(|seen| (seen.kernels, seen.early) = ([3, 2], 1000));
        tracer.begin(10);
        assert_eq!(tracer.end(3).unwrap().activity.kernels.len(), 5);
        let entered = script.with(|seen| seen.entered[..2].to_vec());
        assert_eq!(entered, [Span::Step.pack(9), Span::Operation(0).pack(9)]);
    }

    #[test]
    fn what_a_failed_step_left_open_is_closed_before_the_next() {
        let script = Scripted::default();
        let mut tracer = CuptiTracer::of(Box::new(script.clone()));
        tracer.begin(1);
        tracer.enter(Span::Stretch(0));
        tracer.begin(2);
        assert_eq!(script.with(|seen| seen.spans.clone()), [Span::Step.pack(2)]);
        tracer.enter(Span::Stretch(0));
        tracer.set_recording(false).unwrap();
        assert!(script.with(|seen| seen.spans.is_empty()));
    }

    #[test]
    fn the_first_thing_that_goes_wrong_is_why_there_is_no_trace() {
        let script = Scripted::default();
        let mut tracer = CuptiTracer::of(Box::new(script.clone()));
        tracer.begin(1);
        script.with(|seen| seen.fails = true);
        tracer.enter(Span::Stretch(0));
        tracer.leave(); // of what was not entered
        script.with(|seen| seen.fails = false);
        assert_eq!(tracer.end(0), Err("CUPTI gave up".to_owned()));
        tracer.begin(2);
        assert!(tracer.end(0).is_ok());
    }
}
