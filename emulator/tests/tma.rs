//! Tensor and bulk copies in every direction, against formulas for where each element goes.
#![allow(clippy::unwrap_used)] // a test

mod support;

use std::fmt::Write;
use stepscope_emulator::{ErrorKind, TensorMapOptions, encode_tensor_map};
use support::{Arg, Bench, random};

/// A tensor of dense rows, and a tile of it.
#[derive(Clone, Debug)]
struct Tensor {
    data_type: u32,
    size: usize,
    extents: Vec<usize>,
    tile: Vec<usize>,
    steps: Vec<u32>,
    swizzle: u32,
    fill: u32,
}

impl Tensor {
    fn new(data_type: u32, size: usize, extents: &[usize], tile: &[usize]) -> Self {
        Self {
            data_type,
            size,
            extents: extents.to_vec(),
            tile: tile.to_vec(),
            steps: vec![1; tile.len()],
            swizzle: 0,
            fill: 0,
        }
    }

    fn elements(&self) -> usize {
        self.extents.iter().product()
    }

    /// Elements of the tile along a dimension.
    fn count(&self, dimension: usize) -> usize {
        self.tile[dimension].div_ceil(self.steps[dimension] as usize)
    }

    fn tile_bytes(&self) -> usize {
        (0..self.tile.len())
            .map(|d| self.count(d))
            .product::<usize>()
            * self.size
    }

    fn map(&self, address: u64) -> [u64; 16] {
        let mut strides = Vec::new();
        let mut bytes = self.size as u64;
        for extent in &self.extents[..self.extents.len() - 1] {
            bytes *= *extent as u64;
            strides.push(bytes);
        }
        let options = TensorMapOptions {
            data_type: self.data_type,
            address,
            extents: &self.extents.iter().map(|&e| e as u64).collect::<Vec<u64>>(),
            strides: &strides,
            tile: &self.tile.iter().map(|&t| t as u32).collect::<Vec<u32>>(),
            element_strides: &self.steps,
            interleave: 0,
            swizzle: self.swizzle,
            promotion: 0,
            fill: self.fill,
        };
        encode_tensor_map(&options).unwrap()
    }

    /// For each element of the tile: byte in shared memory, and element of the tensor unless it lies outside.
    fn places(&self, start: &[i32]) -> Vec<(usize, Option<usize>)> {
        let rank = self.tile.len();
        let total = self.tile_bytes() / self.size;
        let places = (0..total).map(|index| {
            let (mut rest, mut stride, mut at, mut inside) = (index, 1, 0, true);
            for (d, &first) in start.iter().enumerate().take(rank) {
                let x = i64::from(first) + (rest % self.count(d)) as i64 * i64::from(self.steps[d]);
                rest /= self.count(d);
                inside &= (0..self.extents[d] as i64).contains(&x);
                at += x * stride;
                stride *= self.extents[d] as i64;
            }
            let byte = index * self.size;
            let chunks = [0, 1, 3, 7][self.swizzle as usize];
            (
                byte ^ (byte >> 7 & chunks) << 4,
                inside.then_some(at as usize),
            )
        });
        places.collect()
    }
}

const PROLOGUE: &str = ".version 8.3\n.target sm_90a\n.address_size 64\n\
    .extern .shared .align 1024 .b8 dyn[];\n.shared .align 8 .b64 bar;\n";

/// A kernel that copies a tile in or out by `instruction`, in which `{map}`, `{shared}` and `{bar}` stand for the operands.
fn kernel(rank: usize, bytes: usize, is_load: bool, instruction: &str, in_global: bool) -> String {
    let mut text = PROLOGUE.to_owned();
    let map = if in_global {
        ".param .u64 pm"
    } else {
        ".param .align 64 .b8 pm[128]"
    };
    write!(text, ".visible .entry k({map}, .param .u64 px").unwrap();
    for d in 0..rank {
        write!(text, ", .param .u32 p{d}").unwrap();
    }
    text += ") {\n.reg .b32 %r<8>; .reg .b32 %c<5>; .reg .b64 %rd<8>; .reg .pred %p<3>;\n";
    text += if in_global {
        "ld.param.u64 %rd0, [pm];\n"
    } else {
        "mov.b64 %rd1, pm; cvta.param.u64 %rd0, %rd1;\n"
    };
    for d in 0..rank {
        writeln!(text, "ld.param.u32 %c{d}, [p{d}];").unwrap();
    }
    text += "mov.u32 %r0, %tid.x; mov.u32 %r1, dyn; mov.u32 %r2, bar; ld.param.u64 %rd2, [px]; setp.ne.u32 %p0, %r0, 0;\n\
        @%p0 bra start; mbarrier.init.shared.b64 [%r2], 1; fence.mbarrier_init.release.cluster;\nstart: bar.sync 0;\n";
    let coordinates: Vec<String> = (0..rank).map(|d| format!("%c{d}")).collect();
    let map = format!("[%rd0, {{{}}}]", coordinates.join(", "));
    let instruction = instruction
        .replace("{map}", &map)
        .replace("{shared}", "[%r1]")
        .replace("{bar}", "[%r2]");
    let words = |text: &mut String, body: &str| {
        write!(
            text,
            "mul.lo.u32 %r3, %r0, 4;\nloop: setp.ge.u32 %p1, %r3, {bytes}; @%p1 bra done;\n\
             add.u32 %r4, %r1, %r3; cvt.u64.u32 %rd3, %r3; add.u64 %rd3, %rd3, %rd2;\n{body}\n\
             add.u32 %r3, %r3, 256; bra loop;\ndone:\n"
        )
        .unwrap();
    };
    if is_load {
        write!(
            text,
            "@%p0 bra wait; mbarrier.arrive.expect_tx.shared.b64 _, [%r2], {bytes};\n{instruction}\n\
             wait: mbarrier.try_wait.parity.shared.b64 %p2, [%r2], 0; @!%p2 bra wait;\n"
        )
        .unwrap();
        words(
            &mut text,
            "ld.shared.b32 %r5, [%r4]; st.global.b32 [%rd3], %r5;",
        );
    } else {
        words(
            &mut text,
            "ld.global.b32 %r5, [%rd3]; st.shared.b32 [%r4], %r5;",
        );
        write!(
            text,
            "fence.proxy.async; bar.sync 0; @%p0 bra end;\n{instruction}\n\
             cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;\nend:\n"
        )
        .unwrap();
    }
    text + "ret; }\n"
}

fn bytes_of(count: usize, seed: u64) -> Vec<u8> {
    let mut next = random(seed);
    (0..count).map(|_| next() as u8).collect()
}

fn load_instruction(rank: usize) -> String {
    format!(
        "cp.async.bulk.prefetch.tensor.{rank}d.L2.global {{map}};\n\
         cp.async.bulk.tensor.{rank}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes {{shared}}, {{map}}, {{bar}};"
    )
}

/// A tile that is loaded is what the formula says.
fn check_load(tensor: &Tensor, start: &[i32]) {
    let rank = start.len();
    let bytes = tensor.tile_bytes();
    let text = kernel(rank, bytes, true, &load_instruction(rank), false);
    let mut bench = Bench::new(&text);
    bench.shared = bytes as u32;
    let input = bytes_of(tensor.elements() * tensor.size, 1);
    let x = bench.buffer(&input);
    let out = bench.empty::<u8>(bytes);
    let map = Arg::Bytes(bytemuck::cast_slice(&tensor.map(x)).to_vec());
    let mut arguments = vec![map, Arg::U64(out)];
    arguments.extend(start.iter().map(|&x| Arg::U32(x as u32)));
    let report = bench.run("k", [1, 1, 1], [64, 1, 1], &arguments);
    assert_eq!(report.counters.bulk_load_bytes, bytes as u64);
    let got = bench.read::<u8>(out, bytes);
    let size = tensor.size;
    for (shared, element) in tensor.places(start) {
        let expected = match element {
            Some(at) => input[at * size..(at + 1) * size].to_vec(),
            None if tensor.fill == 1 => 0x7ff7u16.to_le_bytes().repeat(size / 2),
            None => vec![0; size],
        };
        assert_eq!(
            got[shared..shared + size],
            expected,
            "{tensor:?} {start:?} at {shared}"
        );
    }
}

/// A tile that is stored is, in the tensor, what the formula says; by an operation on old and new bits.
fn check_store(
    tensor: &Tensor,
    start: &[i32],
    form: &str,
    op: impl Fn(u64, u64) -> u64,
    bits: impl Fn(u8) -> u64,
) {
    let rank = start.len();
    let bytes = tensor.tile_bytes();
    // The operation of a reduction stands behind the spaces.
    let (head, op_name) = match form.strip_prefix("cp.reduce.async.bulk.tensor.") {
        Some(op) => ("cp.reduce.async.bulk.tensor", format!(".{op}")),
        None => (form, String::new()),
    };
    let instruction =
        format!("{head}.{rank}d.global.shared::cta{op_name}.tile.bulk_group {{map}}, {{shared}};");
    let text = kernel(rank, bytes, false, &instruction, false);
    let mut bench = Bench::new(&text);
    bench.shared = bytes as u32;
    let size = tensor.size;
    let values = |count: usize, seed| -> Vec<u8> {
        let raw = bytes_of(count / size, seed);
        raw.into_iter()
            .flat_map(|byte| bits(byte).to_le_bytes()[..size].to_vec())
            .collect()
    };
    let (old, tile) = (values(tensor.elements() * size, 3), values(bytes, 4));
    let (x, input) = (bench.buffer(&old), bench.buffer(&tile));
    let map = Arg::Bytes(bytemuck::cast_slice(&tensor.map(x)).to_vec());
    let mut arguments = vec![map, Arg::U64(input)];
    arguments.extend(start.iter().map(|&x| Arg::U32(x as u32)));
    bench.run("k", [1, 1, 1], [64, 1, 1], &arguments);
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
    let mut expected = old.clone();
    for (shared, element) in tensor.places(start) {
        if let Some(at) = element {
            let new = op(
                number(&old[at * size..][..size]),
                number(&tile[shared..][..size]),
            );
            expected[at * size..][..size].copy_from_slice(&new.to_le_bytes()[..size]);
        }
    }
    assert_eq!(
        bench.read::<u8>(x, old.len()),
        expected,
        "{tensor:?} {start:?} {form}"
    );
}

const EXTENTS: [usize; 5] = [32, 7, 5, 4, 3];
const TILE: [usize; 5] = [16, 3, 2, 3, 2];

#[test]
fn tiles_of_every_rank_inside_and_across_every_side() {
    for rank in 1..=5 {
        for (data_type, size) in [(0, 1), (1, 2), (2, 4), (4, 8)] {
            let tensor = Tensor::new(data_type, size, &EXTENTS[..rank], &TILE[..rank]);
            check_load(&tensor, &[8, 2, 1, 1, 1][..rank]);
        }
        let tensor = Tensor::new(7, 4, &EXTENTS[..rank], &TILE[..rank]);
        let plain = [8, 2, 1, 0, 1];
        for dimension in 0..rank {
            for x in [
                -1,
                -40,
                EXTENTS[dimension] as i32 - 1,
                EXTENTS[dimension] as i32,
                i32::MAX,
                i32::MIN,
            ] {
                let mut start = plain;
                start[dimension] = x;
                check_load(&tensor, &start[..rank]);
                check_load(
                    &Tensor {
                        fill: 1,
                        ..tensor.clone()
                    },
                    &start[..rank],
                );
                if x >= 0 {
                    check_store(
                        &tensor,
                        &start[..rank],
                        "cp.async.bulk.tensor",
                        |_, new| new,
                        u64::from,
                    );
                }
            }
        }
        check_store(
            &tensor,
            &plain[..rank],
            "cp.async.bulk.tensor",
            |_, new| new,
            u64::from,
        );
    }
}

#[test]
fn swizzles_and_steps() {
    for (swizzle, span) in [(1, 32), (2, 64), (3, 128)] {
        for (data_type, size) in [(0, 1), (9, 2), (7, 4)] {
            let tensor = Tensor {
                swizzle,
                ..Tensor::new(data_type, size, &[128, 24], &[span / size, 16])
            };
            check_load(&tensor, &[16, 4]);
            check_load(&tensor, &[-16 / size as i32, -3]);
            check_store(
                &tensor,
                &[16, 12],
                "cp.async.bulk.tensor",
                |_, new| new,
                u64::from,
            );
        }
    }
    let tensor = Tensor {
        steps: vec![1, 3, 2],
        ..Tensor::new(7, 4, &[16, 17, 9], &[8, 7, 4])
    };
    check_load(&tensor, &[4, 5, 2]);
    check_load(&tensor, &[4, -2, 7]);
}

#[test]
fn tensor_reductions() {
    let float = |bits: u64| f32::from_bits(bits as u32);
    let signed = |bits: u64| i64::from(bits as u32 as i32);
    let byte = u64::from;
    let check =
        |data_type, size, op: &str, apply: &dyn Fn(u64, u64) -> u64, bits: &dyn Fn(u8) -> u64| {
            let tensor = Tensor::new(data_type, size, &[32, 9], &[16, 4]);
            check_store(
                &tensor,
                &[24, 3],
                &format!("cp.reduce.async.bulk.tensor.{op}"),
                apply,
                bits,
            );
        };
    let wide = |byte: u8| u64::from(byte).wrapping_mul(0x0123_4567_89ab_cdef);
    let four = |byte: u8| u64::from(u32::from(byte).wrapping_mul(0x89ab_cdef));
    check(
        2,
        4,
        "add",
        &|a, b| u64::from((a as u32).wrapping_add(b as u32)),
        &four,
    );
    check(2, 4, "min", &|a, b| a.min(b), &four);
    check(2, 4, "max", &|a, b| a.max(b), &four);
    check(2, 4, "inc", &|a, b| if a >= b { 0 } else { a + 1 }, &byte);
    check(
        2,
        4,
        "dec",
        &|a, b| if a == 0 || a > b { b } else { a - 1 },
        &|byte| u64::from(byte % 5),
    );
    check(2, 4, "and", &|a, b| a & b, &four);
    check(2, 4, "or", &|a, b| a | b, &four);
    check(2, 4, "xor", &|a, b| a ^ b, &four);
    check(
        3,
        4,
        "add",
        &|a, b| u64::from((a as u32).wrapping_add(b as u32)),
        &four,
    );
    check(
        3,
        4,
        "min",
        &|a, b| u64::from(signed(a).min(signed(b)) as u32),
        &four,
    );
    check(
        3,
        4,
        "max",
        &|a, b| u64::from(signed(a).max(signed(b)) as u32),
        &four,
    );
    check(4, 8, "add", &|a, b| a.wrapping_add(b), &wide);
    check(4, 8, "min", &|a, b| a.min(b), &wide);
    check(5, 8, "max", &|a, b| (a as i64).max(b as i64) as u64, &wide);
    check(4, 8, "xor", &|a, b| a ^ b, &wide);
    let f32_bits = |byte: u8| u64::from((f32::from(byte) - 100.0).to_bits());
    check(
        7,
        4,
        "add",
        &|a, b| u64::from((float(a) + float(b)).to_bits()),
        &f32_bits,
    );
    let f16_bits = |byte: u8| u64::from(half::f16::from_f32(f32::from(byte) - 100.0).to_bits());
    let f16 = |bits: u64| half::f16::from_bits(bits as u16);
    check(
        6,
        2,
        "add",
        &|a, b| u64::from((f16(a) + f16(b)).to_bits()),
        &f16_bits,
    );
    check(
        6,
        2,
        "min",
        &|a, b| u64::from(f16(a).min(f16(b)).to_bits()),
        &f16_bits,
    );
    let bf16_bits = |byte: u8| u64::from(half::bf16::from_f32(f32::from(byte) - 100.0).to_bits());
    let bf16 = |bits: u64| half::bf16::from_bits(bits as u16);
    check(
        9,
        2,
        "add",
        &|a, b| u64::from((bf16(a) + bf16(b)).to_bits()),
        &bf16_bits,
    );
    check(
        9,
        2,
        "max",
        &|a, b| u64::from(bf16(a).max(bf16(b)).to_bits()),
        &bf16_bits,
    );
}

#[test]
fn loads_of_tf32_round() {
    let tensor = Tensor::new(11, 4, &[4], &[4]);
    let mut bench = Bench::new(&kernel(1, 16, true, &load_instruction(1), false));
    bench.shared = 16;
    let input = [0x3f80_1000u32, 0x3f80_3000, 0x3f80_1001, 0xbf80_0fff];
    let out = bench.empty::<u32>(4);
    let map = tensor.map(bench.buffer(&input));
    let arguments = [
        Arg::Bytes(bytemuck::cast_slice(&map).to_vec()),
        Arg::U64(out),
        Arg::U32(0),
    ];
    bench.run("k", [1, 1, 1], [64, 1, 1], &arguments);
    // Halves go to the even neighbour.
    assert_eq!(
        bench.read::<u32>(out, 4),
        [0x3f80_0000, 0x3f80_4000, 0x3f80_2000, 0xbf80_0000]
    );
}

#[test]
fn maps_in_global_memory_and_what_is_no_map() {
    let tensor = Tensor::new(7, 4, &[32, 8], &[8, 4]);
    let mut bench = Bench::new(&kernel(2, 128, true, &load_instruction(2), true));
    bench.shared = 128;
    let input: Vec<f32> = (0..256).map(|i| i as f32).collect();
    let x = bench.buffer(&input);
    let map = bench.buffer(&[tensor.map(x), [0; 16]].concat());
    let out = bench.empty::<f32>(32);
    let arguments = |map: u64| [Arg::U64(map), Arg::U64(out), Arg::U32(8), Arg::U32(2)];
    bench.run("k", [1, 1, 1], [64, 1, 1], &arguments(map));
    let expected: Vec<f32> = (0..32)
        .map(|i| input[(2 + i / 8) * 32 + 8 + i % 8])
        .collect();
    assert_eq!(bench.read::<f32>(out, 32), expected);
    // Zeros, a place that is not a multiple of 64, the tensor itself, and nothing at all.
    for address in [map + 128, map + 16, x, 64] {
        let failure = bench
            .launch("k", [1, 1, 1], [64, 1, 1], &arguments(address))
            .failure
            .unwrap();
        assert_eq!(failure.kind(), ErrorKind::InvalidValue);
        assert!(
            failure.to_string().contains("no tensor map at"),
            "{failure}"
        );
    }
    let flat = Tensor::new(7, 4, &[32], &[8]);
    let map = bench.buffer(&flat.map(x));
    let failure = bench
        .launch("k", [1, 1, 1], [64, 1, 1], &arguments(map))
        .failure
        .unwrap();
    assert!(
        failure
            .to_string()
            .contains("2 dimensions with a tensor map of 1"),
        "{failure}"
    );
}
