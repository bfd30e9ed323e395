//! Values of JSON as they come: numbers, texts and keys that are read without a copy, and whatever has another type than the
//! one wanted, which is passed over.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A process or thread id: a number, or a hash of a text.
pub(super) type Label = u64;

/// Keys, without a copy of their text.
macro_rules! keys {
    ($seed:ident -> $keys:ident { $($text:literal => $key:ident),* }) => {
        struct $seed;
        impl<'de> DeserializeSeed<'de> for $seed {
            type Value = $keys;
            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<$keys, D::Error> {
                deserializer.deserialize_identifier(self)
            }
        }
        impl Visitor<'_> for $seed {
            type Value = $keys;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_str<E>(self, text: &str) -> Result<$keys, E> {
                Ok(match text {
                    $($text => $keys::$key,)*
                    _ => $keys::Other,
                })
            }
        }
    };
}

pub(super) use keys;

/// A text, put into a buffer if there is one, and made into something; what is no text is passed over.
pub(super) struct Text<'a, F>(pub(super) Option<&'a mut String>, pub(super) F);

impl<'de, T: Default, F: FnOnce(&str) -> T> DeserializeSeed<'de> for Text<'_, F> {
    type Value = T;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Default, F: FnOnce(&str) -> T> Visitor<'de> for Text<'_, F> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a text")
    }
    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        if let Some(buffer) = self.0 {
            buffer.clear();
            buffer.push_str(text);
        }
        Ok((self.1)(text))
    }
    fn visit_bool<E>(self, _: bool) -> Result<T, E> {
        Ok(T::default())
    }
    fn visit_i64<E>(self, _: i64) -> Result<T, E> {
        Ok(T::default())
    }
    fn visit_u64<E>(self, _: u64) -> Result<T, E> {
        Ok(T::default())
    }
    fn visit_f64<E>(self, _: f64) -> Result<T, E> {
        Ok(T::default())
    }
    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::default())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<T, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(T::default())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(T::default())
    }
}

/// A number as it was written.
pub(super) enum Written {
    Whole(i64),
    Large(u64),
    Float(f64),
    /// A text, by its hash: processes are called `Spans`, ranks `[TP0] 3`.
    Named(u64),
    None,
}

impl Written {
    pub(super) fn float(&self) -> Option<f64> {
        match *self {
            Written::Whole(n) => Some(n as f64),
            Written::Large(n) => Some(n as f64),
            Written::Float(x) => Some(x),
            Written::Named(_) | Written::None => None,
        }
    }

    pub(super) fn whole(&self) -> Option<u64> {
        match *self {
            Written::Whole(n) => u64::try_from(n).ok(),
            Written::Large(n) => Some(n),
            Written::Float(x) if (0.0..1e18).contains(&x) => Some(x as u64),
            _ => None,
        }
    }

    pub(super) fn label(&self) -> Label {
        match *self {
            Written::Whole(n) => n as u64,
            Written::Large(n) | Written::Named(n) => n,
            Written::Float(x) => x as u64,
            Written::None => 0,
        }
    }
}

/// A number, whatever its form.
pub(super) struct Number;

impl<'de> DeserializeSeed<'de> for Number {
    type Value = Written;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Written, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Number {
    type Value = Written;
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a number")
    }
    fn visit_i64<E>(self, n: i64) -> Result<Written, E> {
        Ok(Written::Whole(n))
    }
    fn visit_u64<E>(self, n: u64) -> Result<Written, E> {
        Ok(i64::try_from(n).map_or(Written::Large(n), Written::Whole))
    }
    fn visit_f64<E>(self, x: f64) -> Result<Written, E> {
        Ok(Written::Float(x))
    }
    fn visit_str<E>(self, text: &str) -> Result<Written, E> {
        // Some tools write numbers as texts.
        if let Ok(n) = text.parse::<i64>() {
            return Ok(Written::Whole(n));
        }
        if let Some(x) = text.parse::<f64>().ok().filter(|x| x.is_finite()) {
            return Ok(Written::Float(x));
        }
        // FNV-1a: names of processes only have to differ from each other.
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Ok(if text.is_empty() {
            Written::None
        } else {
            Written::Named(hash)
        })
    }
    fn visit_bool<E>(self, _: bool) -> Result<Written, E> {
        Ok(Written::None)
    }
    fn visit_unit<E>(self) -> Result<Written, E> {
        Ok(Written::None)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Written, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Written::None)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Written, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Written::None)
    }
}
