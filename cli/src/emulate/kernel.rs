//! From a file to a kernel on the device: compiled if it is CUDA C++, loaded, and found by its name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cpp_demangle::{DemangleOptions, Symbol};
use stepscope_device::nvrtc::{self, Cache, Compiled, Compiler, Program};
use stepscope_device::{Kind, Version};
use stepscope_emulator::{Device, Kernel, Module};

use super::machine::Machine;
use super::sources::from_here;
use crate::args;
use crate::output::{Failure, print_stderr};

/// A kernel ready to launch.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) module: Arc<Module>,
    pub(crate) kernel: Kernel,
    /// As C++ writes it, without parameters.
    pub(crate) name: String,
    /// The PTX that runs.
    pub(crate) ptx: String,
    pub(crate) compiler: Option<Compilation>,
}

/// What is known from the compiler.
#[derive(Debug, Clone)]
pub(crate) struct Compilation {
    pub(crate) version: Version,
    pub(crate) registers: Option<u32>,
    pub(crate) spill_store_bytes: u32,
    pub(crate) spill_load_bytes: u32,
}

pub(crate) fn load(
    args: &args::Emulate,
    machine: &Machine,
    device: &Device,
) -> Result<Loaded, Failure> {
    let is_source = match args.file.extension().and_then(|e| e.to_str()) {
        Some("cu" | "cuh" | "cpp") => true,
        Some("ptx") => false,
        _ => {
            return Err(Failure::input(format!(
                "{} is neither .cu nor .ptx",
                args.file.display()
            )));
        }
    };
    let bytes = std::fs::read(&args.file)
        .map_err(|e| Failure::input(format!("cannot read {}: {e}", args.file.display())))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::input(format!("{} is not UTF-8 text", args.file.display())))?;
    if !is_source {
        return load_ptx(args, device, text);
    }
    let source = Source {
        args,
        machine,
        compiler: Compiler::open().map_err(without_compiler)?,
        text,
    };
    let (compiled, expression) = source.compile_with_kernel()?;
    for warning in &compiled.facts.warnings {
        print_stderr(&from_here(&warning.to_string()));
    }
    let module = module(&args.file, device, &compiled.ptx)?;
    let asked = expression.map(|expression| compiled.lowered_name(expression).to_owned());
    let (kernel, name) = choose(
        &args.file,
        &module,
        asked.as_deref().or(args.kernel.as_deref()),
    )?;
    let report = compiled.facts.report.kernel(kernel.name());
    Ok(Loaded {
        compiler: Some(Compilation {
            version: compiled.facts.compiler,
            registers: report.map(|report| report.registers),
            spill_store_bytes: report.map_or(0, |report| report.spill_store_bytes),
            spill_load_bytes: report.map_or(0, |report| report.spill_load_bytes),
        }),
        module,
        kernel,
        name,
        ptx: compiled.ptx,
    })
}

fn load_ptx(args: &args::Emulate, device: &Device, text: String) -> Result<Loaded, Failure> {
    let unused = [
        (!args.include.is_empty(), "--include"),
        (!args.define.is_empty(), "--define"),
        (!args.nvrtc_option.is_empty(), "--nvrtc-option"),
    ];
    if let Some((_, option)) = unused.iter().find(|(is_given, _)| *is_given) {
        return Err(Failure::input(format!(
            "{option} is for CUDA C++, but {} is compiled already",
            args.file.display()
        )));
    }
    let module = module(&args.file, device, &text)?;
    let (kernel, name) = choose(&args.file, &module, args.kernel.as_deref())?;
    Ok(Loaded {
        module,
        kernel,
        name,
        ptx: text,
        compiler: None,
    })
}

pub(crate) fn without_compiler(error: stepscope_device::Error) -> Failure {
    let hint = if error.kind() == Kind::MissingLibrary {
        "; without it, .ptx files can be emulated (nvcc --ptx -lineinfo writes them)"
    } else {
        ""
    };
    Failure::input(format!("{error}{hint}"))
}

struct Source<'a> {
    args: &'a args::Emulate,
    machine: &'a Machine,
    compiler: Compiler,
    text: String,
}

impl<'a> Source<'a> {
    /// Compiles the file, and instantiates the kernel that was asked for. The expression is given back if the compiler knew it.
    fn compile_with_kernel(&self) -> Result<(Compiled, Option<&'a str>), Failure> {
        let Some(asked) = self.args.kernel.as_deref() else {
            return Ok((self.compile(None).map_err(failed)?, None));
        };
        let error = match self.compile(Some(asked)) {
            Ok(compiled) => return Ok((compiled, Some(asked))),
            Err(error) => error,
        };
        // Is it the source, or only the name? A mangled name is no expression, but the module knows it.
        let Ok(compiled) = self.compile(None) else {
            return Err(failed(error));
        };
        let module = Device::new(self.machine.options()).load_module(&compiled.ptx);
        let names: Vec<String> = match &module {
            Ok(module) => module.kernel_names().map(str::to_owned).collect(),
            Err(_) => Vec::new(),
        };
        if names.iter().any(|name| is_called(name, asked)) {
            return Ok((compiled, None));
        }
        let kernels = listed(&names);
        Err(Failure::input(format!(
            "no kernel {asked} in {}: {}; {kernels} (a template's instance is asked for with its arguments, as in \
             --kernel 'gemm<64, float>')",
            self.args.file.display(),
            reason(&error),
        )))
    }

    fn compile(&self, expression: Option<&str>) -> Result<Compiled, stepscope_device::Error> {
        // NVRTC writes the file's whole path into the PTX. What lies in the cache must not name another folder's file.
        let path = std::path::absolute(&self.args.file).unwrap_or_else(|_| self.args.file.clone());
        let mut program = Program::new(path.display().to_string(), self.text.as_str());
        program.expressions.extend(expression.map(str::to_owned));
        program.options = nvrtc::Options {
            line_info: true,
            defines: self.args.define.clone(),
            include_folders: self.include_folders(),
            others: self.args.nvrtc_option.clone(),
            ..nvrtc::Options::default()
        };
        match Cache::for_this_user() {
            Some(cache) => self
                .compiler
                .compile_cached(&program, self.machine.arch, &cache),
            None => self.compiler.compile(&program, self.machine.arch),
        }
    }

    /// The file's own folder, those that were asked for, and CUDA's headers where they came with NVRTC. None for a source that
    /// includes nothing, so that it can be kept compiled.
    fn include_folders(&self) -> Vec<String> {
        let includes = |line: &str| {
            line.trim_start()
                .strip_prefix('#')
                .is_some_and(|rest| rest.trim_start().starts_with("include"))
        };
        if self.args.include.is_empty() && !self.text.lines().any(includes) {
            return Vec::new();
        }
        let own = match self.args.file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let library = self.compiler.path();
        let toolkit = library
            .parent()
            .and_then(Path::parent)
            .map(|folder| folder.join("include"))
            .filter(|folder| folder.join("cuda_fp16.h").is_file());
        let folders = std::iter::once(own)
            .chain(self.args.include.iter().cloned())
            .chain(toolkit);
        folders.map(|folder| folder.display().to_string()).collect()
    }
}

/// What the compiler said, in full if the source has mistakes; the last line is the error itself.
fn failed(error: stepscope_device::Error) -> Failure {
    if let Some(log) = error.compiler_log() {
        print_stderr(&from_here(log.trim_end()));
    }
    Failure::input(from_here(&error.to_string()))
}

/// What the compiler said about a name, without where it says that.
fn reason(error: &stepscope_device::Error) -> String {
    let text = error.to_string();
    let (_, reason) = text.split_once("): error: ").unwrap_or(("", &text));
    let reason = reason.split(" (and ").next().unwrap_or(reason);
    format!("NVRTC says {reason}")
}

fn module(file: &Path, device: &Device, text: &str) -> Result<Arc<Module>, Failure> {
    device.load_module(text).map_err(|error| {
        let text = error.to_string();
        match text.split_once('\n') {
            // Every instruction that is not supported has a line; the error itself is the last one.
            Some((what, list)) => {
                print_stderr(list);
                let count = list.lines().count();
                let what = what.trim_end_matches(':');
                Failure::input(format!(
                    "{}: {what}: {count} {}, listed above by line of the PTX",
                    file.display(),
                    if count == 1 {
                        "instruction"
                    } else {
                        "instructions"
                    },
                ))
            }
            None => Failure::input(format!("{}: {text}", file.display())),
        }
    })
}

/// The kernel that was asked for, or the only one; and its name as C++ writes it.
fn choose(
    file: &Path,
    module: &Arc<Module>,
    asked: Option<&str>,
) -> Result<(Kernel, String), Failure> {
    let names: Vec<String> = module.kernel_names().map(str::to_owned).collect();
    let found: Vec<&String> = match asked {
        Some(asked) => match names.iter().find(|name| *name == asked) {
            Some(exact) => vec![exact],
            None => names.iter().filter(|name| is_called(name, asked)).collect(),
        },
        None => names.iter().collect(),
    };
    let in_file = format!("in {}", file.display());
    match (found.as_slice(), asked) {
        ([only], _) => {
            let kernel = module
                .kernel(only)
                .map_err(|error| Failure::run(error.to_string()))?;
            Ok((kernel, short_name(only)))
        }
        (_, _) if names.is_empty() => Err(Failure::input(format!(
            "no kernel {in_file}; a template becomes one with --kernel 'NAME<ARGUMENTS>'"
        ))),
        ([], Some(asked)) => Err(Failure::input(format!(
            "no kernel {asked} {in_file}; {}",
            listed(&names)
        ))),
        (_, Some(asked)) => Err(Failure::input(format!(
            "several kernels {in_file} are called {asked}; {}",
            listed(&names)
        ))),
        (_, None) => Err(Failure::input(format!(
            "several kernels {in_file}, choose one with --kernel; {}",
            listed(&names)
        ))),
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "it has none".to_owned();
    }
    let names: Vec<String> = names.iter().map(|name| demangled(name)).collect();
    format!("it has: {}", names.join("; "))
}

/// A kernel's name as C++ writes it, without parameters; an `extern "C"` one stays as it is.
pub(crate) fn short_name(name: &str) -> String {
    let options = DemangleOptions::new().no_return_type().no_params();
    demangle(name, options).unwrap_or_else(|| name.to_owned())
}

/// A kernel's name and parameters as C++ writes them.
pub(crate) fn demangled(name: &str) -> String {
    demangle(name, DemangleOptions::new().no_return_type()).unwrap_or_else(|| name.to_owned())
}

fn demangle(name: &str, options: DemangleOptions) -> Option<String> {
    Symbol::new(name).ok()?.demangle_with_options(&options).ok()
}

/// Whether a person may mean this kernel by `asked`: its mangled name, or what C++ calls it, with or without parameters.
pub(crate) fn is_called(mangled: &str, asked: &str) -> bool {
    let plain = |text: &str| -> String {
        let text = text.trim_start_matches('&');
        text.split_whitespace().collect()
    };
    let options = DemangleOptions::new;
    mangled == asked
        || [
            options(),
            options().no_return_type(),
            options().no_return_type().no_params(),
        ]
        .into_iter()
        .filter_map(|options| demangle(mangled, options))
        .any(|name| plain(&name) == plain(asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_found_by_what_c_plus_plus_calls_them() {
        let gemm = "_Z4gemmILi64EfEvPT0_i";
        assert_eq!(demangled(gemm), "gemm<64, float>(float*, int)");
        for asked in [
            gemm,
            "gemm<64, float>",
            "&gemm<64,float>",
            "void gemm<64, float>(float*, int)",
            "gemm<64, float>(float *, int)",
        ] {
            assert!(is_called(gemm, asked), "{asked}");
        }
        assert!(!is_called(gemm, "gemm"));
        assert!(!is_called(gemm, "gemm<64, double>"));
        assert!(is_called("_Z4copyPKfPf", "copy"));
        assert!(is_called("plain", "plain"));
        assert_eq!(demangled("plain"), "plain");
        assert_eq!(short_name(gemm), "gemm<64, float>");
    }
}
