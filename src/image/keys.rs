//! Whether all readers of a document read the same.
//!
//! Many tools are written in Go, whose decoder takes a key for a field's whose case is another, and the last one where there are several
//! (`encoding/json`, `Unmarshal`); other readers take the one that is spelled as the specification does. A document with both says different
//! things to them.

use std::collections::BTreeSet;

use serde_json::Value;

/// The objects whose keys are data, and which everybody reads by their exact keys.
const MAPS: [&str; 4] = ["annotations", "Labels", "ExposedPorts", "Volumes"];

/// A key that stands beside another one, in some object of `document`, that readers may take for the same.
pub(super) fn twin(document: &Value) -> Option<&str> {
    match document {
        Value::Object(fields) => {
            let mut known = BTreeSet::new();
            let twin = fields.keys().find(|key| !known.insert(folded(key)));
            let mut below = fields.iter().filter(|(key, _)| !MAPS.contains(&key.as_str())).map(|(_, value)| value);
            twin.map(String::as_str).or_else(|| below.find_map(self::twin))
        }
        Value::Array(values) => values.iter().find_map(twin),
        _ => None,
    }
}

/// What is the same for keys that differ in case, also where a letter of another alphabet has the same capital (`ſ`, and the sign of the
/// kelvin).
fn folded(key: &str) -> String {
    key.to_uppercase().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_are_found_where_keys_are_fields() {
        let found = |text: &str| {
            let document: Value = serde_json::from_str(text).unwrap();
            twin(&document).map(ToOwned::to_owned)
        };
        assert_eq!(found(r#"{"config": 1, "Config": 2}"#).as_deref(), Some("config"));
        assert_eq!(found(r#"[{"a": {"layers": 1, "layerſ": 2}}]"#).as_deref(), Some("layerſ"));
        assert_eq!(found(r#"{"config": {"Config": 1}, "annotations": {"a": 1, "A": 2}, "b": [1]}"#), None);
    }
}
