use stepscope_kernels::{Backend, HostTensor, QkvLayout, dummy_weights};

use crate::Error;
use crate::model::{Model, ModelConfig, NoProgress, Progress, Weights};

/// A model's weights on a device, fused as a step uses them: Q, K and V under one another, gate above up.
#[derive(Debug)]
pub(crate) struct DeviceModel<B: Backend> {
    pub(crate) embedding: B::Matrix,
    pub(crate) layers: Vec<DeviceLayer<B>>,
    pub(crate) final_norm: B::Vector,
    /// Absent when the embedding serves as output matrix too.
    pub(crate) lm_head: Option<B::Matrix>,
    pub(crate) rope: B::RopeTable,
}

#[derive(Debug)]
pub(crate) struct DeviceLayer<B: Backend> {
    pub(crate) input_norm: B::Vector,
    pub(crate) qkv: B::Matrix,
    pub(crate) qkv_bias: Option<B::Vector>,
    pub(crate) qk_norm: Option<(B::Vector, B::Vector)>,
    pub(crate) o: B::Matrix,
    pub(crate) o_bias: Option<B::Vector>,
    pub(crate) post_attention_norm: B::Vector,
    pub(crate) gate_up: B::Matrix,
    pub(crate) gate_up_bias: Option<B::Vector>,
    pub(crate) down: B::Matrix,
    pub(crate) down_bias: Option<B::Vector>,
}

/// The layout of a fused QKV row of `config`.
pub(crate) fn qkv_layout(config: &ModelConfig) -> QkvLayout {
    QkvLayout {
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
    }
}

impl<B: Backend> DeviceModel<B> {
    /// Puts `model` on the device, with rotations for `positions` positions; `progress` is told of bytes copied or made there.
    ///
    /// # Errors
    /// When the device has too little memory.
    pub(crate) fn new(
        backend: &B,
        model: &Model,
        positions: usize,
        progress: &dyn Progress,
    ) -> Result<DeviceModel<B>, Error> {
        let label = match &model.weights {
            Some(_) if !backend.has_own_memory() => {
                return DeviceModel::build(backend, model, positions, &NoProgress);
            }
            Some(_) => "copying weights to the device",
            None => "making dummy weights on the device",
        };
        progress.begin(label, model.weight_bytes);
        let on_device = DeviceModel::build(backend, model, positions, progress);
        progress.finish();
        on_device
    }

    fn build(
        backend: &B,
        model: &Model,
        positions: usize,
        progress: &dyn Progress,
    ) -> Result<DeviceModel<B>, Error> {
        let owned = |blocks: &[&HostTensor]| -> Vec<HostTensor> {
            blocks.iter().map(|&block| block.clone()).collect()
        };
        let Some(weights) = &model.weights else {
            return DeviceModel::build_dummy(backend, model, positions, progress);
        };
        let matrix = |blocks: &[&HostTensor]| {
            let blocks = owned(blocks);
            let matrix = backend.matrix(&blocks)?;
            progress.advance(blocks.iter().map(|b| b.bytes().len() as u64).sum());
            Ok(matrix)
        };
        let vector = |blocks: &[&HostTensor]| Ok(backend.vector(&owned(blocks))?);
        DeviceModel::assemble(backend, model, positions, weights, matrix, vector)
    }

    /// The model with dummy weights, of which only norm weights and biases are made by the host.
    fn build_dummy(
        backend: &B,
        model: &Model,
        positions: usize,
        progress: &dyn Progress,
    ) -> Result<DeviceModel<B>, Error> {
        let config = &model.config;
        let shapes = Weights::build(config, |id| Ok(config.shape_of(id.role)))?;
        let matrix = |shapes: &[&Vec<usize>]| {
            let blocks: Vec<[usize; 2]> = shapes.iter().map(|shape| [shape[0], shape[1]]).collect();
            let matrix = backend.dummy_matrix(model.dtype, &blocks)?;
            let elements: usize = blocks.iter().map(|[rows, cols]| rows * cols).sum();
            progress.advance((elements * model.dtype.size()) as u64);
            Ok(matrix)
        };
        let vector = |shapes: &[&Vec<usize>]| {
            let blocks = shapes
                .iter()
                .map(|shape| dummy_weights::uniform_here(model.dtype, shape));
            Ok(backend.vector(&blocks.collect::<Result<Vec<_>, _>>()?)?)
        };
        DeviceModel::assemble(backend, model, positions, &shapes, matrix, vector)
    }

    /// Makes matrices and vectors of `weights`, those that a step uses together as one.
    fn assemble<T>(
        backend: &B,
        model: &Model,
        positions: usize,
        weights: &Weights<T>,
        matrix: impl Fn(&[&T]) -> Result<B::Matrix, Error>,
        vector: impl Fn(&[&T]) -> Result<B::Vector, Error>,
    ) -> Result<DeviceModel<B>, Error> {
        let biases = |blocks: &[&Option<T>]| {
            let present: Option<Vec<&T>> = blocks.iter().map(|block| block.as_ref()).collect();
            present.map(|blocks| vector(&blocks)).transpose()
        };
        let mut layers = Vec::with_capacity(weights.layers.len());
        for layer in &weights.layers {
            layers.push(DeviceLayer {
                input_norm: vector(&[&layer.input_norm])?,
                qkv: matrix(&[&layer.q, &layer.k, &layer.v])?,
                qkv_bias: biases(&[&layer.q_bias, &layer.k_bias, &layer.v_bias])?,
                qk_norm: match (&layer.q_norm, &layer.k_norm) {
                    (Some(q), Some(k)) => Some((vector(&[q])?, vector(&[k])?)),
                    _ => None,
                },
                o: matrix(&[&layer.o])?,
                o_bias: biases(&[&layer.o_bias])?,
                post_attention_norm: vector(&[&layer.post_attention_norm])?,
                gate_up: matrix(&[&layer.gate, &layer.up])?,
                gate_up_bias: biases(&[&layer.gate_bias, &layer.up_bias])?,
                down: matrix(&[&layer.down])?,
                down_bias: biases(&[&layer.down_bias])?,
            });
        }
        Ok(DeviceModel {
            embedding: matrix(&[&weights.embedding])?,
            layers,
            final_norm: vector(&[&weights.final_norm])?,
            lm_head: weights
                .lm_head
                .as_ref()
                .map(|tensor| matrix(&[tensor]))
                .transpose()?,
            rope: backend.rope_table(&model.config.inverse_frequencies(), positions)?,
        })
    }
}
