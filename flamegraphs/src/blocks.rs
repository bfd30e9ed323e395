//! Which part of a layer an operation belongs to.

/// The block that the operation `name` of the forward phase is drawn under; none for operations outside the layers, and for
/// names this list does not know.
pub(crate) fn block_of(name: &str) -> Option<&'static str> {
    match name {
        "input_norm" | "qkv_proj" | "qk_norm" | "rope_kv" | "attention" | "o_proj" => {
            Some("attention")
        }
        "post_attention_norm" | "gate_up_proj" | "silu_mul" | "down_proj" => Some("mlp"),
        _ => None,
    }
}
