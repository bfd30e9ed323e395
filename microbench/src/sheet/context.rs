//! What probes share: the device, what was chosen, and how a measurement becomes a row.

use std::collections::BTreeMap;
use std::time::Instant;

use stepscope_kernels::cuda::Cuda;
use stepscope_profiler::Gpu;
use stepscope_profiler::device_sheet::{
    Claim, Group, Quantity, Row, RowTimer, Sample, Status, Unit, expected,
};

use super::Options;
use super::stamps::{Stamps, Took};
use crate::{Bench, Error, L2, Measured, Settings, Subject};

/// What an emulated device counted of one launch.
#[derive(Debug, Clone, Default)]
pub struct Counted {
    /// The kernel, as the compiler names it.
    pub kernel: String,
    /// How much of each quantity.
    pub of: BTreeMap<Quantity, u64>,
    /// What it found wrong.
    pub findings: Vec<String>,
}

/// Gives what was counted since it was last asked, in the order of the launches.
pub type Counts<'a> = Box<dyn FnMut() -> Vec<Counted> + 'a>;

/// What a probe is.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    pub(super) group: Group,
    pub(super) name: String,
    pub(super) title: String,
    pub(super) claim: String,
    pub(super) unit: Unit,
    pub(super) timer: RowTimer,
    pub(super) at: Option<f64>,
}

/// How much work a probe claims to do.
#[derive(Debug, Clone)]
pub(super) enum Claims {
    /// All launches together.
    Sum(Vec<(Quantity, u64)>),
    /// What the second launch does more than the first.
    Difference(Vec<(Quantity, u64)>),
}

/// What a probe gives.
#[derive(Debug, Default)]
pub(super) struct Values {
    pub(super) samples: Vec<Sample>,
    pub(super) set_aside: Vec<Sample>,
    pub(super) note: Option<String>,
}

impl Values {
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Values {
        let sample = |value| Sample {
            value,
            sm_clock_hz: None,
        };
        Values {
            samples: values.into_iter().map(sample).collect(),
            ..Values::default()
        }
    }
}

/// The device and what was chosen.
pub(super) struct Context<'a> {
    bench: &'a Bench<'a>,
    options: &'a Options,
    counts: Option<Counts<'a>>,
    seen: &'a mut dyn FnMut(&Row),
    gpu: Gpu,
    rows: Vec<Row>,
}

impl<'a> Context<'a> {
    pub(super) fn new(
        bench: &'a Bench<'a>,
        options: &'a Options,
        counts: Option<Counts<'a>>,
        seen: &'a mut dyn FnMut(&Row),
    ) -> Result<Context<'a>, Error> {
        let device = bench.cuda().context().device();
        // What expectations go by.
        let gpu = Gpu {
            name: device.name.clone(),
            uuid: device.uuid.clone(),
            compute_capability: device.compute_capability,
            multiprocessors: device.limits.multiprocessors,
            l2_bytes: device.limits.l2_bytes,
            memory_bytes: device.memory_bytes,
            clocks_khz: [device.limits.clock_khz, device.limits.memory_clock_khz],
            driver: String::new(),
            nvrtc: String::new(),
        };
        Ok(Context {
            bench,
            options,
            counts,
            seen,
            gpu,
            rows: Vec::new(),
        })
    }

    pub(super) fn cuda(&self) -> &'a Cuda {
        self.bench.cuda()
    }

    pub(super) fn is_emulated(&self) -> bool {
        self.cuda().context().device().is_emulated()
    }

    pub(super) fn is_quick(&self) -> bool {
        self.options.quick
    }

    /// A size for a GPU, or the small one for an emulated device.
    pub(super) fn sized<T>(&self, gpu: T, emulated: T) -> T {
        if self.is_emulated() { emulated } else { gpu }
    }

    /// Blocks of one each on every multiprocessor; few on an emulated device.
    pub(super) fn multiprocessors(&self) -> u32 {
        self.sized(self.cuda().context().device().limits.multiprocessors, 2)
    }

    /// How many samples are taken where the kernel counts its own cycles.
    pub(super) fn repetitions(&self) -> usize {
        match (self.is_emulated(), self.options.quick) {
            (true, _) => 1,
            (false, true) => 5,
            (false, false) => 15,
        }
    }

    pub(super) fn into_rows(self) -> Vec<Row> {
        self.rows
    }

    /// Runs a probe and keeps its row, whatever becomes of it.
    pub(super) fn probe(
        &mut self,
        probe: &Probe,
        claims: &Claims,
        measure: impl FnOnce(&Context<'a>) -> Result<Values, Error>,
    ) {
        let mut row = Row {
            group: probe.group,
            at: probe.at,
            claim: probe.claim.clone(),
            unit: probe.unit,
            ..Row::new(&probe.name, &probe.title)
        };
        if self
            .options
            .until
            .is_some_and(|until| Instant::now() >= until)
        {
            row.note = Some("no time is left".to_owned());
            return self.keep(row);
        }
        if let Some(counts) = &mut self.counts {
            counts(); // of what came before
        }
        let outcome = measure(self);
        let launches = self.counts.as_mut().map(|counts| counts());
        row.claims = claims.as_rows(launches.as_deref());
        let row = match outcome {
            Err(error) => {
                row.status = match error {
                    Error::Wrong(_) => Status::Wrong,
                    _ => Status::Failed,
                };
                row.note = Some(error.to_string());
                row
            }
            Ok(_) if self.is_emulated() => {
                let wrong = launches.and_then(|launches| complaint(&row.claims, &launches));
                row.status = if wrong.is_some() {
                    Status::Wrong
                } else {
                    Status::NoTime
                };
                row.note = wrong;
                row
            }
            Ok(values) => {
                row.timer = probe.timer;
                row.note = values.note;
                let expectation = match row.at {
                    None => expected(&self.gpu, &row.name),
                    Some(_) => None,
                };
                row.measured(values.samples, values.set_aside)
                    .held_against(expectation)
            }
        };
        self.keep(row);
    }

    /// A row for something that cannot be measured here.
    pub(super) fn skip(&mut self, probe: &Probe, why: impl Into<String>) {
        let row = Row {
            group: probe.group,
            at: probe.at,
            claim: probe.claim.clone(),
            unit: probe.unit,
            note: Some(why.into()),
            ..Row::new(&probe.name, &probe.title)
        };
        self.keep(row);
    }

    /// Rows for probes whose kernels or buffers could not be made.
    pub(super) fn without(&mut self, probes: &[Probe], error: &Error) {
        for probe in probes {
            let row = Row {
                group: probe.group,
                at: probe.at,
                claim: probe.claim.clone(),
                unit: probe.unit,
                status: Status::Failed,
                note: Some(error.to_string()),
                ..Row::new(&probe.name, &probe.title)
            };
            self.keep(row);
        }
    }

    fn keep(&mut self, row: Row) {
        (self.seen)(&row);
        self.rows.push(row);
    }

    /// Times `subject` from outside; a value is `amount` by the time of a launch in seconds.
    pub(super) fn rate(
        &self,
        subject: &mut dyn Subject,
        l2: L2,
        amount: f64,
    ) -> Result<Values, Error> {
        let of = |sample: &crate::Sample| Sample {
            value: amount / (sample.time_ns / 1e9),
            sm_clock_hz: sample.sm_clock_hz,
        };
        Ok(match self.bench.measure(subject, &self.settings(l2))? {
            Measured::Timed(series) => Values {
                samples: series.samples.iter().map(of).collect(),
                set_aside: series.set_aside.iter().map(of).collect(),
                note: None,
            },
            Measured::Untimed(_) => Values::default(),
        })
    }

    /// Few samples are enough: a launch of these takes a millisecond.
    fn settings(&self, l2: L2) -> Settings {
        let most = if self.is_quick() { 10 } else { 30 };
        #[allow(
            clippy::needless_update,
            reason = "what else there is to choose stays as it is"
        )]
        Settings {
            l2,
            most_samples: most,
            ..Settings::default()
        }
    }
}

impl Claims {
    pub(super) fn none() -> Claims {
        Claims::Sum(Vec::new())
    }

    /// With what was counted, where something counts.
    fn as_rows(&self, launches: Option<&[Counted]>) -> Vec<Claim> {
        let (Claims::Sum(claims) | Claims::Difference(claims)) = self;
        let of = |launch: &Counted, quantity| launch.of.get(&quantity).copied().unwrap_or(0);
        let claim = |&(quantity, claimed): &(Quantity, u64)| Claim {
            quantity,
            claimed,
            counted: launches.map(|launches| match (self, launches) {
                (Claims::Difference(_), [short, long]) => {
                    of(long, quantity).wrapping_sub(of(short, quantity))
                }
                // Of a difference that is none, no number is right.
                (Claims::Difference(_), _) => u64::MAX,
                (Claims::Sum(_), all) => all.iter().map(|launch| of(launch, quantity)).sum(),
            }),
        };
        claims.iter().map(claim).collect()
    }
}

/// Why what an emulated device counted is not what was claimed.
fn complaint(claims: &[Claim], launches: &[Counted]) -> Option<String> {
    if let Some(finding) = launches.iter().flat_map(|launch| &launch.findings).next() {
        return Some(format!("the emulated device found: {finding}"));
    }
    let wrong = claims
        .iter()
        .find(|claim| claim.counted != Some(claim.claimed))?;
    let names: Vec<&str> = launches
        .iter()
        .map(|launch| launch.kernel.as_str())
        .collect();
    Some(format!(
        "{:?}: {} claimed, {} counted in {}",
        wrong.quantity,
        wrong.claimed,
        wrong.counted.unwrap_or(0),
        names.join(", ")
    ))
}

/// Launches two kernels that differ by the length of their loop alone, the shorter one and the longer one in turn: `once` gets the
/// round and which of them it is to launch and wait for, and `check` is called behind the first launch of each. What comes out is what
/// each pair took: the loop around what is measured is in both, and not in the difference.
pub(super) fn pairs(
    context: &Context<'_>,
    stamps: &Stamps,
    mut once: impl FnMut(usize, usize) -> Result<(), Error>,
    mut check: impl FnMut(usize) -> Result<(), Error>,
) -> Result<Vec<[Took; 2]>, Error> {
    for which in [0, 1] {
        once(0, which)?;
        check(which)?;
    }
    let mut all = Vec::new();
    if context.is_emulated() {
        return Ok(all);
    }
    for round in 1..=context.repetitions() {
        let mut timed = |which| -> Result<Took, Error> {
            once(round, which)?;
            stamps.took(context.cuda())
        };
        let [short, long] = [timed(0)?, timed(1)?];
        if long.cycles <= short.cycles {
            return Err(Error::Unusable(format!(
                "a loop of twice the length took {:.0} cycles, the single one {:.0}: the clock of this device does not count",
                long.cycles, short.cycles
            )));
        }
        all.push([short, long]);
    }
    Ok(all)
}

/// `amount`, of the longer loop beyond the shorter one, by the cycles beyond.
pub(super) fn per_clock(pairs: &[[Took; 2]], amount: f64) -> Values {
    values(pairs, |cycles| amount / cycles)
}

/// The same, the other way round: cycles of one of `amount`.
pub(super) fn cycles_each(pairs: &[[Took; 2]], amount: f64) -> Values {
    values(pairs, |cycles| cycles / amount)
}

fn values(pairs: &[[Took; 2]], value: impl Fn(f64) -> f64) -> Values {
    let sample = |[short, long]: &[Took; 2]| Sample {
        value: value(long.cycles - short.cycles),
        sm_clock_hz: long.clock_hz,
    };
    Values {
        samples: pairs.iter().map(sample).collect(),
        ..Values::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(flops: u64) -> Counted {
        Counted {
            kernel: "k".to_owned(),
            of: [(Quantity::F32Flops, flops)].into_iter().collect(),
            findings: Vec::new(),
        }
    }

    #[test]
    fn claims_are_held_against_what_was_counted() {
        let claims = vec![(Quantity::F32Flops, 100)];
        let sum = Claims::Sum(claims.clone());
        let rows = sum.as_rows(Some(&[counted(60), counted(40)]));
        assert_eq!(complaint(&rows, &[]), None);
        let rows = sum.as_rows(Some(&[counted(60)]));
        let told = complaint(&rows, &[counted(60)]).unwrap();
        assert_eq!(told, "F32Flops: 100 claimed, 60 counted in k");
        let difference = Claims::Difference(claims);
        let rows = difference.as_rows(Some(&[counted(100), counted(200)]));
        assert_eq!(complaint(&rows, &[]), None);
        // A launch that is missing is no difference.
        let rows = difference.as_rows(Some(&[counted(100)]));
        assert!(complaint(&rows, &[]).is_some());
    }

    #[test]
    fn findings_are_complaints() {
        let launch = Counted {
            findings: vec!["a race".to_owned()],
            ..counted(0)
        };
        assert!(complaint(&[], &[launch]).unwrap().contains("a race"));
    }

    #[test]
    fn loops_are_taken_out_by_difference() {
        let took = |cycles| Took {
            cycles,
            clock_hz: Some(1e9),
        };
        // 10 cycles of loop, 2 for each of 128 and of 256.
        let pair = [[took(10.0 + 256.0), took(10.0 + 512.0)]];
        assert_eq!(per_clock(&pair, 128.0).samples[0].value, 0.5);
        assert_eq!(cycles_each(&pair, 128.0).samples[0].value, 2.0);
    }
}
