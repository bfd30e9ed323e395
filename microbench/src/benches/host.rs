//! Group `host`: what the host does around steps. Recording may take 2 % of a step at most; the rest happens before and after.

use std::hint::black_box;
use std::path::{Path, PathBuf};

use stepscope_engine::model::{LoadFormat, LoadOptions, NoProgress, load};
use stepscope_engine::tokenizer::Tokenizer;
use stepscope_flamegraphs::{FoldOptions, SvgOptions, folded, svg};
use stepscope_kernels::Cpu;
use stepscope_profiler::trace::{self, Selection};
use stepscope_profiler::{Level, Phase, Record, Recorder, Step, StepKind, Work};

use super::suite::{Case, Rate, Suite, wall};
use crate::Error;

/// A record of a real run, of four decode steps and a prefill on a CPU.
const RECORD: &str = include_str!("../../../profiler/tests/sample/record.json");

const OPERATIONS: u32 = 300;
const WORK: Work = Work {
    flops: 1_000,
    weight_bytes: 1_000,
    kv_bytes: 0,
    activation_bytes: 100,
};

/// Of 39 words; a prompt has it 32 times.
const TEXT: &str = "A kernel that waits for memory is not made faster by arithmetic that is cheaper, \
    and one that waits for arithmetic is not made faster by fewer bytes; which of the two it is says the roofline. ";

fn case(function: &str, shape: &str, rate: Rate) -> Case {
    Case {
        group: "host",
        function: function.to_owned(),
        shape: shape.to_owned(),
        operation: "host",
        dtype: "",
        rate,
        bound: None,
    }
}

pub(super) fn run(suite: &mut Suite) -> Result<(), Error> {
    recorder(suite);
    record(suite)?;
    tokenizer(suite);
    Ok(())
}

fn record_operation(recorder: &mut Recorder, layer: u32) {
    let _ = recorder.operation("qkv_proj", Some(layer), black_box(WORK), || {
        Ok::<_, ()>(black_box("gemv_avx2"))
    });
}

/// A step as a model of 30 layers makes it, with kernels that take no time.
fn record_step(recorder: &mut Recorder) -> Step {
    recorder.begin_step(StepKind::Decode, 0, 1);
    recorder.phase(Phase::TokenPool, |_| ());
    recorder.phase(Phase::KvAlloc, |_| ());
    recorder.phase(Phase::Prepare, |_| ());
    recorder.phase(Phase::Forward, |recorder| {
        for index in 0..OPERATIONS {
            record_operation(recorder, index / 10);
        }
    });
    recorder.phase(Phase::Sample, |_| ());
    recorder.end_step()
}

fn recorder(suite: &mut Suite) {
    for (level, name) in [
        (Level::Operations, "all recorded"),
        (Level::Phases, "phases only"),
        (Level::Steps, "wall time only"),
    ] {
        let shape = format!("step of {OPERATIONS} operations, {name}");
        suite.host(&case("recorder", &shape, Rate::None), &mut |n| {
            let mut recorder = Recorder::new(level);
            record_step(&mut recorder); // the list of operations has its size from here on
            let expected = if level == Level::Operations {
                OPERATIONS as usize
            } else {
                0
            };
            let mut kept = expected;
            let time = wall(n, || {
                kept = black_box(record_step(&mut recorder)).operations.len();
                Ok(())
            });
            match kept == expected {
                true => time,
                false => Err(Error::Wrong(format!(
                    "{kept} operations were kept, not {expected}"
                ))),
            }
        });
    }
}

/// What a record becomes: text, and what people look at.
fn record(suite: &mut Suite) -> Result<(), Error> {
    let failed = |error: &dyn std::fmt::Display| Error::Unusable(error.to_string());
    let record: Record = serde_json::from_str(RECORD).map_err(|error| failed(&error))?;
    let mut sink = Vec::with_capacity(4 * RECORD.len());
    let mut of = |suite: &mut Suite,
                  function: &str,
                  make: &mut dyn FnMut(&mut Vec<u8>) -> Result<(), Error>| {
        sink.clear();
        let shape = format!("record of {} kB", RECORD.len() / 1000);
        let bytes = Rate::Bytes(RECORD.len() as u64);
        suite.host(&case(function, &shape, bytes), &mut |n| {
            let time = wall(n, || {
                sink.clear();
                make(&mut sink)?;
                black_box(&sink);
                Ok(())
            });
            match sink.len() > 1000 {
                true => time,
                false => Err(Error::Wrong(format!("only {} bytes came out", sink.len()))),
            }
        });
    };
    of(suite, "record as JSON", &mut |out| {
        serde_json::to_writer(out, &record).map_err(|error| failed(&error))
    });
    of(suite, "record read", &mut |out| {
        let read: Record = serde_json::from_str(RECORD).map_err(|error| failed(&error))?;
        out.resize(read.points.len() * 2000, 0);
        Ok(())
    });
    of(suite, "trace written", &mut |out| {
        trace::write(&record, &Selection::default(), out).map_err(|error| failed(&error))
    });
    of(suite, "flame graph drawn", &mut |out| {
        let stacks = folded(&record, StepKind::Decode, &FoldOptions::default());
        let picture = svg(&stacks, &SvgOptions::default()).map_err(|error| failed(&error))?;
        out.extend_from_slice(picture.as_bytes());
        Ok(())
    });
    Ok(())
}

fn tokenizer(suite: &mut Suite) {
    let prompt = TEXT.repeat(32);
    let encode = case(
        "tokenizer encode",
        "SmolLM2, a prompt of 32 sentences",
        Rate::Bytes(prompt.len() as u64),
    );
    let decode = case(
        "tokenizer decode",
        "SmolLM2, a prompt of 32 sentences",
        Rate::Bytes(prompt.len() as u64),
    );
    let cases = [encode, decode];
    let Some(model) = smollm2() else {
        let reason = "SmolLM2 is not there; `cargo xtask model smollm2` brings it";
        suite.skip("host", "tokenizer", reason, &cases);
        return;
    };
    let mut known = None;
    for (case, is_encode) in cases.iter().zip([true, false]) {
        suite.host(case, &mut |n| {
            if known.is_none() {
                known = Some(load_tokenizer(&model)?);
            }
            let Some(tokenizer) = &known else {
                return Err(Error::Unusable("no tokenizer".to_owned()));
            };
            let failed = |error: stepscope_engine::Error| Error::Unusable(error.to_string());
            let ids = tokenizer.encode(&prompt, false).map_err(failed)?;
            if tokenizer.decode(&ids, false).map_err(failed)? != prompt {
                return Err(Error::Wrong(
                    "the prompt's ids do not give the prompt".to_owned(),
                ));
            }
            wall(n, || {
                match is_encode {
                    true => drop(black_box(
                        tokenizer
                            .encode(black_box(&prompt), false)
                            .map_err(failed)?,
                    )),
                    false => drop(black_box(
                        tokenizer.decode(black_box(&ids), false).map_err(failed)?,
                    )),
                }
                Ok(())
            })
        });
    }
}

/// The small model, where the repository or the folder of this program has it.
fn smollm2() -> Option<PathBuf> {
    const FILE: &str = "models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
    let program = std::env::current_exe().ok()?;
    let in_target = program.ancestors().map(|folder| folder.join(FILE));
    let here = Path::new("target").join(FILE);
    in_target.chain([here]).find(|path| path.is_file())
}

fn load_tokenizer(model: &Path) -> Result<Tokenizer, Error> {
    let options = LoadOptions {
        model: model.display().to_string(),
        format: LoadFormat::Dummy,
        dummy_on_device: true,
        ..LoadOptions::default()
    };
    let cpu = Cpu::new(Some(1))?;
    let loaded =
        load(&options, &cpu, &NoProgress).map_err(|error| Error::Unusable(error.to_string()))?;
    let missing = || Error::Unusable(format!("{} has no tokenizer", model.display()));
    loaded.tokenizer.ok_or_else(missing)
}
