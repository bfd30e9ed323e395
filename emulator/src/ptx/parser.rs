//! A module: its directives, its functions.

use std::collections::HashMap;

use super::ast::{Ast, Function, Space, Variable};
use super::cursor::Parser;
use super::lexer::{Token, syntax, unsupported};
use crate::error::Error;

pub(crate) use super::variable::type_bytes;

/// The most that a launch can pass.
const MAX_PARAMETER_BYTES: u64 = 32764;

/// Parses a module.
pub(crate) fn parse(text: &str) -> Result<Ast, Error> {
    let mut module = Module {
        parser: Parser::new(text)?,
        ast: Ast::default(),
        functions: HashMap::new(),
        variables: HashMap::new(),
    };
    while module.parser.peek().is_some() {
        module.item()?;
    }
    if module.ast.version == (0, 0) {
        return Err(syntax(1, "expected a .version directive: this is not PTX"));
    }
    Ok(module.ast)
}

struct Module<'a> {
    parser: Parser<'a>,
    ast: Ast,
    /// Where in the tree the function or variable of a name is.
    functions: HashMap<&'a str, usize>,
    variables: HashMap<String, usize>,
}

impl<'a> Module<'a> {
    fn item(&mut self) -> Result<(), Error> {
        let parser = &mut self.parser;
        if parser.eat(';') {
            return Ok(());
        }
        let line = parser.line();
        match parser.word("a directive")? {
            ".version" => {
                // `9.0` is read as a floating-point number.
                let version = match parser.peek() {
                    Some(Token::F64(bits)) => f64::from_bits(bits),
                    Some(Token::Int(major)) => major as f64,
                    _ => return Err(parser.unexpected("a version")),
                };
                parser.skip();
                let tenths = (version * 10.0).round() as u32;
                self.ast.version = (tenths / 10, tenths % 10);
            }
            ".target" => {
                self.ast.target = parser.name("a target")?.to_owned();
                while parser.eat(',') {
                    parser.word("a target's option")?;
                }
            }
            ".address_size" => {
                if parser.int()? != 64 {
                    return Err(unsupported(line, "an address size other than 64"));
                }
            }
            ".file" => {
                let index = parser.small_int()?;
                let path = parser.text("a path")?.to_owned();
                self.ast.files.push((index, path));
                while parser.eat(',') {
                    parser.int()?;
                }
            }
            ".section" => {
                parser.word("a section's name")?;
                parser.skip_brackets('{', '}')?;
            }
            ".loc" => parser.location()?,
            ".alias" => {
                let alias = parser.name("an alias")?.to_owned();
                parser.expect(',')?;
                let function = parser.name("a function")?.to_owned();
                parser.expect(';')?;
                self.ast.aliases.push((alias, function));
            }
            ".pragma" => parser.skip_to(';')?,
            directive => self.declaration(directive, line)?,
        }
        Ok(())
    }

    /// A function or variables, behind their linking directives.
    fn declaration(&mut self, mut directive: &'a str, line: u32) -> Result<(), Error> {
        let mut is_extern = false;
        loop {
            match directive {
                ".visible" | ".weak" | ".common" => {}
                ".extern" => is_extern = true,
                ".attribute" => self.parser.skip_brackets('(', ')')?,
                _ => break,
            }
            directive = self.parser.word("a declaration")?;
        }
        if matches!(directive, ".entry" | ".func") {
            let (name, function) = self.parser.function(directive == ".entry", line)?;
            return self.add_function(name, function);
        }
        let Some(space) = Space::parse(directive) else {
            let what = format!("expected a directive of a module, found `{directive}`");
            return Err(syntax(line, &what));
        };
        for variable in self.parser.variables(space, is_extern, true)? {
            self.add_variable(variable)?;
        }
        self.parser.expect(';')
    }

    /// A definition takes the place of the declarations beside it.
    fn add_function(&mut self, name: &'a str, function: Function) -> Result<(), Error> {
        match self.functions.get(name) {
            None => {
                self.functions.insert(name, self.ast.functions.len());
                self.ast.functions.push(function);
            }
            Some(_) if function.body.is_none() => {}
            Some(&known) if self.ast.functions[known].body.is_none() => {
                self.ast.functions[known] = function;
            }
            Some(_) => {
                let what = format!("expected one definition of `{name}`, found a second one");
                return Err(syntax(function.line, &what));
            }
        }
        Ok(())
    }

    fn add_variable(&mut self, variable: Variable) -> Result<(), Error> {
        let name = &variable.name;
        match self.variables.get(name) {
            None => {
                self.variables
                    .insert(name.clone(), self.ast.variables.len());
                self.ast.variables.push(variable);
            }
            Some(_) if variable.is_extern => {}
            Some(&known) if self.ast.variables[known].is_extern => {
                self.ast.variables[known] = variable;
            }
            Some(_) => {
                let what = format!("expected one definition of `{name}`, found a second one");
                return Err(syntax(variable.line, &what));
            }
        }
        Ok(())
    }
}

impl<'a> Parser<'a> {
    /// What follows `.entry` or `.func`.
    fn function(&mut self, is_entry: bool, line: u32) -> Result<(&'a str, Function), Error> {
        let returns = if self.is_punct('(') {
            self.parameters()?
        } else {
            Vec::new()
        };
        let name = self.name("a function's name")?;
        let params = if self.is_punct('(') {
            self.parameters()?
        } else {
            Vec::new()
        };
        let bytes = params.iter().fold(0u64, |sum, param| {
            sum.saturating_add(param.count.unwrap_or(0) * u64::from(param.element))
        });
        if is_entry && bytes > MAX_PARAMETER_BYTES {
            let what = format!(
                "expected at most {MAX_PARAMETER_BYTES} bytes of parameters, found {bytes}"
            );
            return Err(syntax(line, &what));
        }
        let mut function = Function {
            name: name.to_owned(),
            is_entry,
            returns,
            params,
            max_threads: None,
            required_threads: None,
            min_blocks: None,
            max_registers: None,
            required_cluster: None,
            body: None,
            line,
        };
        loop {
            match self.peek() {
                Some(Token::Word(directive)) if directive.starts_with('.') => {
                    self.skip();
                    self.function_directive(directive, &mut function)?;
                }
                Some(Token::Punct(';')) => {
                    self.skip();
                    return Ok((name, function));
                }
                Some(Token::Punct('{')) => {
                    self.loc = Default::default();
                    function.body = Some(self.block()?);
                    return Ok((name, function));
                }
                _ => return Err(self.unexpected("a function's directive, its body or `;`")),
            }
        }
    }

    fn function_directive(
        &mut self,
        directive: &str,
        function: &mut Function,
    ) -> Result<(), Error> {
        match directive {
            ".maxntid" => function.max_threads = Some(self.triple()?),
            ".reqntid" => function.required_threads = Some(self.triple()?),
            ".minnctapersm" => function.min_blocks = Some(self.small_int()?),
            ".maxnreg" => function.max_registers = Some(self.small_int()?),
            ".reqnctapercluster" => function.required_cluster = Some(self.triple()?),
            ".maxnctapersm" | ".maxclusterrank" | ".abi_preserve" | ".abi_preserve_control" => {
                self.int()?;
            }
            ".noreturn" | ".explicitcluster" | ".blocksareclusters" => {}
            ".attribute" => self.skip_brackets('(', ')')?,
            ".pragma" => self.skip_to(';')?,
            _ => {
                let what = format!("expected a directive of a function, found `{directive}`");
                return Err(syntax(self.line(), &what));
            }
        }
        Ok(())
    }

    fn parameters(&mut self) -> Result<Vec<Variable>, Error> {
        self.expect('(')?;
        let mut parameters = Vec::new();
        while !self.eat(')') {
            let line = self.line();
            match self.word("`.param`")? {
                ".param" => parameters.extend(self.variables(Space::Param, false, false)?),
                ".reg" => return Err(unsupported(line, "a parameter in a register")),
                other => {
                    let what = format!("expected `.param`, found `{other}`");
                    return Err(syntax(line, &what));
                }
            }
            if !self.eat(',') && !self.is_punct(')') {
                return Err(self.unexpected("`,` or `)`"));
            }
        }
        Ok(parameters)
    }
}
