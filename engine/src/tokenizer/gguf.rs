//! Tokenizers from GGUF metadata.
//!
//! `tokenizer.ggml.model` is `gpt2` for byte-level BPE, whose merges the file lists and whose way of cutting text
//! into words only has a name (`tokenizer.ggml.pre`); and `llama` for SentencePiece, whose scores stand for merges.

mod sentencepiece;
mod words;

use std::collections::HashMap;

use serde_json::json;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::BPE;
use tokenizers::{AddedToken, PostProcessorWrapper};

use super::chat::ChatTemplate;
use super::{Tokenizer, guarded};
use crate::error::Error;
use crate::model::{GgufMetadata, shown};

/// What `tokenizer.ggml.token_type` says of a token (`llama_token_type` in llama.h).
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// The tokenizer that `metadata` describes, if it describes one.
pub(super) fn from_metadata(metadata: &GgufMetadata<'_>) -> Result<Option<Tokenizer>, Error> {
    match metadata.text("tokenizer.ggml.model")? {
        None | Some("none" | "no_vocab") => Ok(None),
        Some(kind) => build(kind, metadata).map(Some),
    }
}

fn build(kind: &str, metadata: &GgufMetadata<'_>) -> Result<Tokenizer, Error> {
    let vocab = Vocab::read(metadata)?;
    let (mut inner, adds_bos) = match kind {
        "gpt2" => byte_level(metadata, &vocab)?,
        "llama" => (sentencepiece::build(metadata, &vocab)?, true),
        other => {
            return Err(unusable(
                metadata,
                format_args!(
                    "its kind {} is not supported; gpt2 (byte-level BPE) and llama (SentencePiece) are",
                    shown(other)
                ),
            ));
        }
    };
    let token = |key: &str| vocab.token(metadata, key);
    let (bos, eos) = (
        token("tokenizer.ggml.bos_token_id")?,
        token("tokenizer.ggml.eos_token_id")?,
    );
    let eot = token("tokenizer.ggml.eot_token_id")?;

    guarded(|| inner.add_tokens(vocab.added(USER_DEFINED)))
        .and_then(|_| guarded(|| inner.add_special_tokens(vocab.added(CONTROL))))
        .map_err(|e| unusable(metadata, e))?;
    let adds_bos = metadata
        .boolean("tokenizer.ggml.add_bos_token")?
        .unwrap_or(adds_bos);
    let adds_eos = metadata
        .boolean("tokenizer.ggml.add_eos_token")?
        .unwrap_or(false);
    let (first, last) = (bos.filter(|_| adds_bos), eos.filter(|_| adds_eos));
    if first.is_some() || last.is_some() {
        inner.with_post_processor(Some(
            around(first, last).map_err(|e| unusable(metadata, e))?,
        ));
    }

    let named = [
        ("bos_token", bos),
        ("eos_token", eos),
        ("unk_token", token("tokenizer.ggml.unknown_token_id")?),
        ("pad_token", token("tokenizer.ggml.padding_token_id")?),
    ];
    let special = named
        .into_iter()
        .filter_map(|(name, token)| Some((name.to_owned(), token?.1.to_owned())))
        .collect();
    let mut eos_token_ids = Vec::new();
    eos_token_ids.extend(eos.map(|(id, _)| id));
    eos_token_ids.extend(
        eot.map(|(id, _)| id)
            .filter(|id| eos.is_none_or(|(eos, _)| eos != *id)),
    );
    Ok(Tokenizer {
        inner,
        chat: metadata
            .text("tokenizer.chat_template")?
            .map(|source| ChatTemplate::new(source.to_owned(), special)),
        bos_token_id: bos.map(|(id, _)| id),
        eos_token_ids,
    })
}

/// The tokens of a GGUF file.
struct Vocab<'a> {
    tokens: Vec<&'a str>,
    /// Empty if the file does not say.
    kinds: Vec<i64>,
    ids: HashMap<&'a str, u32>,
}

impl<'a> Vocab<'a> {
    fn read(metadata: &GgufMetadata<'a>) -> Result<Vocab<'a>, Error> {
        const TOKENS: &str = "tokenizer.ggml.tokens";
        let Some(tokens) = metadata.texts(TOKENS)? else {
            return Err(unusable(metadata, format_args!("{TOKENS} is missing")));
        };
        let tokens: Vec<&str> = tokens.collect();
        let mut ids = HashMap::new();
        for (id, &token) in tokens.iter().enumerate() {
            let id = u32::try_from(id)
                .map_err(|_| unusable(metadata, "it has more than 2^32 tokens"))?;
            if let Some(other) = ids.insert(token, id) {
                return Err(unusable(
                    metadata,
                    format_args!("tokens {other} and {id} are both {}", shown(token)),
                ));
            }
        }
        let kinds: Vec<i64> = metadata
            .integers("tokenizer.ggml.token_type")?
            .map_or_else(Vec::new, Iterator::collect);
        if !kinds.is_empty() && kinds.len() != tokens.len() {
            return Err(unusable(
                metadata,
                format_args!(
                    "it has {} tokens, but types of {}",
                    tokens.len(),
                    kinds.len()
                ),
            ));
        }
        Ok(Vocab { tokens, kinds, ids })
    }

    /// The token whose id stands under `key`.
    fn token(
        &self,
        metadata: &GgufMetadata<'_>,
        key: &str,
    ) -> Result<Option<(u32, &'a str)>, Error> {
        // -1 and its like stand for none.
        let Some(id) = metadata.unsigned(key).ok().flatten() else {
            return Ok(None);
        };
        match (u32::try_from(id), self.tokens.get(id as usize)) {
            (Ok(id), Some(token)) => Ok(Some((id, token))),
            (Ok(u32::MAX), None) => Ok(None),
            _ => Err(unusable(
                metadata,
                format_args!("{key} is {id}, but there are {} tokens", self.tokens.len()),
            )),
        }
    }

    /// Tokens of this kind, which are found in a text before it is cut into words.
    fn added(&self, kind: i64) -> Vec<AddedToken> {
        let of_kind = self
            .tokens
            .iter()
            .zip(&self.kinds)
            .filter(|&(token, k)| *k == kind && !token.is_empty());
        of_kind
            .map(|(token, _)| AddedToken::from(*token, kind == CONTROL).normalized(false))
            .collect()
    }
}

/// Byte-level BPE, and whether such models want a first token.
fn byte_level(
    metadata: &GgufMetadata<'_>,
    vocab: &Vocab<'_>,
) -> Result<(tokenizers::Tokenizer, bool), Error> {
    const MERGES: &str = "tokenizer.ggml.merges";
    let pre = metadata.text("tokenizer.ggml.pre")?.unwrap_or("default");
    let words = words::of(pre).ok_or_else(|| {
        unusable(
            metadata,
            format_args!(
                "its way of cutting words, {}, is not known here; {} are",
                shown(pre),
                words::names().join(", ")
            ),
        )
    })?;
    let Some(listed) = metadata.texts(MERGES)? else {
        return Err(unusable(metadata, format_args!("{MERGES} is missing")));
    };
    let mut merges = Vec::new();
    for merge in listed {
        // Tokens hold no plain space, but the first may be what stands for one.
        let pair = merge.split_once(' ').filter(|(left, right)| {
            let known = |token: &str| vocab.ids.contains_key(token);
            known(left) && known(right) && known(&format!("{left}{right}"))
        });
        let (left, right) = pair.ok_or_else(|| {
            unusable(
                metadata,
                format_args!("merge {} does not join two tokens to a third", shown(merge)),
            )
        })?;
        merges.push((left.to_owned(), right.to_owned()));
    }
    let ids: tokenizers::models::bpe::Vocab = vocab
        .ids
        .iter()
        .map(|(token, &id)| ((*token).to_owned(), id))
        .collect();
    let build = || {
        let model = BPE::builder()
            .vocab_and_merges(ids, merges)
            .ignore_merges(words.whole_words_first)
            .build()?;
        let mut inner = tokenizers::Tokenizer::new(model);
        if words.normalizes {
            inner.with_normalizer(Some(tokenizers::normalizers::unicode::NFC))?;
        }
        inner.with_pre_tokenizer(Some(words.pre_tokenizer()?));
        inner.with_decoder(Some(ByteLevel::default()));
        Ok(inner)
    };
    let inner = guarded(build).map_err(|e| unusable(metadata, e))?;
    Ok((inner, words.adds_bos))
}

/// Puts `first` before and `last` after every text.
fn around(
    first: Option<(u32, &str)>,
    last: Option<(u32, &str)>,
) -> Result<PostProcessorWrapper, String> {
    let piece = |token: Option<(u32, &str)>| {
        token.map(|(_, text)| json!({"SpecialToken": {"id": text, "type_id": 0}}))
    };
    let sequence = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let single: Vec<_> = [piece(first), Some(sequence("A")), piece(last)]
        .into_iter()
        .flatten()
        .collect();
    let pair: Vec<_> = [
        piece(first),
        Some(sequence("A")),
        Some(sequence("B")),
        piece(last),
    ]
    .into_iter()
    .flatten()
    .collect();
    let tokens: serde_json::Map<_, _> = [first, last]
        .into_iter()
        .flatten()
        .map(|(id, text)| {
            (
                text.to_owned(),
                json!({"id": text, "ids": [id], "tokens": [text]}),
            )
        })
        .collect();
    let template = json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens});
    serde_json::from_value(template).map_err(|e| e.to_string())
}

fn unusable(metadata: &GgufMetadata<'_>, problem: impl std::fmt::Display) -> Error {
    Error::input(format!(
        "{}: its tokenizer cannot be used: {problem}; give a tokenizer.json instead, or run without text",
        metadata.path().display()
    ))
}
