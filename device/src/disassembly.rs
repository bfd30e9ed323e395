//! Machine code as text, by NVIDIA's `nvdisasm`.
//!
//! The program is looked for in this order: the environment variable `STEPSCOPE_NVDISASM` (if it is set, nothing else is tried);
//! `bin` beside the folder that the compiler was opened from, where wheels, toolkits and `cargo xtask cuda` have it; the folders of
//! `PATH`; `/usr/local/cuda/bin`.

use std::collections::BTreeMap;
use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::Error;
use crate::error::Cause;
use crate::nvrtc::Compiler;

const VARIABLE: &str = "STEPSCOPE_NVDISASM";
const NAME: &str = "nvdisasm";

/// The machine code of one kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// The lowered name.
    pub name: String,
    /// In their order; the padding behind the last branch is left out.
    pub instructions: Vec<Instruction>,
}

/// One machine instruction.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Instruction {
    /// As `@!P0`; empty without one.
    #[serde(default)]
    pub predicate: String,
    /// With its modifiers: `HMMA.16816.F32.BF16`.
    pub opcode: String,
    /// With commas between.
    #[serde(default)]
    pub operands: String,
}

impl Instruction {
    /// The opcode without modifiers: `HMMA`.
    pub fn mnemonic(&self) -> &str {
        self.opcode.split('.').next().unwrap_or_default()
    }
}

impl Function {
    /// How often each mnemonic occurs.
    pub fn mix(&self) -> BTreeMap<&str, usize> {
        let mut mix = BTreeMap::new();
        for instruction in &self.instructions {
            *mix.entry(instruction.mnemonic()).or_default() += 1;
        }
        mix
    }
}

/// Where `nvdisasm` is; `compiler`'s own folder is asked first.
///
/// # Errors
/// It is nowhere, or `STEPSCOPE_NVDISASM` names no file.
pub fn find(compiler: &Compiler) -> Result<PathBuf, Error> {
    if let Some(chosen) = env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        let path = PathBuf::from(chosen);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(Error::new(Cause::ChosenLibrary {
                variable: VARIABLE,
                value: path,
                reason: "it is no file".to_owned(),
            }))
        };
    }
    let beside = compiler.path().parent().and_then(Path::parent);
    let mut folders: Vec<PathBuf> = beside
        .map(|folder| folder.join("bin"))
        .into_iter()
        .collect();
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    folders.push(PathBuf::from("/usr/local/cuda/bin"));
    let files = folders.iter().map(|folder| folder.join(NAME));
    files.clone().find(|file| file.is_file()).ok_or_else(|| {
        Error::new(Cause::MissingLibrary {
            library: "NVIDIA's disassembler nvdisasm",
            tried: files.map(|file| file.display().to_string()).collect(),
            way_out: "`pip install nvidia-cuda-nvdisasm` brings it (5 MB; in the repository: `cargo xtask cuda`), or set STEPSCOPE_NVDISASM",
        })
    })
}

/// The kernels of a cubin, in the order of the file.
///
/// # Errors
/// The program cannot be started, or does not understand the cubin: it is older than the compiler, most likely.
pub fn disassemble(program: &Path, cubin: &[u8]) -> Result<Vec<Function>, Error> {
    let file = |source| Error::file("write", Path::new("a temporary file"), source);
    let mut image = tempfile::NamedTempFile::new().map_err(file)?;
    image.write_all(cubin).map_err(file)?;
    let output = Command::new(program)
        .arg("-json")
        .arg(image.path())
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::file("run", program, source))?;
    let refused = |reason: &str| {
        let reason = reason.trim().lines().next().unwrap_or("no reason given");
        Error::arguments(format!(
            "{} cannot read this machine code: {reason}; one as new as the compiler can",
            program.display()
        ))
    };
    if !output.status.success() {
        return Err(refused(&String::from_utf8_lossy(&output.stderr)));
    }
    parse(&output.stdout).map_err(|error| refused(&error.to_string()))
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct JsonFunction {
    function_name: String,
    sass_instructions: Vec<Instruction>,
}

/// Reads what `nvdisasm -json` writes: something about the file, then the functions.
fn parse(text: &[u8]) -> Result<Vec<Function>, serde_json::Error> {
    let (_, functions): (serde_json::Value, Vec<JsonFunction>) = serde_json::from_slice(text)?;
    let functions = functions.into_iter().map(|function| {
        let mut instructions = function.sass_instructions;
        // Behind the last branch, which goes to itself, blocks of instructions are filled up.
        let is_padding = |instruction: &Instruction| instruction.mnemonic() == "NOP";
        let code = instructions.iter().rposition(|i| !is_padding(i));
        instructions.truncate(code.map_or(0, |last| last + 1));
        Function {
            name: function.function_name,
            instructions,
        }
    });
    Ok(functions.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_read_without_their_padding() {
        let text = br#"[{"SM": {"version": {"major": 9, "minor": 0}}},
            [{"function-name": "k", "start": 0, "length": 384, "other-attributes": [], "sass-instructions": [
                {"opcode": "LDC", "operands": "R1,c[0x0][0x28]"},
                {"predicate": "@!P0", "opcode": "LDG.E.128", "operands": "R4,desc[UR4][R2.64]"},
                {"opcode": "NOP"},
                {"opcode": "BRA", "operands": "0xc0", "other-attributes": {"control-flow": "True"}},
                {"opcode": "NOP"}]}]]"#;
        let functions = parse(text).unwrap();
        assert_eq!(functions.len(), 1);
        assert_eq!(functions[0].name, "k");
        let opcodes: Vec<&str> = functions[0]
            .instructions
            .iter()
            .map(|i| &*i.opcode)
            .collect();
        assert_eq!(opcodes, ["LDC", "LDG.E.128", "NOP", "BRA"]);
        assert_eq!(functions[0].instructions[1].predicate, "@!P0");
        assert_eq!(functions[0].mix()["LDG"], 1);
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "{}", "[]", "[{}, [{}]]", "[1, [2]]"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
