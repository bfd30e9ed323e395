//! Explaining what another program printed.

use stepscope_engine::model::find_config;
use stepscope_engine::{DTypes, ShardedModel};
use stepscope_kernels::DType;
use stepscope_profiler::compare::Override;
use stepscope_profiler::explain::page::results_page;
use stepscope_profiler::explain::results::{Subject, explain as explain_rows};
use stepscope_profiler::explain::{Ceilings, Precision, StepModel};
use stepscope_profiler::gpus::{self, Gpu};
use stepscope_profiler::results::{self, ResultRow};

use super::page;
use crate::args::explain::Explain;
use crate::output::{Failure, write_stdout};

pub(super) fn explain(gpu: Option<&'static Gpu>, args: &Explain) -> Result<(), Failure> {
    let mut import = results::read(&args.input)?;
    complete(&mut import.rows, args)?;
    let rows = &import.rows;
    let said = || same(rows, |row| row.dtype.clone());
    let precision = precision("--dtype", args.dtype.as_deref(), said)?;
    let said = || same(rows, |row| row.settings.get("kv_cache_dtype").cloned());
    let kv = self::precision("--kv-cache-dtype", args.kv_cache_dtype.as_deref(), said)?;
    let model = model(rows, args)?.map(|(model, bytes)| match bytes {
        // A quantised file counts by its own size.
        Some(bytes) => model.with_weight_bytes(bytes),
        None => model.with_bits(precision.weight_bits, kv.weight_bits),
    });
    // A name in the file that the table does not hold is no mistake of the person's.
    let named = || same(rows, |row| row.gpu.clone());
    let gpu = gpu.or_else(|| named().and_then(|name| gpus::find(&name).ok()));
    let ceilings = gpu.map(|gpu| Ceilings::of_gpu_for(gpu, None, precision));
    let explanation = explain_rows(&Subject {
        rows,
        model: model.as_ref().map(|model| model as &dyn StepModel),
        device: ceilings.as_ref(),
        precision,
        pool_tokens: same(rows, |row| {
            row.settings.get("max_total_num_tokens")?.parse().ok()
        }),
    });
    if let Some(path) = &args.html {
        let subtitle = args.input.display().to_string();
        let title = title(rows, model.as_ref(), gpu);
        page::write(path, &results_page(&explanation, &title, &subtitle))?;
    }
    if args.json {
        let json = serde_json::json!({ "import": import.rows, "explanation": explanation });
        return write_stdout(format!("{json:#}\n").as_bytes());
    }
    let mut text = title(rows, model.as_ref(), gpu);
    text += "\n\n";
    text += &explanation.text(args.why);
    write_stdout(text.as_bytes())
}

/// What the person knows of the rows and the file does not say.
fn complete(rows: &mut [ResultRow], args: &Explain) -> Result<(), Failure> {
    let known = [
        ("batch", args.batch),
        ("concurrency", args.concurrency),
        ("input-len", args.input_len),
        ("output-len", args.output_len),
    ];
    for (key, value) in known {
        if let Some(value) = value {
            Override::apply_to_rows(key, &value.to_string(), rows).map_err(Failure::input)?;
        }
    }
    Ok(())
}

/// The number format that was given; else the one that the file says, if it is known; else 16 bits.
pub(super) fn precision(
    option: &str,
    given: Option<&str>,
    said: impl FnOnce() -> Option<String>,
) -> Result<Precision, Failure> {
    match given {
        Some("auto") | None => Ok(said()
            .and_then(|said| Precision::parse(&said))
            .unwrap_or(Precision::HALF)),
        Some(given) => Precision::parse(given).ok_or_else(|| {
            Failure::input(format!(
                "{option} {given}: not known; known are bfloat16, float16, float32, fp8, int8, w8a16, w4a16 (awq, gptq), w4a8, nvfp4"
            ))
        }),
    }
}

/// The model of the result and, if the file says it, the bytes of its weights: the one given, or the one that the file names if it is known here.
fn model(
    rows: &[ResultRow],
    args: &Explain,
) -> Result<Option<(ShardedModel, Option<f64>)>, Failure> {
    let tp = match args.tp {
        Some(tp) => tp,
        None => same(rows, |row| row.tp).unwrap_or(1) as usize,
    };
    let pp = match args.pp {
        Some(pp) => pp,
        None => same(rows, |row| row.pp).unwrap_or(1) as usize,
    };
    let (name, config) = match &args.model {
        Some(model) => find_config(model)?,
        None => match same(rows, |row| row.model.clone()).map(|name| find_config(&name)) {
            Some(Ok(found)) => found,
            _ => return Ok(None),
        },
    };
    let model = ShardedModel::new(name, &config, tp, DTypes::all(DType::BF16))?;
    let bytes = same(rows, |row| row.model_bytes);
    Ok(Some((model.with_stages(pp)?, bytes)))
}

/// What all rows say alike.
fn same<T: PartialEq>(rows: &[ResultRow], of: impl Fn(&ResultRow) -> Option<T>) -> Option<T> {
    let first = of(rows.first()?)?;
    rows.iter()
        .all(|row| of(row).as_ref() == Some(&first))
        .then_some(first)
}

fn title(rows: &[ResultRow], model: Option<&ShardedModel>, gpu: Option<&Gpu>) -> String {
    let programs = same(rows, |row| {
        Some(format!("{} {}", row.framework.name(), row.program))
    });
    let mut title = programs.unwrap_or_else(|| "several programs".to_owned());
    title += &format!(
        ", {} row{}",
        rows.len(),
        if rows.len() == 1 { "" } else { "s" }
    );
    if let Some(model) = model {
        title += &format!(": {}", model.name());
        if model.tp() > 1 {
            title += &format!(" on {} ranks", model.tp());
        }
    }
    match gpu {
        Some(gpu) => title += &format!(", {}", gpu.title),
        None => title += ", GPU not known",
    }
    title
}
