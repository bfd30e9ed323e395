//! PTX text to a syntax tree: [`lex`](lexer::lex), then [`parse`](parser::parse). Nothing here knows what an instruction means.
//!
//! Module and function directives are in [`parser`], declarations in `variable`, bodies in `statement`; all read tokens through
//! `cursor`.
//!
//! **Invariant:** the tree takes memory in proportion to the text, whatever the text declares.

pub(crate) mod ast;
mod cursor;
mod lexer;
pub(crate) mod parser;
mod statement;
#[cfg(test)]
mod tests;
mod variable;
