//! SentencePiece's BPE, as Llama 2 and its like have it: no merges are listed, but the better a token's score, the
//! earlier two tokens are joined to it.

use tokenizers::DecoderWrapper;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::prepend::Prepend;
use tokenizers::normalizers::replace::Replace;
use tokenizers::normalizers::utils::Sequence as Normalizers;

use super::{Vocab, unusable};
use crate::error::Error;
use crate::model::GgufMetadata;
use crate::tokenizer::guarded;

/// SentencePiece makes no token longer than 16 letters; what is longer is no product of merges, and would take long
/// to take apart.
const LONGEST_MERGED: usize = 128;
/// Stands for a space.
const SPACE: &str = "▁";

/// The tokenizer, as transformers' `LlamaConverter` makes it.
pub(super) fn build(
    metadata: &GgufMetadata<'_>,
    vocab: &Vocab<'_>,
) -> Result<tokenizers::Tokenizer, Error> {
    const SCORES: &str = "tokenizer.ggml.scores";
    let scores: Vec<f32> = metadata
        .floats(SCORES)?
        .map_or_else(Vec::new, Iterator::collect);
    if scores.len() != vocab.tokens.len() {
        return Err(unusable(
            metadata,
            format_args!(
                "it has {} tokens, but scores of {} in {SCORES}",
                vocab.tokens.len(),
                scores.len()
            ),
        ));
    }
    let unknown = vocab.token(metadata, "tokenizer.ggml.unknown_token_id")?;
    let prefixes = metadata
        .boolean("tokenizer.ggml.add_space_prefix")?
        .unwrap_or(true);
    let merges = merges(vocab, &scores)
        .into_iter()
        .map(|(left, right)| (left.to_owned(), right.to_owned()))
        .collect();
    let ids: tokenizers::models::bpe::Vocab = vocab
        .ids
        .iter()
        .map(|(token, &id)| ((*token).to_owned(), id))
        .collect();
    let build = || {
        let mut model = BPE::builder()
            .vocab_and_merges(ids, merges)
            .fuse_unk(true)
            .byte_fallback(true);
        if let Some((_, token)) = unknown {
            model = model.unk_token(token.to_owned());
        }
        let mut inner = tokenizers::Tokenizer::new(model.build()?);
        let mut normalizers = Vec::new();
        if prefixes {
            normalizers.push(Prepend::new(SPACE.to_owned()).into());
        }
        normalizers.push(Replace::new(" ", SPACE)?.into());
        inner.with_normalizer(Some(Normalizers::new(normalizers)))?;
        let mut decoders: Vec<DecoderWrapper> = vec![
            Replace::new(SPACE, " ")?.into(),
            ByteFallback::new().into(),
            Fuse::new().into(),
        ];
        if prefixes {
            decoders.push(Strip::new(' ', 1, 0).into());
        }
        inner.with_decoder(Some(Decoders::new(decoders)));
        Ok(inner)
    };
    guarded(build).map_err(|e| unusable(metadata, e))
}

/// Every pair of tokens that makes a third, the ones to join first at the front: by score, then by the lengths of the
/// left and the right part, the highest and longest first; then by the order of the vocabulary.
fn merges<'a>(vocab: &Vocab<'a>, scores: &[f32]) -> Vec<(&'a str, &'a str)> {
    let mut pairs = Vec::new();
    let scored = vocab.tokens.iter().zip(scores);
    for (&token, &score) in scored.filter(|(token, _)| token.len() <= LONGEST_MERGED) {
        let mut of_token: Vec<_> = token
            .char_indices()
            .skip(1)
            .map(|(at, _)| token.split_at(at))
            .filter_map(|(left, right)| {
                Some((
                    (*vocab.ids.get(left)?, *vocab.ids.get(right)?),
                    (left, right),
                ))
            })
            .collect();
        of_token.sort_unstable_by_key(|(ids, _)| *ids);
        pairs.extend(of_token.into_iter().map(|(_, pair)| (score, pair)));
    }
    let lengths = |(left, right): (&str, &str)| (left.chars().count(), right.chars().count());
    pairs.sort_by(|(a_score, a), (b_score, b)| {
        b_score
            .total_cmp(a_score)
            .then_with(|| lengths(*b).cmp(&lengths(*a)))
    });
    pairs.into_iter().map(|(_, pair)| pair).collect()
}
