//! `wgmma` of every type, width and layout, against a plain matrix product.
//!
//! The operands are laid out here by PTX's tables of canonical layouts, copied to shared memory as they are and multiplied by
//! kernels that are written for each case.
#![allow(clippy::unwrap_used)] // a test

mod support;

use std::fmt::Write;
use stepscope_emulator::check::FindingKind;
use support::matrix::{Type, Values, accumulator_place, fragment, fragment_k};
use support::{Arg, Bench, random};

/// How an operand lies in shared memory.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Layout {
    /// Bytes of a span that is swizzled: 16 (not at all), 32, 64 or 128.
    span: usize,
    /// Rows of A or columns of B run fastest.
    mn_major: bool,
}

const fn k_major(span: usize) -> Layout {
    Layout {
        span,
        mn_major: false,
    }
}

const K_MAJOR: [Layout; 4] = [k_major(128), k_major(64), k_major(32), k_major(16)];

/// An instruction to test: N, types of A, B and D, and how it is used.
#[derive(Clone, Copy, Debug)]
struct Case {
    n: usize,
    a: Type,
    b: Type,
    d: Type,
    /// `None`: in registers.
    a_layout: Option<Layout>,
    b_layout: Layout,
    negate: [bool; 2],
    satfinite: bool,
    /// Whether the first instruction adds to what the accumulators hold.
    adds: bool,
    /// Instructions along K.
    steps: usize,
    /// Of the groups, one per step, how many are waited for last.
    keep: usize,
}

impl Case {
    fn new(n: usize, a: Type, b: Type, d: Type) -> Self {
        Self {
            n,
            a,
            b,
            d,
            a_layout: Some(K_MAJOR[0]),
            b_layout: K_MAJOR[0],
            negate: [false; 2],
            satfinite: false,
            adds: true,
            steps: 2,
            keep: 0,
        }
    }

    /// Elements of K of one instruction.
    fn k(&self) -> usize {
        256 / self.a.bits()
    }

    fn registers(&self) -> usize {
        self.n * self.d.bits() / 64
    }
}

/// An operand as it lies in shared memory, and the descriptors of its steps along K.
struct Image {
    bytes: Vec<u8>,
    descriptors: Vec<u64>,
}

/// Lays `mn` by `k` elements out from a shared address on.
fn image(
    start: usize,
    ty: Type,
    layout: Layout,
    mn: usize,
    k: usize,
    step: usize,
    value: impl Fn(usize, usize) -> u64,
) -> Image {
    let size = ty.bits() / 8;
    let per_chunk = 16 / size;
    let span = layout.span;
    // The offsets are in bytes; more than a dense layout needs, so that each of them matters.
    let groups = |count: usize, atom: usize| count.div_ceil(atom);
    let (leading, stride);
    if layout.mn_major && span > 16 {
        stride = 8 * span + 1024;
        leading = groups(k, 8) * stride;
    } else if layout.mn_major {
        stride = 128 + 16;
        leading = groups(mn, 8) * stride + 64;
    } else if span > 16 {
        stride = 8 * span * groups(k * size, span) + 1024;
        leading = 16;
    } else {
        leading = 128 + 32;
        stride = groups(k * size, 16) * leading + 16;
    }
    let place = |mn: usize, k: usize| -> usize {
        let within = start
            + if layout.mn_major && span > 16 {
                let per_span = span / size;
                mn % per_span * size + mn / per_span * leading + k % 8 * span + k / 8 * stride
            } else if layout.mn_major {
                mn % 8 * size + mn / 8 * stride + k % 8 * 16 + k / 8 * leading
            } else if span > 16 {
                // Spans along K lie side by side: each has its own eight rows.
                let at = k * size;
                at % span + at / span * 8 * span + mn % 8 * span + mn / 8 * stride
            } else {
                k % per_chunk * size + k / per_chunk * leading + mn % 8 * 16 + mn / 8 * stride
            };
        // The swizzle: bits 4 to 6 of the address take bits 7 to 9, as many as there are chunks in a span.
        within ^ (within >> 7 & (span / 16 - 1)) << 4
    };
    let mut bytes = Vec::new();
    for row in 0..mn {
        for column in 0..k {
            let at = place(row, column) - start;
            if bytes.len() < at + size {
                bytes.resize(at + size, 0);
            }
            bytes[at..at + size].copy_from_slice(&value(row, column).to_le_bytes()[..size]);
        }
    }
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    let mode = match span {
        128 => 1,
        64 => 2,
        32 => 3,
        _ => 0u64,
    };
    let descriptors = (0..k / step)
        .map(|index| {
            // Where the step begins, before the swizzle.
            let k = index * step;
            let first = start
                + if layout.mn_major && span > 16 {
                    k / 8 * stride
                } else if layout.mn_major {
                    k / 8 * leading
                } else if span > 16 {
                    k * size % span + k * size / span * 8 * span
                } else {
                    k / per_chunk * leading
                };
            let field = |bytes: usize| (bytes as u64 & 0x3ffff) >> 4;
            field(first) | field(leading) << 16 | field(stride) << 32 | mode << 62
        })
        .collect();
    Image { bytes, descriptors }
}

fn names(prefix: &str, range: std::ops::Range<usize>) -> String {
    let list: Vec<String> = range.map(|i| format!("%{prefix}{i}")).collect();
    list.join(", ")
}

/// A kernel of one warpgroup: it copies the images to shared memory, multiplies and stores its registers.
fn kernel(case: &Case, a: Option<&Image>, b: &Image, b_start: usize) -> String {
    let (count, steps) = (case.registers(), case.steps);
    let mut text = format!(
        ".version 8.3\n.target sm_90a\n.address_size 64\n.extern .shared .align 1024 .b8 dyn[];\n\
         .visible .entry k(.param .u64 pa, .param .u64 pb, .param .u64 pf, .param .u64 pd) {{\n\
         .reg .b32 %d<{count}>; .reg .b32 %f<{}>; .reg .b32 %r<8>; .reg .b64 %rd<12>; .reg .pred %p<4>;\n\
         mov.u32 %r0, %tid.x; mov.u32 %r1, dyn;\n",
        4 * steps
    );
    let mut copy = |parameter: &str, label: &str, start: usize, bytes: usize| {
        write!(
            text,
            "ld.param.u64 %rd0, [{parameter}]; mul.lo.u32 %r2, %r0, 16;\n\
             {label}: setp.ge.u32 %p0, %r2, {bytes}; @%p0 bra {label}_done;\n\
             cvt.u64.u32 %rd1, %r2; add.u64 %rd1, %rd1, %rd0; add.u32 %r3, %r1, %r2;\n\
             ld.global.v4.b32 {{%r4, %r5, %r6, %r7}}, [%rd1]; st.shared.v4.b32 [%r3+{start}], {{%r4, %r5, %r6, %r7}};\n\
             add.u32 %r2, %r2, 2048; bra {label};\n{label}_done:\n"
        )
        .unwrap();
    };
    if let Some(a) = a {
        copy("pa", "copy_a", 0, a.bytes.len());
    }
    copy("pb", "copy_b", b_start, b.bytes.len());
    text += "fence.proxy.async; bar.sync 0;\n";
    // The fragments of A and the accumulators: register by register, thread by thread.
    text += "ld.param.u64 %rd0, [pf]; mul.wide.u32 %rd1, %r0, 4; add.u64 %rd2, %rd0, %rd1;\n";
    for i in 0..4 * steps {
        writeln!(text, "ld.global.b32 %f{i}, [%rd2+{}];", 512 * i).unwrap();
    }
    text += "ld.param.u64 %rd0, [pd]; add.u64 %rd3, %rd0, %rd1;\n";
    for i in 0..count {
        writeln!(text, "ld.global.b32 %d{i}, [%rd3+{}];", 512 * i).unwrap();
    }
    text += "wgmma.fence.sync.aligned;\n";
    for step in 0..steps {
        let adds = u8::from(step > 0 || case.adds);
        let operand_a = match a {
            Some(a) => {
                writeln!(text, "mov.u64 %rd4, {};", a.descriptors[step] as i64).unwrap();
                "%rd4".to_owned()
            }
            None => format!("{{{}}}", names("f", 4 * step..4 * step + 4)),
        };
        let is_integer = case.d == Type::S32;
        let mut tail = String::new();
        if !is_integer {
            let sign = |negate| if negate { -1 } else { 1 };
            write!(tail, ", {}, {}", sign(case.negate[0]), sign(case.negate[1])).unwrap();
            if case.a.bits() == 16 {
                if let Some(layout) = case.a_layout {
                    write!(tail, ", {}", u8::from(layout.mn_major)).unwrap();
                }
                write!(tail, ", {}", u8::from(case.b_layout.mn_major)).unwrap();
            }
        }
        write!(
            text,
            "mov.u64 %rd5, {}; setp.ne.b32 %p1, {adds}, 0;\n\
             wgmma.mma_async.sync.aligned.m64n{}k{}{}.{}.{}.{} {{{}}}, {operand_a}, %rd5, %p1{tail};\n\
             wgmma.commit_group.sync.aligned;\n",
            b.descriptors[step] as i64,
            case.n,
            case.k(),
            if case.satfinite { ".satfinite" } else { "" },
            case.d.name(),
            case.a.name(),
            case.b.name(),
            names("d", 0..count),
        )
        .unwrap();
    }
    if case.keep > 0 {
        writeln!(text, "wgmma.wait_group.sync.aligned {};", case.keep).unwrap();
    }
    text += "wgmma.wait_group.sync.aligned 0;\n";
    for i in 0..count {
        writeln!(text, "st.global.b32 [%rd3+{}], %d{i};", 512 * i).unwrap();
    }
    text + "ret; }\n"
}

/// Where the operands are taken from; small integers are exact in every type and order.
#[derive(Clone, Copy)]
enum Range {
    Small,
    /// All that a type can hold within ±1, and the bound of the error in units of the sum of absolute products.
    Fraction(f64),
    /// Small integers, added to what is nearly the largest or the smallest integer.
    Extreme,
}

fn check(case: &Case) {
    check_range(case, Range::Small);
}

fn check_range(case: &Case, range: Range) {
    let k = case.k() * case.steps;
    let mut next = random(case.n as u64 * 31 + k as u64);
    let mut draw = |ty: Type, count: usize| {
        Values::draw(ty, count, || match range {
            Range::Extreme if ty == Type::S32 => match next() % 2 {
                0 => f64::from(i32::MAX - (next() % 16) as i32),
                _ => f64::from(i32::MIN + (next() % 16) as i32),
            },
            Range::Small | Range::Extreme => {
                f64::from(next() % 7) - if ty == Type::U8 { 0.0 } else { 3.0 }
            }
            Range::Fraction(_) => f64::from(next() % 255) / 127.0 - 1.0,
        })
    };
    let a = draw(case.a, 64 * k);
    let b = draw(case.b, case.n * k);
    let c = draw(case.d, 64 * case.n);
    let image_a = case
        .a_layout
        .map(|layout| image(0, case.a, layout, 64, k, case.k(), |m, x| a.bits[m * k + x]));
    let b_start = image_a
        .as_ref()
        .map_or(0, |image| image.bytes.len())
        .next_multiple_of(1024);
    let image_b = image(
        b_start,
        case.b,
        case.b_layout,
        case.n,
        k,
        case.k(),
        |n, x| b.bits[n * k + x],
    );
    let mut bench = Bench::new(&kernel(case, image_a.as_ref(), &image_b, b_start));
    bench.shared = (b_start + image_b.bytes.len()) as u32;

    let mut fragments = vec![0u32; 4 * case.steps * 128];
    let per = 32 / case.a.bits();
    for (at, word) in fragments.iter_mut().enumerate() {
        let (register, thread) = (at / 128, at % 128);
        let (step, register) = (register / 4, register % 4);
        for element in 0..per {
            let row = thread / 32 * 16 + fragment(thread % 32, register).0;
            let x = step * case.k() + fragment_k(thread % 32, register >> 1, element, per);
            *word |= (a.bits[row * k + x] as u32) << (element * case.a.bits());
        }
    }
    let place = |thread: usize, register: usize, half: usize| {
        let (row, column) = accumulator_place(case.d, thread % 32, register, half);
        (thread / 32 * 16 + row, column)
    };
    let count = case.registers();
    let halves = 32 / case.d.bits();
    let mut accumulators = vec![0u32; count * 128];
    for (at, word) in accumulators.iter_mut().enumerate() {
        for half in 0..halves {
            let (row, column) = place(at % 128, at / 128, half);
            *word |= (c.bits[row * case.n + column] as u32) << (16 * half);
        }
    }
    let nothing = bench.buffer(&[0u8; 16]);
    let pa = image_a
        .as_ref()
        .map_or(nothing, |image| bench.buffer(&image.bytes));
    let pd = bench.buffer(&accumulators);
    let arguments = [
        Arg::U64(pa),
        Arg::U64(bench.buffer(&image_b.bytes)),
        Arg::U64(bench.buffer(&fragments)),
        Arg::U64(pd),
    ];
    let counters = bench.run("k", [1, 1, 1], [128, 1, 1], &arguments).counters;
    assert_eq!(
        counters.tensor_flops + counters.tensor_integer_operations,
        (2 * 64 * case.n * k) as u64,
        "{case:?}"
    );
    let got = bench.read::<u32>(pd, count * 128);
    for (at, word) in got.into_iter().enumerate() {
        for half in 0..halves {
            let (row, column) = place(at % 128, at / 128, half);
            let product = |x: usize| a.values[row * k + x] * b.values[column * k + x];
            let mut sum: f64 = (0..k).map(product).sum();
            let size: f64 = (0..k).map(|x| product(x).abs()).sum();
            if case.negate[0] != case.negate[1] {
                sum = -sum;
            }
            if case.adds {
                sum += c.values[row * case.n + column];
            }
            if case.d == Type::S32 && case.satfinite {
                sum = sum.clamp(i32::MIN.into(), i32::MAX.into());
            } else if case.d == Type::S32 {
                sum = f64::from(sum as i64 as i32);
            }
            let value = case.d.value(u64::from(word >> (16 * half)));
            let bound = match range {
                Range::Small | Range::Extreme => 0.0,
                Range::Fraction(bound) => bound * (size + 1.0),
            };
            assert!(
                (value - sum).abs() <= bound,
                "{case:?} row {row} column {column}: {value} instead of {sum}"
            );
        }
    }
}

const FLOATS: [(Type, Type, Type); 13] = [
    (Type::Bf16, Type::Bf16, Type::F32),
    (Type::F16, Type::F16, Type::F32),
    (Type::F16, Type::F16, Type::F16),
    (Type::Tf32, Type::Tf32, Type::F32),
    (Type::E4m3, Type::E4m3, Type::F32),
    (Type::E4m3, Type::E5m2, Type::F32),
    (Type::E5m2, Type::E4m3, Type::F32),
    (Type::E5m2, Type::E5m2, Type::F32),
    (Type::E4m3, Type::E4m3, Type::F16),
    (Type::E4m3, Type::E5m2, Type::F16),
    (Type::E5m2, Type::E4m3, Type::F16),
    (Type::E5m2, Type::E5m2, Type::F16),
    (Type::S8, Type::S8, Type::S32),
];

#[test]
fn every_type_and_width() {
    for (index, (a, b, d)) in FLOATS.into_iter().enumerate() {
        for (at, n) in [8, 16, 64, 96, 128, 256].into_iter().enumerate() {
            let case = Case::new(n, a, b, d);
            let b_layout = K_MAJOR[(index + at) % 4];
            let a_layout = (at % 2 == 0).then_some(K_MAJOR[(index + at / 2) % 4]);
            let negates = d != Type::S32;
            check(&Case {
                a_layout,
                b_layout,
                negate: [negates && at % 3 == 1, negates && at % 4 == 1],
                adds: at % 3 != 0,
                ..case
            });
        }
    }
    // Widths of floating-point types that integers do not have.
    for n in [40, 56, 72, 200, 248] {
        check(&Case::new(n, Type::Bf16, Type::Bf16, Type::F32));
    }
}

#[test]
fn integers_of_both_signs() {
    for (a, b) in [
        (Type::S8, Type::U8),
        (Type::U8, Type::S8),
        (Type::U8, Type::U8),
    ] {
        for (n, a_layout, satfinite) in [
            (8, None, false),
            (24, Some(K_MAJOR[1]), true),
            (48, Some(K_MAJOR[2]), false),
            (224, None, true),
        ] {
            check(&Case {
                a_layout,
                satfinite,
                b_layout: K_MAJOR[n / 8 % 4],
                ..Case::new(n, a, b, Type::S32)
            });
        }
    }
}

#[test]
fn sums_beyond_an_integer_wrap_or_stay() {
    for satfinite in [false, true] {
        // One step: each instruction saturates for itself.
        let case = Case {
            satfinite,
            steps: 1,
            ..Case::new(16, Type::S8, Type::U8, Type::S32)
        };
        check_range(&case, Range::Extreme);
    }
}

#[test]
fn every_layout_of_sixteen_bits() {
    let layouts = || {
        [false, true].into_iter().flat_map(|mn_major| {
            [16, 32, 64, 128]
                .into_iter()
                .map(move |span| Layout { span, mn_major })
        })
    };
    for a_layout in layouts() {
        for b_layout in layouts() {
            check(&Case {
                a_layout: Some(a_layout),
                b_layout,
                steps: 3,
                ..Case::new(24, Type::Bf16, Type::Bf16, Type::F32)
            });
        }
    }
    for b_layout in layouts() {
        check(&Case {
            a_layout: None,
            b_layout,
            ..Case::new(136, Type::F16, Type::F16, Type::F16)
        });
    }
}

#[test]
fn groups_are_waited_for_in_order() {
    for keep in 0..5 {
        check(&Case {
            steps: 5,
            keep,
            ..Case::new(32, Type::Bf16, Type::Bf16, Type::F32)
        });
    }
}

#[test]
fn fractions_within_the_accumulators_precision() {
    for (a, b, d) in FLOATS.into_iter().filter(|case| case.2 != Type::S32) {
        // Truncated sums of 25 bits, of FP8 13 bits; results of f16 round to 11.
        let bound = match (d, a.bits()) {
            (Type::F16, _) => 4.0 / 1024.0,
            (_, 8) => 4.0 / 4096.0,
            _ => 4.0 / f64::from(1 << 23),
        };
        check_range(
            &Case {
                steps: 4,
                ..Case::new(16, a, b, d)
            },
            Range::Fraction(bound),
        );
    }
}

#[test]
fn widths_and_types_that_do_not_exist_are_refused() {
    let device = stepscope_emulator::Device::new(stepscope_emulator::DeviceOptions::default());
    let refused = |case: Case| {
        let dummy = Image {
            bytes: vec![0; 16],
            descriptors: vec![0; 2],
        };
        let text = kernel(&case, Some(&dummy), &dummy, 0);
        assert!(device.load_module(&text).is_err(), "{case:?}");
    };
    refused(Case::new(12, Type::Bf16, Type::Bf16, Type::F32));
    refused(Case::new(264, Type::Bf16, Type::Bf16, Type::F32));
    refused(Case::new(40, Type::S8, Type::S8, Type::S32));
    refused(Case::new(8, Type::Bf16, Type::Bf16, Type::F16));
    refused(Case::new(8, Type::Tf32, Type::Bf16, Type::F32));
    refused(Case::new(8, Type::F16, Type::F16, Type::S32));
}

/// A kernel that multiplies once, with text before and after the instruction.
fn hazard(before: &str, after: &str) -> Vec<(FindingKind, u32)> {
    let case = Case {
        a_layout: None,
        steps: 1,
        ..Case::new(8, Type::Bf16, Type::Bf16, Type::F32)
    };
    let dense = image(0, Type::Bf16, K_MAJOR[0], 8, 16, 16, |_, _| 0);
    let text = kernel(&case, None, &dense, 0)
        .replace("wgmma.fence.sync.aligned;\n", before)
        .replace("wgmma.wait_group.sync.aligned 0;\n", after);
    let mut bench = Bench::new(&text);
    bench.shared = dense.bytes.len() as u32;
    let arguments = [
        Arg::U64(bench.buffer(&[0u8; 16])),
        Arg::U64(bench.buffer(&dense.bytes)),
        Arg::U64(bench.buffer(&vec![0u32; 4 * 128])),
        Arg::U64(bench.buffer(&vec![0u32; 4 * 128])),
    ];
    let report = bench.launch("k", [1, 1, 1], [128, 1, 1], &arguments);
    let found = report.findings.iter();
    found
        .map(|finding| (finding.kind, finding.party.line))
        .collect()
}

#[test]
fn registers_in_use_and_fences_that_lack() {
    const FENCE: &str = "wgmma.fence.sync.aligned;\n";
    const WAIT: &str = "wgmma.wait_group.sync.aligned 0;\n";
    let kinds = |before: &str, after: &str| -> Vec<FindingKind> {
        hazard(before, after)
            .into_iter()
            .map(|(kind, _)| kind)
            .collect()
    };
    assert_eq!(kinds(FENCE, WAIT), []);
    assert_eq!(kinds("", WAIT), [FindingKind::MissingFence]);
    // Registers that are written after the fence.
    let late = |text: &str| format!("{FENCE}{text}\n");
    assert_eq!(
        kinds(&late("add.u32 %d1, %d1, 0;"), WAIT),
        [FindingKind::MissingFence]
    );
    assert_eq!(
        kinds(&late("add.u32 %f2, %f2, 0;"), WAIT),
        [FindingKind::MissingFence]
    );
    assert_eq!(kinds(&late("mov.b32 %r2, 0;"), WAIT), []);
    // Compilers place moves, whatever the source says.
    assert_eq!(kinds(&late("mov.b32 %d1, 0;"), WAIT), []);
    // Read, and overwritten, while the instruction is under way.
    assert!(kinds(FENCE, "").contains(&FindingKind::MissingWait));
    let early = |text: &str| format!("{text}\n{WAIT}");
    assert_eq!(
        kinds(FENCE, &early("mov.b32 %r3, %d0;")),
        [FindingKind::MissingWait]
    );
    assert_eq!(
        kinds(FENCE, &early("mov.b32 %f0, 1;")),
        [FindingKind::MissingWait]
    );
    assert_eq!(kinds(FENCE, &early("mov.b32 %r4, 1;")), []);
    assert_eq!(
        kinds(
            FENCE,
            "wgmma.wait_group.sync.aligned 1;\nmov.b32 %r3, %d0;\nwgmma.wait_group.sync.aligned 0;\n"
        ),
        [FindingKind::MissingWait]
    );
}
