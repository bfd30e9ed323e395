//! Any bytes as a result file, side by side with itself and written in every form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stepscope_profiler::compare::export::{Form, export};
use stepscope_profiler::compare::{Comparison, Source};
use stepscope_profiler::results;

fuzz_target!(|bytes: &[u8]| {
    let Ok(import) = results::parse("file", bytes) else {
        return;
    };
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
