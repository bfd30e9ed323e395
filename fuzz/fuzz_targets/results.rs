//! Any bytes as a result file: side by side with itself, written in every form, and explained.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stepscope_profiler::compare::export::{Form, export};
use stepscope_profiler::compare::{Comparison, Source};
use stepscope_profiler::explain::Precision;
use stepscope_profiler::explain::page::results_page;
use stepscope_profiler::explain::results::{Subject, explain};
use stepscope_profiler::results;

fuzz_target!(|bytes: &[u8]| {
    let Ok(import) = results::parse("file", bytes) else {
        return;
    };
    let explanation = explain(&Subject {
        rows: &import.rows,
        model: None,
        device: None,
        precision: Precision::HALF,
        pool_tokens: None,
    });
    let _ = explanation.text(true);
    let _ = results_page(&explanation, "title", "subtitle");
    let sources = ["a", "b"].map(|name| Source {
        name: name.to_owned(),
        import: import.clone(),
    });
    let comparison = Comparison::new(&sources);
    for text in [comparison.text(), comparison.markdown()] {
        assert!(text.ends_with('\n'));
    }
    assert_eq!(comparison.csv().is_empty(), comparison.entries.is_empty());
    serde_json::to_string(&comparison.json()).expect("figures are finite");
    // What was written is read again, and comes out the same.
    let once = export(Form::Sglang, &comparison.entries).text;
    if let Ok(import) = results::parse("sglang", once.as_bytes()) {
        let sources = [Source {
            name: "sglang".to_owned(),
            import,
        }];
        let again = export(Form::Sglang, &Comparison::new(&sources).entries).text;
        assert_eq!(once, again);
    }
    export(Form::Vllm, &comparison.entries);
    export(Form::LlamaBenchMarkdown, &comparison.entries);
});
