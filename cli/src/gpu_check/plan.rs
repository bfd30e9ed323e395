//! Which stages there are, and how long each may take.

use std::path::PathBuf;
use std::time::Duration;

use stepscope_microbench::peers::python;

use super::{models, overrides, sglang, shapes};
use crate::args::Device;
use crate::args::gpu_check::GpuCheck;

/// A stage to come.
#[derive(Debug, Clone, Default)]
pub(super) struct Planned {
    pub(super) name: String,
    pub(super) arguments: Vec<String>,
    /// Another program than this one.
    pub(super) program: Option<String>,
    pub(super) environment: Vec<(String, String)>,
    /// What may be missing without harm: then it is skipped.
    pub(super) is_optional: bool,
    /// The stage without which this one is skipped.
    pub(super) needs: Option<&'static str>,
    /// It is told how long it may take, and ends by itself.
    pub(super) knows_its_time: bool,
    /// Files that it appends to, which are to begin empty.
    pub(super) appends_to: Vec<PathBuf>,
    pub(super) budget: Budget,
}

/// Seconds of a stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Budget {
    /// It is stopped after them at the latest.
    pub(super) most: u64,
    /// They are kept for it, whatever happens before.
    pub(super) kept: u64,
}

const fn budget(most: u64, kept: u64) -> Budget {
    Budget { most, kept }
}

/// What is kept adds up to the 8 minutes that `gpu-check` takes at most, sglang included.
const DOCTOR: Budget = budget(30, 5);
const MICRO_KERNELS: Budget = budget(60, 10);
const DEVICE: Budget = budget(60, 20);
const KERNELS: Budget = budget(150, 25);
const FIXTURES: Budget = budget(90, 20);
const STEPS: Budget = budget(120, 40);
const TIMERS: Budget = budget(60, 10);
const BENCH: Budget = budget(90, 20);
const SHAPES: Budget = budget(shapes::SECONDS, 40);
const SGLANG: Budget = budget(60, 20);
const SGLANG_MODEL: Budget = budget(120, 60);

impl Budget {
    /// How long a stage may take, with `left` of the whole and `kept_for_later` seconds of it promised to the stages behind.
    pub(super) fn limit(self, left: Duration, kept_for_later: u64) -> Duration {
        let unpromised = left.saturating_sub(Duration::from_secs(kept_for_later));
        let kept = Duration::from_secs(self.kept);
        Duration::from_secs(self.most)
            .min(unpromised.max(kept))
            .min(left)
    }
}

/// The sizes of a step: batches, tokens of each prompt, tokens that follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) batches: &'static [&'static str],
    pub(super) input: &'static str,
    pub(super) output: &'static str,
}

impl Sizes {
    pub(super) const fn of(small: bool) -> Sizes {
        match small {
            true => Sizes {
                batches: &["1"],
                input: "4",
                output: "2",
            },
            false => Sizes {
                batches: &["1", "8", "64"],
                input: "1024",
                output: "64",
            },
        }
    }

    /// Each batch with its lengths, in the order in which they are measured.
    pub(super) fn points(self) -> Vec<[usize; 3]> {
        let number = |text: &str| text.parse().unwrap_or_default();
        let lengths = [self.input, self.output].map(number);
        let batches = self.batches.iter().map(|batch| number(batch));
        batches
            .map(|batch| [batch, lengths[0], lengths[1]])
            .collect()
    }
}

/// The stages in their order: what explains a failure comes before what fails, and what needs most of the machine comes last.
pub(super) fn plan(args: &GpuCheck) -> Vec<Planned> {
    let device = args.device.to_string();
    let stage = |name: &str, arguments: &[&str], budget: Budget| Planned {
        name: name.to_owned(),
        arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
        budget,
        ..Planned::default()
    };
    let paths = [&args.fixtures, &args.sglang].map(|path| {
        let path = path.as_deref();
        path.map(|path| path.display().to_string())
    });
    let [fixtures, pack] = paths.each_ref().map(Option::as_deref);
    let out = args.out.display().to_string();
    let mut of_ours = vec!["gpu-check", "--device", &device, "--out", &out];
    if args.small {
        of_ours.push("--small");
    }
    for (option, path) in [("--fixtures", fixtures), ("--sglang", pack)] {
        of_ours.extend(path.into_iter().flat_map(|path| [option, path]));
    }
    let ours = |name: &'static str| [of_ours.as_slice(), &["--only", name]].concat();
    // Beside the folders of the steps, whose records are then explained by it.
    let sheet = args.out.join("device.json").display().to_string();
    let of_sheet = [
        "device", "--device", &device, "--quick", "--json", "--out", &sheet,
    ];
    let mut stages = vec![
        stage("doctor", &["doctor", "--json"], DOCTOR),
        stage(
            "micro-kernels",
            &["conformance", "--device", &device, "--json"],
            MICRO_KERNELS,
        ),
        stage("kernels", &ours("kernels"), KERNELS),
        Planned {
            knows_its_time: true,
            ..stage("device", &of_sheet, DEVICE)
        },
    ];
    if fixtures.is_some() {
        stages.push(stage("fixtures", &ours("fixtures"), FIXTURES));
    }
    let sizes = Sizes::of(args.small);
    let is_gpu = matches!(args.device, Device::Cuda { .. });
    let overrides = serde_json::Value::Object(overrides(args.small)).to_string();
    for model in models(args.small) {
        let run = args.out.join(model).display().to_string();
        let lines_file = args.out.join(format!("{model}.jsonl"));
        let lines = lines_file.display().to_string();
        let mut arguments = vec!["one-batch", "--model-path", model, "--load-format", "dummy"];
        arguments.extend(["--device", &device, "--run-name", model, "--out", &run]);
        arguments.extend(["--result-filename", &lines]);
        arguments.extend(["--input", sizes.input, "--output", sizes.output, "--batch"]);
        arguments.extend(sizes.batches);
        if args.small {
            arguments.extend(["--json-model-override-args", &overrides]);
        }
        // Events take nothing from a step that sglang's own timing does not: the two stand beside each other.
        if is_gpu {
            arguments.extend(["--timer", "events"]);
        }
        stages.push(Planned {
            appends_to: vec![lines_file],
            ..stage(&format!("steps {model}"), &arguments, STEPS)
        });
    }
    for (name, timers) in timers(is_gpu) {
        let run = args.out.join(name).display().to_string();
        let model = models(args.small)[0];
        let mut arguments = vec!["one-batch", "--model-path", model, "--load-format", "dummy"];
        arguments.extend(["--device", &device, "--run-name", name, "--out", &run]);
        arguments.extend(["--result-filename", ""]);
        arguments.extend(["--input", sizes.input, "--output", sizes.output]);
        arguments.extend(timers);
        if args.small {
            arguments.extend(["--json-model-override-args", &overrides]);
        }
        stages.push(stage(name, &arguments, TIMERS));
    }
    stages.push(bench(args));
    stages.push(Planned {
        knows_its_time: true,
        ..stage("shapes", &ours("shapes"), SHAPES)
    });
    if pack.is_some() {
        stages.push(Planned {
            knows_its_time: true,
            is_optional: true,
            ..stage("sglang", &ours("sglang"), SGLANG)
        });
        stages.extend(
            models(args.small)
                .iter()
                .map(|model| of_sglang(args, model)),
        );
    }
    stages
}

/// The ways to measure a step, each in a stage of its own. An emulated device has no time and no hardware, and says so.
fn timers(is_gpu: bool) -> Vec<(&'static str, &'static [&'static str])> {
    match is_gpu {
        true => vec![
            ("timers", &["--timer", "cupti", "--overhead", "--counters"]),
            ("replays", &["--timer", "graph"]),
        ],
        false => vec![("timers", &["--counters"])],
    }
}

/// The groups of benchmarks that `shapes` and `steps` do not cover, as far as they get; an emulated device has no time, so there
/// each runs once and is checked.
fn bench(args: &GpuCheck) -> Planned {
    let words: &[&str] = match args.device {
        Device::Emulated => &["--test", "^memory/cuda"],
        _ => &[
            "--quick",
            "--measurement-time",
            "0.5",
            "^(launch|memory/cuda|token_pool|kv_alloc|(norm|rope_kv|sampling)/cuda)",
        ],
    };
    let mut environment = vec![(
        "CRITERION_HOME".to_owned(),
        args.out.join("bench").display().to_string(),
    )];
    let ordinal = match args.device {
        Device::Cuda { ordinal } => Some(ordinal),
        Device::Auto => Some(0),
        _ => None,
    };
    environment.extend(ordinal.map(|n| ("STEPSCOPE_BENCH_DEVICE".to_owned(), n.to_string())));
    let arguments = std::iter::once("bench").chain(words.iter().copied());
    Planned {
        name: "bench".to_owned(),
        arguments: arguments.map(str::to_owned).collect(),
        environment,
        budget: BENCH,
        ..Planned::default()
    }
}

/// sglang's `bench_one_batch` on the sizes of ours.
fn of_sglang(args: &GpuCheck, model: &str) -> Planned {
    let Sizes {
        batches,
        input,
        output,
    } = Sizes::of(args.small);
    let ordinal = match args.device {
        Device::Cuda { ordinal } => ordinal,
        _ => 0,
    };
    Planned {
        name: format!("sglang {model}"),
        arguments: sglang::arguments(&args.out, model, batches, input, output),
        program: Some(python::interpreter()),
        environment: sglang::environment(&args.out, ordinal),
        is_optional: true,
        needs: Some("sglang"),
        appends_to: vec![sglang::lines_file(&args.out, model)],
        budget: SGLANG_MODEL,
        ..Planned::default()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: GpuCheck,
    }

    fn planned(line: &str) -> Vec<Planned> {
        let words = std::iter::once("gpu-check").chain(line.split_whitespace());
        plan(&Line::try_parse_from(words).unwrap().args)
    }

    fn names(stages: &[Planned]) -> Vec<&str> {
        stages.iter().map(|stage| stage.name.as_str()).collect()
    }

    #[test]
    fn stages_depend_on_what_is_there() {
        let common = ["doctor", "micro-kernels", "kernels", "device"];
        let steps = [
            "steps qwen2.5-0.5b",
            "steps qwen2.5-7b",
            "steps llama-3.1-8b",
        ];
        let bare = planned("");
        assert_eq!(
            names(&bare),
            [
                &common[..],
                &steps,
                &["timers", "replays", "bench", "shapes"]
            ]
            .concat()
        );
        let all = planned("--fixtures f --sglang s");
        let sglang = [
            "sglang",
            "sglang qwen2.5-0.5b",
            "sglang qwen2.5-7b",
            "sglang llama-3.1-8b",
        ];
        let expected = [
            &common[..],
            &["fixtures"],
            &steps,
            &["timers", "replays", "bench", "shapes"],
            &sglang,
        ]
        .concat();
        assert_eq!(names(&all), expected);
    }

    #[test]
    fn counters_and_replays_are_tried_and_an_emulated_device_says_why_it_has_none() {
        let words = |line: &str, name: &str| {
            let stages = planned(line);
            let found = stages.into_iter().find(|stage| stage.name == name);
            found.map(|stage| stage.arguments.join(" "))
        };
        let timers = words("", "timers").unwrap();
        assert!(
            timers.ends_with("--timer cupti --overhead --counters"),
            "{timers}"
        );
        assert!(words("", "replays").unwrap().ends_with("--timer graph"));
        let emulated = words("--device emulated --small", "timers").unwrap();
        assert!(
            emulated.contains("--counters") && !emulated.contains("--timer"),
            "{emulated}"
        );
        assert_eq!(words("--device emulated", "replays"), None);
    }

    #[test]
    fn what_is_kept_for_all_stages_is_eight_minutes() {
        let kept: u64 = planned("--fixtures f --sglang s")
            .iter()
            .map(|stage| stage.budget.kept)
            .sum();
        assert_eq!(kept, 8 * 60);
    }

    #[test]
    fn a_stage_gets_what_is_not_promised_to_others() {
        let seconds = |left, kept_for_later| {
            let limit = budget(100, 40).limit(Duration::from_secs(left), kept_for_later);
            limit.as_secs()
        };
        // Much time: as long as it may ever take. Less: what is not promised, but at least what is kept for it.
        assert_eq!(seconds(480, 200), 100);
        assert_eq!(seconds(270, 200), 70);
        assert_eq!(seconds(210, 200), 40);
        assert_eq!(seconds(30, 200), 30);
        assert_eq!(seconds(0, 0), 0);
    }

    #[test]
    fn small_sizes_and_models_go_together() {
        assert_eq!(Sizes::of(true).points(), [[1, 4, 2]]);
        assert_eq!(Sizes::of(false).points()[2], [64, 1024, 64]);
        let stages = planned("--small --device cuda:1 --sglang s");
        let sglang = stages.last().unwrap();
        assert_eq!(sglang.name, "sglang smollm2-135m");
        assert!(
            sglang
                .arguments
                .join(" ")
                .contains("--batch-size 1 --input-len 4 --output-len 2")
        );
        let visible = sglang
            .environment
            .iter()
            .find(|(name, _)| name == "CUDA_VISIBLE_DEVICES");
        assert!(visible.is_some());
    }
}
