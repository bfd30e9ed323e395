//! How often the gate alarms on recorded processes of one build, and how often it finds a slowdown that was planted into them.

use stepscope_profiler::gate::{Observed, Options, Select, Verdict, compare};
use stepscope_profiler::report::Table;

/// Random draws per figure where not all choices are gone through.
const DRAWS: usize = 1000;
/// What is planted by default: nothing, and three slowdowns.
pub const SLOWDOWNS: [f64; 4] = [0.0, 0.03, 0.10, 0.25];

/// A table: how processes were held against each other, and in how many percent of such comparisons a row came out SLOW.
pub fn table(processes: &[Observed], select: Select, slowdowns: &[f64]) -> String {
    let mut processes = processes.to_vec();
    if select == Select::Steps {
        for process in &mut processes {
            process.series.retain(|series| series.operation.is_none());
        }
    }
    let slowed: Vec<Vec<Observed>> = slowdowns
        .iter()
        .map(|&slowdown| processes.iter().map(|p| slower(p, slowdown)).collect())
        .collect();
    let mut header = vec![
        "held against each other".to_owned(),
        "comparisons".to_owned(),
    ];
    header.extend(slowdowns.iter().map(|&slowdown| match slowdown {
        0.0 => "nothing changed\nSLOW %".to_owned(),
        _ => format!("+{:.0} % planted\nSLOW %", slowdown * 100.0),
    }));
    let mut table = Table::new("lrrrrr", header);
    let mut row = |name: &str, choices: &[[Vec<usize>; 3]]| {
        let mut cells = vec![name.to_owned(), choices.len().to_string()];
        for slowed in &slowed {
            let slow = choices
                .iter()
                .filter(|c| is_slow(c, &processes, slowed, select));
            cells.push(format!(
                "{:.1}",
                100.0 * slow.count() as f64 / choices.len() as f64
            ));
        }
        table.row(cells);
    };
    let count = processes.len();
    let pairs: Vec<[Vec<usize>; 3]> = (0..count)
        .flat_map(|a| (0..count).map(move |b| [vec![a], vec![b], vec![]]))
        .filter(|[a, b, _]| a != b)
        .collect();
    row("1 process and 1", &pairs);
    let mut random = Random(20_261_124);
    for (name, sizes) in [
        ("1 and 1, with a null control", [1, 1, 1]),
        ("6 processes and 6", [6, 6, 0]),
        ("6 and 6, with a null control", [6, 6, 6]),
        ("8 processes and 8", [8, 8, 0]),
        ("12 processes and 12", [12, 12, 0]),
    ] {
        if sizes.iter().sum::<usize>() <= count {
            let draws: Vec<_> = (0..DRAWS).map(|_| random.groups(count, sizes)).collect();
            row(name, &draws);
        }
    }
    table.render()
}

fn is_slow(
    [base, head, null]: &[Vec<usize>; 3],
    processes: &[Observed],
    slowed: &[Observed],
    select: Select,
) -> bool {
    let pick = |from: &[Observed], indices: &[usize]| -> Vec<Observed> {
        indices.iter().map(|&i| from[i].clone()).collect()
    };
    let (base, head, null) = (
        pick(processes, base),
        pick(slowed, head),
        pick(processes, null),
    );
    let options = Options {
        select,
        ..Options::default()
    };
    let null = (!null.is_empty()).then_some((base.as_slice(), null.as_slice()));
    let outcome = compare(&base, &head, null, &options).unwrap();
    outcome.verdict() == Verdict::Slow
}

/// A process as it would have been if every step took `slowdown` longer.
fn slower(process: &Observed, slowdown: f64) -> Observed {
    let mut slower = process.clone();
    let times = slower.series.iter_mut().flat_map(|s| &mut s.repetitions);
    for time in times.flatten() {
        *time = (*time as f64 * (1.0 + slowdown)).round() as u64;
    }
    slower
}

/// SplitMix64: the same numbers on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in 0..1.
    pub fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Normal with mean 0 and deviation 1.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Disjoint groups of the given sizes out of `0..count`.
    fn groups(&mut self, count: usize, sizes: [usize; 3]) -> [Vec<usize>; 3] {
        let mut all: Vec<usize> = (0..count).collect();
        for i in (1..count).rev() {
            all.swap(i, (self.next() % (i as u64 + 1)) as usize);
        }
        sizes.map(|size| all.split_off(all.len() - size))
    }
}
