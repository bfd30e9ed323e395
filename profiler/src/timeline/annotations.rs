//! What the annotations of steps say: sglang's, vLLM's and TensorRT-LLM's spellings.

use serde::Serialize;

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Prompts only.
    Prefill,
    /// One token, or a few speculated ones, for requests that run already.
    Decode,
    /// Both.
    Mixed,
    /// The trace does not say.
    Unknown,
}

impl Kind {
    /// What people call such a step.
    pub fn label(self) -> &'static str {
        match self {
            Kind::Prefill => "prefill step",
            Kind::Decode => "decode step",
            Kind::Mixed => "mixed step",
            Kind::Unknown => "step",
        }
    }
}

/// Who writes annotations like this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Spelling {
    /// `step[DECODE bs=32]`
    Sglang,
    /// `execute_context_1(512)_generation_32(32)`
    Vllm,
    /// `[Executor] _forward_step 7: 0 ctx reqs, 8 gen reqs`
    TensorRtLlm,
    /// `ProfilerStep#6`: a step of the profiler, whatever the program does in it.
    Profiler,
    /// stepscope's own.
    Stepscope,
}

impl Spelling {
    /// What people call it.
    pub fn label(self) -> &'static str {
        match self {
            Spelling::Sglang => "sglang",
            Spelling::Vllm => "vLLM",
            Spelling::TensorRtLlm => "TensorRT-LLM",
            Spelling::Profiler => "PyTorch's profiler",
            Spelling::Stepscope => "stepscope",
        }
    }
}

/// What an annotation says of its step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepLabel {
    /// Whose spelling it is.
    pub spelling: Spelling,
    /// What the step does.
    pub kind: Kind,
    /// Requests in it.
    pub requests: Option<u64>,
    /// Those of them whose prompt it runs.
    pub prefill_requests: Option<u64>,
    /// New tokens that it runs through the model.
    pub tokens: Option<u64>,
    /// Tokens that attention looks back at, those of this step included, over all requests.
    pub context_tokens: Option<u64>,
}

impl StepLabel {
    /// What `text` says, if it is the annotation of a step.
    ///
    /// ```
    /// use stepscope_profiler::timeline::{Kind, StepLabel};
    ///
    /// let label = StepLabel::parse("step[DECODE bs=32]").unwrap();
    /// assert_eq!((label.kind, label.requests), (Kind::Decode, Some(32)));
    /// assert_eq!(StepLabel::parse("aten::mm"), None);
    /// ```
    pub fn parse(text: &str) -> Option<StepLabel> {
        sglang(text)
            .or_else(|| vllm(text))
            .or_else(|| vllm_new_and_cached(text))
            .or_else(|| tensorrt_llm(text))
            .or_else(|| profiler_step(text))
    }

    fn new(spelling: Spelling, kind: Kind) -> StepLabel {
        StepLabel {
            spelling,
            kind,
            requests: None,
            prefill_requests: None,
            tokens: None,
            context_tokens: None,
        }
    }

    /// A step of our own trace: `prefill` or `decode 3`, with the batch size beside it.
    pub(super) fn own(text: &str, batch: Option<u32>) -> StepLabel {
        let kind = match text {
            "prefill" => Kind::Prefill,
            _ if text.starts_with("decode") => Kind::Decode,
            _ => Kind::Unknown,
        };
        StepLabel {
            requests: batch.map(u64::from),
            ..StepLabel::new(Spelling::Stepscope, kind)
        }
    }

    /// Adds what an enclosing or enclosed annotation of the same step says besides.
    pub(super) fn complete(&mut self, other: &StepLabel) {
        if self.kind == Kind::Unknown {
            self.kind = other.kind;
        }
        self.requests = self.requests.or(other.requests);
        self.prefill_requests = self.prefill_requests.or(other.prefill_requests);
        self.tokens = self.tokens.or(other.tokens);
        self.context_tokens = self.context_tokens.or(other.context_tokens);
    }
}

/// sglang: `step[DECODE bs=32]`, `step[EXTEND bs=2 toks=1024]`, and other names of its forward modes.
fn sglang(text: &str) -> Option<StepLabel> {
    let inner = text.strip_prefix("step[")?.strip_suffix(']')?;
    let mut words = inner.split_whitespace();
    let mode = words.next()?;
    let kind = match mode {
        "DECODE" | "TARGET_VERIFY" => Kind::Decode,
        "EXTEND" | "PREFILL" | "SPLIT_PREFILL" => Kind::Prefill,
        "MIXED" => Kind::Mixed,
        _ => Kind::Unknown,
    };
    let mut label = StepLabel::new(Spelling::Sglang, kind);
    for word in words {
        match word.split_once('=') {
            Some(("bs", n)) => label.requests = n.parse().ok(),
            Some(("toks", n)) => label.tokens = n.parse().ok(),
            _ => {}
        }
    }
    match kind {
        Kind::Decode => {
            label.prefill_requests = Some(0);
            // A verified draft has several tokens per request.
            if mode == "DECODE" {
                label.tokens = label.tokens.or(label.requests);
            }
        }
        Kind::Prefill => label.prefill_requests = label.requests,
        _ => {}
    }
    Some(label)
}

/// vLLM: `execute_context_1(512)_generation_32(32)`: requests and, in brackets, new tokens. A longer form gives sums over
/// the requests: `execute_32_context_0(sq0sk0sqsq0sqsk0)_generation_32(sq32sk32785sqsq32sqsk32785)`, where `sq` is new
/// tokens, `sk` tokens looked back at, and the rest sums of their products.
fn vllm(text: &str) -> Option<StepLabel> {
    let rest = text.strip_prefix("execute_")?;
    let (_, rest) = rest.split_once("context_")?;
    let (context, generation) = rest.split_once("_generation_")?;
    let (prompts, prompt_tokens, prompt_context) = counts(context)?;
    let (running, running_tokens, running_context) = counts(generation)?;
    let kind = match (prompts, running) {
        (0, 0) => Kind::Unknown,
        (0, _) => Kind::Decode,
        (_, 0) => Kind::Prefill,
        _ => Kind::Mixed,
    };
    let sum = |a: Option<u64>, b: Option<u64>| a?.checked_add(b?);
    Some(StepLabel {
        requests: prompts.checked_add(running),
        prefill_requests: Some(prompts),
        tokens: sum(prompt_tokens, running_tokens),
        context_tokens: sum(prompt_context, running_context),
        ..StepLabel::new(Spelling::Vllm, kind)
    })
}

/// `32(32)` or `32(sq32sk32785sqsq32sqsk32785)`: requests, new tokens, context tokens.
fn counts(text: &str) -> Option<(u64, Option<u64>, Option<u64>)> {
    let (requests, rest) = text.split_once('(')?;
    let inner = rest.strip_suffix(')')?;
    let requests = requests.parse().ok()?;
    if let Ok(tokens) = inner.parse() {
        return Some((requests, Some(tokens), None));
    }
    let number_after = |key: &str| {
        let digits = inner.strip_prefix("sq").map(|rest| match key {
            "sq" => rest,
            _ => rest.split_once("sk").map_or("", |(_, after)| after),
        })?;
        let end = digits
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(digits.len());
        digits[..end].parse().ok()
    };
    Some((requests, number_after("sq"), number_after("sk")))
}

/// vLLM of late 2025: `execute_new_1_cached_31`.
fn vllm_new_and_cached(text: &str) -> Option<StepLabel> {
    let rest = text.strip_prefix("execute_new_")?;
    let (new, cached) = rest.split_once("_cached_")?;
    let (new, cached): (u64, u64) = (new.parse().ok()?, cached.parse().ok()?);
    // A cached request may still be in its prompt, so that only steps with new ones are told.
    let kind = match (new, cached) {
        (0, _) | (_, 1..) => Kind::Unknown,
        (_, 0) => Kind::Prefill,
    };
    Some(StepLabel {
        requests: new.checked_add(cached),
        ..StepLabel::new(Spelling::Vllm, kind)
    })
}

/// TensorRT-LLM: `[Executor] _forward_step 7: 0 ctx reqs, 8 gen reqs`, with `, 0 ctx tokens` between in later versions.
fn tensorrt_llm(text: &str) -> Option<StepLabel> {
    let (_, rest) = text
        .strip_prefix("[Executor] _forward_step")?
        .split_once(':')?;
    let mut label = StepLabel::new(Spelling::TensorRtLlm, Kind::Unknown);
    let (mut prompts, mut running) = (None::<u64>, None::<u64>);
    for part in rest.split(',') {
        let mut words = part.split_whitespace();
        let (Some(number), Some(what), Some(of)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        match (what, of) {
            ("ctx", "reqs") => prompts = number.parse().ok(),
            ("gen" | "generation", "reqs") => running = number.parse().ok(),
            ("ctx", "tokens") => label.tokens = number.parse().ok(),
            _ => {}
        }
    }
    let (prompts, running) = (prompts?, running?);
    label.kind = match (prompts, running) {
        (0, 0) => Kind::Unknown,
        (0, _) => Kind::Decode,
        (_, 0) => Kind::Prefill,
        _ => Kind::Mixed,
    };
    // Generated tokens per request are not said: with speculation there are several.
    if running > 0 {
        label.tokens = None;
    }
    label.requests = prompts.checked_add(running);
    label.prefill_requests = Some(prompts);
    Some(label)
}

fn profiler_step(text: &str) -> Option<StepLabel> {
    let number = text
        .strip_prefix("ProfilerStep")?
        .trim_start()
        .strip_prefix('#')?;
    number.trim().parse::<u64>().ok()?;
    Some(StepLabel::new(Spelling::Profiler, Kind::Unknown))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (kind, requests, prefill requests, tokens, context tokens)
    type Said = (Kind, Option<u64>, Option<u64>, Option<u64>, Option<u64>);

    #[track_caller]
    fn check(text: &str, spelling: Spelling, said: Said) {
        let label = StepLabel::parse(text).unwrap();
        assert_eq!(label.spelling, spelling, "{text}");
        let actual = (
            label.kind,
            label.requests,
            label.prefill_requests,
            label.tokens,
            label.context_tokens,
        );
        assert_eq!(actual, said, "{text}");
    }

    #[test]
    fn spellings() {
        use Kind::{Decode, Mixed, Prefill, Unknown};
        check(
            "step[DECODE bs=32]",
            Spelling::Sglang,
            (Decode, Some(32), Some(0), Some(32), None),
        );
        check(
            "step[EXTEND bs=2 toks=1024]",
            Spelling::Sglang,
            (Prefill, Some(2), Some(2), Some(1024), None),
        );
        check(
            "step[MIXED bs=2]",
            Spelling::Sglang,
            (Mixed, Some(2), None, None, None),
        );
        check(
            "step[TARGET_VERIFY bs=2]",
            Spelling::Sglang,
            (Decode, Some(2), Some(0), None, None),
        );
        check(
            "step[IDLE bs=0]",
            Spelling::Sglang,
            (Unknown, Some(0), None, None, None),
        );
        check(
            "execute_context_3(1500)_generation_2(2)",
            Spelling::Vllm,
            (Mixed, Some(5), Some(3), Some(1502), None),
        );
        check(
            "execute_32_context_0(sq0sk0sqsq0sqsk0)_generation_32(sq32sk32785sqsq32sqsk32785)",
            Spelling::Vllm,
            (Decode, Some(32), Some(0), Some(32), Some(32785)),
        );
        check(
            "execute_new_2_cached_0",
            Spelling::Vllm,
            (Prefill, Some(2), None, None, None),
        );
        check(
            "execute_new_0_cached_9",
            Spelling::Vllm,
            (Unknown, Some(9), None, None, None),
        );
        check(
            "[Executor] _forward_step 60: 0 ctx reqs, 0 ctx tokens, 32 gen reqs",
            Spelling::TensorRtLlm,
            (Decode, Some(32), Some(0), None, None),
        );
        check(
            "[Executor] _forward_step 2: 3 ctx reqs, 900 ctx tokens, 0 gen reqs",
            Spelling::TensorRtLlm,
            (Prefill, Some(3), Some(3), Some(900), None),
        );
        check(
            "[Executor] _forward_step: 1 ctx reqs, 4 gen reqs",
            Spelling::TensorRtLlm,
            (Mixed, Some(5), Some(1), None, None),
        );
        check(
            "ProfilerStep#6",
            Spelling::Profiler,
            (Unknown, None, None, None, None),
        );
        check(
            "ProfilerStep #6",
            Spelling::Profiler,
            (Unknown, None, None, None, None),
        );
    }

    #[test]
    fn other_annotations_are_no_steps() {
        for text in [
            "",
            "step[]",
            "step[DECODE",
            "execute_model",
            "execute_context_1_generation_2",
            "execute_context_99999999999999999999(1)_generation_0(0)",
            "execute_new__cached_",
            "[Executor] _forward_step 1",
            "ProfilerStep",
            "## forward ##",
        ] {
            assert_eq!(StepLabel::parse(text), None, "{text}");
        }
    }
}
