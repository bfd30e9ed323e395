//! One instruction on columns of values, one row per thread.

use super::{Arg, Bench, random};

/// The kind of register an operand is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    H,
    W,
    L,
    P,
}

pub use Kind::{H, L, P, W};

impl Kind {
    fn ty(self) -> &'static str {
        match self {
            H => "b16",
            W => "b32",
            L => "b64",
            P => "pred",
        }
    }

    pub fn keep(self) -> u64 {
        match self {
            H => 0xffff,
            W => 0xffff_ffff,
            L => u64::MAX,
            P => 1,
        }
    }
}

const SOURCES: [&str; 5] = ["%a", "%b", "%c", "%p", "%q"];
const RESULTS: [&str; 2] = ["%d", "%e"];
/// What results hold before: lanes that are switched off must keep it.
const OLD: u64 = 0x5bd1_e995_9e37_79b1;

/// A module whose kernel `k` runs `text` on rows of sources (`%a`, `%b`, `%c`, `%p`, `%q`, as many as there are) and stores the
/// results (`%d`, `%e`). Every statement of `text` stands under the guard `%guard`; `%t0` to `%t9` and their kind are free.
pub fn module(text: &str, sources: &[Kind], results: &[Kind]) -> String {
    let mut ptx = String::from(
        ".version 9.0\n.target sm_90a\n.address_size 64\n.extern .shared .align 16 .b8 dynamic[];\n.visible .entry k(.param .u64 in, .param .u64 out)\n{\n.reg .b64 %in, %out, %v, %tl<10>;\n.reg .b32 %i, %t<10>;\n.reg .b16 %th<10>;\n.reg .pred %guard, %tp<10>;\n",
    );
    for (name, kind) in SOURCES
        .iter()
        .zip(sources)
        .chain(RESULTS.iter().zip(results))
    {
        ptx += &format!(".reg .{} {name};\n", kind.ty());
    }
    let (ins, outs) = (8 * (sources.len() + 1), 8 * results.len());
    ptx += &format!(
        "mov.u32 %i, %ctaid.x;\nmov.u32 %t0, %ntid.x;\nmov.u32 %t1, %tid.x;\nmad.lo.u32 %i, %i, %t0, %t1;\nld.param.u64 %in, [in];\nld.param.u64 %out, [out];\nmad.wide.u32 %in, %i, {ins}, %in;\nmad.wide.u32 %out, %i, {outs}, %out;\nld.global.u64 %v, [%in];\nsetp.ne.u64 %guard, %v, 0;\n"
    );
    for (index, (name, kind)) in SOURCES.iter().zip(sources).enumerate() {
        ptx += &format!(
            "ld.global.u64 %v, [%in+{}];\n{}\n",
            8 * index + 8,
            narrow(name, *kind, "%v")
        );
    }
    ptx += &format!("mov.u64 %v, {OLD};\n");
    for (name, kind) in RESULTS.iter().zip(results) {
        ptx += &format!("{}\n", narrow(name, *kind, "%v"));
    }
    for statement in text.split_inclusive(';') {
        ptx += &format!("@%guard {}\n", statement.trim());
    }
    for (index, (name, kind)) in RESULTS.iter().zip(results).enumerate() {
        let widen = match kind {
            H => format!("cvt.u64.u16 %v, {name};"),
            W => format!("cvt.u64.u32 %v, {name};"),
            L => format!("mov.b64 %v, {name};"),
            P => format!("selp.u64 %v, 1, 0, {name};"),
        };
        ptx += &format!("{widen}\nst.global.u64 [%out+{}], %v;\n", 8 * index);
    }
    ptx + "ret;\n}\n"
}

fn narrow(name: &str, kind: Kind, from: &str) -> String {
    match kind {
        H => format!("cvt.u16.u64 {name}, {from};"),
        W => format!("cvt.u32.u64 {name}, {from};"),
        L => format!("mov.b64 {name}, {from};"),
        P => format!("and.b64 %tl9, {from}, 1;\nsetp.ne.u64 {name}, %tl9, 0;"),
    }
}

/// Runs an instruction on rows, once with all lanes and once with some switched off, and compares with `expected`, by `same`.
pub fn check_with(
    text: &str,
    sources: &[Kind],
    results: &[Kind],
    rows: &[Vec<u64>],
    expected: impl Fn(&[u64]) -> Vec<u64>,
    same: impl Fn(u64, u64) -> bool,
) {
    let bench = Bench::new(&module(text, sources, results));
    let mut next = random(17);
    let threads = rows.len().next_multiple_of(32);
    for masked in [false, true] {
        let mut input = Vec::new();
        for index in 0..threads {
            // The last warp is filled up with its first rows.
            let row = &rows[index % rows.len()];
            input.push(u64::from(!masked || next() & 4 != 0));
            input.extend(
                row.iter()
                    .zip(sources)
                    .map(|(value, kind)| value & kind.keep()),
            );
        }
        let input_at = bench.buffer(&input);
        let output_at = bench.empty::<u64>(threads * results.len());
        let blocks = (threads / 32) as u32;
        bench.run(
            "k",
            [blocks, 1, 1],
            [32, 1, 1],
            &[Arg::U64(input_at), Arg::U64(output_at)],
        );
        let output = bench.read::<u64>(output_at, threads * results.len());
        bench.device.free(input_at).unwrap();
        bench.device.free(output_at).unwrap();
        let each = sources.len() + 1;
        for (row, got) in input.chunks(each).zip(output.chunks(results.len())) {
            let is_on = row[0] == 1;
            let want = if is_on {
                expected(&row[1..])
            } else {
                vec![OLD; results.len()]
            };
            assert_eq!(want.len(), results.len());
            for (index, ((&got, want), kind)) in got.iter().zip(want).zip(results).enumerate() {
                let want = want & kind.keep();
                assert!(
                    got == want || is_on && same(got, want),
                    "`{text}` of {:x?}, on: {is_on}: result {index} is {got:#x}, expected {want:#x}",
                    &row[1..]
                );
            }
        }
    }
}

/// [`check_with`], bit for bit.
pub fn check(
    text: &str,
    sources: &[Kind],
    results: &[Kind],
    rows: &[Vec<u64>],
    expected: impl Fn(&[u64]) -> Vec<u64>,
) {
    check_with(text, sources, results, rows, expected, |_, _| false);
}

/// Every combination of the columns' values, and `more` rows made of random bits or of the columns' values.
pub fn rows(columns: &[&[u64]], more: usize) -> Vec<Vec<u64>> {
    let mut rows = vec![Vec::new()];
    for column in columns {
        rows = rows
            .iter()
            .flat_map(|row| {
                column
                    .iter()
                    .map(move |&value| [&row[..], &[value]].concat())
            })
            .collect();
    }
    let mut next = random(99);
    for _ in 0..more {
        let row = columns.iter().map(|column| {
            let bits = u64::from(next()) << 32 | u64::from(next());
            match next() >> 5 & 7 {
                0 => column[bits as usize % column.len()],
                // Near to one of them.
                1 => column[bits as usize % column.len()]
                    .wrapping_add((bits >> 40) % 5)
                    .wrapping_sub(2),
                _ => bits,
            }
        });
        let row = row.collect();
        rows.push(row);
    }
    rows
}

/// Integers at which things change.
pub const INTEGERS: &[u64] = &[
    0,
    1,
    2,
    7,
    31,
    32,
    33,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX - 1,
    u64::MAX,
];

/// Fewer of them.
pub const FEW: &[u64] = &[
    0,
    1,
    0x80,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// The value of some bits.
pub fn value(bits: u64, width: u32, signed: bool) -> i128 {
    let shift = 64 - width;
    if signed {
        i128::from((bits << shift) as i64 >> shift)
    } else {
        i128::from(bits << shift >> shift)
    }
}

/// The error of a module that is refused.
pub fn refusal(text: &str, sources: &[Kind], results: &[Kind]) -> String {
    let device = stepscope_emulator::Device::new(stepscope_emulator::DeviceOptions::default());
    match device.load_module(&module(text, sources, results)) {
        Ok(_) => panic!("`{text}` is accepted"),
        Err(error) => error.to_string(),
    }
}
