//! `stepscope emulate`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use stepscope_emulator::check::Checks;

use super::{positive, seconds};
use crate::emulate::Argument;

/// Run a CUDA kernel on the CPU: count what it does, find races and bad accesses, without a GPU
///
/// Compiles CUDA C++ with NVRTC (or takes PTX), makes one launch on an emulated device, and prints
/// counters under Nsight Compute's names, and what is wrong, by source line. Nothing of it is a time.
///   stepscope emulate transpose.cu --kernel transpose --grid 32,32 --block 32,8 \
///     --arg in:a.npy --arg out:b.npy:f32:1024x1024 --arg i32:1024
///   stepscope emulate gemm.cu --kernel 'gemm<64, float>' --grid 16 --block 256 \
///     --arg random:f32:64x64 --arg zeros:f32:64x64
///
/// Exit code: 0 nothing is wrong; 1 something is (a finding that is no note, a trap, a deadlock, a
/// limit); 2 wrong input.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Emulate {
    /// CUDA C++ (.cu) or PTX (.ptx)
    #[arg(value_name = "FILE.cu|FILE.ptx")]
    pub(crate) file: PathBuf,

    /// Which kernel; may be left out if there is one [C++ name, instance as 'gemm<64, float>', or mangled name]
    #[arg(long, value_name = "NAME")]
    pub(crate) kernel: Option<String>,

    /// Blocks of the launch, by axis
    #[arg(long, value_name = "X[,Y,Z]", help_heading = "Launch")]
    pub(crate) grid: Extent,

    /// Threads of a block, by axis
    #[arg(long, value_name = "X[,Y,Z]", help_heading = "Launch")]
    pub(crate) block: Extent,

    /// Dynamic shared memory of a block
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 0,
        help_heading = "Launch"
    )]
    pub(crate) smem: u32,

    /// Blocks of a cluster, by axis
    #[arg(long, value_name = "X[,Y,Z]", help_heading = "Launch")]
    pub(crate) cluster: Option<Extent>,

    /// Launch so that all blocks can wait for one another
    #[arg(long, help_heading = "Launch")]
    pub(crate) cooperative: bool,

    /// The next argument of the kernel; once for each parameter, in order
    ///
    /// TYPE is i8, u8, i16, u16, i32, u32, i64, u64, f16, bf16, f32 or f64; SHAPE 1000 or
    /// 64x128.
    ///   TYPE:VALUE                a number: 12, -3, 1.5e-3, inf, nan; 0x… gives the bits
    ///   in:FILE.npy               a pointer to a copy of the array
    ///   out:FILE.npy:TYPE:SHAPE   a pointer to new memory, written to the file afterwards
    ///   inout:FILE.npy            as in:, and written back to the file afterwards
    ///   zeros:TYPE:SHAPE          a pointer to zeros
    ///   fill:TYPE:SHAPE:VALUE     a pointer to copies of the value
    ///   random:TYPE:SHAPE[:SEED]  a pointer to random numbers: floats from -1 to 1, any integers
    ///   uninit:TYPE:SHAPE         a pointer to new memory
    ///   null                      a null pointer
    ///   bytes:HEX                 a structure by value, byte by byte
    /// NumPy has no bf16: such arrays are uint16 with the same bits in files. f16 is float16.
    #[arg(
        long,
        value_name = "ARG",
        verbatim_doc_comment,
        help_heading = "Launch"
    )]
    pub(crate) arg: Vec<Argument>,

    /// What to compile for and emulate: sm_80, sm_86, sm_89, sm_90 or sm_90a
    #[arg(
        long,
        value_name = "ARCH",
        default_value = "sm_90a",
        help_heading = "Compiling"
    )]
    pub(crate) arch: String,

    /// Folder that #include also looks in, after the file's own
    #[arg(long, short = 'I', value_name = "DIR", help_heading = "Compiling")]
    pub(crate) include: Vec<PathBuf>,

    /// Macro
    #[arg(long, short = 'D', value_name = "NAME[=VALUE]", value_parser = macro_definition, help_heading = "Compiling")]
    pub(crate) define: Vec<(String, Option<String>)>,

    /// Another option for NVRTC, as --nvrtc-option=--use_fast_math
    #[arg(
        long,
        value_name = "OPT",
        allow_hyphen_values = true,
        help_heading = "Compiling"
    )]
    pub(crate) nvrtc_option: Vec<String>,

    /// What to look for: memory (out of bounds, misaligned), race, sync (barriers), init (reads of what nothing wrote), all, none
    #[arg(
        long,
        value_name = "LIST",
        value_enum,
        value_delimiter = ',',
        default_value = "all",
        help_heading = "Checks and limits"
    )]
    pub(crate) check: Vec<Check>,

    /// Give up after so many instructions of warps [default: none]
    #[arg(long, value_name = "N", help_heading = "Checks and limits")]
    pub(crate) limit_instructions: Option<u64>,

    /// Give up after so many seconds
    #[arg(long, value_name = "S", default_value_t = 3600.0, value_parser = seconds, help_heading = "Checks and limits")]
    pub(crate) limit_seconds: f64,

    /// Cores of this machine to run on [default: all]; nothing that is printed depends on it
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Checks and limits")]
    pub(crate) cores: Option<usize>,

    /// Also print a table by source line
    #[arg(long, help_heading = "Output")]
    pub(crate) lines: bool,

    /// Print everything as one JSON document
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// A group of checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Check {
    Memory,
    Race,
    Sync,
    Init,
    All,
    None,
}

impl Check {
    /// What a list of groups turns on.
    pub(crate) fn checks(list: &[Check]) -> Checks {
        let has = |check| list.contains(&check) || list.contains(&Check::All);
        Checks {
            memory: has(Check::Memory),
            init: has(Check::Init),
            sync: has(Check::Sync),
            race: has(Check::Race),
        }
    }
}

/// A size along three axes; those left out are 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent(pub(crate) [u32; 3]);

impl std::str::FromStr for Extent {
    type Err = String;

    fn from_str(text: &str) -> Result<Extent, String> {
        let wrong = || "one to three whole numbers with commas between, as 32,8".to_owned();
        let mut axes = [1; 3];
        for (index, axis) in text.split(',').enumerate() {
            *axes.get_mut(index).ok_or_else(wrong)? = axis.parse().map_err(|_| wrong())?;
        }
        if axes.contains(&0) {
            return Err("each must be at least 1".to_owned());
        }
        Ok(Extent(axes))
    }
}

fn macro_definition(text: &str) -> Result<(String, Option<String>), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    // `F(x)=x` is one, too.
    if !name.starts_with(|c| is_name(c) && !c.is_ascii_digit()) {
        return Err("must be NAME or NAME=VALUE".to_owned());
    }
    Ok((name.to_owned(), value))
}
