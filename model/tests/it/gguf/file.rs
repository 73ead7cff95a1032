//! GGUF files written byte by byte, so that tests can break them in one place.

use std::collections::BTreeMap;

/// A value of a key.
#[derive(Clone, Debug)]
pub(super) enum Field {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
}

/// A tensor as the file holds it.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// Slowest dimension first.
    pub(super) shape: Vec<usize>,
    pub(super) code: u32,
    pub(super) bytes: Vec<u8>,
}

/// A file in the making.
#[derive(Clone, Debug, Default)]
pub(super) struct GgufFile {
    pub(super) keys: Vec<(String, Field)>,
    pub(super) tensors: BTreeMap<String, Stored>,
}

impl GgufFile {
    pub(super) fn set(&mut self, key: &str, field: Field) {
        self.keys.retain(|(name, _)| name != key);
        self.keys.push((key.to_owned(), field));
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.keys.retain(|(name, _)| name != key);
    }

    pub(super) fn f32_tensor(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensors.insert(name.to_owned(), Stored { shape: shape.to_vec(), code: 0, bytes });
    }

    /// The file, and where its data begins.
    pub(super) fn bytes(&self) -> (Vec<u8>, usize) {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        for (key, field) in &self.keys {
            text(&mut out, key);
            write_field(&mut out, field);
        }
        let mut offset = 0_u64;
        for (name, tensor) in &self.tensors {
            text(&mut out, name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            for size in tensor.shape.iter().rev() {
                out.extend((*size as u64).to_le_bytes());
            }
            out.extend(tensor.code.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += tensor.bytes.len().next_multiple_of(32) as u64;
        }
        out.resize(out.len().next_multiple_of(32), 0);
        let data = out.len();
        for tensor in self.tensors.values() {
            out.extend(&tensor.bytes);
            out.resize(out.len().next_multiple_of(32), 0);
        }
        (out, data)
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn write_field(out: &mut Vec<u8>, field: &Field) {
    let list = |out: &mut Vec<u8>, kind: u32, length: usize| {
        out.extend(9_u32.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend((length as u64).to_le_bytes());
    };
    match field {
        Field::U32(value) => {
            out.extend(4_u32.to_le_bytes());
            out.extend(value.to_le_bytes());
        }
        Field::F32(value) => {
            out.extend(6_u32.to_le_bytes());
            out.extend(value.to_le_bytes());
        }
        Field::Bool(value) => {
            out.extend(7_u32.to_le_bytes());
            out.push(u8::from(*value));
        }
        Field::Text(value) => {
            out.extend(8_u32.to_le_bytes());
            text(out, value);
        }
        Field::Texts(values) => {
            list(out, 8, values.len());
            values.iter().for_each(|value| text(out, value));
        }
        Field::I32s(values) => {
            list(out, 5, values.len());
            values.iter().for_each(|value| out.extend(value.to_le_bytes()));
        }
        Field::F32s(values) => {
            list(out, 6, values.len());
            values.iter().for_each(|value| out.extend(value.to_le_bytes()));
        }
    }
}
