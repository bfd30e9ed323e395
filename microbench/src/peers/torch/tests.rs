use super::*;

/// What the script uses of torch and Triton, without their work.
const STAND_IN: &str = include_str!("stand_in.py");

const LONG: Duration = Duration::from_secs(120);

fn decoder(head_dim: usize) -> Decoder {
    Decoder {
        layers: 3,
        hidden_size: 96,
        intermediate_size: 160,
        heads: 4,
        kv_heads: 2,
        head_dim,
        vocab_size: 320,
    }
}

fn step(head_dim: usize, is_compiled: bool) -> Task {
    Task::DecodeStep {
        decoder: decoder(head_dim),
        batch: 8,
        positions: 64,
        is_compiled,
    }
}

fn attention(requests: usize, heads: usize, kv_heads: usize, head_dim: usize) -> Task {
    Task::Attention {
        requests,
        queries: 256,
        positions: 256,
        layout: QkvLayout {
            heads,
            kv_heads,
            head_dim,
        },
    }
}

/// What the script says of `tasks` where torch is the stand-in; nothing, which is said, without a Python.
fn asked(before: &str, tasks: &[Task]) -> Option<Answer> {
    let question = question(tasks, 0, 50 << 20, LONG);
    let script = format!("{before}\n{STAND_IN}\n{SCRIPT}");
    let answer = python::ask(&script, &[], &question.to_string(), LONG);
    let failure = answer.failure.clone().unwrap_or_default();
    if failure.contains("cannot be started") {
        println!("skipped: {failure}");
        return None;
    }
    Some(understand(&answer.stdout, answer.failure))
}

#[test]
fn steps_and_products_are_measured() {
    let tasks = [
        step(32, false),
        step(32, true),
        Task::TritonProduct {
            m: 8,
            n: 4096,
            k: 4096,
        },
        step(80, false),
    ];
    let Some(answer) = asked("", &tasks) else {
        return;
    };
    assert_eq!(answer.missing, None, "{answer:?}");
    assert_eq!(answer.torch.as_deref(), Some("2.11.0"));
    assert_eq!(answer.triton.as_deref(), Some("3.6.0"));
    for (id, backend) in [(0, "eager"), (1, "compiled")] {
        let Row::Measured {
            series,
            backend: of,
        } = &answer.rows[&id]
        else {
            panic!("{answer:?}");
        };
        assert_eq!(of.as_deref(), Some(backend));
        assert_eq!(series.timer, Timer::Wall);
        assert!((10..=100).contains(&series.samples.len()));
    }
    // 33.7 MB, of which 9 copies outgrow 5 times the cache: a replay of 2 ms holds one round.
    let Row::Measured { series, .. } = &answer.rows[&2] else {
        panic!("{answer:?}");
    };
    assert_eq!((series.launches_per_sample, series.samples.len()), (9, 30));
    assert_eq!(series.timer, Timer::Event);
    assert!((series.median_ns().unwrap() - 2e6 / 9.0).abs() < 1e-3);
    let Row::Failed(why) = &answer.rows[&3] else {
        panic!("{answer:?}");
    };
    assert_eq!(
        why,
        "RuntimeError: No available kernel. Aborting execution."
    );
}

#[test]
fn attention_is_measured_and_names_what_torch_took() {
    let tasks = [
        attention(2, 28, 4, 128),
        attention(2, 32, 32, 64),
        attention(2, 28, 4, 80),
    ];
    let Some(answer) = asked("", &tasks) else {
        return;
    };
    assert_eq!(answer.missing, None, "{answer:?}");
    assert_eq!(answer.torch.as_deref(), Some("2.11.0"));
    assert_eq!(answer.triton, None);
    for id in [0, 1] {
        let Row::Measured { series, backend } = &answer.rows[&id] else {
            panic!("{answer:?}");
        };
        assert_eq!(backend.as_deref(), Some("flash"));
        assert_eq!(series.samples.len(), 30);
        if id == 0 {
            // Of 2 requests, 256 tokens, 28 and 4 heads of 128: 8.4 MB, 33 copies of which outgrow 5 times the cache.
            assert_eq!(series.launches_per_sample, 33);
            assert!((series.median_ns().unwrap() - 2e6 / 33.0).abs() < 1e-3);
        }
    }
    let Row::Failed(why) = &answer.rows[&2] else {
        panic!("{answer:?}");
    };
    assert_eq!(
        why,
        "RuntimeError: No available kernel. Aborting execution."
    );
}

#[test]
fn questions_are_those_that_the_script_reads() {
    let asked = question(
        &[attention(8, 28, 4, 128)],
        2,
        50 << 20,
        Duration::from_secs(30),
    );
    assert_eq!(
        asked,
        json!({
            "device": 2, "seconds": 25.0, "l2_bytes": 52_428_800,
            "tasks": [{
                "id": 0, "task": "attention", "requests": 8, "queries": 256, "positions": 256,
                "heads": 28, "kv_heads": 4, "head_dim": 128,
            }],
        })
    );
}

#[test]
fn without_triton_the_rest_is_measured() {
    let tasks = [step(32, false), step(32, true)];
    let Some(answer) = asked("WITHOUT_TRITON = True", &tasks) else {
        return;
    };
    assert_eq!((answer.missing, answer.triton), (None, None));
    assert!(matches!(&answer.rows[&0], Row::Measured { .. }));
    assert!(matches!(&answer.rows[&1], Row::Failed(why) if why.contains("cannot import triton")));
}

/// The script itself, in the Python of this machine, which need not have torch.
#[test]
fn the_script_says_why_it_cannot() {
    let answer = measure(&[], 0, 1, LONG);
    let missing = answer.missing.as_deref().unwrap_or_default();
    let why = [
        "cannot import torch",
        "finds no GPU",
        "cannot be started",
        "torch cannot use",
    ];
    assert!(
        answer.torch.is_some() || why.iter().any(|why| missing.contains(why)),
        "{answer:?}"
    );
}

#[test]
fn lines_are_understood_and_failures_keep_what_came() {
    let stdout = r#"{"torch": "2.11.0+cu130", "device": "NVIDIA H100 80GB HBM3"}
some library prints this
{"id": 3, "us": [12.5, 11.5], "launches": 80, "copies": 4, "backend": "flash"}
{"id": 7, "error": "TypeError: unexpected keyword argument 'enable_gqa'"}
{"id": 9}"#;
    let answer = understand(stdout, Some("stopped after 20 s".to_owned()));
    assert_eq!(answer.torch.as_deref(), Some("2.11.0+cu130"));
    assert_eq!(answer.missing.as_deref(), Some("stopped after 20 s"));
    let Row::Measured { series, backend } = &answer.rows[&3] else {
        panic!("{answer:?}");
    };
    assert_eq!(series.median_ns(), Some(12_000.0));
    assert_eq!(series.launches_per_sample, 80);
    assert_eq!(backend.as_deref(), Some("flash"));
    assert!(matches!(&answer.rows[&7], Row::Failed(why) if why.contains("enable_gqa")));
    assert!(matches!(&answer.rows[&9], Row::Failed(why) if why.contains("no times")));
}

#[test]
fn silence_is_no_success() {
    assert!(understand("", None).missing.is_some());
    let missing = r#"{"missing": "this Python (/usr/bin/python3) cannot import torch: No module named 'torch'"}"#;
    let answer = understand(missing, None);
    assert!(answer.missing.unwrap().contains("cannot import torch"));
}
