//! How often the gate is wrong: on simulated noise, and on recorded processes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use stepscope_profiler::Timer;
use stepscope_profiler::gate::{
    Observation, Observed, Options, Samples, Select, Thresholds, Verdict, chance_of_gap, compare,
    judge,
};
use support::rates::{self, Random};
use support::steps::{observed, record};

const RUNS: usize = 200;

/// The noise of a measurement that NVBench accepts, and what lies around it: steps deviate by 0.5 % (its `stdrel` criterion stops
/// at that), one in fifty is disturbed and takes 5 to 50 % longer, and processes of one build differ by 0.25 %, which is ours to
/// assume.
fn process(random: &mut Random, slowdown: f64) -> Observed {
    let of_process = 1.0 + 0.0025 * random.normal() + slowdown;
    let mut time = |base: f64| {
        let disturbed = random.uniform() < 0.02;
        let longer = if disturbed {
            0.05 + 0.45 * random.uniform()
        } else {
            0.0
        };
        (base * of_process * (1.0 + 0.005 * random.normal() + longer)) as u64
    };
    let repetitions: Vec<Vec<u64>> = (0..20)
        .map(|_| {
            let mut times = vec![time(8e6), time(2e6)];
            times.extend((0..8).map(|_| time(1e6)));
            times
        })
        .collect();
    observed("simulated", &record(&repetitions))
}

/// In how many of 200 comparisons of `side` processes with as many, `slowdown` planted, a step comes out SLOW, FAST.
fn simulate(side: usize, slowdown: f64, with_null: bool) -> [usize; 2] {
    let mut random = Random(1);
    let mut group =
        |slowdown| -> Vec<Observed> { (0..side).map(|_| process(&mut random, slowdown)).collect() };
    let options = Options {
        select: Select::Steps,
        ..Options::default()
    };
    let mut changes = [0, 0];
    for _ in 0..RUNS {
        let (base, head) = (group(0.0), group(slowdown));
        let null = with_null.then(|| group(0.0));
        let null = null.as_deref().map(|null| (base.as_slice(), null));
        let outcome = compare(&base, &head, null, &options).unwrap();
        let any = |verdict| outcome.rows.iter().any(|r| r.judgement.verdict == verdict);
        changes[0] += usize::from(any(Verdict::Slow));
        changes[1] += usize::from(any(Verdict::Fast));
    }
    changes
}

#[test]
fn no_false_alarm_in_200_simulated_null_runs() {
    assert_eq!(simulate(1, 0.0, false), [0, 0]);
    assert_eq!(simulate(1, 0.0, true), [0, 0]);
    assert_eq!(simulate(8, 0.0, false), [0, 0]);
}

#[test]
fn a_planted_3_percent_is_found() {
    for (side, with_null) in [(1, false), (1, true), (8, false), (8, true)] {
        let [slow, fast] = simulate(side, 0.03, with_null);
        println!("{side} a side, null control {with_null}: {slow} of {RUNS} SLOW");
        assert!(
            slow * 100 >= RUNS * 95,
            "{slow} of {RUNS} with {side} a side"
        );
        assert_eq!(fast, 0);
    }
}

/// A clock that nobody locks moves by 6 % from one run to the next. In time that looks like a change; in cycles it does not.
#[test]
fn a_moving_clock_is_no_change() {
    let mut random = Random(2);
    let mut side = |slowdown: f64| {
        let clock = 1.98e9 * (1.0 - 0.06 * random.uniform());
        let cycles = |r: &mut Random| 2e6 * (1.0 + slowdown + 0.005 * r.normal());
        let times_ns = (0..100)
            .map(|_| cycles(&mut random) / clock * 1e9)
            .collect();
        Samples {
            times_ns,
            clocks_hz: Some(vec![clock; 100]),
            timer: Timer::Event,
            observation: Observation::Step,
        }
    };
    let (mut in_time, mut confirmed) = (0, 0);
    for _ in 0..RUNS {
        let (base, head) = (side(0.0), side(0.0));
        let judgement = judge(&base, &head, &Thresholds::default());
        confirmed += usize::from(judgement.verdict.is_change());
        let without = |samples: &Samples| Samples {
            clocks_hz: None,
            ..samples.clone()
        };
        let judgement = judge(&without(&base), &without(&head), &Thresholds::default());
        in_time += usize::from(judgement.verdict.is_change());
    }
    assert!(
        in_time > RUNS / 10,
        "the clock alone moved {in_time} intervals apart"
    );
    assert_eq!(confirmed, 0);
}

/// The bound holds for any distribution; with one without noise to speak of a gap is as likely as it can be.
#[test]
fn chance_makes_gaps_as_often_as_counted() {
    let mut random = Random(3);
    for side in [3, 6, 8] {
        let mut draw = || Samples {
            times_ns: (0..side).map(|_| 1.0 + random.uniform()).collect(),
            clocks_hz: None,
            timer: Timer::Wall,
            observation: Observation::Process,
        };
        let thresholds = Thresholds {
            gap: 0.0,
            min_processes: 2,
            ..Thresholds::default()
        };
        let runs = 40_000;
        let slow = (0..runs)
            .filter(|_| judge(&draw(), &draw(), &thresholds).verdict == Verdict::Slow)
            .count();
        let (expected, found) = (chance_of_gap(side, side), slow as f64 / f64::from(runs));
        let deviation = (expected / f64::from(runs)).sqrt();
        assert!(
            (found - expected).abs() < 4.0 * deviation,
            "{side} a side: {found} instead of {expected}"
        );
    }
}

#[derive(Deserialize)]
struct Recorded {
    sets: Vec<Set>,
}

#[derive(Deserialize)]
struct Set {
    name: String,
    unit_ns: u64,
    processes: Vec<RecordedProcess>,
}

#[derive(Deserialize)]
struct RecordedProcess {
    prefill: Vec<u64>,
    decode: Vec<Vec<u64>>,
}

/// The tables in docs/gate.md are what the rule makes of the recorded processes.
#[test]
fn the_documented_false_alarm_rates_are_measured() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let data: PathBuf = root.join("tests/data/gate/cpu.json");
    let recorded: Recorded = serde_json::from_slice(&fs::read(data).unwrap()).unwrap();
    let documented = fs::read_to_string(root.join("../docs/gate.md")).unwrap();
    let mut undocumented = Vec::new();
    for set in recorded.sets {
        let processes: Vec<Observed> = set
            .processes
            .iter()
            .map(|process| {
                let repetitions = process.prefill.iter().zip(&process.decode);
                let repetitions: Vec<Vec<u64>> = repetitions
                    .map(|(prefill, decode)| {
                        // The first decode step is not in the file, nor in the comparison.
                        let steps = [*prefill, decode[0]]
                            .into_iter()
                            .chain(decode.iter().copied());
                        steps.map(|units| units * set.unit_ns).collect()
                    })
                    .collect();
                observed(&set.name, &record(&repetitions))
            })
            .collect();
        let table = rates::table(&processes, Select::Steps, &rates::SLOWDOWNS);
        println!("{}\n{table}\n", set.name);
        if !documented.contains(&table) {
            undocumented.push(set.name);
        }
    }
    assert_eq!(
        undocumented, [""; 0],
        "docs/gate.md lacks the tables above of these"
    );
}
