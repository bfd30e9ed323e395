//! Writes GGUF files, right ones and wrong ones.

use half::{bf16, f16};

/// Numbers of GGML types.
pub(crate) const F32: u32 = 0;
pub(crate) const F16: u32 = 1;
pub(crate) const Q8_0: u32 = 8;
pub(crate) const Q5_K: u32 = 13;
pub(crate) const BF16: u32 = 30;

#[derive(Debug, Clone)]
pub(crate) struct GgufWriter {
    pub(crate) version: u32,
    pub(crate) alignment: usize,
    pairs: Vec<(String, Vec<u8>)>,
    pub(crate) tensors: Vec<Tensor>,
}

#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    /// Outermost first.
    pub(crate) shape: Vec<u64>,
    pub(crate) ggml_type: u32,
    pub(crate) data: Vec<u8>,
    /// Instead of where it comes to lie.
    pub(crate) offset: Option<u64>,
}

impl GgufWriter {
    pub(crate) fn new() -> GgufWriter {
        GgufWriter {
            version: 3,
            alignment: 32,
            pairs: Vec::new(),
            tensors: Vec::new(),
        }
    }

    /// Sets `key`, or sets it anew; `kind` is the number of the value's kind.
    pub(crate) fn raw(&mut self, key: &str, kind: u32, value: &[u8]) -> &mut GgufWriter {
        self.pairs.retain(|(k, _)| k != key);
        self.raw_again(key, kind, value)
    }

    /// Sets `key` even if it is set.
    pub(crate) fn raw_again(&mut self, key: &str, kind: u32, value: &[u8]) -> &mut GgufWriter {
        let value = [&kind.to_le_bytes(), value].concat();
        self.pairs.push((key.to_owned(), value));
        self
    }

    pub(crate) fn u32(&mut self, key: &str, value: u32) -> &mut GgufWriter {
        self.raw(key, 4, &value.to_le_bytes())
    }

    pub(crate) fn f32(&mut self, key: &str, value: f32) -> &mut GgufWriter {
        self.raw(key, 6, &value.to_le_bytes())
    }

    pub(crate) fn bool(&mut self, key: &str, value: bool) -> &mut GgufWriter {
        self.raw(key, 7, &[u8::from(value)])
    }

    pub(crate) fn text(&mut self, key: &str, value: &str) -> &mut GgufWriter {
        self.raw(key, 8, &string(value))
    }

    pub(crate) fn texts(&mut self, key: &str, values: &[String]) -> &mut GgufWriter {
        let values: Vec<u8> = values.iter().flat_map(|v| string(v)).collect();
        let count = self.count(&values);
        self.raw(
            key,
            9,
            &[&8_u32.to_le_bytes(), &count[..], &values].concat(),
        )
    }

    pub(crate) fn i32s(&mut self, key: &str, values: &[i32]) -> &mut GgufWriter {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let count = (values.len() as u64).to_le_bytes();
        self.raw(key, 9, &[&5_u32.to_le_bytes(), &count[..], &bytes].concat())
    }

    pub(crate) fn f32s(&mut self, key: &str, values: &[f32]) -> &mut GgufWriter {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let count = (values.len() as u64).to_le_bytes();
        self.raw(key, 9, &[&6_u32.to_le_bytes(), &count[..], &bytes].concat())
    }

    pub(crate) fn without(&mut self, key: &str) -> &mut GgufWriter {
        self.pairs.retain(|(k, _)| k != key);
        self
    }

    /// Adds `values` as numbers of a plain type or of Q8_0 (one scale per block, rounded).
    pub(crate) fn tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        ggml_type: u32,
        values: &[f32],
    ) -> &mut GgufWriter {
        let data = match ggml_type {
            F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            F16 => values
                .iter()
                .flat_map(|v| f16::from_f32(*v).to_le_bytes())
                .collect(),
            BF16 => values
                .iter()
                .flat_map(|v| bf16::from_f32(*v).to_le_bytes())
                .collect(),
            Q8_0 => values.chunks(32).flat_map(q8_0_block).collect(),
            other => panic!("type {other} is not written here"),
        };
        self.tensors.push(Tensor {
            name: name.to_owned(),
            shape: shape.iter().map(|&n| n as u64).collect(),
            ggml_type,
            data,
            offset: None,
        });
        self
    }

    /// The tensor called `name`, to spoil it.
    pub(crate) fn tensor_mut(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|t| t.name == name).unwrap()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.pairs.len() as u64).to_le_bytes());
        for (key, value) in &self.pairs {
            out.extend(string(key));
            out.extend(value);
        }
        let mut offset = 0_u64;
        for tensor in &self.tensors {
            out.extend(string(&tensor.name));
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            out.extend(tensor.shape.iter().rev().flat_map(|n| n.to_le_bytes()));
            out.extend(tensor.ggml_type.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(offset).to_le_bytes());
            offset += tensor.data.len().next_multiple_of(self.alignment) as u64;
        }
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
            out.extend(&tensor.data);
        }
        out
    }

    /// How many strings `values` are.
    fn count(&self, mut values: &[u8]) -> [u8; 8] {
        let mut count = 0_u64;
        while let Some((len, rest)) = values.split_first_chunk() {
            values = &rest[u64::from_le_bytes(*len) as usize..];
            count += 1;
        }
        count.to_le_bytes()
    }
}

pub(crate) fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn q8_0_block(values: &[f32]) -> Vec<u8> {
    let most = values.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    let scale = f16::from_f32(most / 127.0);
    let quants = values
        .iter()
        .map(|v| (v / scale.to_f32()).round() as i8 as u8);
    scale.to_le_bytes().into_iter().chain(quants).collect()
}
