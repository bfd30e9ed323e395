//! What the person gives for a kernel's parameters: numbers, and arrays on the device.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use stepscope_emulator::{Device, Kernel};

use super::element::Element;
use super::npy;
use crate::output::Failure;

/// One `--arg`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Argument {
    /// As it was given.
    pub(crate) text: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    /// A number, a null pointer, or the bytes of a structure.
    Value(Vec<u8>),
    In {
        path: PathBuf,
        is_written_back: bool,
    },
    Out {
        path: PathBuf,
        element: Element,
        shape: Vec<usize>,
    },
    Array {
        element: Element,
        shape: Vec<usize>,
        contents: Contents,
    },
}

#[derive(Debug, Clone, PartialEq)]
enum Contents {
    Fill(Vec<u8>),
    Random(u64),
    Nothing,
}

const FORMS: &str = "TYPE:VALUE, in:FILE.npy, inout:FILE.npy, out:FILE.npy:TYPE:SHAPE, zeros:TYPE:SHAPE, \
    fill:TYPE:SHAPE:VALUE, random:TYPE:SHAPE[:SEED], uninit:TYPE:SHAPE, null or bytes:HEX";

impl FromStr for Argument {
    type Err = String;

    fn from_str(text: &str) -> Result<Argument, String> {
        let kind = Kind::parse(text)?;
        Ok(Argument {
            text: text.to_owned(),
            kind,
        })
    }
}

impl Kind {
    fn parse(text: &str) -> Result<Kind, String> {
        if text == "null" {
            return Ok(Kind::Value(vec![0; 8]));
        }
        let unknown = || format!("it is none of {FORMS}");
        let (form, rest) = text.split_once(':').ok_or_else(unknown)?;
        let fields: Vec<&str> = rest.split(':').collect();
        let array = |form: &str| format!("the form is {form}, as in {}", example(form));
        match form {
            "in" | "inout" if !rest.is_empty() => Ok(Kind::In {
                path: PathBuf::from(rest),
                is_written_back: form == "inout",
            }),
            "in" | "inout" => Err("the file's name is missing".to_owned()),
            "out" => {
                // The file's name may have colons of its own.
                let mut fields = rest.rsplitn(3, ':');
                let (Some(dimensions), Some(ty), Some(path)) =
                    (fields.next(), fields.next(), fields.next())
                else {
                    return Err(array("out:FILE.npy:TYPE:SHAPE"));
                };
                if path.is_empty() {
                    return Err("the file's name is missing".to_owned());
                }
                let element = Element::named(ty)?;
                Ok(Kind::Out {
                    path: PathBuf::from(path),
                    element,
                    shape: shape(element, dimensions)?,
                })
            }
            "zeros" | "uninit" => {
                let [ty, dimensions] = fields[..] else {
                    return Err(array(&format!("{form}:TYPE:SHAPE")));
                };
                let element = Element::named(ty)?;
                let contents = if form == "zeros" {
                    Contents::Fill(vec![0; element.bytes()])
                } else {
                    Contents::Nothing
                };
                Ok(Kind::Array {
                    element,
                    shape: shape(element, dimensions)?,
                    contents,
                })
            }
            "fill" => {
                let [ty, dimensions, value] = fields[..] else {
                    return Err(array("fill:TYPE:SHAPE:VALUE"));
                };
                let element = Element::named(ty)?;
                Ok(Kind::Array {
                    element,
                    shape: shape(element, dimensions)?,
                    contents: Contents::Fill(element.encode(value)?),
                })
            }
            "random" => {
                let (ty, dimensions, seed) = match fields[..] {
                    [ty, dimensions] => (ty, dimensions, "0"),
                    [ty, dimensions, seed] => (ty, dimensions, seed),
                    _ => return Err(array("random:TYPE:SHAPE[:SEED]")),
                };
                let element = Element::named(ty)?;
                let seed = seed
                    .parse()
                    .map_err(|_| format!("{seed:?} is no seed, which is a whole number"))?;
                Ok(Kind::Array {
                    element,
                    shape: shape(element, dimensions)?,
                    contents: Contents::Random(seed),
                })
            }
            "bytes" => Ok(Kind::Value(hexadecimal(rest)?)),
            _ => {
                let element = Element::named(form).map_err(|_| unknown())?;
                Ok(Kind::Value(element.encode(rest)?))
            }
        }
    }
}

fn example(form: &str) -> &'static str {
    match form.split(':').next() {
        Some("out") => "out:c.npy:f32:1024x1024",
        Some("zeros") => "zeros:f32:1000",
        Some("uninit") => "uninit:f32:1000",
        Some("fill") => "fill:f32:1000:0.5",
        _ => "random:f32:1000:7",
    }
}

/// `1024x1024`: up to 32 axes, which is all that NumPy has.
fn shape(element: Element, text: &str) -> Result<Vec<usize>, String> {
    let wrong = || format!("{text:?} is no shape; one looks like 1000 or 64x128");
    let axes = text
        .split('x')
        .map(|axis| axis.parse().map_err(|_| wrong()))
        .collect::<Result<Vec<usize>, String>>()?;
    let bytes = axes
        .iter()
        .try_fold(element.bytes(), |product, &n| product.checked_mul(n));
    match bytes {
        _ if axes.len() > 32 => Err(wrong()),
        Some(0) => Err(format!("the shape {text} has no element")),
        Some(_) => Ok(axes),
        None => Err(format!("the shape {text} is too large")),
    }
}

fn hexadecimal(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = text
        .strip_prefix("0x")
        .unwrap_or(text)
        .chars()
        .filter(|c| *c != '_')
        .map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()
        .ok_or_else(|| format!("{text:?} has other characters than hexadecimal digits and _"))?;
    if digits.is_empty() || !digits.len().is_multiple_of(2) {
        return Err(format!(
            "{} hexadecimal digits; each byte has two",
            digits.len()
        ));
    }
    Ok(digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect())
}

/// An array on the device that came from an argument.
#[derive(Debug, Clone)]
pub(crate) struct Buffer {
    /// Which argument, counted from 0.
    pub(crate) index: usize,
    /// The argument as it was given.
    pub(crate) text: String,
    pub(crate) address: u64,
    pub(crate) element: Element,
    pub(crate) shape: Vec<usize>,
    /// Where its contents go after the launch.
    pub(crate) output: Option<PathBuf>,
}

impl Buffer {
    pub(crate) fn bytes(&self) -> u64 {
        (self.element.bytes() * self.shape.iter().product::<usize>()) as u64
    }

    /// Copies the array from the device to its file. Whether there was anything to write.
    pub(crate) fn write_back(&self, device: &Device) -> Result<bool, Failure> {
        let Some(path) = &self.output else {
            return Ok(false);
        };
        let mut data = vec![0; self.bytes() as usize];
        device
            .read(self.address, &mut data)
            .map_err(|e| Failure::run(format!("argument {} ({}): {e}", self.index, self.text)))?;
        let bytes = npy::write(self.element, &self.shape, &data);
        std::fs::write(path, bytes)
            .map_err(|e| Failure::run(format!("cannot write {}: {e}", path.display())))?;
        Ok(true)
    }
}

/// Arguments ready for a launch: the value of each, and the arrays behind those that are pointers.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    pub(crate) values: Vec<Vec<u8>>,
    pub(crate) buffers: Vec<Buffer>,
}

/// Reads files, and puts every array on the device.
pub(crate) fn prepare(device: &Device, arguments: &[Argument]) -> Result<Prepared, Failure> {
    let mut prepared = Prepared::default();
    for (index, argument) in arguments.iter().enumerate() {
        let failed = |what: String| Failure::input(format!("--arg {}: {what}", argument.text));
        let (element, shape, data, output) = match &argument.kind {
            Kind::Value(bytes) => {
                prepared.values.push(bytes.clone());
                continue;
            }
            Kind::In {
                path,
                is_written_back,
            } => {
                let bytes = std::fs::read(path)
                    .map_err(|e| failed(format!("cannot read {}: {e}", path.display())))?;
                let array = npy::read(&bytes)
                    .map_err(|what| failed(format!("{} cannot be used: {what}", path.display())))?;
                if array.data.is_empty() {
                    return Err(failed(format!(
                        "{} has no element: its shape is {}",
                        path.display(),
                        npy::shape_text(&array.shape)
                    )));
                }
                let output = is_written_back.then(|| path.clone());
                (array.element, array.shape, Some(array.data), output)
            }
            Kind::Out {
                path,
                element,
                shape,
            } => (*element, shape.clone(), None, Some(path.clone())),
            Kind::Array {
                element,
                shape,
                contents,
            } => {
                let count = shape.iter().product();
                check_room(device, element.bytes() * count).map_err(failed)?;
                let data = match contents {
                    Contents::Fill(value) => Some(value.repeat(count)),
                    Contents::Random(seed) => Some(element.random(count, *seed)),
                    Contents::Nothing => None,
                };
                (*element, shape.clone(), data, None)
            }
        };
        if let Some(path) = &output {
            check_output(path, &prepared.buffers).map_err(failed)?;
        }
        let mut buffer = Buffer {
            index,
            text: argument.text.clone(),
            address: 0,
            element,
            shape,
            output,
        };
        let refused = |e: stepscope_emulator::Error| failed(e.to_string());
        buffer.address = device.allocate(buffer.bytes()).map_err(refused)?;
        if let Some(data) = data {
            device.write(buffer.address, &data).map_err(refused)?;
        }
        prepared.values.push(buffer.address.to_le_bytes().to_vec());
        prepared.buffers.push(buffer);
    }
    Ok(prepared)
}

/// Before memory of the host is taken for an array's contents.
fn check_room(device: &Device, bytes: usize) -> Result<(), String> {
    let (free, _) = device.memory_info();
    if bytes as u64 > free {
        return Err(format!(
            "it takes {bytes} bytes; the emulated device has {free} free"
        ));
    }
    Ok(())
}

/// A launch may take minutes: whether its results have a place is asked before.
fn check_output(path: &Path, others: &[Buffer]) -> Result<(), String> {
    if path.is_dir() {
        return Err(format!("{} is a folder", path.display()));
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder
        && !folder.is_dir()
    {
        return Err(format!("there is no folder {}", folder.display()));
    }
    match others.iter().find(|o| o.output.as_deref() == Some(path)) {
        Some(other) => Err(format!(
            "argument {} writes {} too",
            other.index,
            path.display()
        )),
        None => Ok(()),
    }
}

/// Lays the values out as the kernel's parameters want them.
pub(crate) fn pack(
    kernel: &Kernel,
    name: &str,
    arguments: &[Argument],
    values: &[Vec<u8>],
) -> Result<Vec<u8>, Failure> {
    let parameters = kernel.parameters();
    if parameters.len() != values.len() {
        let sizes: Vec<String> = parameters.iter().map(|p| p.bytes.to_string()).collect();
        let takes = match sizes.as_slice() {
            [] => "no parameters".to_owned(),
            [only] => format!("1 parameter, of {only} bytes"),
            [most @ .., last] => format!(
                "{} parameters, of {} and {last} bytes",
                sizes.len(),
                most.join(", ")
            ),
        };
        let given = match values.len() {
            0 => "no --arg was given".to_owned(),
            1 => "1 --arg was given".to_owned(),
            count => format!("{count} --arg were given"),
        };
        return Err(Failure::input(format!("{name} takes {takes}, but {given}")));
    }
    let mut bytes = vec![0; kernel.parameter_bytes() as usize];
    for (index, ((parameter, value), argument)) in
        parameters.iter().zip(values).zip(arguments).enumerate()
    {
        let size = parameter.bytes as usize;
        if size != value.len() {
            let has = match &argument.kind {
                Kind::Value(_) => format!("has {} bytes", value.len()),
                _ => format!("is a pointer, which has {} bytes", value.len()),
            };
            let hint = match size {
                8 => ", as a pointer or a 64-bit number has",
                _ => "",
            };
            return Err(Failure::input(format!(
                "--arg {} {has}, but parameter {index} of {name} (counted from 0) takes {size}{hint}",
                argument.text,
            )));
        }
        let to = bytes
            .get_mut(parameter.offset as usize..)
            .and_then(|rest| rest.get_mut(..size));
        match to {
            Some(to) => to.copy_from_slice(value),
            None => {
                return Err(Failure::run(format!(
                    "parameter {index} of {name} lies beyond its parameters"
                )));
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Kind, String> {
        text.parse::<Argument>().map(|argument| argument.kind)
    }

    #[test]
    fn every_form_is_read() {
        assert_eq!(parse("i32:-2"), Ok(Kind::Value(vec![254, 255, 255, 255])));
        assert_eq!(parse("null"), Ok(Kind::Value(vec![0; 8])));
        assert_eq!(parse("bytes:01_ff"), Ok(Kind::Value(vec![1, 255])));
        assert_eq!(
            parse("out:C:/a.npy:bf16:2x3"),
            Ok(Kind::Out {
                path: "C:/a.npy".into(),
                element: Element::Bf16,
                shape: vec![2, 3]
            })
        );
        assert_eq!(
            parse("random:u8:4:9"),
            Ok(Kind::Array {
                element: Element::U8,
                shape: vec![4],
                contents: Contents::Random(9)
            })
        );
        assert_eq!(
            parse("fill:f32:2:1"),
            Ok(Kind::Array {
                element: Element::F32,
                shape: vec![2],
                contents: Contents::Fill(1.0_f32.to_le_bytes().to_vec())
            })
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("", "none of TYPE:VALUE"),
            ("f128:1", "none of TYPE:VALUE"),
            ("a.npy", "none of TYPE:VALUE"),
            ("in:", "name is missing"),
            ("out:c.npy", "out:c.npy:f32:1024x1024"),
            ("out:c.npy:float:3", "\"float\" is no type"),
            ("zeros:f32", "zeros:f32:1000"),
            ("zeros:f32:0", "no element"),
            ("zeros:f32:3x", "no shape"),
            ("zeros:f32:9999999999x9999999999", "too large"),
            ("fill:u8:3:256", "does not fit in u8"),
            ("random:f32:3:x", "no seed"),
            ("bytes:123", "3 hexadecimal digits"),
            ("bytes:", "0 hexadecimal digits"),
            ("bytes:0g", "hexadecimal"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
