//! Micro-kernels with their inputs, so that a machine with a GPU can say whether this device computes the same.
//!
//! A [`Case`] is a kernel of one of the [`modules`], with how it is launched and what it is given. Who runs it, on this device or
//! through a driver, compares the outputs: bit for bit, but for those marked with a tolerance. Nothing here was recorded from a
//! GPU.

/// A module of micro-kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Module {
    /// Its name.
    pub name: &'static str,
    /// CUDA C++.
    pub source: &'static str,
    /// What NVRTC makes of it, which a driver can compile.
    pub ptx: &'static str,
    /// The least compute capability, and whether no other will do.
    pub compute_capability: (u32, u32),
    /// Compiled for this architecture alone (`sm_90a`).
    pub only_that: bool,
}

/// The modules of all cases.
pub const MODULES: [Module; 5] = [
    Module {
        name: "arithmetic",
        source: include_str!("../tests/kernels/arithmetic.cu"),
        ptx: include_str!("../tests/kernels/arithmetic.ptx"),
        compute_capability: (8, 0),
        only_that: false,
    },
    Module {
        name: "conformance",
        source: include_str!("../tests/kernels/conformance.cu"),
        ptx: include_str!("../tests/kernels/conformance.ptx"),
        compute_capability: (8, 0),
        only_that: false,
    },
    Module {
        name: "samples",
        source: include_str!("../tests/kernels/samples.cu"),
        ptx: include_str!("../tests/kernels/samples.ptx"),
        compute_capability: (8, 0),
        only_that: false,
    },
    Module {
        name: "tensor",
        source: include_str!("../tests/kernels/tensor.cu"),
        ptx: include_str!("../tests/kernels/tensor.ptx"),
        compute_capability: (8, 0),
        only_that: false,
    },
    Module {
        name: "hopper",
        source: include_str!("../tests/kernels/hopper.cu"),
        ptx: include_str!("../tests/kernels/hopper.ptx"),
        compute_capability: (9, 0),
        only_that: true,
    },
];

/// An argument of a kernel.
#[derive(Debug, Clone, PartialEq)]
pub enum Argument {
    /// A number of 4 bytes.
    Word(u32),
    /// A buffer that holds these bytes.
    Input(Vec<u8>),
    /// A buffer whose contents before and after are part of the case.
    InOut(Vec<u8>),
    /// A buffer of so many bytes, zero before, that the kernel writes.
    Output(usize),
    /// The map of a matrix in a buffer of its own; what the buffer holds afterwards is an output if it is zero before.
    Matrix(Matrix),
}

/// A matrix that is copied by tiles.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Its bytes; none of them for an output of zeros.
    pub data: Vec<u8>,
    /// Elements are `bf16` (2 bytes) or `f32` (4 bytes).
    pub element_bytes: u64,
    /// Rows and columns.
    pub size: [u64; 2],
    /// Rows and columns of a tile.
    pub tile: [u32; 2],
    /// Whether tiles are swizzled over 128 bytes.
    pub swizzled: bool,
    /// Whether the kernel writes it.
    pub is_output: bool,
}

/// How near an output must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Closeness {
    /// The same bits, any NaN for any NaN of `f32` where the case says that its outputs are floats.
    Exact,
    /// `f32` values within so many units in the last place, or this near to one another.
    Float {
        /// Units in the last place.
        ulps: u32,
        /// Absolute difference.
        absolute: f32,
    },
}

/// A kernel with its launch and inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Its name, the same from version to version.
    pub name: &'static str,
    /// Which of [`MODULES`].
    pub module: &'static str,
    /// The kernel.
    pub kernel: &'static str,
    /// Blocks, by axis.
    pub grid: [u32; 3],
    /// Threads of a block, by axis.
    pub block: [u32; 3],
    /// Blocks of a cluster.
    pub cluster: Option<[u32; 3]>,
    /// Whether all blocks run at the same time.
    pub cooperative: bool,
    /// Dynamic shared memory.
    pub shared_bytes: u32,
    /// The arguments, in order.
    pub arguments: Vec<Argument>,
    /// How near the outputs must be.
    pub closeness: Closeness,
    /// Whether the order of the outputs' words is left open, as where atomics give out places.
    pub any_order: bool,
}

/// Words that look random and are the same each time (xorshift).
fn words(seed: u64, count: usize) -> Vec<u32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u32
        })
        .collect()
}

fn bytes(words: impl IntoIterator<Item = u32>) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

fn floats(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// Bits of `f32` of every kind: specials, numbers of one size, and anything.
fn any_floats(seed: u64, count: usize) -> Vec<u8> {
    const SPECIAL: [u32; 16] = [
        0,
        0x8000_0000,
        1,
        0x8000_0001,
        0x007f_ffff,
        0x0080_0000,
        0x7f7f_ffff,
        0x7f80_0000,
        0xff80_0000,
        0x7fc0_0000,
        0xffff_ffff,
        0x3f80_0000,
        0xbf80_0000,
        0x3f80_0001,
        0x4b00_0000,
        0x4f00_0000,
    ];
    bytes(
        words(seed, count)
            .into_iter()
            .enumerate()
            .map(|(i, word)| match i % 4 {
                0 => SPECIAL[word as usize % 16],
                1 => word,
                // Near one another, so that sums cancel and round.
                _ => word & 0x807f_ffff | (120 + (word >> 23 & 15)) << 23,
            }),
    )
}

/// Pairs of 16-bit values: of one size, with some of anything.
fn any_halves(seed: u64, count: usize, exponent_bits: u32) -> Vec<u8> {
    let fraction = 15 - exponent_bits;
    let bias = (1 << (exponent_bits - 1)) - 1;
    let half = |word: u32| {
        let near = word & (0x8000 | ((1 << fraction) - 1))
            | (bias - 4 + (word >> fraction & 7)) << fraction;
        if word >> 16 & 31 == 0 {
            word & 0xffff
        } else {
            near & 0xffff
        }
    };
    bytes(
        words(seed, 2 * count)
            .chunks(2)
            .map(|pair| half(pair[0]) | half(pair[1]) << 16),
    )
}

fn input(values: impl IntoIterator<Item = u32>) -> Argument {
    Argument::Input(bytes(values))
}

/// All cases.
pub fn cases() -> Vec<Case> {
    let case = |name, module, kernel, blocks: u32, threads: u32, arguments| Case {
        name,
        module,
        kernel,
        grid: [blocks, 1, 1],
        block: [threads, 1, 1],
        cluster: None,
        cooperative: false,
        shared_bytes: 0,
        arguments,
        closeness: Closeness::Exact,
        any_order: false,
    };
    use Argument::{InOut, Input, Output, Word};
    let mut cases = vec![
        case(
            "saxpy",
            "arithmetic",
            "saxpy",
            8,
            128,
            vec![
                Word(1.7f32.to_bits()),
                Input(any_floats(1, 1000)),
                InOut(any_floats(2, 1000)),
                Word(1000),
            ],
        ),
        case(
            "divergence",
            "arithmetic",
            "divergent",
            1,
            64,
            vec![input(1..65), Output(256)],
        ),
        case(
            "calls",
            "arithmetic",
            "calls",
            1,
            64,
            vec![input(1..65), input((0..64).map(|i| i * 12)), Output(512)],
        ),
        case(
            "integers",
            "arithmetic",
            "integers",
            1,
            256,
            vec![
                input(words(3, 256)),
                input(words(4, 256)),
                Output(256 * 24 * 4),
            ],
        ),
        case(
            "switch",
            "arithmetic",
            "select",
            1,
            64,
            vec![input((0..64).map(|i| i % 11)), Output(256)],
        ),
        case(
            "roundings",
            "conformance",
            "roundings",
            16,
            128,
            vec![
                Input(any_floats(5, 2048)),
                Input(any_floats(6, 2048)),
                Input(any_floats(7, 2048)),
                Output(37 * 2048 * 4),
            ],
        ),
        case(
            "halves",
            "conformance",
            "halves",
            16,
            128,
            vec![
                Input(any_halves(8, 2048, 5)),
                Input(any_halves(9, 2048, 5)),
                Output(13 * 2048 * 4),
            ],
        ),
        case(
            "reduction",
            "samples",
            "reduce",
            8,
            256,
            vec![
                Input(floats((0..10_000).map(|i| (i % 17) as f32))),
                Output(32),
                Word(10_000),
            ],
        ),
        Case {
            shared_bytes: 2048,
            ..case(
                "scan",
                "samples",
                "scan",
                1,
                512,
                vec![input(words(10, 512)), Output(2048)],
            )
        },
        Case {
            grid: [4, 4, 1],
            block: [32, 8, 1],
            ..case(
                "transpose",
                "samples",
                "transpose_swizzled",
                1,
                1,
                vec![
                    input(words(11, 128 * 128)),
                    Output(128 * 128 * 4),
                    Word(128),
                ],
            )
        },
        case(
            "histogram",
            "samples",
            "histogram",
            6,
            256,
            vec![input(words(12, 1250)), Output(1024), Word(5000)],
        ),
        case(
            "bitonic sort",
            "samples",
            "bitonic",
            1,
            256,
            vec![InOut(bytes(words(13, 512)))],
        ),
        Case {
            any_order: true,
            ..case(
                "aggregated atomics",
                "samples",
                "filter",
                8,
                128,
                vec![input(words(14, 1000)), Output(4000), Output(4), Word(1000)],
            )
        },
        case(
            "last block",
            "samples",
            "last_block",
            10,
            32,
            vec![input(0..320), Output(40), InOut(vec![0; 4]), Output(4)],
        ),
        case(
            "named barriers",
            "samples",
            "named_barriers",
            1,
            64,
            vec![input(0..128), Output(512)],
        ),
        Case {
            cooperative: true,
            ..case(
                "grid barrier",
                "samples",
                "grid_barrier",
                8,
                64,
                vec![InOut(vec![0; 4]), input(0..512), Output(2048), Output(2048)],
            )
        },
        Case {
            closeness: Closeness::Float {
                ulps: 4,
                absolute: 1e-6,
            },
            ..case(
                "approximations",
                "conformance",
                "approximations",
                16,
                128,
                vec![
                    Input(floats(
                        words(15, 2048)
                            .into_iter()
                            .map(|word| (word as f32 / 2f32.powi(31) - 1.0) * 20.0),
                    )),
                    Output(6 * 2048 * 4),
                ],
            )
        },
    ];
    for (name, kernel, exponent_bits) in [
        ("mma bf16", "mma_bf16", 8),
        ("mma f16", "mma_f16", 5),
        ("mma tf32", "mma_tf32", 0),
        ("mma s8", "mma_s8", 1),
    ] {
        let blocks = 64;
        let lanes = blocks as usize * 32;
        let operand = |seed, registers: usize| match exponent_bits {
            0 => Input(any_floats(seed, registers * lanes)),
            1 => Input(bytes(words(seed, registers * lanes))),
            bits => Input(any_halves(seed, registers * lanes, bits)),
        };
        let sums = if exponent_bits == 1 {
            operand(18, 4)
        } else {
            Input(any_floats(18, 4 * lanes))
        };
        let arguments = vec![operand(16, 4), operand(17, 2), sums, Output(4 * lanes * 4)];
        cases.push(case(name, "conformance", kernel, blocks, 32, arguments));
    }
    let (m, n, k) = (128, 64, 160);
    let gemm = |size| Input(any_halves(19 + size as u64, size / 2, 8));
    cases.push(Case {
        grid: [1, 2, 1],
        ..case(
            "matrix multiplication, mma.sync",
            "tensor",
            "gemm_swizzled",
            1,
            128,
            vec![
                gemm(m * k),
                gemm(n * k),
                Output(m * n * 4),
                Word(m as u32),
                Word(n as u32),
                Word(k as u32),
            ],
        )
    });
    cases.extend(hopper(&case));
    cases
}

fn hopper(
    case: &dyn Fn(&'static str, &'static str, &'static str, u32, u32, Vec<Argument>) -> Case,
) -> Vec<Case> {
    use Argument::{Output, Word};
    let matrix = |data: Vec<u8>, element_bytes, size, tile, swizzled, is_output| {
        Argument::Matrix(Matrix {
            data,
            element_bytes,
            size,
            tile,
            swizzled,
            is_output,
        })
    };
    let (m, n, k) = (128, 192, 320);
    let operand = |seed, rows: usize| {
        matrix(
            any_halves(seed, rows * k / 2, 8),
            2,
            [rows as u64, k as u64],
            [64, 64],
            true,
            false,
        )
    };
    vec![
        case(
            "bulk copies",
            "hopper",
            "bulk_copy",
            4,
            256,
            vec![input(0..1024), Output(4096)],
        ),
        case(
            "tensor copies, partly outside",
            "hopper",
            "tensor_copy",
            1,
            64,
            vec![
                matrix(
                    floats((1..=800).map(|i| i as f32)),
                    4,
                    [20, 40],
                    [16, 32],
                    false,
                    false,
                ),
                matrix(vec![0; 2048], 4, [16, 32], [16, 32], false, true),
                Word(20),
                Word(10),
            ],
        ),
        Case {
            shared_bytes: 8192,
            ..case(
                "tensor tile, swizzled",
                "hopper",
                "tensor_as_it_lies",
                1,
                128,
                vec![
                    matrix(
                        bytes(words(30, 64 * 32)),
                        4,
                        [64, 32],
                        [64, 32],
                        true,
                        false,
                    ),
                    Output(8192),
                    Word(2048),
                ],
            )
        },
        Case {
            grid: [3, 2, 1],
            shared_bytes: 32768,
            ..case(
                "matrix multiplication, wgmma",
                "hopper",
                "gemm_wgmma",
                1,
                160,
                vec![
                    operand(31, m),
                    operand(32, n),
                    Output(m * n * 4),
                    Word(n as u32),
                    Word(k as u32),
                ],
            )
        },
        Case {
            cluster: Some([4, 1, 1]),
            ..case(
                "distributed shared memory",
                "hopper",
                "cluster_ring",
                8,
                64,
                vec![input(0..512), Output(2048)],
            )
        },
        Case {
            cluster: Some([4, 1, 1]),
            ..case(
                "multicast",
                "hopper",
                "multicast",
                8,
                64,
                vec![input(0..512), Output(2048)],
            )
        },
        case(
            "copies that arrive at a barrier",
            "hopper",
            "copies_arrive",
            1,
            64,
            vec![input(0..256), Output(1024)],
        ),
    ]
}

impl Case {
    /// Whether an output is as near to another as it must be; if not, how many words differ and the first of them.
    ///
    /// # Errors
    /// The number of words that differ, and the place and values of the first.
    pub fn compare(&self, ours: &[u8], theirs: &[u8]) -> Result<(), (usize, usize, u32, u32)> {
        let split = |data: &[u8]| {
            let mut words: Vec<u32> = data
                .chunks_exact(4)
                .map(|word| u32::from_le_bytes(word.try_into().unwrap_or_default()))
                .collect();
            if self.any_order {
                words.sort_unstable();
            }
            words
        };
        let (ours, theirs) = (split(ours), split(theirs));
        let differs = |(a, b): (u32, u32)| match self.closeness {
            Closeness::Exact => a != b,
            Closeness::Float { ulps, absolute } => {
                let (x, y) = (f32::from_bits(a), f32::from_bits(b));
                let line = |bits: u32| {
                    let magnitude = i64::from(bits & 0x7fff_ffff);
                    if bits >> 31 == 1 {
                        -magnitude
                    } else {
                        magnitude
                    }
                };
                let near = (line(a) - line(b)).unsigned_abs() <= u64::from(ulps)
                    || (x - y).abs() <= absolute;
                !(near || x.is_nan() && y.is_nan())
            }
        };
        let pairs = || ours.iter().copied().zip(theirs.iter().copied());
        match pairs().position(differs) {
            None if ours.len() == theirs.len() => Ok(()),
            None => Err((
                ours.len().abs_diff(theirs.len()),
                ours.len().min(theirs.len()),
                0,
                0,
            )),
            Some(first) => Err((
                pairs().filter(|&pair| differs(pair)).count(),
                first,
                ours[first],
                theirs[first],
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_modules_exist() {
        let cases = cases();
        let mut names: Vec<&str> = cases.iter().map(|case| case.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), cases.len());
        assert!(
            cases
                .iter()
                .all(|case| MODULES.iter().any(|module| module.name == case.module))
        );
    }

    #[test]
    fn nearness() {
        let mut case = cases().remove(0);
        assert_eq!(case.compare(&[1, 0, 0, 0], &[1, 0, 0, 0]), Ok(()));
        assert_eq!(
            case.compare(&[1, 0, 0, 0, 2, 0, 0, 0], &[1, 0, 0, 0, 3, 0, 0, 0]),
            Err((1, 1, 2, 3))
        );
        case.any_order = true;
        assert_eq!(
            case.compare(&[1, 0, 0, 0, 2, 0, 0, 0], &[2, 0, 0, 0, 1, 0, 0, 0]),
            Ok(())
        );
        case.closeness = Closeness::Float {
            ulps: 1,
            absolute: 0.0,
        };
        assert_eq!(
            case.compare(&1.0f32.to_le_bytes(), &1.0000001f32.to_le_bytes()),
            Ok(())
        );
        assert!(
            case.compare(&1.0f32.to_le_bytes(), &1.001f32.to_le_bytes())
                .is_err()
        );
        assert_eq!(
            case.compare(&f32::NAN.to_le_bytes(), &(-f32::NAN).to_le_bytes()),
            Ok(())
        );
    }
}
