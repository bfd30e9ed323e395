//! Names to registers and addresses, calls to inlined bodies, instructions to a flat list.

mod library;

use std::collections::HashMap;

use super::op::{Inst, NO_GUARD, Op, Special, Width};
use super::{Code, decode};
use crate::memory::window;
use crate::ptx::ast::{Function, Instruction, Loc, Operand, Space, Statement, Variable};
use crate::ptx::parser::type_bytes;

/// A kernel may inline this many instructions.
const MAX_INSTRUCTIONS: usize = 1 << 20;
/// Calls may be nested this deep.
const MAX_CALL_DEPTH: usize = 48;
/// Calls inlined in one kernel.
const MAX_INLINED_CALLS: u32 = 1 << 14;

/// A virtual register: its kind in the two top bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Reg(pub(super) u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum RegKind {
    /// Up to 32 bits: one row.
    Narrow,
    /// 64 bits: two rows.
    Wide,
    Predicate,
}

impl Reg {
    fn new(kind: RegKind, index: u32) -> Self {
        Self((kind as u32) << 30 | index)
    }

    pub(super) fn kind(self) -> RegKind {
        match self.0 >> 30 {
            0 => RegKind::Narrow,
            1 => RegKind::Wide,
            _ => RegKind::Predicate,
        }
    }

    pub(super) fn index(self) -> usize {
        (self.0 & 0x3fff_ffff) as usize
    }
}

/// The value of a register that never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Constant {
    Bits(u64),
    /// Where dynamic shared memory begins, plus an offset.
    DynamicShared(u64),
    Bool(bool),
}

#[derive(Debug, Clone)]
enum Entity {
    Family {
        id: u32,
        count: Option<u32>,
        kind: RegKind,
    },
    /// A variable: its state space here, and its address.
    Variable {
        space: super::op::Space,
        address: u64,
        dynamic: bool,
    },
    Label(u32),
    Targets(Vec<String>),
}

/// Builds one kernel's code.
#[derive(Debug)]
pub(super) struct Builder<'a> {
    pub(super) functions: &'a HashMap<&'a str, &'a Function>,
    /// Addresses of `.global` and `.const` variables of the module.
    globals: &'a HashMap<String, u64>,
    shared: HashMap<&'a str, &'a Variable>,
    pub(super) code: Code,
    scopes: Vec<HashMap<String, Entity>>,
    families: u32,
    used: HashMap<(u32, u32), Reg>,
    counts: [u32; 3],
    pub(super) constants: HashMap<(Constant, bool), Reg>,
    labels: Vec<Option<u32>>,
    location_index: HashMap<Loc, u32>,
    pub(super) guard: Option<(Reg, bool)>,
    line: u32,
    location: u32,
    pub(super) static_shared: u32,
    pub(super) dynamic_align: u32,
    shared_offsets: HashMap<String, u32>,
    calls: Vec<String>,
    /// The flag of `add.cc` and its kind, once something names it.
    condition_code: Option<Reg>,
    /// Tables of `brx.idx` by their targets.
    tables: HashMap<Vec<u32>, u32>,
    /// Calls inlined so far, empty ones too.
    inlined: u32,
    /// Where `ret` goes in an inlined body.
    return_labels: Vec<u32>,
    /// Line, opcode and reason of each instruction that is not supported.
    pub(super) unsupported: Vec<(u32, String, String)>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        functions: &'a HashMap<&'a str, &'a Function>,
        globals: &'a HashMap<String, u64>,
        variables: &'a [Variable],
    ) -> Self {
        Self {
            functions,
            globals,
            shared: variables
                .iter()
                .filter(|v| v.space == Space::Shared)
                .map(|v| (v.name.as_str(), v))
                .collect(),
            code: Code {
                locations: vec![Loc::default()],
                ..Code::default()
            },
            scopes: Vec::new(),
            families: 0,
            used: HashMap::new(),
            counts: [0; 3],
            constants: HashMap::new(),
            labels: Vec::new(),
            location_index: HashMap::new(),
            guard: None,
            line: 0,
            location: 0,
            static_shared: 0,
            dynamic_align: 16,
            shared_offsets: HashMap::new(),
            calls: Vec::new(),
            condition_code: None,
            inlined: 0,
            tables: HashMap::new(),
            return_labels: Vec::new(),
            unsupported: Vec::new(),
        }
    }

    /// Builds an entry's body; `parameters` are its names and offsets.
    pub(super) fn entry(&mut self, function: &'a Function, parameters: &[(String, u32)]) {
        let scope = parameters
            .iter()
            .map(|(name, offset)| {
                let entity = Entity::Variable {
                    space: super::op::Space::Param,
                    address: u64::from(*offset),
                    dynamic: false,
                };
                (name.clone(), entity)
            })
            .collect();
        self.scopes.push(scope);
        self.calls.push(function.name.clone());
        if let Some(body) = &function.body {
            self.block(body);
        }
        self.line = function.line;
        self.emit(Op::Exit, &[], &[]);
    }

    /// Labels become instruction numbers.
    pub(super) fn link(&mut self) {
        let end = self.code.instructions.len() as u32;
        self.code.leaders = vec![false; end as usize + 1];
        let resolve = |label: u32| {
            self.labels
                .get(label as usize)
                .copied()
                .flatten()
                .unwrap_or(end - 1)
        };
        for inst in &mut self.code.instructions {
            if let Op::Branch { target } = &mut inst.op {
                *target = resolve(*target);
                self.code.leaders[*target as usize] = true;
            }
        }
        for target in self.code.tables.iter_mut().flatten() {
            *target = resolve(*target);
            self.code.leaders[*target as usize] = true;
        }
    }

    fn block(&mut self, statements: &'a [Statement]) {
        let mut scope = HashMap::new();
        for statement in statements {
            match statement {
                Statement::Label(name) => {
                    scope.insert(name.clone(), Entity::Label(self.labels.len() as u32));
                    self.labels.push(None);
                }
                Statement::Targets(name, targets) => {
                    scope.insert(name.clone(), Entity::Targets(targets.clone()));
                }
                _ => {}
            }
        }
        self.scopes.push(scope);
        for statement in statements {
            self.statement(statement);
        }
        self.scopes.pop();
    }

    fn statement(&mut self, statement: &'a Statement) {
        match statement {
            Statement::Block(inner) => self.block(inner),
            Statement::Register { ty, name, count } => {
                let kind = match (ty.as_str(), type_bytes(ty)) {
                    ("pred", _) => RegKind::Predicate,
                    (_, Some(8)) => RegKind::Wide,
                    (_, Some(1..=4)) => RegKind::Narrow,
                    _ => {
                        self.unsupported.push((
                            self.line,
                            format!(".reg .{ty}"),
                            "registers of this type".into(),
                        ));
                        return;
                    }
                };
                let id = self.families;
                self.families += 1;
                self.declare(
                    name,
                    Entity::Family {
                        id,
                        count: *count,
                        kind,
                    },
                );
            }
            Statement::Variable(variable) => self.variable(variable),
            Statement::Label(name) => {
                if let Some(&Entity::Label(label)) =
                    self.scopes.last().and_then(|scope| scope.get(name))
                {
                    self.place(label);
                }
            }
            Statement::Targets(..) => {}
            Statement::Instruction(instruction) => self.instruction(instruction),
        }
    }

    fn declare(&mut self, name: &str, entity: Entity) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.to_owned(), entity);
        }
    }

    fn variable(&mut self, variable: &'a Variable) {
        let bytes = variable
            .count
            .unwrap_or(0)
            .saturating_mul(u64::from(variable.element));
        let entity = match variable.space {
            Space::Shared => {
                let Some(offset) = self.place_shared(variable, bytes) else {
                    return;
                };
                Entity::Variable {
                    space: super::op::Space::Shared,
                    address: u64::from(offset),
                    dynamic: variable.is_extern || variable.count.is_none(),
                }
            }
            Space::Local | Space::Param => {
                let offset = self
                    .code
                    .local_bytes
                    .next_multiple_of(variable.align.max(1));
                let end = u64::from(offset) + bytes;
                // 512 KiB is what CUDA allows per thread.
                if end > 512 << 10 {
                    self.unsupported.push((
                        variable.line,
                        variable.name.clone(),
                        "too much local memory".into(),
                    ));
                    return;
                }
                self.code.local_bytes = end as u32;
                Entity::Variable {
                    space: super::op::Space::Local,
                    address: u64::from(offset),
                    dynamic: false,
                }
            }
            Space::Global | Space::Const => {
                self.unsupported.push((
                    variable.line,
                    variable.name.clone(),
                    "a global variable in a function".into(),
                ));
                return;
            }
        };
        self.declare(&variable.name, entity);
    }

    fn place_shared(&mut self, variable: &Variable, bytes: u64) -> Option<u32> {
        if variable.is_extern || variable.count.is_none() {
            self.dynamic_align = self.dynamic_align.max(variable.align);
            return Some(0);
        }
        let offset = self.static_shared.next_multiple_of(variable.align.max(1));
        if u64::from(offset) + bytes > 1 << 20 {
            self.unsupported.push((
                variable.line,
                variable.name.clone(),
                "too much shared memory".into(),
            ));
            return None;
        }
        self.static_shared = offset + bytes as u32;
        Some(offset)
    }

    fn lookup(&mut self, name: &str) -> Option<Entity> {
        for scope in self.scopes.iter().rev() {
            if let Some(entity) = scope.get(name) {
                return Some(entity.clone());
            }
        }
        if let Some(&address) = self.globals.get(name) {
            return Some(Entity::Variable {
                space: super::op::Space::Global,
                address,
                dynamic: false,
            });
        }
        let variable = *self.shared.get(name)?;
        let dynamic = variable.is_extern || variable.count.is_none();
        let offset = match self.shared_offsets.get(name) {
            Some(&offset) => offset,
            None => {
                let bytes = variable
                    .count
                    .unwrap_or(0)
                    .saturating_mul(u64::from(variable.element));
                let offset = self.place_shared(variable, bytes)?;
                self.shared_offsets.insert(name.to_owned(), offset);
                offset
            }
        };
        Some(Entity::Variable {
            space: super::op::Space::Shared,
            address: u64::from(offset),
            dynamic,
        })
    }

    /// The register of this name, if it is one.
    pub(super) fn register(&mut self, name: &str) -> Option<Reg> {
        if let Some(Entity::Family {
            id,
            count: None,
            kind,
        }) = self.lookup(name)
        {
            return Some(self.family_member(id, u32::MAX, kind));
        }
        let digits = name.len() - name.bytes().rev().take_while(u8::is_ascii_digit).count();
        let index: u32 = name[digits..].parse().ok()?;
        match self.lookup(&name[..digits])? {
            Entity::Family {
                id,
                count: Some(count),
                kind,
            } if index < count => Some(self.family_member(id, index, kind)),
            _ => None,
        }
    }

    fn family_member(&mut self, id: u32, index: u32, kind: RegKind) -> Reg {
        if let Some(&reg) = self.used.get(&(id, index)) {
            return reg;
        }
        let reg = self.fresh(kind);
        self.used.insert((id, index), reg);
        reg
    }

    /// A register of the builder's own.
    pub(super) fn fresh(&mut self, kind: RegKind) -> Reg {
        let count = &mut self.counts[kind as usize];
        *count += 1;
        Reg::new(kind, *count - 1)
    }

    pub(super) fn condition_code(&mut self) -> Reg {
        if let Some(reg) = self.condition_code {
            return reg;
        }
        let reg = self.fresh(RegKind::Predicate);
        self.condition_code = Some(reg);
        reg
    }

    pub(super) fn count(&self, kind: RegKind) -> usize {
        self.counts[kind as usize] as usize
    }

    /// A register that holds this value in every lane.
    pub(super) fn constant(&mut self, constant: Constant, wide: bool) -> Reg {
        if let Some(&reg) = self.constants.get(&(constant, wide)) {
            return reg;
        }
        let kind = match constant {
            Constant::Bool(_) => RegKind::Predicate,
            _ if wide => RegKind::Wide,
            _ => RegKind::Narrow,
        };
        let reg = self.fresh(kind);
        self.constants.insert((constant, wide), reg);
        reg
    }

    pub(super) fn bits(&mut self, value: u64, width: Width) -> Reg {
        let value = match width {
            Width::B16 => value & 0xffff,
            Width::B32 => value & 0xffff_ffff,
            Width::B64 => value,
        };
        self.constant(Constant::Bits(value), width == Width::B64)
    }

    /// The address of a variable: its space and a constant register.
    pub(super) fn address_of(
        &mut self,
        name: &str,
        offset: i64,
        wide: bool,
    ) -> Option<(super::op::Space, Reg)> {
        match self.lookup(name)? {
            Entity::Variable {
                space,
                address,
                dynamic,
            } => {
                let address = address.wrapping_add(offset as u64);
                let constant = if dynamic {
                    Constant::DynamicShared(address)
                } else {
                    Constant::Bits(address)
                };
                Some((space, self.constant(constant, wide)))
            }
            _ => None,
        }
    }

    /// The local-memory offset of a `.param` of a call.
    pub(super) fn local_offset(&mut self, name: &str) -> Option<u64> {
        match self.lookup(name)? {
            Entity::Variable {
                space: super::op::Space::Local,
                address,
                ..
            } => Some(address),
            _ => None,
        }
    }

    pub(super) fn label(&mut self, name: &str) -> Option<u32> {
        match self.lookup(name)? {
            Entity::Label(label) => Some(label),
            _ => None,
        }
    }

    /// The number of a table of branch targets.
    pub(super) fn table(&mut self, targets: Vec<u32>) -> u32 {
        if let Some(&table) = self.tables.get(&targets) {
            return table;
        }
        self.code.tables.push(targets.clone());
        let table = self.code.tables.len() as u32 - 1;
        self.tables.insert(targets, table);
        table
    }

    pub(super) fn targets(&mut self, name: &str) -> Option<Vec<u32>> {
        let Entity::Targets(names) = self.lookup(name)? else {
            return None;
        };
        names.iter().map(|name| self.label(name)).collect()
    }

    fn place(&mut self, label: u32) {
        self.labels[label as usize] = Some(self.code.instructions.len() as u32);
    }

    /// Appends an instruction under the guard in force.
    pub(super) fn emit(&mut self, op: Op, destinations: &[Reg], sources: &[Reg]) {
        let at = self.code.pool.len() as u32;
        self.code
            .pool
            .extend(destinations.iter().chain(sources).map(|reg| reg.0));
        self.code.instructions.push(Inst {
            op,
            at,
            destinations: destinations.len() as u8,
            sources: sources.len() as u8,
            guard: self.guard.map_or(NO_GUARD, |(reg, _)| reg.0),
            guard_negated: self.guard.is_some_and(|(_, negated)| negated),
            watched: false,
            writes_operand: false,
            line: self.line,
            location: self.location,
        });
    }

    pub(super) fn special(&mut self, register: Special, width: Width) -> Reg {
        let kind = if width == Width::B64 {
            RegKind::Wide
        } else {
            RegKind::Narrow
        };
        let reg = self.fresh(kind);
        let guard = self.guard.take();
        self.emit(Op::Special { register, width }, &[reg], &[]);
        self.guard = guard;
        reg
    }

    fn instruction(&mut self, instruction: &'a Instruction) {
        self.line = instruction.line;
        if self.code.instructions.len() > MAX_INSTRUCTIONS {
            if self
                .unsupported
                .last()
                .is_none_or(|(_, _, reason)| !reason.starts_with("more than"))
            {
                let reason = format!("more than {MAX_INSTRUCTIONS} instructions after inlining");
                self.unsupported
                    .push((instruction.line, instruction.opcode.clone(), reason));
            }
            return;
        }
        self.location = match self.location_index.get(&instruction.loc) {
            Some(&index) => index,
            None => {
                self.code.locations.push(instruction.loc);
                let index = self.code.locations.len() as u32 - 1;
                self.location_index.insert(instruction.loc, index);
                index
            }
        };
        self.guard = None;
        if let Some((name, negated)) = &instruction.guard {
            match self.register(name) {
                Some(reg) if reg.kind() == RegKind::Predicate => self.guard = Some((reg, *negated)),
                _ => {
                    self.unsupported.push((
                        instruction.line,
                        instruction.opcode.clone(),
                        format!("`{name}` is not a predicate"),
                    ));
                    return;
                }
            }
        }
        let result = match instruction.opcode.split('.').next() {
            Some("call") => self.call(instruction),
            _ => decode::decode(self, instruction),
        };
        if let Err(reason) = result {
            self.unsupported
                .push((instruction.line, instruction.opcode.clone(), reason));
        }
    }

    /// `ret`: to the end of the inlined body, or out of the kernel.
    pub(super) fn ret(&mut self) {
        match self.return_labels.last() {
            Some(&target) => self.emit(Op::Branch { target }, &[], &[]),
            None => self.emit(Op::Exit, &[], &[]),
        }
    }

    /// `call (results), function, (arguments)`: the body is inlined, its parameters are the caller's `.param` variables.
    fn call(&mut self, instruction: &Instruction) -> Result<(), String> {
        let mut results: &[Operand] = &[];
        let mut arguments: &[Operand] = &[];
        let mut name = None;
        for operand in &instruction.operands {
            match operand {
                Operand::List(list) if name.is_none() => results = list,
                Operand::List(list) => arguments = list,
                Operand::Name(callee) if name.is_none() => name = Some(callee.as_str()),
                Operand::Name(_) => return Err("an indirect call".into()),
                _ => return Err("this operand of a call".into()),
            }
        }
        let name = name.ok_or("a call without a function")?;
        let offsets = |builder: &mut Self, operands: &[Operand]| -> Result<Vec<u64>, String> {
            operands
                .iter()
                .map(|operand| match operand {
                    Operand::Name(name) => builder
                        .local_offset(name)
                        .ok_or_else(|| format!("`{name}` is not a .param variable")),
                    _ => Err("an argument that is not a .param variable".into()),
                })
                .collect()
        };
        let results = offsets(self, results)?;
        let arguments = offsets(self, arguments)?;
        let Some(function) = self.functions.get(name).copied() else {
            return Err(if self.register(name).is_some() {
                "an indirect call".into()
            } else {
                format!("no function `{name}`")
            });
        };
        let Some(body) = &function.body else {
            return self.library_call(name, &results, &arguments);
        };
        if self.calls.iter().any(|caller| caller == name) {
            return Err(format!("recursion: `{name}` calls itself"));
        }
        if self.calls.len() >= MAX_CALL_DEPTH {
            return Err("calls nested too deeply".into());
        }
        self.inlined += 1;
        if self.inlined > MAX_INLINED_CALLS {
            return Err(format!(
                "more than {MAX_INLINED_CALLS} calls after inlining"
            ));
        }
        if results.len() != function.returns.len() || arguments.len() != function.params.len() {
            return Err(format!("`{name}` takes other arguments"));
        }
        let guard = self.guard.take();
        let end = self.labels.len() as u32;
        self.labels.push(None);
        if let Some((reg, negated)) = guard {
            self.guard = Some((reg, !negated));
            self.emit(Op::Branch { target: end }, &[], &[]);
            self.guard = None;
        }
        let mut scope = HashMap::new();
        let formals = function.returns.iter().chain(&function.params);
        for (formal, address) in formals.zip(results.into_iter().chain(arguments)) {
            let entity = Entity::Variable {
                space: super::op::Space::Local,
                address,
                dynamic: false,
            };
            scope.insert(formal.name.clone(), entity);
        }
        let outer = std::mem::replace(&mut self.scopes, vec![scope]);
        self.calls.push(name.to_owned());
        self.return_labels.push(end);
        self.block(body);
        self.return_labels.pop();
        self.calls.pop();
        self.scopes = outer;
        self.place(end);
        Ok(())
    }
}

/// A generic address of a variable for an initialiser.
pub(super) fn generic_address(space: Space, address: u64) -> u64 {
    match space {
        Space::Shared => window::SHARED + address,
        _ => address,
    }
}
