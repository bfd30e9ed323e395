use stepscope_kernels::Cpu;

use super::*;
use crate::model::{LoadFormat, LoadOptions, NoProgress, load};

fn runner(options: &RunnerOptions) -> Runner<Cpu> {
    let overrides = r#"{"num_hidden_layers": 1, "vocab_size": 32, "hidden_size": 16, "intermediate_size": 16,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}"#;
    let load_options = LoadOptions {
        model: "smollm2-135m".to_owned(),
        format: LoadFormat::Dummy,
        config_overrides: serde_json::from_str(overrides).unwrap(),
        skip_tokenizer: true,
        ..LoadOptions::default()
    };
    let model = load(&load_options, &Cpu::new(Some(1)).unwrap(), &NoProgress).unwrap();
    Runner::new(Cpu::new(Some(1)).unwrap(), &model, options).unwrap()
}

/// The tables that a decode step of `batch` left on the device, and those that the host would have made for it.
fn tables(runner: &Runner<Cpu>, batch: &Batch) -> [[Vec<i32>; 4]; 2] {
    let page_size = runner.page_size();
    let mut host = HostBatch::default();
    host.clear_chunk();
    host.max_pages = runner.pages_per_request;
    for request in &batch.requests {
        let row = runner.token_pool.row(&request.row);
        host.push_request(row, request.len - 1, 1, page_size);
    }
    let expected = [host.positions, host.slots, host.kv_len, host.page_table];
    let indices = &runner.indices;
    let on_device = [
        &indices.positions,
        &indices.slots,
        &indices.kv_len,
        &indices.page_table,
    ];
    let got = std::array::from_fn(|i| on_device[i][..expected[i].len()].to_vec());
    [got, expected]
}

/// Lengths that begin pages at different steps, and batches that take turns: each step's tables are those of its batch.
#[test]
fn tables_on_the_device_are_those_of_the_host() {
    let mut runner = runner(&RunnerOptions {
        page_size: 4,
        ..RunnerOptions::small(5, 40)
    });
    let (mut a, _) = runner.prefill(&[&[1; 3], &[2; 4], &[3; 9]]).unwrap();
    let (mut b, _) = runner.prefill(&[&[4; 8], &[5]]).unwrap();
    // Nine steps in a row, then a step of each in turn, then a prompt that goes on.
    for step in 0..20 {
        let batch = match step {
            9..=14 if step % 2 == 1 => &mut b,
            _ => &mut a,
        };
        if step == 16 {
            runner.extend(batch, &[&[6; 2], &[7; 5], &[8]]).unwrap();
            assert_eq!(runner.on_device, None);
        }
        let forced = vec![step as u32; batch.len()];
        runner.decode(batch, Some(&forced)).unwrap();
        let [got, expected] = tables(&runner, batch);
        assert_eq!(got, expected, "step {step}");
        assert_eq!(runner.on_device, Some(batch.number));
    }
}

/// A step that finds no page changes nothing, and can be had once there is one.
#[test]
fn a_step_that_finds_no_page_can_be_repeated() {
    let mut runner = runner(&RunnerOptions {
        page_size: 4,
        max_total_tokens: Some(16),
        ..RunnerOptions::small(3, 40)
    });
    let (other, _) = runner.prefill(&[&[3; 4]]).unwrap();
    let (mut batch, _) = runner.prefill(&[&[1; 3], &[2; 2]]).unwrap();
    for _ in 0..2 {
        runner.decode(&mut batch, None).unwrap();
    }
    // The last page went to the first request; the second one has filled its own.
    let error = runner.decode(&mut batch, None).unwrap_err().to_string();
    assert!(
        error.starts_with("the KV pool is exhausted: 1 pages"),
        "{error}"
    );
    runner.release(other);
    runner.decode(&mut batch, None).unwrap();
    let [got, expected] = tables(&runner, &batch);
    assert_eq!(got, expected);
}
