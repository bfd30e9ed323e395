//! Bodies of functions: blocks, statements, operands.

use super::ast::{Address, Instruction, Loc, Operand, Space, Statement};
use super::cursor::Parser;
use super::lexer::{Token, syntax, unsupported};
use crate::error::Error;

/// Operands of an instruction, those within vectors counted one by one. `wgmma` with 256 columns has 138.
const MAX_OPERANDS: usize = 192;

impl<'a> Parser<'a> {
    pub(super) fn block(&mut self) -> Result<Vec<Statement>, Error> {
        self.expect('{')?;
        self.nested(|p| {
            let mut statements = Vec::new();
            while !p.eat('}') {
                if p.peek().is_none() {
                    return Err(p.unexpected("`}`"));
                }
                p.statement(&mut statements)?;
            }
            Ok(statements)
        })
    }

    fn statement(&mut self, statements: &mut Vec<Statement>) -> Result<(), Error> {
        match self.peek() {
            Some(Token::Punct('{')) => statements.push(Statement::Block(self.block()?)),
            Some(Token::Punct(';')) => self.skip(),
            Some(Token::Punct('@')) => {
                self.skip();
                let negated = self.eat('!');
                let name = self.name("a predicate")?.to_owned();
                statements.push(self.instruction(Some((name, negated)))?);
            }
            Some(Token::Word(word)) if word.starts_with('.') => {
                self.skip();
                self.body_directive(word, statements)?;
            }
            Some(Token::Word(name)) if self.peek_at(1) == Some(Token::Punct(':')) => {
                self.skip();
                self.skip();
                statements.extend(self.label(name)?);
            }
            Some(Token::Word(_)) => statements.push(self.instruction(None)?),
            _ => return Err(self.unexpected("a statement")),
        }
        Ok(())
    }

    fn body_directive(
        &mut self,
        directive: &str,
        statements: &mut Vec<Statement>,
    ) -> Result<(), Error> {
        match directive {
            ".loc" => self.location(),
            ".pragma" => self.skip_to(';'),
            ".reg" => self.registers(statements),
            _ => {
                let is_extern = directive == ".extern";
                let directive = if is_extern {
                    self.word("a state space")?
                } else {
                    directive
                };
                let Some(space) = Space::parse(directive) else {
                    let what =
                        format!("expected a directive of a function's body, found `{directive}`");
                    return Err(syntax(self.line(), &what));
                };
                let variables = self.variables(space, is_extern, true)?;
                statements.extend(variables.into_iter().map(Statement::Variable));
                self.expect(';')
            }
        }
    }

    /// What a label stands before; `None` where it names something that is not needed.
    fn label(&mut self, name: &str) -> Result<Option<Statement>, Error> {
        if self.is_word(".branchtargets") {
            self.skip();
            let mut targets = vec![self.name("a label")?.to_owned()];
            while self.eat(',') {
                targets.push(self.name("a label")?.to_owned());
            }
            self.expect(';')?;
            return Ok(Some(Statement::Targets(name.to_owned(), targets)));
        }
        if self.is_word(".callprototype") || self.is_word(".calltargets") {
            self.skip_to(';')?;
            return Ok(None);
        }
        Ok(Some(Statement::Label(name.to_owned())))
    }

    /// `.loc file line column[, function_name label[+n], inlined_at file line column]`: has no semicolon.
    pub(super) fn location(&mut self) -> Result<(), Error> {
        let file = self.small_int()?;
        let line = self.small_int()?;
        self.small_int()?;
        self.loc = Loc { file, line };
        while self.eat(',') {
            match self.word("`function_name` or `inlined_at`")? {
                "function_name" => {
                    self.name("a label")?;
                    self.offset()?;
                }
                "inlined_at" => {
                    for _ in 0..3 {
                        self.small_int()?;
                    }
                }
                other => {
                    let what = format!("expected `function_name` or `inlined_at`, found `{other}`");
                    return Err(syntax(self.line(), &what));
                }
            }
        }
        Ok(())
    }

    fn registers(&mut self, statements: &mut Vec<Statement>) -> Result<(), Error> {
        let line = self.line();
        let ty = self.word("a register's type")?;
        if matches!(ty, ".v2" | ".v4") {
            return Err(unsupported(line, "a register that is a vector"));
        }
        let Some(ty) = ty.strip_prefix('.') else {
            return Err(syntax(line, &format!("expected a type, found `{ty}`")));
        };
        loop {
            let name = self.name("a register's name")?.to_owned();
            let count = if self.eat('<') {
                let line = self.line();
                // Not an expression: `>` ends it.
                let Some(Token::Int(count)) = self.peek() else {
                    return Err(self.unexpected("how many registers"));
                };
                self.skip();
                self.expect('>')?;
                Some(u32::try_from(count).map_err(|_| {
                    syntax(line, &format!("expected fewer registers, found {count}"))
                })?)
            } else {
                None
            };
            statements.push(Statement::Register {
                ty: ty.to_owned(),
                name,
                count,
            });
            if !self.eat(',') {
                return self.expect(';');
            }
        }
    }

    fn instruction(&mut self, guard: Option<(String, bool)>) -> Result<Statement, Error> {
        let line = self.line();
        let mut opcode = self.name("an instruction")?.to_owned();
        // `add .s32`, as hand-written assembly may have it.
        while let Some(Token::Word(modifier)) = self.peek()
            && modifier.starts_with('.')
        {
            opcode.push_str(modifier);
            self.skip();
        }
        let is_call = opcode.split('.').next() == Some("call");
        let mut operands = Vec::new();
        let mut room = MAX_OPERANDS;
        while !self.eat(';') {
            if is_call && self.eat('(') {
                // The arguments of a call are not registers, so that any number will do.
                let list = self.operands_until(')', &mut { usize::MAX })?;
                operands.push(Operand::List(list));
            } else {
                operands.push(self.operand(&mut room)?);
            }
            if !self.eat(',') && !self.is_punct(';') {
                return Err(self.unexpected("`,` or `;`"));
            }
        }
        Ok(Statement::Instruction(Instruction {
            guard,
            opcode,
            operands,
            line,
            loc: self.loc,
        }))
    }

    /// An operand. `room`: how many the instruction may still have.
    fn operand(&mut self, room: &mut usize) -> Result<Operand, Error> {
        let Some(left) = room.checked_sub(1) else {
            let what = format!("expected at most {MAX_OPERANDS} operands");
            return Err(syntax(self.line(), &what));
        };
        *room = left;
        let operand = self.nested(|p| p.single_operand(room))?;
        if matches!(operand, Operand::Name(_) | Operand::Sink) && self.eat('|') {
            let second = self.nested(|p| p.operand(room))?;
            return Ok(Operand::Pair(Box::new(operand), Box::new(second)));
        }
        Ok(operand)
    }

    fn single_operand(&mut self, room: &mut usize) -> Result<Operand, Error> {
        match self.peek() {
            Some(Token::Word("_")) => {
                self.skip();
                Ok(Operand::Sink)
            }
            Some(Token::Word(_)) => {
                let name = self.name("an operand")?.to_owned();
                if self.is_punct('+') || self.is_punct('-') {
                    // `name+4` outside brackets: an address.
                    let offset = self.offset()?;
                    return Ok(Operand::Address(Box::new(Address {
                        base: Some(name),
                        offset,
                        extra: Vec::new(),
                    })));
                }
                Ok(Operand::Name(name))
            }
            Some(Token::Punct('!')) if matches!(self.peek_at(1), Some(Token::Word(_))) => {
                self.skip();
                Ok(Operand::Not(self.name("a predicate")?.to_owned()))
            }
            Some(Token::Punct('{')) => {
                self.skip();
                Ok(Operand::Vector(self.operands_until('}', room)?))
            }
            Some(Token::Punct('[')) => {
                self.skip();
                self.address(room)
            }
            Some(Token::Int(_) | Token::Punct('-' | '+' | '~' | '!' | '(')) => self.number(),
            Some(Token::F32(_) | Token::F64(_)) => self.number(),
            _ => Err(self.unexpected("an operand")),
        }
    }

    /// A number: an integer expression, or a floating-point number with or without a sign.
    fn number(&mut self) -> Result<Operand, Error> {
        let is_negative = self.is_punct('-');
        let operand = match self.peek_at(usize::from(is_negative)) {
            Some(Token::F32(bits)) => Operand::F32(bits ^ u32::from(is_negative) << 31),
            Some(Token::F64(bits)) => Operand::F64(bits ^ u64::from(is_negative) << 63),
            _ => return Ok(Operand::Int(self.int()?)),
        };
        self.skip();
        if is_negative {
            self.skip();
        }
        Ok(operand)
    }

    /// `base + offset, extra…]`, after the bracket.
    fn address(&mut self, room: &mut usize) -> Result<Operand, Error> {
        let mut address = Address {
            base: None,
            offset: 0,
            extra: Vec::new(),
        };
        if matches!(self.peek(), Some(Token::Word(_))) {
            address.base = Some(self.name("an address")?.to_owned());
            address.offset = self.offset()?;
        } else {
            address.offset = self.int()? as i64;
        }
        while self.eat(',') {
            let extra = self.operand(room)?;
            address.extra.push(extra);
        }
        self.expect(']')?;
        Ok(Operand::Address(Box::new(address)))
    }

    fn operands_until(&mut self, end: char, room: &mut usize) -> Result<Vec<Operand>, Error> {
        let mut operands = Vec::new();
        while !self.eat(end) {
            operands.push(self.operand(room)?);
            if !self.eat(',') && !self.is_punct(end) {
                return Err(self.unexpected(&format!("`,` or `{end}`")));
            }
        }
        Ok(operands)
    }
}
