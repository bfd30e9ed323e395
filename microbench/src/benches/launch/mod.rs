//! Group `launch`: what a launch costs the host, by each way to the driver.
//!
//! Every way puts the same kernel, with the same six arguments, into a stream of the same device. What is timed is the host's thread:
//! up to [`BATCH`] launches in a row, which the queue of a GPU takes without making the host wait; they are waited for outside of the
//! time. On a GPU that is the cost of the way plus that of the driver. Without one the driver is
//! [`stepscope-stand-in`](https://github.com/stepscope/stepscope), which answers every call at once: what is left is the cost of the way alone.
//! An emulated device is not timed, since it runs the kernel within the call; in test mode it shows that each way really launches.
//!
//! This group is a bench of its own (`--bench launch`), because cust's functions are symbols that the program must have (feature
//! `cust`), and a program that has the emulator within itself has them twice.

mod cudarc;
mod ways;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stepscope_device::Kind;
use stepscope_device::driver::{Context, Driver, Stream};
use stepscope_profiler::microbench::Series;
use stepscope_profiler::quantity::significant;

use super::Surroundings;
use super::arguments::{Arguments, Mode};
use super::suite::{Case, Rate, Suite, wanted_device};
use crate::Error;

/// The name of the group.
pub(super) const GROUP: &str = "launch";

/// Launches in a row; the queues of NVIDIA's drivers hold 1024.
pub const BATCH: usize = 256;

/// The kernel of all ways: the first thread adds `n` to what `counter` points to.
///
/// `extern "C" __global__ void tick(u64 *counter, const float *a, const float *b, float *c, unsigned n, float x)`
pub const PTX: &str = "\
.version 8.0
.target sm_80
.address_size 64
.visible .entry tick(
    .param .u64 tick_counter, .param .u64 tick_a, .param .u64 tick_b, .param .u64 tick_c,
    .param .u32 tick_n, .param .f32 tick_x)
{
    .reg .pred %p<2>;
    .reg .b32 %r<3>;
    .reg .b64 %rd<6>;
    mov.u32 %r1, %tid.x;
    setp.ne.u32 %p1, %r1, 0;
    @%p1 bra DONE;
    ld.param.u64 %rd1, [tick_counter];
    cvta.to.global.u64 %rd2, %rd1;
    ld.param.u32 %r2, [tick_n];
    cvt.u64.u32 %rd3, %r2;
    ld.global.u64 %rd4, [%rd2];
    add.s64 %rd5, %rd4, %rd3;
    st.global.u64 [%rd2], %rd5;
DONE:
    ret;
}
";
/// The name of the kernel.
pub const KERNEL: &str = "tick";
/// Threads of its one block.
pub const THREADS: u32 = 32;

/// A way to the driver. It keeps its own counter, to which every launch adds 1.
pub trait Way {
    /// Puts the kernel into the stream `count` times.
    ///
    /// # Errors
    /// The driver refused.
    fn launch(&mut self, count: usize) -> Result<(), Error>;

    /// Waits for the stream, and says what the counter stands at.
    ///
    /// # Errors
    /// A kernel crashed.
    fn wait(&mut self) -> Result<u64, Error>;
}

/// What makes a way that this crate does not have, for the driver that is open.
pub type MakeWay = fn() -> Result<Box<dyn Way>, Error>;

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Against {
    Gpu,
    /// Every call is answered at once.
    StandIn,
    /// Kernels run within the call: nothing is timed.
    Emulated,
}

/// Runs the group, with more ways than this crate has: each with its name.
///
/// # Errors
/// As [`super::run`].
pub fn run(surroundings: Surroundings, more: &[(&'static str, MakeWay)]) -> Result<(), Error> {
    let arguments = Arguments::parse(std::env::args().skip(1)).map_err(Error::Input)?;
    let mut suite = Suite::new(arguments, surroundings);
    group(&mut suite, more)?;
    suite.finish()
}

pub(super) fn group(suite: &mut Suite, more: &[(&'static str, MakeWay)]) -> Result<(), Error> {
    let names = ["raw", "typed", "graph", "cudarc", "cudarc, tracked"];
    let all: Vec<&'static str> = names
        .into_iter()
        .chain(more.iter().map(|(name, _)| *name))
        .collect();
    let mut cases: Vec<Case> = all.iter().map(|name| case(name, "")).collect();
    if suite.mode() == Mode::List || !suite.wants_any(&cases) {
        for case in &cases {
            suite.host(case, &mut |_| Ok(0.0));
        }
        return Ok(());
    }
    let (driver, against) = match open(suite.mode()) {
        Ok(opened) => opened,
        Err(reason) => {
            suite.skip(GROUP, "all ways", &reason, &cases);
            return Ok(());
        }
    };
    let ordinal = match against {
        Against::Gpu => wanted_device()?.unwrap_or(0),
        _ => 0,
    };
    let context = Context::new(&driver, ordinal)?;
    let stream = Stream::new(&context)?;
    let of_cudarc = cudarc::usable(context.device());
    println!("launch: {}", against.words(context.device().name.as_str()));
    for (case, name) in cases.iter_mut().zip(&all) {
        *case = self::case(name, "");
    }
    for (case, name) in cases.iter().zip(&all) {
        let make = || -> Result<Box<dyn Way>, Error> {
            Ok(match *name {
                "raw" => Box::new(ways::Raw::new(&stream)?),
                "typed" => Box::new(ways::Typed::new(&stream)?),
                "graph" => Box::new(ways::Replayed::new(&stream)?),
                "cudarc" => Box::new(cudarc::Builder::new(ordinal, false)?),
                "cudarc, tracked" => Box::new(cudarc::Builder::new(ordinal, true)?),
                other => {
                    let made = more.iter().find(|(own, _)| *own == other);
                    let missing = || Error::Unusable(format!("no way is called {other}"));
                    made.ok_or_else(missing)?.1()?
                }
            })
        };
        if name.starts_with("cudarc")
            && let Err(reason) = &of_cudarc
        {
            suite.skip(GROUP, name, reason, std::slice::from_ref(case));
            continue;
        }
        let mut way: Option<Box<dyn Way>> = None;
        let mut launched = 0;
        suite.host(case, &mut |n| {
            let way = match &mut way {
                Some(way) => way,
                none => none.insert(make()?),
            };
            let (time, new) = measure(way.as_mut(), n, *name == "graph")?;
            launched += new;
            let counted = way.wait()?;
            if against != Against::StandIn && counted != launched {
                return Err(Error::Wrong(format!(
                    "{launched} launches were asked for, and {counted} ran"
                )));
            }
            Ok(if against == Against::Emulated {
                0.0
            } else {
                time
            })
        });
    }
    let raw = suite.series_of(&cases[0]).and_then(Series::median_ns);
    let rows: Vec<String> = cases
        .iter()
        .zip(&all)
        .filter_map(|(case, name)| row(name, suite.series_of(case)?, raw))
        .collect();
    if !rows.is_empty() {
        println!("\n{}\n{}\n", HEADER, rows.join("\n"));
    }
    Ok(())
}

/// Nanoseconds of the host for `n` launches, and how many were made: whole graphs where those are replayed.
fn measure(way: &mut dyn Way, n: u64, in_graphs: bool) -> Result<(f64, u64), Error> {
    let (mut time, mut done) = (0.0, 0);
    while done < n {
        let count = match in_graphs {
            true => BATCH,
            false => (n - done).min(BATCH as u64) as usize,
        };
        let start = std::time::Instant::now();
        way.launch(count)?;
        time += start.elapsed().as_nanos() as f64;
        way.wait()?;
        done += count as u64;
    }
    Ok((time * n as f64 / done.max(1) as f64, done))
}

const HEADER: &str = "\
way                  ns per launch      Q1      Q3   raw = 1
------------------------------------------------------------";

fn row(name: &str, series: &Series, raw: Option<f64>) -> Option<String> {
    let ([q1, q3], median) = (series.quartiles_ns()?, series.median_ns()?);
    let number = |value: f64| significant(value, 3);
    let relative = raw.map_or_else(|| "–".to_owned(), |raw| number(median / raw));
    Some(format!(
        "{:<20} {:>13} {:>7} {:>7} {relative:>9}",
        words(name),
        number(median),
        number(q1),
        number(q3)
    ))
}

/// What a way is, in a table.
fn words(name: &str) -> &str {
    match name {
        "raw" => "cuLaunchKernel",
        "typed" => "typed launch",
        "graph" => "graph, per node",
        "cudarc" => "cudarc builder",
        "cudarc, tracked" => "cudarc, tracked",
        "cust" => "cust launch!",
        other => other,
    }
}

fn case(name: &str, shape: &str) -> Case {
    Case {
        group: GROUP,
        function: name.to_owned(),
        shape: shape.to_owned(),
        operation: "launch",
        dtype: "",
        rate: Rate::None,
        bound: None,
    }
}

impl Against {
    fn words(self, device: &str) -> String {
        match self {
            Against::Gpu => format!("host time per launch on {device}, NVIDIA's driver included"),
            Against::StandIn => "host time per launch up to the driver: a stand-in answers every call at once, no kernel runs".to_owned(),
            Against::Emulated => format!("each way runs the kernel on {device}; nothing is timed"),
        }
    }
}

/// The driver of a GPU; without one a library that lies beside the benches. Why there is neither, and what can be done.
fn open(mode: Mode) -> Result<(Arc<Driver>, Against), String> {
    let gpu = Driver::open().and_then(|driver| {
        let is_emulated = driver.device(0)?.is_emulated();
        Ok((driver, is_emulated))
    });
    match gpu {
        Ok((driver, false)) => return Ok((driver, Against::Gpu)),
        Ok((_, true)) => {}
        Err(error) if matches!(error.kind(), Kind::MissingLibrary | Kind::NoDevice) => {}
        Err(error) => return Err(error.to_string()),
    }
    let (file, against) = match mode {
        Mode::Test => ("libstepscope_emulator.so", Against::Emulated),
        _ => ("libstepscope_stand_in.so", Against::StandIn),
    };
    let path = beside_this_program(file).ok_or_else(|| {
        format!("this machine has no GPU, and {file} does not lie beside this program; `cargo bench --bench launch` makes it")
    })?;
    let driver = Driver::open_file(&path).map_err(|error| error.to_string())?;
    Ok((driver, against))
}

/// cargo puts shared libraries of dependencies to `deps/`, where benches lie too.
fn beside_this_program(file: &str) -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let folder = program.parent()?;
    let places = [folder.join(file), folder.join("deps").join(file)];
    places.into_iter().find(|path| Path::is_file(path))
}
