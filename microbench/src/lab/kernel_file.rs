//! A file with a person's kernel.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use stepscope_device::driver::{Launch, Module};
use stepscope_device::nvrtc::{Compiled, Options, Program};
use stepscope_kernels::DType;
use stepscope_kernels::cuda::Cuda;
use stepscope_kernels::cuda::catalog::{PRELUDE_TEXT, Shape, element};

use super::directives::{Complaint, Directives, Said};
use super::expression::Expression;
use super::timeline;
use crate::Error;
use crate::operations::{ForeignLaunch, Operation};

/// CUDA C++, and what its comments say of the launch.
#[derive(Debug, Clone)]
pub struct KernelFile {
    /// As the person named it.
    pub path: String,
    /// All of it.
    pub text: String,
    /// What its comments say.
    pub directives: Directives,
}

/// A value of each parameter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Point(pub Vec<(String, u64)>);

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{name}={value}")?;
        }
        Ok(())
    }
}

/// A file's kernels on a device.
#[derive(Debug)]
pub struct Loaded {
    /// The code.
    pub module: Arc<Module>,
    /// What the compiler made and says.
    pub compiled: Compiled,
    /// The launches, in their order.
    pub launches: Vec<ForeignLaunch>,
    /// The kernels of the launches, as C++ names them.
    pub kernels: Vec<String>,
    /// Bytes that the kernels hand each other results in; 0 where there are none.
    pub scratch_bytes: usize,
}

impl KernelFile {
    /// Reads a file for an operation.
    ///
    /// # Errors
    /// It cannot be read, or a comment of it cannot be understood: the message begins with file and line.
    pub fn read(path: &Path, operation: &Operation) -> Result<KernelFile, Error> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::Unusable(format!("{name} cannot be read: {error}")))?;
        KernelFile::parse(&name, text, operation)
    }

    /// Understands the text of a file that is called `path`.
    ///
    /// # Errors
    /// As [`KernelFile::read`].
    pub fn parse(path: &str, text: String, operation: &Operation) -> Result<KernelFile, Error> {
        let directives = Directives::parse(&text).map_err(|complaint| located(path, &complaint))?;
        for param in &directives.params {
            let is_taken = operation.dimensions.iter().any(|d| d.name == param.name)
                || operation.arguments.iter().any(|a| a.name == param.name)
                || ["STORAGE", "SMS"].contains(&param.name.as_str());
            if is_taken {
                let what = format!(
                    "param {} is called like something that {} has; choose another name",
                    param.name, operation.name
                );
                let line = param.line;
                return Err(located(path, &Complaint { line, what }));
            }
        }
        Ok(KernelFile {
            path: path.to_owned(),
            text,
            directives,
        })
    }

    /// The first value of each parameter.
    pub fn first_point(&self) -> Point {
        let params = self.directives.params.iter();
        Point(
            params
                .filter_map(|param| Some((param.name.clone(), *param.values.first()?)))
                .collect(),
        )
    }

    /// All combinations of the parameters' values, the last one changing fastest.
    pub fn points(&self) -> Vec<Point> {
        let mut points = vec![Point::default()];
        for param in &self.directives.params {
            points = points
                .iter()
                .flat_map(|point| {
                    param.values.iter().map(|&value| {
                        let mut longer = point.clone();
                        longer.0.push((param.name.clone(), value));
                        longer
                    })
                })
                .collect();
        }
        points
    }

    /// The first point, with what `text` says, `BM=128,STAGES=4`.
    ///
    /// # Errors
    /// The text has another form, or names no parameter of the file.
    pub fn point(&self, text: &str) -> Result<Point, Error> {
        let mut point = self.first_point();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let pair = part.split_once('=');
            let pair =
                pair.and_then(|(name, value)| Some((name.trim(), value.trim().parse().ok()?)));
            let Some((name, value)) = pair else {
                return Err(Error::Unusable(format!(
                    "{part:?} has not the form NAME=NUMBER"
                )));
            };
            match point.0.iter_mut().find(|(known, _)| known == name) {
                Some((_, place)) => *place = value,
                None => {
                    return Err(Error::Unusable(format!(
                        "{} has no param {name}; `// stepscope: param {name} = {value}` makes one",
                        self.path
                    )));
                }
            }
        }
        Ok(point)
    }

    /// What NVRTC makes its kernels from. Headers are `prelude.cuh`, `timeline.cuh`, and what lies beside the file; the macros
    /// `STORAGE` (the storage type) and the parameters are defined, and `STEPSCOPE_TIMELINE` where events are to be written.
    pub fn program(&self, point: &Point, dtype: DType, has_timeline: bool) -> Program {
        let mut defines = vec![("STORAGE".to_owned(), Some(element(dtype).to_owned()))];
        let params = point.0.iter();
        defines.extend(params.map(|(name, value)| (name.clone(), Some(value.to_string()))));
        if has_timeline {
            defines.push(("STEPSCOPE_TIMELINE".to_owned(), None));
        }
        let mut options = Options {
            line_info: true,
            defines,
            ..Options::default()
        };
        // What lies in a folder is not known in advance, so that nothing of it is cached: only where it is wanted.
        if includes_others(&self.text) {
            let folder = Path::new(&self.path).parent();
            let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new("."));
            options.include_folders.push(folder.display().to_string());
        }
        let program = Program::new(&self.path, &self.text)
            .header("prelude.cuh", shielded(PRELUDE_TEXT, point))
            .header("timeline.cuh", shielded(timeline::HEADER, point))
            .options(options);
        self.kernels(point, dtype)
            .into_iter()
            .fold(program, Program::kernel)
    }

    /// The kernels of its launches, parameters and storage type put in.
    pub fn kernels(&self, point: &Point, dtype: DType) -> Vec<String> {
        let value = |name: &str| match name {
            "STORAGE" => Some(element(dtype).to_owned()),
            _ => {
                let known = point.0.iter().find(|(known, _)| known == name);
                known.map(|(_, value)| value.to_string())
            }
        };
        let launches = self.directives.launches.iter();
        launches
            .map(|launch| substitute(&launch.kernel.what, value))
            .collect()
    }

    /// Blocks, threads and memory of its launches for a shape, on a device of so many multiprocessors.
    ///
    /// # Errors
    /// A number cannot be computed, or is no size of a launch: the message begins with file and line.
    pub fn geometry(
        &self,
        point: &Point,
        shape: &Shape,
        multiprocessors: usize,
    ) -> Result<Vec<Launch>, Error> {
        let value_of = |name: &str| -> Option<u64> {
            let of_point = point.0.iter().find(|(known, _)| known == name);
            let of_shape = shape.values().iter().find(|(known, _)| *known == name);
            match (of_point, of_shape) {
                (Some(&(_, value)), _) => Some(value),
                (_, Some(&(_, value))) => Some(value as u64),
                _ if name == "SMS" => Some(multiprocessors as u64),
                // A product of one row has no dimension M.
                _ => (name == "M").then_some(1),
            }
        };
        let number = |key: &str, expression: &Expression, line: usize, least: u64| {
            let value = expression.evaluate(&value_of);
            let value = value.and_then(|value| match u32::try_from(value) {
                Ok(value) if u64::from(value) >= least => Ok(value),
                _ => Err(format!(
                    "it is {value}, but must be from {least} to {}",
                    u32::MAX
                )),
            });
            value.map_err(|why| {
                let what = format!("{key} at {shape}: {why}");
                located(&self.path, &Complaint { line, what })
            })
        };
        let axes = |key: &str, said: &Said<Vec<Expression>>| {
            let mut axes = [1; 3];
            for (axis, expression) in axes.iter_mut().zip(&said.what) {
                *axis = number(key, expression, said.line, 1)?;
            }
            Ok::<_, Error>(axes)
        };
        self.directives
            .launches
            .iter()
            .map(|rule| {
                let mut launch =
                    Launch::of_grid(axes("grid", &rule.grid)?, axes("block", &rule.block)?);
                if let Some(smem) = &rule.smem {
                    launch = launch.with_shared_bytes(number("smem", &smem.what, smem.line, 0)?);
                }
                if let Some(cluster) = &rule.cluster {
                    launch = launch.in_clusters(axes("cluster", cluster)?);
                }
                Ok(launch)
            })
            .collect()
    }

    /// Bytes of its scratch memory for a shape.
    fn scratch_bytes(&self, point: &Point, shape: &Shape) -> Result<usize, Error> {
        let Some(scratch) = &self.directives.scratch else {
            return Ok(0);
        };
        let value_of = |name: &str| {
            let of_point = point.0.iter().find(|(known, _)| known == name);
            let of_shape = shape.values().iter().find(|(known, _)| *known == name);
            of_point
                .map(|&(_, value)| value)
                .or(of_shape.map(|&(_, value)| value as u64))
                .or((name == "M").then_some(1))
        };
        let bytes = scratch.what.evaluate(&value_of);
        let bytes = bytes.and_then(|bytes| usize::try_from(bytes).map_err(|e| e.to_string()));
        bytes.map_err(|why| {
            let what = format!("scratch at {shape}: {why}");
            let line = scratch.line;
            located(&self.path, &Complaint { line, what })
        })
    }

    /// Compiles and loads its kernels for a shape.
    ///
    /// # Errors
    /// The source has mistakes (the message has file and line of the first), a number of the launch cannot be computed, or the
    /// driver refused.
    pub fn load(
        &self,
        cuda: &Cuda,
        point: &Point,
        shape: &Shape,
        has_timeline: bool,
    ) -> Result<Loaded, Error> {
        let multiprocessors = cuda.context().device().limits.multiprocessors as usize;
        let geometry = self.geometry(point, shape, multiprocessors)?;
        let scratch_bytes = self.scratch_bytes(point, shape)?;
        let (module, compiled) = cuda.load(&self.program(point, shape.dtype(), has_timeline))?;
        let kernels = self.kernels(point, shape.dtype());
        let launches = kernels.iter().zip(geometry).map(|(kernel, launch)| {
            let function = module.function(compiled.lowered_name(kernel))?;
            Ok::<_, Error>(ForeignLaunch { function, launch })
        });
        Ok(Loaded {
            launches: launches.collect::<Result<_, _>>()?,
            module,
            compiled,
            kernels,
            scratch_bytes,
        })
    }
}

/// A header in which the parameters are no macros: one of its own names may be the same. Its lines keep their numbers.
fn shielded(header: &str, point: &Point) -> String {
    let mut before = String::new();
    let mut behind = String::new();
    for (name, value) in &point.0 {
        // A String takes everything. (NVRTC does not know push_macro.)
        let _ = writeln!(before, "#undef {name}");
        let _ = write!(behind, "\n#define {name} {value}");
    }
    match before.is_empty() {
        true => header.to_owned(),
        false => format!("{before}#line 1\n{header}{behind}\n"),
    }
}

fn located(path: &str, complaint: &Complaint) -> Error {
    let Complaint { line, what } = complaint;
    Error::Unusable(match line {
        0 => format!("{path}: {what}"),
        line => format!("{path}:{line}: {what}"),
    })
}

/// Whether a source includes what this program does not bring.
fn includes_others(text: &str) -> bool {
    text.lines().any(|line| {
        let included = line.trim_start().strip_prefix('#').map(str::trim_start);
        let included = included.and_then(|rest| rest.strip_prefix("include"));
        let ours = ["\"prelude.cuh\"", "\"timeline.cuh\""];
        included.is_some_and(|rest| !ours.iter().any(|name| rest.trim().starts_with(name)))
    })
}

/// `text` with the names that have a value replaced by it.
fn substitute(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = match is_name(first) {
            true => rest.find(|c| !is_name(c)).unwrap_or(rest.len()),
            false => first.len_utf8(),
        };
        let (word, behind) = rest.split_at(end);
        out.push_str(&value(word).unwrap_or_else(|| word.to_owned()));
        rest = behind;
    }
    out
}
