//! Typed access to the keys of a `config.json`. A key that is absent or null takes the family's
//! class default; one of the wrong type is an error that names it.

use serde_json::{Map, Value};

use super::config::ConfigError;
use crate::ops::activation::Activation;

/// What `activation` accepts, for messages.
const ACTIVATIONS: &str = "use gelu or gelu_python (erf), gelu_new, gelu_pytorch_tanh or \
     gelu_python_tanh (tanh), silu or swish";

pub(super) struct Keys<'a>(pub &'a Map<String, Value>);

impl<'a> Keys<'a> {
    /// `None` where the key is absent or null.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    fn typed<T>(
        &self,
        key: &str,
        want: &'static str,
        default: T,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<T, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let wrong = || ConfigError::Type { key: key.into(), want, got: value.to_string() };
        convert(value).ok_or_else(wrong)
    }

    pub fn usize(&self, key: &str, default: usize) -> Result<usize, ConfigError> {
        let convert = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok());
        self.typed(key, "a whole number", default, convert)
    }

    pub fn f64(&self, key: &str, default: f64) -> Result<f64, ConfigError> {
        self.typed(key, "a number", default, Value::as_f64)
    }

    pub fn bool(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        self.typed(key, "true or false", default, Value::as_bool)
    }

    pub fn activation(&self, key: &str, default: Activation) -> Result<Activation, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        match value.as_str() {
            Some("gelu" | "gelu_python") => Ok(Activation::Gelu),
            Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_python_tanh") => Ok(Activation::GeluTanh),
            Some("silu" | "swish") => Ok(Activation::Silu),
            _ => Err(unsupported(key, value, ACTIVATIONS)),
        }
    }

    /// Refuses any value but `only` (or none at all).
    pub fn must_be(&self, key: &str, only: Value) -> Result<(), ConfigError> {
        match self.get(key) {
            Some(value) if *value != only => {
                Err(unsupported(key, value, &format!("only {only} is")))
            }
            _ => Ok(()),
        }
    }

    /// Refuses any value that is not null, nor an empty object or list.
    pub fn must_be_absent(&self, key: &str) -> Result<(), ConfigError> {
        match self.get(key) {
            None => Ok(()),
            Some(Value::Object(map)) if map.is_empty() => Ok(()),
            Some(Value::Array(list)) if list.is_empty() => Ok(()),
            Some(value) => Err(unsupported(key, value, "only a model without it is")),
        }
    }

    /// Whether `architectures` names one of these classes.
    pub fn is_one_of(&self, classes: &[&str]) -> bool {
        let list = self.get("architectures").and_then(Value::as_array);
        list.is_some_and(|l| l.iter().any(|c| c.as_str().is_some_and(|c| classes.contains(&c))))
    }
}

/// An error that names the key, what it says, and what would do instead.
pub(super) fn unsupported(key: &str, got: &Value, supported: &str) -> ConfigError {
    ConfigError::Unsupported { key: key.into(), got: got.to_string(), supported: supported.into() }
}

/// The name that every version of transformers knows an activation by.
pub(super) fn activation_name(activation: Activation) -> &'static str {
    match activation {
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_new",
        Activation::Silu => "silu",
        Activation::Tanh => "tanh",
    }
}
