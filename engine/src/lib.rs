//! Models, pools, batches, the forward pass and the bench loops.
//!
//! [`model::load`] brings a model into host memory, mapped from its files where it can be; a [`Runner`] puts it on a
//! device and runs prefill and decode steps, each taken apart by a `Recorder`; [`one_batch`] is the benchmark that
//! sglang calls `bench_one_batch`, and [`generate`] turns prompts into text.
//!
//! ```
//! use stepscope_engine::model::{LoadFormat, LoadOptions, NoProgress, load};
//! use stepscope_engine::{Runner, RunnerOptions};
//! use stepscope_kernels::Cpu;
//!
//! let cpu = Cpu::new(None)?;
//! let options = LoadOptions {
//!     model: "smollm2-135m".to_owned(),
//!     format: LoadFormat::Dummy,
//!     config_overrides: serde_json::from_str(r#"{"num_hidden_layers": 1, "vocab_size": 64}"#)?,
//!     ..LoadOptions::default()
//! };
//! let model = load(&options, &cpu, &NoProgress)?;
//! let mut runner = Runner::new(cpu, &model, &RunnerOptions::small(2, 8))?;
//! let (mut batch, prefill) = runner.prefill(&[&[1, 2, 3], &[4]])?;
//! let decode = runner.decode(&mut batch, None)?;
//! assert_eq!(prefill.wall_ns, prefill.phases.iter().map(|p| p.host_ns).sum::<u64>());
//! assert_eq!(decode.operations[0].name, "advance");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** there is one forward pass, whatever the device: it is written over the `Backend` trait.
//!
//! **Invariant:** no step allocates device memory; every buffer is made with the runner.
//!
//! **Invariant:** a step whose tokens were not looked at is not a benchmark: a run whose logits are not numbers fails.

mod batch;
mod bench;
mod decode_graphs;
mod device_model;
mod error;
mod forward;
mod options;
mod runner;
mod step_clock;
mod step_work;

pub mod generate;
pub mod model;
pub mod pool;
pub mod reference;
pub mod tokenizer;

pub use bench::{Place, correctness, new_record, one_batch, roofs, sglang};
pub use error::Error;
pub use options::{CHUNK_TOKENS, GPU_CHUNK_TOKENS, Instruments, RunnerOptions};
pub use runner::{Batch, Runner};
pub use step_clock::StepClock;
pub use step_work::{DTypes, ShardedModel};
