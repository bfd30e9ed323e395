//! The two pools a batch lives in: which token slots a request holds, and which pages of the KV cache are free.

mod kv_allocator;
mod token_pool;

pub use kv_allocator::KvAllocator;
pub use token_pool::{Row, TokenPool};
