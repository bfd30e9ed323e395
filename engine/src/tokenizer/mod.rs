//! Text to token ids and back, and the chat template that lays out a conversation.
//!
//! A [`Tokenizer`] comes from a `tokenizer.json` with its `tokenizer_config.json`, or from the metadata of a GGUF
//! file, and gives the same ids and the same rendering as transformers does.
//!
//! **Invariant:** a tokenizer is read from files that came with the model and never fetched.

mod chat;
mod gguf;
mod hugging_face;
mod python;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::error::Error;
use crate::model::GgufMetadata;
use chat::ChatTemplate;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
}

/// A model's tokenizer.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    chat: Option<ChatTemplate>,
    bos_token_id: Option<u32>,
    eos_token_ids: Vec<u32>,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("bos_token_id", &self.bos_token_id)
            .field("eos_token_ids", &self.eos_token_ids)
            .field("has_chat_template", &self.has_chat_template())
            .finish()
    }
}

impl Tokenizer {
    /// The tokenizer at `path`: a `tokenizer.json`, or a folder that holds one.
    pub fn from_path(path: &Path) -> Result<Tokenizer, Error> {
        hugging_face::from_path(path)
    }

    /// The tokenizer of the model in `folder`, if it brought one.
    pub fn from_folder(folder: &Path) -> Result<Option<Tokenizer>, Error> {
        hugging_face::from_folder(folder)
    }

    /// The tokenizer in the metadata of a GGUF file, if there is one.
    pub(crate) fn from_gguf(metadata: &GgufMetadata<'_>) -> Result<Option<Tokenizer>, Error> {
        gguf::from_metadata(metadata)
    }

    /// Token ids of `text`; with `add_special`, what the model wants around a text (such as a first token) is added.
    /// The names of special tokens in `text` become those tokens, as in transformers.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, Error> {
        let encoding = guarded(|| self.inner.encode_fast(text, add_special))
            .map_err(|e| Error::failed(format!("the tokenizer cannot encode this text: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `ids`; with `skip_special`, without special tokens. Ids that the tokenizer does not know give no
    /// text.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, Error> {
        guarded(|| self.inner.decode(ids, skip_special))
            .map_err(|e| Error::failed(format!("the tokenizer cannot decode these ids: {e}")))
    }

    /// Tokens that the tokenizer knows, special ones included. Embeddings may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The token that begins a text.
    pub fn bos_token_id(&self) -> Option<u32> {
        self.bos_token_id
    }

    /// The tokens that end one.
    pub fn eos_token_ids(&self) -> &[u32] {
        &self.eos_token_ids
    }

    /// Whether the model brought a chat template.
    pub fn has_chat_template(&self) -> bool {
        self.chat.is_some()
    }

    /// `messages` as the model was trained to see them; with `add_generation_prompt`, up to where its answer begins.
    /// The result holds its special tokens: encode it without adding any.
    ///
    /// # Errors
    /// When the model brought no chat template, or its template refuses the messages.
    pub fn render_chat(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<String, Error> {
        let Some(chat) = &self.chat else {
            return Err(Error::input(
                "this model brought no chat template: give it plain prompts",
            ));
        };
        chat.render(messages, add_generation_prompt)
    }
}

/// Runs code of the tokenizers crate, which panics on some damaged files (merges longer than every token, templates
/// that name no token).
fn guarded<R>(run: impl FnOnce() -> tokenizers::Result<R>) -> Result<R, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|e| one_line(&e.to_string())),
        Err(_) => Err("the tokenizers library gave up on it".to_owned()),
    }
}

/// Messages of other crates may have several lines.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
