//! A value that may be switched off with the word `"none"`.

use serde::de::value::{F64Deserializer, I64Deserializer, MapAccessDeserializer, StrDeserializer};
use serde::de::{Deserialize, Deserializer, Error, IntoDeserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;

/// A setting whose value may be `"none"`. TOML has no null, and a key left out means the default, not "off".
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum OrNone<T> {
    /// Switched off: the word `"none"`.
    #[default]
    None,
    /// A value, written as that value.
    Some(T),
}

impl<T> OrNone<T> {
    /// As a standard option.
    pub fn as_option(&self) -> Option<&T> {
        match self {
            Self::None => None,
            Self::Some(value) => Some(value),
        }
    }
}

impl<T: Copy> OrNone<T> {
    /// As a standard option, by value.
    pub fn get(self) -> Option<T> {
        self.as_option().copied()
    }
}

impl<T: fmt::Display> fmt::Display for OrNone<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Some(value) => value.fmt(f),
        }
    }
}

impl<T: Serialize> Serialize for OrNone<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_str("none"),
            Self::Some(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OrNone<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OrNoneVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for OrNoneVisitor<T> {
            type Value = OrNone<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or \"none\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                if text == "none" {
                    return Ok(OrNone::None);
                }
                let inner: StrDeserializer<'_, E> = text.into_deserializer();
                T::deserialize(inner).map(OrNone::Some).map_err(|e| E::custom(format!("{e}, or \"none\"")))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
                Err(E::custom(format!("`{value}` is no value here; \"none\" switches it off")))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
                let inner: F64Deserializer<E> = value.into_deserializer();
                T::deserialize(inner).map(OrNone::Some)
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
                let inner: I64Deserializer<E> = value.into_deserializer();
                T::deserialize(inner).map(OrNone::Some)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(OrNone::Some)
            }
        }

        deserializer.deserialize_any(OrNoneVisitor(PhantomData))
    }
}
