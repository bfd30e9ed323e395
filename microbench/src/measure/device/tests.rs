//! All of it on the emulated device, whose numbers mean nothing and are never asked for: that everything is launched in its order and
//! as often as it should be, and that nothing hangs.

use stepscope_device::arguments;
use stepscope_device::driver::{DevicePointer, Kernel, Launch};

use super::super::{Bench, L2, Measured, Rule, Stopped, Work};
use super::*;
use crate::testing::emulated;

arguments! {
    struct CountArguments {
        runs: DevicePointer,
        copy: u32,
    }
}

/// A kernel that counts how often it ran on each copy.
struct Counter<'a> {
    cuda: &'a Cuda,
    kernel: Kernel<CountArguments>,
    runs: DeviceBuffer<u32>,
    bytes: u64,
    is_wrong: bool,
    checks: usize,
    /// What the host asked for, by copy.
    asked: Vec<usize>,
    restored: usize,
}

impl<'a> Counter<'a> {
    fn new(cuda: &'a Cuda, copies: usize, bytes: u64) -> Counter<'a> {
        let source = r#"extern "C" __global__ void count(unsigned *runs, unsigned copy) { runs[copy] += 1; }"#;
        let (module, _) = cuda.load(&Program::new("count.cu", source)).unwrap();
        let mut runs = DeviceBuffer::new(cuda.context(), "counts", copies).unwrap();
        runs.fill(cuda.stream(), 0).unwrap();
        let function = module.function("count").unwrap();
        Counter {
            cuda,
            kernel: function.with_arguments().unwrap(),
            runs,
            bytes,
            is_wrong: false,
            checks: 0,
            asked: vec![0; copies],
            restored: 0,
        }
    }

    fn runs(&self) -> Vec<u32> {
        let mut runs = vec![0; self.runs.len()];
        self.runs.read(self.cuda.stream(), 0, &mut runs).unwrap();
        runs
    }
}

impl Subject for Counter<'_> {
    fn copies(&self) -> usize {
        self.asked.len()
    }

    fn launch(&mut self, copy: usize) -> Result<(), Error> {
        self.asked[copy] += 1;
        let arguments = CountArguments {
            runs: self.runs.pointer(),
            copy: copy as u32,
        };
        // SAFETY: `copy` is below the number of counts, as indexing just now showed; they live as long as `self`.
        unsafe {
            self.cuda
                .launch(&self.kernel, &Launch::of_blocks(1, 1), &arguments)?
        };
        Ok(())
    }

    fn restore(&mut self) -> Result<(), Error> {
        self.restored += 1;
        Ok(())
    }

    fn check(&mut self) -> Result<(), Error> {
        self.checks += 1;
        assert_eq!(
            self.runs(),
            vec![1; self.asked.len()],
            "each copy ran once before the check"
        );
        match self.is_wrong {
            false => Ok(()),
            true => Err(Error::Wrong("element 3 is NaN".to_owned())),
        }
    }

    fn work(&self) -> Work {
        Work {
            flops: 0,
            bytes: self.bytes,
        }
    }
}

fn settings(l2: L2) -> Settings {
    Settings {
        l2,
        rule: Rule::Samples(12),
        // However busy the machine is.
        time_limit: Duration::from_secs(3600),
        ..Settings::default()
    }
}

#[test]
fn an_emulated_device_checks_and_has_no_time() {
    let Some((cuda, _turn)) = emulated() else {
        return;
    };
    let bench = Bench::new(&cuda).unwrap();
    let mut subject = Counter::new(&cuda, 3, 0);
    let measured = bench.measure(&mut subject, &settings(L2::Cold)).unwrap();
    assert!(matches!(measured, Measured::Untimed(why) if why.contains("emulated")));
    assert_eq!((subject.checks, subject.runs()), (1, vec![1; 3]));

    let (mut a, mut b) = (Counter::new(&cuda, 3, 0), Counter::new(&cuda, 2, 0));
    let both = bench
        .measure_pair([&mut a, &mut b], &settings(L2::Warm))
        .unwrap();
    assert!(both.iter().all(|measured| measured.series().is_none()));
    assert_eq!((a.runs(), b.runs()), (vec![1; 3], vec![1; 2]));
}

#[test]
fn wrong_results_end_it() {
    let Some((cuda, _turn)) = emulated() else {
        return;
    };
    let bench = Bench::new(&cuda).unwrap();
    let (mut right, mut wrong) = (Counter::new(&cuda, 2, 0), Counter::new(&cuda, 2, 0));
    wrong.is_wrong = true;
    let failed = bench.measure_pair([&mut right, &mut wrong], &settings(L2::Cold));
    assert!(matches!(failed, Err(Error::Wrong(_))));
    assert_eq!(right.runs(), [1, 1]);
}

/// The whole way of a GPU's measurement, with numbers that are thrown away.
#[test]
fn a_pair_goes_the_whole_way() {
    let Some((cuda, _turn)) = emulated() else {
        return;
    };
    let bench = Bench::new(&cuda).unwrap();
    // So much that copies are rotated: a flush of the cache takes the emulated device a while.
    let bytes = 1 << 40;
    let (mut a, mut b) = (Counter::new(&cuda, 3, bytes), Counter::new(&cuda, 2, bytes));
    let [ours, theirs] = bench
        .time(
            &mut [&mut a as &mut dyn Subject, &mut b],
            &settings(L2::Cold),
        )
        .unwrap();
    for series in [&ours, &theirs] {
        assert_eq!(series.samples.len(), 12);
        assert!(series.set_aside.is_empty());
        assert_eq!(series.stopped, Some(Stopped::SampleCount));
        assert_eq!(series.timer, stepscope_profiler::Timer::Event);
        assert!(!series.launch_hidden, "nothing can be held there");
    }
    assert_eq!([ours.l2, theirs.l2], [Some(CacheState::Rotated); 2]);
    // Everything that was asked for ran: within graphs each replay again.
    let launches = ours.launches_per_sample;
    let ran: u32 = a.runs().iter().sum();
    match launches {
        1 => assert_eq!(ran as usize, ESTIMATES + 12 + ESTIMATES),
        _ => assert_eq!(ran as usize, 2 * ESTIMATES + 13 * launches),
    }
}

/// Samples by plans of the test's.
fn sampled(cuda: &Cuda, subject: &mut Counter<'_>, plan: Plan, samples: usize) {
    let mut rig = Rig::new(cuda).unwrap();
    let mut subjects = [subject as &mut dyn Subject];
    let mut of = Samples::planned(cuda, &mut rig, &mut subjects, vec![plan]).unwrap();
    for _ in 0..samples {
        let sample = of.sample(0).unwrap().unwrap();
        assert!(sample.time_ns >= 0.0);
    }
}

fn plan_of(l2: L2, copies: usize, bytes: u64, launch_ns: f64) -> Plan {
    let extent = Extent {
        copies,
        bytes,
        launch_ns,
    };
    let [plan] = plans(l2, 1 << 20, [extent]);
    plan
}

#[test]
fn copies_are_taken_in_turn() {
    let Some((cuda, _turn)) = emulated() else {
        return;
    };
    let rotated = plan_of(L2::Cold, 4, 8 << 20, 1e5);
    assert_eq!((rotated.launches, rotated.l2), (1, CacheState::Rotated));
    let mut subject = Counter::new(&cuda, 4, 0);
    sampled(&cuda, &mut subject, rotated, 8);
    assert_eq!(subject.runs(), [2, 2, 2, 2]);

    let flushed = plan_of(L2::Cold, 4, 0, 1e5);
    assert_eq!(flushed.l2, CacheState::Flushed);
    let mut subject = Counter::new(&cuda, 4, 0);
    sampled(&cuda, &mut subject, flushed, 4);
    assert_eq!(subject.runs(), [1, 1, 1, 1]);
}

#[test]
fn a_warm_cache_has_a_launch_before_the_one_that_is_timed() {
    let Some((cuda, _turn)) = emulated() else {
        return;
    };
    let mut subject = Counter::new(&cuda, 4, 0);
    sampled(&cuda, &mut subject, plan_of(L2::Warm, 4, 0, 1e5), 3);
    assert_eq!(subject.runs(), [6, 0, 0, 0]);
    assert_eq!(subject.restored, 3, "before each sample");
}

#[test]
fn short_launches_are_replayed_in_a_graph() {
    let Some((cuda, _turn)) = emulated() else {
        return;
    };
    let short = plan_of(L2::Cold, 3, 8 << 20, 5e3);
    assert_eq!(short.launches, 201);
    let mut subject = Counter::new(&cuda, 3, 0);
    sampled(&cuda, &mut subject, short, 2);
    // One replay before the first sample, and one for each.
    assert_eq!(subject.runs(), [3 * 67; 3]);
    assert_eq!(subject.asked, [67; 3], "recorded once");
    assert_eq!(subject.restored, 1 + 2, "before it is recorded, too");
}

/// A launch that fails behind a held stream.
struct Failing;

impl Subject for Failing {
    fn launch(&mut self, _copy: usize) -> Result<(), Error> {
        Err(Error::Unusable("there is no such kernel".to_owned()))
    }
    fn check(&mut self) -> Result<(), Error> {
        Ok(())
    }
    fn work(&self) -> Work {
        Work::default()
    }
}

#[test]
fn a_launch_that_fails_lets_the_stream_go() {
    let Some((cuda, _turn)) = emulated() else {
        return;
    };
    let mut rig = Rig::new(&cuda).unwrap();
    let mut failing = Failing;
    let mut subjects = [&mut failing as &mut dyn Subject];
    let plan = plan_of(L2::Warm, 1, 0, 1e5);
    let mut of = Samples::planned(&cuda, &mut rig, &mut subjects, vec![plan]).unwrap();
    assert!(matches!(of.sample(0), Err(Error::Unusable(_))));
    cuda.synchronize().unwrap();
    let short = plan_of(L2::Warm, 1, 0, 1e3);
    let refused = Samples::planned(&cuda, &mut rig, &mut subjects, vec![short]);
    assert!(matches!(refused.err(), Some(Error::Unusable(_))));
    // Nothing is left of the recording that was begun.
    assert!(!cuda.stream().is_capturing().unwrap());
}

#[test]
fn a_stream_that_nobody_lets_go_goes_on_by_itself() {
    let Some((cuda, _turn)) = emulated() else {
        return;
    };
    let mut rig = Rig::new(&cuda).unwrap();
    assert!(!rig.hold.timed_out());
    rig.hold.set_timeout(Duration::from_micros(2));
    rig.hold.hold_alone(&cuda).unwrap();
    cuda.synchronize().unwrap();
    assert!(rig.hold.timed_out());
    // The next hold is another one.
    drop(rig.hold.hold(&cuda).unwrap());
    cuda.synchronize().unwrap();
    assert!(!rig.hold.timed_out());
}

#[test]
fn clocks_are_read_on_one_multiprocessor() {
    let Some((cuda, _turn)) = emulated() else {
        return;
    };
    let mut rig = Rig::new(&cuda).unwrap();
    // Both readings came while it was made; they count instructions there, so they are no clock.
    assert_eq!(rig.clocks.clock_hz(&cuda).unwrap(), None);
    let readings = rig.clocks.readings(&cuda);
    assert!(readings.iter().all(|&reading| reading > 0), "{readings:?}");
}
