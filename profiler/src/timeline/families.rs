//! Which family of operations a kernel belongs to, by its name.

use serde::Serialize;

use super::events::{Activity, ActivityKind, NameId, Trace};

/// What a kernel does in a forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Matrix multiplications, those of experts included.
    Gemm,
    /// Attention: scores, softmax and values in one kernel, and the reduction over splits after it.
    Attention,
    /// RMS norm, layer norm, alone or fused with an addition.
    Norm,
    /// Rotary position embedding.
    Rope,
    /// Keys and values into the KV cache.
    KvWrite,
    /// Activation functions of the MLP.
    Activation,
    /// Which expert a token goes to, and sorting tokens by it.
    MoeRouting,
    /// Softmax on its own.
    Softmax,
    /// Logits to tokens.
    Sampling,
    /// Rows of a table by index: the embedding, and gathers like it.
    Embedding,
    /// Numbers between formats of low precision.
    Quantisation,
    /// All-reduce and the other collectives.
    Communication,
    /// State-space and linear attention.
    StateSpace,
    /// Convolutions.
    Convolution,
    /// Lengths, positions, page tables, index arithmetic.
    Preparation,
    /// Copies, by copy engines or by kernels, casts and concatenations included.
    Copy,
    /// Memory set to a value.
    Set,
    /// Sums and means on their own.
    Reduction,
    /// Element by element, and nothing more said.
    Elementwise,
    /// A graph replay whose kernels were not recorded.
    Graph,
    /// No rule knows the name.
    Other,
}

impl Family {
    /// What people call it.
    pub fn label(self) -> &'static str {
        match self {
            Family::Gemm => "GEMM",
            Family::Attention => "attention",
            Family::Norm => "norm",
            Family::Rope => "rope",
            Family::KvWrite => "KV write",
            Family::Activation => "activation",
            Family::MoeRouting => "MoE routing",
            Family::Softmax => "softmax",
            Family::Sampling => "sampling",
            Family::Embedding => "embedding",
            Family::Quantisation => "quantisation",
            Family::Communication => "communication",
            Family::StateSpace => "state space",
            Family::Convolution => "convolution",
            Family::Preparation => "preparation",
            Family::Copy => "copy",
            Family::Set => "set",
            Family::Reduction => "reduction",
            Family::Elementwise => "elementwise",
            Family::Graph => "whole graph",
            Family::Other => "other",
        }
    }
}

/// The rules, in order: the first that matches decides. A rule matches where any of its texts is found in the kernel's name,
/// whatever the case; `a&b` wants both, `=a` the whole name. Names are from traces of sglang, vLLM, TensorRT-LLM and transformers and from the
/// sources of FlashInfer, FlashAttention, llama.cpp, CUTLASS, cuBLAS, cuDNN, Triton, AITER, Composable Kernel and hipBLASLt.
const RULES: &[(Family, &[&str])] = &[
    (
        Family::Communication,
        &[
            "nccl",
            "rccl",
            "allreduce",
            "all_reduce",
            "cross_device_reduce",
            "allgather",
            "all_gather",
            "reducescatter",
            "reduce_scatter",
            "alltoall",
            "all_to_all",
            "multimem",
            "nvshmem",
            "deep_ep",
            "mscclpp",
            "one_shot",
            "two_shot",
        ],
    ),
    // Before attention and GEMM: these carry the names of what they prepare or finish.
    (
        Family::Preparation,
        &[
            "kv_indices",
            "clamp_position",
            "compute_position",
            "resolve_future",
            "req_to_token",
            "slot_mapping",
            "seqlens",
            "seq_lens",
            "page_table",
            "block_table",
            "kv_indptr",
            "compute_slot",
        ],
    ),
    (
        Family::MoeRouting,
        &[
            "finalize_matmul",
            "finalizemoe",
            "_topk_forward",
            "topk_softmax",
            "topkgating",
            "topk_sigmoid",
            "grouped_topk",
            "moe_align",
            "moe_sum",
            "moe_sort",
            "moesorting",
            "combined_routing",
            "sum_bitmatrix",
            "moe_forward",
            "moe_fused_gate",
            "expertprefix",
            "expandinputrows",
            "routing",
            "count_and_sort_expert",
            "moe_permute",
            "moe_unpermute",
        ],
    ),
    (
        Family::KvWrite,
        &[
            "reshape_and_cache",
            "store_kv",
            "storekv",
            "set_kv_buffer",
            "append_paged_kv",
            "appendpagedkv",
            "concat_and_cache",
            "kv_write",
            "kv_append",
            "write_kv",
            "set_mla_kv",
            "copy_to_kv",
        ],
    ),
    // Rotation by FlashInfer is called BatchQKApplyRotary…, by others apply_rotary_pos_emb, fused_rope.
    (Family::Rope, &["rotary", "rope"]),
    (
        Family::StateSpace,
        &[
            "selective_scan",
            "mamba",
            "causal_conv1d",
            "chunk_scan",
            "chunk_state",
            "gated_delta",
            "delta_rule",
        ],
    ),
    (
        Family::Attention,
        &[
            "attention",
            "attn",
            "fmha",
            "flash_fwd",
            "flashfwd",
            "flash_decode",
            "flashdecod",
            "flashmla",
            "mla_decode",
            "decodewithpagedkv",
            "prefillwithpagedkv",
            "prefillwithragged",
            "singleprefill",
            "singledecode",
            "mergestate",
            "merge_state",
            "reduce_segments",
            "splitkv",
            "paged_kv",
            "_fwd_grouped_kernel",
            "_fwd_kernel_stage",
            "xqa",
            "mmha",
            "pa_bf16_",
            "pa_fp16_",
            "pa_fp8_",
            "mla_a8",
            "mla_a16",
            "mla_pfl",
            "mla_dec",
            "=_fwd_kernel",
        ],
    ),
    (
        Family::Norm,
        &[
            "rmsnorm",
            "rms_norm",
            "layernorm",
            "layer_norm",
            "groupnorm",
            "group_norm",
            "batch_norm",
            "l2norm",
            "add_norm",
            "norm_quant",
            "normquant",
            "triton&rsqrt",
        ],
    ),
    (
        Family::Convolution,
        &[
            "convolution",
            "conv2d",
            "conv3d",
            "conv_",
            "fprop",
            "dgrad",
            "wgrad",
            "scudnn",
            "implicit_gemm",
            "fft2d",
            "nchwtonhwc",
        ],
    ),
    // Before activations: expert GEMMs are fused with them.
    (
        Family::Gemm,
        &[
            "gemm",
            "gemv",
            "matmul",
            "cijk_",
            "nvjet",
            "xmma",
            "wgmma",
            "fused_moe_kernel",
            "splitkreduce",
            "splitk_reduce",
            "marlin",
            "machete",
            "scaled_mm",
            "bmm_",
            "_bmm",
            "cublaslt",
            "cutlass::kernel",
            "dot_kernel",
            "mul_mat",
            "mmq",
            "w8a8_block",
            "w4a16",
            "linear_",
            "lm_head",
            "_proj",
            "epilogue::impl",
        ],
    ),
    (
        Family::Activation,
        &[
            "act_and_mul",
            "silu",
            "gelu",
            "swiglu",
            "sigmoid",
            "tanh",
            "relu",
            "activation",
        ],
    ),
    (
        Family::Sampling,
        &[
            "argmax",
            "arg_max",
            "topk",
            "top_k",
            "topp",
            "top_p",
            "sampling",
            "multinomial",
            "gumbel",
            "penalt",
            "_sample",
            "logits",
            "minp",
        ],
    ),
    (Family::Softmax, &["softmax", "soft_max"]),
    (
        Family::Quantisation,
        &[
            "quant", "fp8", "hfp8", "mxfp4", "nvfp4", "int8_to", "to_int8",
        ],
    ),
    (
        Family::Embedding,
        &[
            "embedding",
            "indexselect",
            "index_select",
            "gather_kernel",
            "gather_row",
            "get_rows",
        ],
    ),
    (
        Family::Preparation,
        &[
            "arange",
            "elementwise_kernel_with_index",
            "rocprim",
            "devicescan",
            "devicesort",
            "radixsort",
            "devicereduce",
            "cumsum",
            "scan",
            "sort",
            "histogram",
            "index_put",
            "indexing_backward",
            "masked_fill",
            "compareeq",
            "position",
        ],
    ),
    (
        Family::Copy,
        &[
            "copy_kernel",
            "copykernel",
            "copyfunctor",
            "::copy<",
            "catarray",
            "memcpy",
            "_to_copy",
            "transpose",
            "_cat_",
            "permute",
            "fused_cat",
            "repeat_kv",
            "cpy_",
        ],
    ),
    (
        Family::Set,
        &["fillfunctor", "memset", "fill_kernel", "zero_"],
    ),
    (
        Family::Reduction,
        &["reduce_kernel", "reduction", "reduce_"],
    ),
    (
        Family::Elementwise,
        &[
            "elementwise",
            "triton_poi",
            "multi_tensor_apply",
            "add_kernel",
            "mul_kernel",
            "scatter",
            "pointwise",
            "add (",
            "triton_per",
            "triton_red",
        ],
    ),
];

/// The family of a kernel's name.
///
/// ```
/// use stepscope_profiler::timeline::{Family, classify};
///
/// assert_eq!(classify("nvjet_tst_128x64_64x9_1x2_h_bz_TNT"), Family::Gemm);
/// assert_eq!(classify("void paged_attention_ll4mi_reduce_kernel<__hip_bfloat16>()"), Family::Attention);
/// assert_eq!(classify("something_new"), Family::Other);
/// ```
pub fn classify(name: &str) -> Family {
    // A library of embeddings by its name, not a GEMM.
    let name = name.to_ascii_lowercase().replace("fbgemm", "");
    let has = |pattern: &&str| match pattern.strip_prefix('=') {
        Some(whole) => name == whole,
        None => pattern.split('&').all(|part| name.contains(part)),
    };
    RULES
        .iter()
        .find(|(_, patterns)| patterns.iter().any(has))
        .map_or(Family::Other, |&(family, _)| family)
}

/// The families of every name of a trace, so that a name is looked at once.
#[derive(Debug)]
pub(super) struct Families(Vec<Family>);

impl Families {
    pub(super) fn of(trace: &Trace) -> Families {
        let count = trace.names.len() as u32;
        Families(
            (0..count)
                .map(|id| classify(trace.names.get(NameId(id))))
                .collect(),
        )
    }

    pub(super) fn get(&self, activity: &Activity) -> Family {
        match activity.kind {
            ActivityKind::Copy => Family::Copy,
            ActivityKind::Set => Family::Set,
            ActivityKind::Graph => Family::Graph,
            ActivityKind::Kernel | ActivityKind::Operation => self
                .0
                .get(activity.name.0 as usize)
                .copied()
                .unwrap_or(Family::Other),
        }
    }
}

/// The time of one family.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FamilyTime {
    /// Which.
    pub family: Family,
    /// Its part of the busy time; an instant at which several kernels run is divided evenly among them, so that the families
    /// add up to the busy time.
    pub busy_ns: u64,
    /// The sum of its kernels' durations, which overlapping kernels make larger than the busy time.
    pub sum_ns: u64,
    /// How many kernels, copies and sets.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(family: Family, names: &[&str]) {
        for name in names {
            assert_eq!(classify(name), family, "{name}");
        }
    }

    #[test]
    fn names_of_nvidia_amd_and_triton() {
        // llama.cpp's, and two whose names say little.
        check(
            Family::Gemm,
            &[
                "void mul_mat_vec_q<(ggml_type)12, 1>",
                "void mul_mat_q<(ggml_type)12, 8>",
            ],
        );
        check(Family::Rope, &["void rope_neox<true, false, __half>"]);
        check(Family::Embedding, &["void k_get_rows_float<float, float>"]);
        check(
            Family::Attention,
            &["_fwd_kernel", "pa_bf16_noquant_gqa8_1tg_4w_msk1"],
        );
        check(
            Family::Gemm,
            &[
                "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1_execute_segment_k_off_kernel__5x_cublas",
                "Cijk_Alik_Bljk_BBS_BH_Bias_HA_S_SAV_UserArgs_MT256x32x64_MI16x16x1_SN_LDSB1",
                "_matmul_ogs_NNT_bf16xbf16xmxfp4_16x128x256x1_swiglu",
                "void cutlass::Kernel2<cutlass_80_simt_sgemm_128x32_8x5_nn_align1>(cutlass_80_simt_sgemm_128x32_8x5_nn_align1::Params)",
                "ampere_bf16_s16816gemm_bf16_64x64_ldg8_f2f_stages_64x5_tn",
                "fused_moe_kernel",
                "void gemv2T_kernel_val<int, int, __nv_bfloat16, __nv_bfloat16>",
                "void marlin::Marlin<__nv_bfloat16, 256, 1, 8, 8>",
                "void cublasLt::splitKreduce_kernel<32, 16, int, float>",
                "void deep_gemm::sm90_fp8_gemm_1d2d_impl<0u>",
                "qkv_proj (gemm_wgmma_tma)",
            ],
        );
        check(
            Family::Attention,
            &[
                "void pytorch_flash::flash_fwd_kernel<pytorch_flash::Flash_fwd_kernel_traits<64, 128, 128, 4>>",
                "void flash::flash_fwd_splitkv_combine_kernel<Flash_fwd_kernel_traits<128>>",
                "void flashinfer::BatchDecodeWithPagedKVCacheKernel<(flashinfer::PosEncodingMode)0>",
                "void flashinfer::BatchPrefillWithRaggedKVCacheKernel<flashinfer::KernelTraits>",
                "void flashinfer::PersistentVariableLengthMergeStatesKernel<8u>",
                "void paged_attention_ll4mi_QKV_mfma16_kernel<0, __hip_bfloat16, (vllm::Fp8KVCacheDataType)0>",
                "kernel_unified_attention_3d",
                "reduce_segments",
                "_fwd_grouped_kernel_stage1",
                "fmhaSm100aKernel_QkvBfloat16OBfloat16H128PagedKvCausal",
                "void cutlass::device_kernel<flash::enable_sm90_or_later<flash::FlashAttnFwdSm90<>>>",
            ],
        );
        check(
            Family::Norm,
            &[
                "_ZN5aiter24add_rmsnorm_quant_kernelIDF16bDF16bLi256ELi16ELb1ELb0ELb1ELi1EEEvPT0_",
                "_ZN7ck_tile6kentryILi1ENS_12Rmsnorm2dFwdINS_27Rmsnorm2dFwdPipelineOnePassINS_27R",
                "void flashinfer::norm::FusedAddRMSNormKernel<8u, __nv_bfloat16>",
                "triton_red_fused__to_copy_add_mean_mul_pow_rsqrt_0",
            ],
        );
        check(
            Family::Rope,
            &[
                "void vllm::rotary_embedding_kernel<c10::BFloat16, true>(long const*)",
                "void flashinfer::BatchQKApplyRotaryPosIdsCosSinCacheKernel<true, 128u>",
            ],
        );
        check(
            Family::KvWrite,
            &[
                "void vllm::reshape_and_cache_flash_kernel<__hip_bfloat16>",
                "void (anonymous namespace)::store_kvcache<2048l, 4, false, long>",
            ],
        );
        check(
            Family::Activation,
            &[
                "_ZN7sgl_hip10activation18act_and_mul_kernelI14__hip_bfloat16TnPFT_RKS3_EXadL_Z4silu",
                "void at::native::vectorized_elementwise_kernel<4, at::native::(anonymous namespace)::silu_kernel(at::TensorIteratorBase&)>",
            ],
        );
        check(
            Family::Communication,
            &[
                "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
                "void vllm::cross_device_reduce_1stage<__nv_bfloat16, 8>",
                "void flashinfer::trtllm_allreduce_fusion::allreduce_fusion_kernel_oneshot_lamport<>",
            ],
        );
        check(
            Family::MoeRouting,
            &[
                "_topk_forward",
                "_combined_routing_memset",
                "_finalize_matmul_scatter_bf16",
                "void vllm::moe::topkGatingSoftmax<8>",
            ],
        );
        check(
            Family::Sampling,
            &[
                "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::ArgMaxOps<float>, unsigned int>>",
            ],
        );
        check(
            Family::Preparation,
            &[
                "create_flashinfer_kv_indices_triton",
                "void (anonymous namespace)::clamp_position_kernel<long>(long*)",
            ],
        );
        check(
            Family::Copy,
            &[
                "void at::native::elementwise_kernel_manual_unroll<128, 8, at::native::gpu_kernel_impl_nocast<at::native::direct_copy_kernel_cuda(at::TensorIteratorBase&)>>",
                "triton_poi_fused__to_copy_1",
                "void at::native::(anonymous namespace)::CatArrayBatchedCopy<at::native::OpaqueType<2u>>",
            ],
        );
        check(
            Family::Elementwise,
            &[
                "void at::native::elementwise_kernel<128, 4, at::native::BinaryFunctor<c10::BFloat16, at::native::MulFunctor<float>>>",
            ],
        );
        check(
            Family::Embedding,
            &[
                "void at::native::(anonymous namespace)::indexSelectLargeIndex<c10::BFloat16, long>",
                "embedding (embedding_cpu)",
                "void split_embedding_codegen_forward_kernel<c10::Half>(fbgemm_gpu::Tensor)",
            ],
        );
    }
}
