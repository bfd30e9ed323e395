//! A place among the tokens, and what is read at it whatever it belongs to: words, numbers, constant expressions.

use super::ast::Loc;
use super::lexer::{Token, lex, syntax};
use crate::error::Error;

/// Blocks, operands and expressions may be nested this deep; the compiler nests two.
const MAX_DEPTH: u32 = 64;

#[derive(Debug)]
pub(super) struct Parser<'a> {
    tokens: Vec<(Token<'a>, u32)>,
    at: usize,
    /// The `.loc` in force.
    pub(super) loc: Loc,
    depth: u32,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Result<Self, Error> {
        Ok(Self {
            tokens: lex(text)?,
            at: 0,
            loc: Loc::default(),
            depth: 0,
        })
    }

    pub(super) fn peek(&self) -> Option<Token<'a>> {
        self.peek_at(0)
    }

    pub(super) fn peek_at(&self, distance: usize) -> Option<Token<'a>> {
        self.tokens.get(self.at + distance).map(|&(token, _)| token)
    }

    /// The line of the next token.
    pub(super) fn line(&self) -> u32 {
        self.tokens
            .get(self.at)
            .or(self.tokens.last())
            .map_or(1, |&(_, line)| line)
    }

    /// Passes a token that was peeked at.
    pub(super) fn skip(&mut self) {
        self.at += 1;
    }

    pub(super) fn is_punct(&self, wanted: char) -> bool {
        self.peek() == Some(Token::Punct(wanted))
    }

    pub(super) fn is_word(&self, wanted: &str) -> bool {
        self.peek() == Some(Token::Word(wanted))
    }

    pub(super) fn eat(&mut self, wanted: char) -> bool {
        let found = self.is_punct(wanted);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, wanted: char) -> Result<(), Error> {
        if self.eat(wanted) {
            Ok(())
        } else {
            Err(self.unexpected(&format!("`{wanted}`")))
        }
    }

    pub(super) fn unexpected(&self, wanted: &str) -> Error {
        let found = match self.peek() {
            None => "the end".to_owned(),
            Some(Token::Word(word)) => format!("`{word}`"),
            Some(Token::Punct(punct)) => format!("`{punct}`"),
            Some(Token::Text(_)) => "a string".to_owned(),
            Some(Token::Int(value)) => format!("the number {value}"),
            Some(Token::F32(_) | Token::F64(_)) => "a floating-point number".to_owned(),
        };
        syntax(self.line(), &format!("expected {wanted}, found {found}"))
    }

    pub(super) fn word(&mut self, wanted: &str) -> Result<&'a str, Error> {
        match self.peek() {
            Some(Token::Word(word)) => {
                self.at += 1;
                Ok(word)
            }
            _ => Err(self.unexpected(wanted)),
        }
    }

    /// A word that is not a directive.
    pub(super) fn name(&mut self, wanted: &str) -> Result<&'a str, Error> {
        match self.peek() {
            Some(Token::Word(word)) if !word.starts_with('.') => {
                self.at += 1;
                Ok(word)
            }
            _ => Err(self.unexpected(wanted)),
        }
    }

    pub(super) fn text(&mut self, wanted: &str) -> Result<&'a str, Error> {
        match self.peek() {
            Some(Token::Text(text)) => {
                self.at += 1;
                Ok(text)
            }
            _ => Err(self.unexpected(wanted)),
        }
    }

    pub(super) fn small_int(&mut self) -> Result<u32, Error> {
        let line = self.line();
        u32::try_from(self.int()?)
            .map_err(|_| syntax(line, "expected a number of 32 bits, found a larger one"))
    }

    /// Up to three numbers; those that are missing are 1.
    pub(super) fn triple(&mut self) -> Result<[u32; 3], Error> {
        let mut triple = [self.small_int()?, 1, 1];
        for value in &mut triple[1..] {
            if self.eat(',') {
                *value = self.small_int()?;
            }
        }
        Ok(triple)
    }

    /// Passes a bracketed piece whose meaning does not matter.
    pub(super) fn skip_brackets(&mut self, open: char, close: char) -> Result<(), Error> {
        self.expect(open)?;
        let mut depth = 1u64;
        while depth > 0 {
            if self.is_punct(open) {
                depth += 1;
            } else if self.is_punct(close) {
                depth -= 1;
            } else if self.peek().is_none() {
                return Err(self.unexpected(&format!("`{close}`")));
            }
            self.at += 1;
        }
        Ok(())
    }

    /// Passes everything up to and with a character.
    pub(super) fn skip_to(&mut self, wanted: char) -> Result<(), Error> {
        while !self.eat(wanted) {
            if self.peek().is_none() {
                return Err(self.unexpected(&format!("`{wanted}`")));
            }
            self.at += 1;
        }
        Ok(())
    }

    /// Runs `read` one level deeper, so that no text can exhaust the stack.
    pub(super) fn nested<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(syntax(
                self.line(),
                &format!("expected at most {MAX_DEPTH} levels of nesting"),
            ));
        }
        let result = read(self)?;
        self.depth -= 1;
        Ok(result)
    }

    /// `+ 4`, `+-8`, `- 4`, or nothing.
    pub(super) fn offset(&mut self) -> Result<i64, Error> {
        if self.eat('+') || self.is_punct('-') {
            Ok(self.int()? as i64)
        } else {
            Ok(0)
        }
    }

    /// An integer constant expression, as 64 bits two's complement.
    pub(super) fn int(&mut self) -> Result<u64, Error> {
        let first = self.unary()?;
        self.binary(first, 0)
    }

    /// Operators of at least this precedence, to the right of `left`.
    fn binary(&mut self, mut left: u64, least: u8) -> Result<u64, Error> {
        while let Some((operator, precedence, tokens)) = self.operator() {
            if precedence < least {
                break;
            }
            let line = self.line();
            self.at += tokens;
            let mut right = self.unary()?;
            while self
                .operator()
                .is_some_and(|(_, next, _)| next > precedence)
            {
                right = self.nested(|p| p.binary(right, precedence + 1))?;
            }
            left = match operator {
                '*' => left.wrapping_mul(right),
                '+' => left.wrapping_add(right),
                '-' => left.wrapping_sub(right),
                '<' => left.checked_shl(right.min(64) as u32).unwrap_or(0),
                '>' => left.checked_shr(right.min(64) as u32).unwrap_or(0),
                '&' => left & right,
                '^' => left ^ right,
                '|' => left | right,
                _ if right == 0 => return Err(syntax(line, "expected a divisor other than 0")),
                '/' => (left as i64).wrapping_div(right as i64) as u64,
                _ => (left as i64).wrapping_rem(right as i64) as u64,
            };
        }
        Ok(left)
    }

    /// The next operator, its precedence, and how many tokens it is.
    fn operator(&self) -> Option<(char, u8, usize)> {
        let Some(Token::Punct(operator)) = self.peek() else {
            return None;
        };
        let precedence = match operator {
            '*' | '/' | '%' => 6,
            '+' | '-' => 5,
            '<' | '>' if self.peek_at(1) == Some(Token::Punct(operator)) => {
                return Some((operator, 4, 2));
            }
            '&' => 3,
            '^' => 2,
            '|' => 1,
            _ => return None,
        };
        Some((operator, precedence, 1))
    }

    fn unary(&mut self) -> Result<u64, Error> {
        match self.peek() {
            Some(Token::Int(value)) => {
                self.at += 1;
                Ok(value)
            }
            Some(Token::Punct(operator @ ('-' | '+' | '~' | '!'))) => {
                self.at += 1;
                let value = self.nested(Self::unary)?;
                Ok(match operator {
                    '-' => value.wrapping_neg(),
                    '~' => !value,
                    '!' => u64::from(value == 0),
                    _ => value,
                })
            }
            Some(Token::Punct('(')) => {
                self.at += 1;
                let value = self.nested(Self::int)?;
                self.expect(')')?;
                Ok(value)
            }
            _ => Err(self.unexpected("an integer")),
        }
    }
}
