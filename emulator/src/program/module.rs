//! A syntax tree to a module of kernels.

use std::collections::HashMap;
use std::sync::Arc;

use super::allocate::allocate;
use super::builder::{Builder, generic_address};
use super::op::{Atomic, AtomicType, Op, Order, Space};
use super::{KernelCode, Parameter};
use crate::error::{Error, ErrorKind};
use crate::ptx::ast::{Ast, Function, Init, Space as AstSpace, Variable};

/// A global or constant variable with its first contents.
#[derive(Debug)]
pub(crate) struct GlobalVariable {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) align: u32,
    pub(crate) is_constant: bool,
}

/// The global variables that a module needs memory for.
pub(crate) fn globals(ast: &Ast) -> Result<Vec<GlobalVariable>, Error> {
    let mut globals = Vec::new();
    for variable in &ast.variables {
        if !matches!(variable.space, AstSpace::Global | AstSpace::Const) {
            continue;
        }
        if variable.is_extern || variable.count.is_none() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "PTX line {}: `{}` is defined in another module",
                    variable.line, variable.name
                ),
            ));
        }
        globals.push(GlobalVariable {
            name: variable.name.clone(),
            bytes: variable.count.unwrap_or(0) * u64::from(variable.element),
            align: variable.align,
            is_constant: variable.space == AstSpace::Const,
        });
    }
    Ok(globals)
}

/// The first contents of a global variable; empty means zeros.
pub(crate) fn contents(variable: &Variable, addresses: &HashMap<String, u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for init in &variable.init {
        let value = match init {
            Init::Bits(bits) => *bits,
            Init::Address(name, offset) => {
                let address = addresses.get(name).copied().unwrap_or(0);
                generic_address(AstSpace::Global, address).wrapping_add(*offset as u64)
            }
        };
        bytes.extend_from_slice(&value.to_le_bytes()[..variable.element.min(8) as usize]);
    }
    bytes
}

/// Decodes every kernel. The error lists all that is not supported.
pub(crate) fn build(
    ast: &Ast,
    addresses: &HashMap<String, u64>,
) -> Result<Vec<Arc<KernelCode>>, Error> {
    let mut functions: HashMap<&str, &Function> =
        ast.functions.iter().map(|f| (f.name.as_str(), f)).collect();
    // An alias is declared too, as a function without a body.
    for (alias, name) in &ast.aliases {
        if let Some(&function) = functions.get(name.as_str()) {
            functions.insert(alias, function);
        }
    }
    let files = Arc::new(ast.files.clone());
    let mut kernels = Vec::new();
    let mut unsupported = Vec::new();
    for function in ast
        .functions
        .iter()
        .filter(|function| function.is_entry && function.body.is_some())
    {
        let mut offset = 0u32;
        let mut parameters = Vec::new();
        let mut names = Vec::new();
        for param in &function.params {
            offset = offset.next_multiple_of(param.align.max(1));
            let bytes = param
                .count
                .unwrap_or(1)
                .saturating_mul(u64::from(param.element));
            // 32764 bytes is the most that a launch can pass.
            if u64::from(offset) + bytes > 32764 {
                return Err(Error::new(
                    ErrorKind::InvalidPtx,
                    format!("`{}` has too many parameters", function.name),
                ));
            }
            names.push((param.name.clone(), offset));
            parameters.push(Parameter {
                offset,
                bytes: bytes as u32,
            });
            offset += bytes as u32;
        }
        let mut builder = Builder::new(&functions, addresses, &ast.variables);
        builder.entry(function, &names);
        builder.link();
        unsupported.append(&mut builder.unsupported);
        if !unsupported.is_empty() {
            continue;
        }
        let static_shared = builder.static_shared;
        let dynamic_shared_base = static_shared.next_multiple_of(builder.dynamic_align);
        let code = allocate(builder, dynamic_shared_base);
        let order_matters = code.instructions.iter().any(|inst| order_matters(&inst.op));
        let may_spin = order_matters
            || code
                .instructions
                .iter()
                .any(|inst| matches!(inst.op, Op::Sleep));
        kernels.push(Arc::new(KernelCode {
            name: function.name.clone(),
            code,
            parameters,
            parameter_bytes: offset,
            static_shared,
            dynamic_shared_base,
            max_threads: function.max_threads,
            required_threads: function.required_threads,
            required_cluster: function.required_cluster,
            max_registers: function.max_registers,
            min_blocks: function.min_blocks,
            files: Arc::clone(&files),
            order_matters,
            may_spin,
        }));
    }
    if unsupported.is_empty() {
        return Ok(kernels);
    }
    unsupported.sort();
    unsupported.dedup();
    let list: Vec<String> = unsupported
        .iter()
        .map(|(line, opcode, reason)| format!("  line {line}: {opcode}: {reason}"))
        .collect();
    Err(Error::new(
        ErrorKind::Unsupported,
        format!("the PTX uses what is not supported:\n{}", list.join("\n")),
    ))
}

/// Whether an instruction's result may depend on what other blocks did before.
fn order_matters(op: &Op) -> bool {
    match op {
        Op::Atom {
            access,
            op,
            ty,
            returns,
        } => {
            let replaces = matches!(op, Atomic::Exchange | Atomic::CompareExchange);
            let is_global = !matches!(access.space, Space::Shared | Space::Cluster);
            let is_exact = matches!(ty, AtomicType::Unsigned | AtomicType::Signed);
            is_global && (*returns || replaces || !is_exact)
        }
        Op::Load(access) => {
            access.order != Order::Weak && matches!(access.space, Space::Global | Space::Generic)
        }
        Op::Special { register, .. } => {
            use super::op::Special;
            matches!(
                register,
                Special::Clock
                    | Special::ClockHi
                    | Special::Clock64
                    | Special::GlobalTimer
                    | Special::GlobalTimerHi
            )
        }
        _ => false,
    }
}
