//! Declarations of variables and parameters, and what they hold at first.

use super::ast::{Init, Space, Variable};
use super::cursor::Parser;
use super::lexer::{Token, syntax, unsupported};
use crate::error::Error;

/// Bytes of the largest variable. No device has so much memory, and sums of a few such sizes do not overflow.
const MAX_BYTES: u64 = 1 << 40;

/// A type as a declaration needs it.
#[derive(Debug, Clone, Copy)]
struct Type {
    bytes: u32,
    /// Elements of `.v2` and `.v4`.
    lanes: u32,
    is_float: bool,
}

impl Parser<'_> {
    /// `.align 8 .b8 a[4] = {…}, b`, after the state space. In a parameter list (`several` is false) the comma is not ours.
    pub(super) fn variables(
        &mut self,
        space: Space,
        is_extern: bool,
        several: bool,
    ) -> Result<Vec<Variable>, Error> {
        let line = self.line();
        let (ty, align) = self.variable_type()?;
        let mut variables = Vec::new();
        loop {
            let name = self.name("a variable's name")?.to_owned();
            let mut elements = Some(u64::from(ty.lanes));
            while self.eat('[') {
                if self.eat(']') {
                    elements = None;
                    continue;
                }
                let size = self.int()?;
                self.expect(']')?;
                if let Some(known) = elements {
                    elements = known.checked_mul(size);
                    let bytes = elements.and_then(|n| n.checked_mul(u64::from(ty.bytes)));
                    if bytes.is_none_or(|bytes| bytes > MAX_BYTES) {
                        return Err(syntax(line, &format!("expected less memory for `{name}`")));
                    }
                }
            }
            let mut init = Vec::new();
            if self.eat('=') {
                self.initialiser(ty, &mut init)?;
                let given = init.len() as u64;
                if *elements.get_or_insert(given) < given {
                    let what = format!("expected fewer values for `{name}`, found {given}");
                    return Err(syntax(line, &what));
                }
            }
            variables.push(Variable {
                space,
                name,
                align,
                element: ty.bytes,
                count: elements,
                init,
                is_extern,
                line,
            });
            if !several || !self.eat(',') {
                return Ok(variables);
            }
        }
    }

    /// The type and the alignment.
    fn variable_type(&mut self) -> Result<(Type, u32), Error> {
        let line = self.line();
        let mut align = None;
        let mut scalar = None;
        let mut lanes = 1;
        while let Some(Token::Word(word)) = self.peek() {
            if !word.starts_with('.') {
                break;
            }
            self.skip();
            match word {
                ".align" => align = Some(self.small_int()?),
                ".v2" => lanes = 2,
                ".v4" => lanes = 4,
                ".v8" => lanes = 8,
                ".attribute" => self.skip_brackets('(', ')')?,
                // `.ptr .global` says where a pointer parameter points.
                ".ptr" | ".global" | ".shared" | ".const" | ".local" | ".managed" => {}
                ".texref" | ".samplerref" | ".surfref" => {
                    return Err(unsupported(line, "a texture, sampler or surface"));
                }
                _ => match type_bytes(word) {
                    Some(bytes) if word != ".pred" => scalar = Some((word, bytes)),
                    _ => return Err(syntax(line, &format!("expected a type, found `{word}`"))),
                },
            }
        }
        let Some((name, bytes)) = scalar else {
            return Err(self.unexpected("a variable's type"));
        };
        let align = align.unwrap_or(bytes * lanes);
        if !align.is_power_of_two() || align > 4096 {
            let what = format!("expected an alignment up to 4096, found {align}");
            return Err(syntax(line, &what));
        }
        let ty = Type {
            bytes,
            lanes,
            is_float: matches!(name, ".f32" | ".f64"),
        };
        Ok((ty, align))
    }

    fn initialiser(&mut self, ty: Type, init: &mut Vec<Init>) -> Result<(), Error> {
        if !self.eat('{') {
            init.push(self.value(ty)?);
            return Ok(());
        }
        self.nested(|p| {
            while !p.eat('}') {
                p.initialiser(ty, init)?;
                if !p.eat(',') && !p.is_punct('}') {
                    return Err(p.unexpected("`,` or `}`"));
                }
            }
            Ok(())
        })
    }

    fn value(&mut self, ty: Type) -> Result<Init, Error> {
        if let Some(Token::Word(word)) = self.peek() {
            self.skip();
            if word != "generic" || !self.eat('(') {
                return Ok(Init::Address(word.to_owned(), self.offset()?));
            }
            let name = self.name("a variable's name")?.to_owned();
            self.expect(')')?;
            return Ok(Init::Address(name, self.offset()?));
        }
        // `0xFF00(symbol)`: one byte of an address, in a structure that is not aligned.
        if matches!(self.peek(), Some(Token::Int(_))) && self.peek_at(1) == Some(Token::Punct('('))
        {
            return Err(unsupported(self.line(), "a part of an address as a value"));
        }
        let is_negative = self.is_punct('-');
        let number = self.peek_at(usize::from(is_negative));
        let bits = match number {
            Some(Token::F32(bits)) if ty.bytes == 8 => {
                f64::from(f32::from_bits(bits)).to_bits() ^ u64::from(is_negative) << 63
            }
            Some(Token::F32(bits)) => u64::from(bits ^ u32::from(is_negative) << 31),
            Some(Token::F64(bits)) => {
                let bits = bits ^ u64::from(is_negative) << 63;
                if ty.bytes == 8 {
                    bits
                } else {
                    u64::from((f64::from_bits(bits) as f32).to_bits())
                }
            }
            _ => {
                let value = self.int()?;
                return Ok(Init::Bits(match (ty.is_float, ty.bytes) {
                    (true, 8) => (value as i64 as f64).to_bits(),
                    (true, _) => u64::from((value as i64 as f32).to_bits()),
                    _ => value,
                }));
            }
        };
        self.skip();
        if is_negative {
            self.skip();
        }
        Ok(Init::Bits(bits))
    }
}

impl Space {
    pub(super) fn parse(directive: &str) -> Option<Self> {
        Some(match directive {
            ".global" => Self::Global,
            ".const" => Self::Const,
            ".shared" => Self::Shared,
            ".local" => Self::Local,
            ".param" => Self::Param,
            _ => return None,
        })
    }
}

/// Bytes of a type like `.b32`.
pub(crate) fn type_bytes(ty: &str) -> Option<u32> {
    Some(match ty.strip_prefix('.').unwrap_or(ty) {
        "pred" | "b8" | "u8" | "s8" => 1,
        "b16" | "u16" | "s16" | "f16" | "bf16" => 2,
        "b32" | "u32" | "s32" | "f32" | "f16x2" | "bf16x2" => 4,
        "b64" | "u64" | "s64" | "f64" => 8,
        "b128" => 16,
        _ => return None,
    })
}
