//! Any bytes as a GGUF file: its config, its weights, its tokenizer and its chat template.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stepscope_engine::model::from_bytes;
use stepscope_engine::tokenizer::ChatMessage;
use stepscope_kernels::DType;

fuzz_target!(|bytes: &[u8]| {
    let (tokenizer, _) = from_bytes::gguf(bytes.to_vec(), DType::F32);
    if let Ok(Some(tokenizer)) = tokenizer {
        if let Ok(ids) = tokenizer.encode("a b\nab <s> 12 é", true) {
            let _ = tokenizer.decode(&ids, true);
        }
        let message = ChatMessage {
            role: "user".to_owned(),
            content: "a".to_owned(),
        };
        let _ = tokenizer.render_chat(&[message], true);
    }
});
