//! Times from CUPTI's records of every kernel.

use stepscope_device::cupti::Session;

use crate::activity::{Span, Trace, Tracer};

/// Takes the trace of each step from a recording of CUPTI's. Spans reach CUPTI as numbers that it keeps beside each call.
#[derive(Debug)]
pub struct CuptiTracer {
    session: Session,
    step: u32,
    begin_ns: u64,
    /// Spans entered and not left.
    depth: usize,
    /// What went wrong first in this step.
    problem: Option<String>,
}

impl CuptiTracer {
    /// A tracer of what `session` records.
    pub fn new(session: Session) -> CuptiTracer {
        CuptiTracer {
            session,
            step: 0,
            begin_ns: 0,
            depth: 0,
            problem: None,
        }
    }

    /// The value, or nothing and a note of what went wrong.
    fn note<T>(&mut self, outcome: Result<T, stepscope_device::Error>) -> Option<T> {
        outcome
            .map_err(|error| {
                self.problem.get_or_insert_with(|| error.to_string());
            })
            .ok()
    }
}

impl Tracer for CuptiTracer {
    fn begin(&mut self, step: u32) {
        // A step that failed may have left some open.
        while self.depth > 0 {
            self.leave();
        }
        self.problem = None;
        self.step = step;
        self.enter(Span::Step);
        let now = self.session.now_ns();
        self.begin_ns = self.note(now).unwrap_or(0);
    }

    fn enter(&mut self, span: Span) {
        let entered = self.session.enter(span.pack(self.step));
        if self.note(entered).is_some() {
            self.depth += 1;
        }
    }

    fn leave(&mut self) {
        if self.depth == 0 {
            return; // it was not entered, which has been noted
        }
        self.depth -= 1;
        let left = self.session.leave();
        self.note(left);
    }

    fn end(&mut self, launched: u64) -> Result<Trace, String> {
        let now = self.session.now_ns();
        let end_ns = self.note(now).unwrap_or(self.begin_ns);
        self.leave();
        let taken = self.session.take();
        let mut activity = self.note(taken).unwrap_or_default();
        if (activity.kernels.len() as u64) < launched {
            // A buffer with a record that is not complete stays behind.
            let rest = self.session.take_all();
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
