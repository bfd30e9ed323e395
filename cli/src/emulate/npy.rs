//! NumPy's `.npy` files: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.
//!
//! Only what a kernel can take as it lies in memory: little-endian numbers in C order.

use super::element::Element;

const MAGIC: &[u8] = b"\x93NUMPY";

/// An array: its elements as bytes, in C order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Array {
    pub(crate) element: Element,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<u8>,
}

/// Reads a file's bytes. The error says what about them is wrong, or what to do in NumPy.
pub(crate) fn read(bytes: &[u8]) -> Result<Array, String> {
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or("it does not begin as an .npy file; numpy.save writes one")?;
    let (&[major, _minor], rest) = rest.split_first_chunk().ok_or("it ends in its header")?;
    let (length, rest) = match major {
        1 => {
            let (length, rest) = rest.split_first_chunk().ok_or("it ends in its header")?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        2 | 3 => {
            let (length, rest) = rest.split_first_chunk().ok_or("it ends in its header")?;
            (u32::from_le_bytes(*length) as usize, rest)
        }
        _ => {
            return Err(format!(
                "version {major} of the .npy format is not known; 1 to 3 are"
            ));
        }
    };
    let (header, data) = rest
        .split_at_checked(length)
        .ok_or("it ends in its header")?;
    let header = std::str::from_utf8(header).map_err(|_| "its header is no text")?;
    let header = Header::parse(header)?;
    let element = element(&header.descr)?;
    if header.fortran_order && header.shape.iter().filter(|&&n| n != 1).count() > 1 {
        return Err(
            "it is in Fortran order, which a kernel would see transposed; numpy.ascontiguousarray makes it C order"
                .to_owned(),
        );
    }
    let needs = header
        .shape
        .iter()
        .try_fold(element.bytes(), |product, &n| product.checked_mul(n))
        .ok_or("its shape is too large")?;
    if data.len() != needs {
        return Err(format!(
            "its shape {} of {} takes {needs} bytes, but {} follow the header",
            shape_text(&header.shape),
            element.name(),
            data.len()
        ));
    }
    Ok(Array {
        element,
        shape: header.shape,
        data: data.to_vec(),
    })
}

/// The bytes of a file. bf16, which NumPy lacks, becomes uint16.
pub(crate) fn write(element: Element, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let mut header = format!(
        "{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}",
        descr(element),
        shape_text(shape)
    );
    // Magic, version, length and header take a multiple of 64 bytes together, the final line feed included.
    let unpadded = MAGIC.len() + 4 + header.len() + 1;
    header.extend(std::iter::repeat_n(
        ' ',
        unpadded.next_multiple_of(64) - unpadded,
    ));
    header.push('\n');
    let mut bytes = MAGIC.to_vec();
    // A shape would need thousands of axes to overflow this; `out:` gives it at most 32.
    bytes.extend([1, 0]);
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn descr(element: Element) -> &'static str {
    match element {
        Element::I8 => "|i1",
        Element::U8 => "|u1",
        Element::I16 => "<i2",
        Element::U16 | Element::Bf16 => "<u2",
        Element::I32 => "<i4",
        Element::U32 => "<u4",
        Element::I64 => "<i8",
        Element::U64 => "<u8",
        Element::F16 => "<f2",
        Element::F32 => "<f4",
        Element::F64 => "<f8",
    }
}

fn element(descr: &str) -> Result<Element, String> {
    let (order, kind) = match descr.split_at_checked(1) {
        Some((order @ ("<" | ">" | "|" | "="), kind)) => (order, kind),
        _ => ("=", descr),
    };
    let element = match kind {
        "i1" => Element::I8,
        "u1" | "b1" => Element::U8,
        "i2" => Element::I16,
        "u2" => Element::U16,
        "i4" => Element::I32,
        "u4" => Element::U32,
        "i8" => Element::I64,
        "u8" => Element::U64,
        "f2" => Element::F16,
        "f4" => Element::F32,
        "f8" => Element::F64,
        _ if kind.starts_with('O') => {
            return Err(
                "it holds Python objects; .astype(numpy.float32) makes numbers of them".to_owned(),
            );
        }
        _ => {
            return Err(format!(
                "elements of type '{descr}' are not supported; bool, integers and float16 to float64 are"
            ));
        }
    };
    if order == ">" && element.bytes() > 1 {
        return Err(format!(
            "its elements are big-endian ('{descr}'), a GPU's are little-endian; .astype('<{kind}') turns them round"
        ));
    }
    Ok(element)
}

/// A shape as Python writes a tuple.
pub(crate) fn shape_text(shape: &[usize]) -> String {
    match shape {
        [only] => format!("({only},)"),
        _ => {
            let axes: Vec<String> = shape.iter().map(usize::to_string).collect();
            format!("({})", axes.join(", "))
        }
    }
}

/// The dictionary at the front of a file.
#[derive(Debug, Default)]
struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl Header {
    /// `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`
    fn parse(text: &str) -> Result<Header, String> {
        let mut cursor = Cursor { rest: text };
        let mut descr = None;
        let mut fortran_order = None;
        let mut shape = None;
        cursor.expect("{")?;
        while !cursor.take("}") {
            let key = cursor.string()?;
            cursor.expect(":")?;
            match key {
                "descr" if cursor.is_at("[") => {
                    return Err(
                        "its elements are structures of several fields; save one field of them"
                            .to_owned(),
                    );
                }
                "descr" => descr = Some(cursor.string()?.to_owned()),
                "fortran_order" if cursor.take("True") => fortran_order = Some(true),
                "fortran_order" if cursor.take("False") => fortran_order = Some(false),
                "shape" => shape = Some(cursor.tuple()?),
                _ => return Err(malformed()),
            }
            if !cursor.take(",") && !cursor.is_at("}") {
                return Err(malformed());
            }
        }
        if !cursor.rest.trim().is_empty() {
            return Err(malformed());
        }
        match (descr, fortran_order, shape) {
            (Some(descr), Some(fortran_order), Some(shape)) => Ok(Header {
                descr,
                fortran_order,
                shape,
            }),
            _ => Err(malformed()),
        }
    }
}

fn malformed() -> String {
    "its header is not one that numpy.save writes".to_owned()
}

struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn is_at(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        self.rest.starts_with(token)
    }

    fn take(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.take(token) {
            Ok(())
        } else {
            Err(malformed())
        }
    }

    fn string(&mut self) -> Result<&'a str, String> {
        let quote = if self.take("'") {
            '\''
        } else if self.take("\"") {
            '"'
        } else {
            return Err(malformed());
        };
        let (text, rest) = self.rest.split_once(quote).ok_or_else(malformed)?;
        self.rest = rest;
        Ok(text)
    }

    fn tuple(&mut self) -> Result<Vec<usize>, String> {
        self.expect("(")?;
        let mut axes = Vec::new();
        while !self.take(")") {
            self.rest = self.rest.trim_start();
            let end = self
                .rest
                .find(|c: char| !c.is_ascii_digit())
                .ok_or_else(malformed)?;
            let (digits, rest) = self.rest.split_at(end);
            axes.push(digits.parse().map_err(|_| malformed())?);
            // Python 2 wrote `3L`.
            self.rest = rest.strip_prefix('L').unwrap_or(rest);
            if !self.take(",") && !self.is_at(")") {
                return Err(malformed());
            }
        }
        Ok(axes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of version 1 with this header.
    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([1, 0]);
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn what_is_written_is_what_numpy_writes() {
        // numpy.save of numpy.zeros((2, 3), '<f4'), NumPy 2.1.
        let bytes = write(Element::F32, &[2, 3], &[0; 24]);
        assert_eq!(bytes.len(), 128 + 24);
        assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00\x76\x00");
        let header = std::str::from_utf8(&bytes[10..128]).unwrap();
        assert_eq!(
            header.trim_end(),
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"
        );
        assert!(header.ends_with(" \n"));
    }

    #[test]
    fn every_type_and_shape_is_read_back() {
        for element in Element::ALL {
            for shape in [&[][..], &[5], &[2, 3], &[0, 4], &[1, 2, 3, 4]] {
                let count: usize = shape.iter().product();
                let data = element.random(count, 1);
                let array = read(&write(element, shape, &data)).unwrap();
                assert_eq!((array.shape.as_slice(), &array.data), (shape, &data));
                let expected = if element == Element::Bf16 {
                    Element::U16
                } else {
                    element
                };
                assert_eq!(array.element, expected);
            }
        }
    }

    #[test]
    fn a_vector_in_fortran_order_is_as_good() {
        let header = "{'descr': '<i2', 'fortran_order': True, 'shape': (1, 3), }\n";
        assert_eq!(read(&file(header, &[0; 6])).unwrap().shape, [1, 3]);
    }

    #[test]
    fn what_a_kernel_cannot_take_is_refused_with_the_way_out() {
        let check = |header: &str, part: &str| {
            let error = read(&file(header, &[0; 24])).unwrap_err();
            assert!(error.contains(part), "{header}: {error}");
        };
        check(
            "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }",
            "ascontiguousarray",
        );
        check(
            "{'descr': '>f4', 'fortran_order': False, 'shape': (6,), }",
            ".astype('<f4')",
        );
        check(
            "{'descr': '|O', 'fortran_order': False, 'shape': (6,), }",
            "Python objects",
        );
        check(
            "{'descr': '<c8', 'fortran_order': False, 'shape': (3,), }",
            "'<c8'",
        );
        check(
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6,), }",
            "several fields",
        );
        check(
            "{'descr': '<f4', 'fortran_order': False, 'shape': (7,), }",
            "(7,) of f32 takes 28 bytes, but 24 follow",
        );
        check(
            "{'descr': '<f4', 'fortran_order': False, 'shape': (18446744073709551615, 4), }",
            "too large",
        );
        for header in [
            "",
            "{",
            "{}",
            "{'descr': '<f4'}",
            "{'descr': '<f4', 'fortran_order': 1, 'shape': (6,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (6}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-6,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (6,)} x",
        ] {
            check(header, "its header is not one");
        }
        assert!(read(b"PK\x03\x04").unwrap_err().contains("numpy.save"));
        assert!(
            read(b"\x93NUMPY\x01\x00\xff\xff{")
                .unwrap_err()
                .contains("ends")
        );
        assert!(
            read(b"\x93NUMPY\x09\x00\x00\x00")
                .unwrap_err()
                .contains("version 9")
        );
    }
}
