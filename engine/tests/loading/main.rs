//! Loading models: folders, GGUF files, tokenizers, and everything that can be wrong with them.

mod config;
mod folders;
mod gguf;
mod gguf_writer;
mod real;
mod regressions;
mod support;
mod tokenizers;
