//! What is wrong, for a person: where, who, which memory, who else, and what to do.

use std::fmt::Write as _;

use stepscope_emulator::Report;
use stepscope_emulator::check::{Finding, FindingKind, Party, Severity};

use super::Run;
use super::argument::Buffer;
use super::sources::from_here;

/// What a class of findings is called and means.
#[derive(Debug, Clone, Copy)]
pub(super) struct Class {
    /// For programs.
    pub(super) name: &'static str,
    title: &'static str,
    /// What the thread does, and what the other one did.
    does: &'static str,
    other_did: &'static str,
    advice: &'static str,
}

pub(super) fn class(kind: FindingKind) -> Class {
    let class = |name, title, does, other_did, advice| Class {
        name,
        title,
        does,
        other_did,
        advice,
    };
    match kind {
        FindingKind::OutOfBounds => class(
            "out_of_bounds",
            "access out of bounds",
            "accesses",
            "",
            "the access was not made; loads give 0",
        ),
        FindingKind::Misaligned => class(
            "misaligned",
            "misaligned access",
            "accesses",
            "",
            "the address must be a multiple of the size",
        ),
        FindingKind::UseAfterFree => class(
            "use_after_free",
            "access to freed memory",
            "accesses",
            "",
            "",
        ),
        FindingKind::WriteToConstant => class(
            "write_to_constant",
            "write to constant memory",
            "writes",
            "",
            "",
        ),
        FindingKind::UninitialisedMemory => class(
            "uninitialised_memory",
            "read of memory that nothing has written",
            "reads",
            "",
            "",
        ),
        FindingKind::UninitialisedRegister => class(
            "uninitialised_register",
            "use of a variable that nothing has written",
            "reads it",
            "",
            "on the way the thread took, no assignment was executed",
        ),
        FindingKind::RaceReadAfterWrite => class(
            "race_read_after_write",
            "race: read after write (RAW)",
            "reads",
            "wrote",
            "nothing orders the read after the write",
        ),
        FindingKind::RaceWriteAfterRead => class(
            "race_write_after_read",
            "race: write after read (WAR)",
            "writes",
            "read",
            "nothing orders the write after the read",
        ),
        FindingKind::RaceWriteAfterWrite => class(
            "race_write_after_write",
            "race: write after write (WAW)",
            "writes",
            "wrote",
            "nothing orders the writes, so either may come last",
        ),
        FindingKind::MissingWait => class(
            "missing_wait",
            "asynchronous operation not waited for",
            "accesses",
            "started it",
            "wait for it (and at a barrier, if other threads use its result) before its memory or registers are used",
        ),
        FindingKind::DivergentInstruction => class(
            "divergent_instruction",
            "instruction for a whole warp, executed by a part of it",
            "executes it without the rest of its warp",
            "",
            "all 32 threads of the warp must come to it together",
        ),
        FindingKind::BarrierAfterExit => class(
            "barrier_after_exit",
            "barrier that threads have left the kernel before",
            "waits for threads that have exited",
            "",
            "every thread of the block must come to __syncthreads(), so do not return before it",
        ),
        FindingKind::BarrierMismatch => class(
            "barrier_mismatch",
            "threads of a block at different barriers",
            "waits",
            "waits",
            "every thread of the block must come to the same __syncthreads()",
        ),
        FindingKind::MissingProxyFence => class(
            "missing_proxy_fence",
            "ordinary stores read by an asynchronous operation",
            "reads",
            "wrote",
            "fence.proxy.async must come between them",
        ),
        FindingKind::MissingFence => class(
            "missing_fence",
            "wgmma without wgmma.fence before it",
            "starts it",
            "",
            "registers that wgmma uses were written since the last wgmma.fence",
        ),
        FindingKind::MbarrierMisuse => {
            class("mbarrier_misuse", "misuse of an mbarrier", "uses", "", "")
        }
        FindingKind::ExpectedBytes => class(
            "expected_bytes",
            "an mbarrier expects other bytes than arrive",
            "uses",
            "",
            "",
        ),
        FindingKind::UnfinishedAtExit => class(
            "unfinished_at_exit",
            "asynchronous operation under way when its block ended",
            "exits",
            "started it",
            "wait for it before the kernel ends",
        ),
        FindingKind::RegisterBudget => class(
            "register_budget",
            "setmaxnreg beyond the registers of the block",
            "asks for them",
            "",
            "what .inc takes other warps must have given back by .dec, and .dec must not ask for more",
        ),
        // The emulator may learn more classes.
        _ => class("other", "something else", "does it", "", ""),
    }
}

pub(super) fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

/// The findings, worst first; among equals in the emulator's order.
pub(super) fn sorted(report: &Report) -> Vec<&Finding> {
    let mut findings: Vec<&Finding> = report.findings.iter().collect();
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// A section per finding; before them why the launch ended, if it did so before its time.
pub(super) fn sections(run: &Run<'_>) -> Vec<String> {
    let failure = run.report.failure.iter();
    let failure = failure.map(|error| {
        let reason = from_here(&error.to_string());
        format!("stopped before its end: {reason}")
    });
    let findings = run.findings.iter().map(|finding| section(run, finding));
    failure.chain(findings).collect()
}

fn section(run: &Run<'_>, finding: &Finding) -> String {
    let class = class(finding.kind);
    let mut text = format!("{}: {}", severity(finding.severity), class.title);
    if finding.count > 1 {
        let _ = write!(text, ", {} times; the first:", finding.count);
    }
    let _ = write!(text, "\n  {}", place(run, &finding.party));
    let _ = write!(text, "\n    {} {}", who(&finding.party), class.does);
    let of_memory = !matches!(
        finding.kind,
        FindingKind::DivergentInstruction
            | FindingKind::BarrierAfterExit
            | FindingKind::BarrierMismatch
            | FindingKind::UninitialisedRegister
    );
    if let (true, Some(address)) = (of_memory, finding.address) {
        let space = finding.space.unwrap_or("device");
        let memory = Memory::of(run, finding, address).text();
        let _ = write!(
            text,
            " {} bytes of {space} memory,\n    {memory}",
            finding.bytes
        );
    }
    if let Some(other) = &finding.other {
        let _ = write!(
            text,
            "\n  the other: {}\n    {} {}",
            place(run, other),
            who(other),
            class.other_did
        );
    }
    let advice = match (finding.severity, class.advice) {
        (Severity::Warning, _) if finding.other.is_some() => {
            "right only while the threads of a warp proceed together, which is not promised; \
             __syncwarp() orders them"
        }
        (Severity::Note, _) if finding.other.is_some() => {
            "both write the same value, so the order does not show"
        }
        (_, advice) => advice,
    };
    if !advice.is_empty() {
        let _ = write!(text, "\n  {advice}");
    }
    text
}

/// `file:line | source`, as far as the source can be read.
fn place(run: &Run<'_>, party: &Party) -> String {
    let place = run.sources.place(&party.file, party.line);
    match run.sources.line(&party.file, party.line) {
        Some(line) => format!("{place} | {line}"),
        None => place,
    }
}

fn who(party: &Party) -> String {
    let axes = |[x, y, z]: [u32; 3]| format!("({x}, {y}, {z})");
    format!("block {} thread {}", axes(party.block), axes(party.thread))
}

/// The memory that a finding is about, in the person's terms.
#[derive(Debug)]
pub(super) struct Memory<'a> {
    pub(super) address: u64,
    space: Option<&'static str>,
    /// Base and size of the allocation, or of shared or local memory.
    pub(super) allocation: Option<(u64, u64)>,
    /// The argument it came from.
    pub(super) buffer: Option<&'a Buffer>,
    /// The variable of the module that it is.
    pub(super) variable: Option<&'a str>,
}

impl<'a> Memory<'a> {
    pub(super) fn of(run: &'a Run<'_>, finding: &Finding, address: u64) -> Memory<'a> {
        let mut memory = Memory {
            address,
            space: finding.space,
            allocation: finding.allocation,
            buffer: None,
            variable: None,
        };
        if matches!(finding.space, Some("shared" | "local" | "parameter")) {
            return memory;
        }
        // Of what there is, the one that the address is in or nearest to.
        let distance = |base: u64, bytes: u64| {
            let past = address.saturating_sub(base.saturating_add(bytes).saturating_sub(1));
            past.max(base.saturating_sub(address))
        };
        let buffer = run
            .buffers
            .iter()
            .min_by_key(|buffer| distance(buffer.address, buffer.bytes()));
        let global = run
            .loaded
            .module
            .globals()
            .min_by_key(|&(_, base, bytes)| distance(base, bytes));
        let of_buffer = buffer.map_or(u64::MAX, |b| distance(b.address, b.bytes()));
        match (buffer, global) {
            (_, Some((name, base, bytes))) if distance(base, bytes) < of_buffer => {
                memory.variable = Some(name);
                memory.allocation = Some((base, bytes));
            }
            (Some(buffer), _) => {
                memory.buffer = Some(buffer);
                memory.allocation = Some((buffer.address, buffer.bytes()));
            }
            (None, _) => {}
        }
        memory
    }

    /// From the allocation's first byte.
    pub(super) fn offset(&self) -> Option<i128> {
        let (base, _) = self.allocation?;
        Some(i128::from(self.address) - i128::from(base))
    }

    fn text(&self) -> String {
        let address = self.address;
        let Some((offset, (_, bytes))) = self.offset().zip(self.allocation) else {
            return format!("0x{address:x}: in no allocation");
        };
        if matches!(self.space, Some("shared" | "local" | "parameter")) {
            return format!("byte {address} of {bytes}");
        }
        // Nothing is allocated there; whatever allocation is nearest has nothing to do with it.
        if address < 1 << 16 {
            return format!("0x{address:x}: a null pointer");
        }
        let name = match (self.buffer, self.variable) {
            (Some(buffer), _) => format!("argument {}, {}", buffer.index, buffer.text),
            (None, Some(variable)) => format!("variable {variable}"),
            (None, None) => "an allocation".to_owned(),
        };
        if offset < 0 {
            return format!("0x{address:x}: {name}, {} bytes before its start", -offset);
        }
        let mut text = format!("0x{address:x}: {name}, byte {offset} of {bytes}");
        if let Some(buffer) = self.buffer {
            let size = buffer.element.bytes() as i128;
            let count = i128::from(bytes) / size;
            let _ = write!(text, " (element {} of {count})", offset / size);
        }
        if offset >= i128::from(bytes) {
            text.push_str(", past its end");
        }
        text
    }
}

/// One line: how it went.
pub(super) fn verdict(run: &Run<'_>) -> String {
    let count = run.findings.len();
    let faults = run.faults();
    let findings = match (faults, count - faults) {
        (0, 0) => "no findings".to_owned(),
        (0, notes) => counted(notes, "note"),
        (faults, 0) => counted(faults, "finding"),
        (faults, notes) => format!(
            "{} and {}",
            counted(faults, "finding"),
            counted(notes, "note")
        ),
    };
    if run.report.failure.is_some() {
        format!("stopped before its end; {findings}; the counters are those of what had run")
    } else {
        findings
    }
}

fn counted(count: usize, what: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {what}{s}")
}
