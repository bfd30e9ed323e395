//! How byte-level BPE tokenizers cut text into words, by the names of `tokenizer.ggml.pre`.
//!
//! The regular expressions are those of the models' own `tokenizer.json`, as `llama-vocab.cpp` lists them; `default`
//! is llama.cpp's own, for files from before there were names.

use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior};

/// A way of cutting words.
#[derive(Debug)]
pub(super) struct Words {
    names: &'static [&'static str],
    /// Applied one after the other, each to the pieces of the one before.
    steps: &'static [Step],
    /// Whether a word that is a token is taken whole, whatever its merges.
    pub(super) whole_words_first: bool,
    /// Whether text is brought to Unicode's form NFC first.
    pub(super) normalizes: bool,
    /// Whether such models want a first token, unless the file says otherwise.
    pub(super) adds_bos: bool,
}

#[derive(Debug)]
enum Step {
    /// Every match is a piece.
    Match(&'static str),
    /// Every digit is a piece.
    Digits,
    /// GPT-2's words.
    Gpt2,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";

static WORDS: [Words; 5] = [
    Words {
        names: &[
            "smollm",
            "starcoder",
            "refact",
            "command-r",
            "codeshell",
            "exaone",
            "minerva-7b",
        ],
        steps: &[Step::Digits, Step::Gpt2],
        whole_words_first: false,
        normalizes: false,
        adds_bos: false,
    },
    Words {
        names: &["gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion"],
        steps: &[Step::Gpt2],
        whole_words_first: false,
        normalizes: false,
        adds_bos: false,
    },
    Words {
        names: &["qwen2", "deepseek-r1-qwen", "kormo", "megrez", "stablelm2"],
        steps: &[Step::Match(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
        whole_words_first: false,
        normalizes: true,
        adds_bos: false,
    },
    Words {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "pixtral",
            "midm-2.0",
            "lfm2",
        ],
        steps: &[Step::Match(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
        whole_words_first: true,
        normalizes: false,
        adds_bos: true,
    },
    Words {
        names: &["default"],
        steps: &[
            Step::Match(r"[\p{P}\$\+<=>\^~\|]+"),
            Step::Match(GPT2),
            Step::Match(r"\p{N}+"),
            Step::Match("[0-9][0-9][0-9]"),
        ],
        whole_words_first: false,
        normalizes: false,
        adds_bos: false,
    },
];

/// The way of this name.
pub(super) fn of(name: &str) -> Option<&'static Words> {
    WORDS.iter().find(|words| words.names.contains(&name))
}

/// All names.
pub(super) fn names() -> Vec<&'static str> {
    WORDS
        .iter()
        .flat_map(|words| words.names)
        .copied()
        .collect()
}

impl Words {
    /// Cuts words and writes their bytes in the letters that stand for them.
    pub(super) fn pre_tokenizer(&self) -> tokenizers::Result<PreTokenizerWrapper> {
        let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
        let mut by_gpt2 = false;
        for step in self.steps {
            match step {
                Step::Match(pattern) => {
                    let pattern = SplitPattern::Regex((*pattern).to_owned());
                    steps
                        .push(Split::new(pattern, SplitDelimiterBehavior::Isolated, false)?.into());
                }
                Step::Digits => steps.push(Digits::new(true).into()),
                Step::Gpt2 => by_gpt2 = true,
            }
        }
        steps.push(ByteLevel::new(false, true, by_gpt2).into());
        Ok(Sequence::new(steps).into())
    }
}
