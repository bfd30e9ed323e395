//! Loading models: folders, GGUF files, tokenizers, and everything that can be wrong with them.

// clippy.toml allows these in test functions; what they share is no such function.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod config;
mod folders;
mod gguf;
mod gguf_errors;
mod gguf_writer;
mod real;
mod regressions;
mod support;
mod tokenizers;
