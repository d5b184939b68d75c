//! What is left of an image's history: every step stays, and says whether a layer is left of it.

use std::collections::BTreeMap;

use crate::image::oci::{History, ImageConfig};
use crate::manifest::{Entry, FORMAT, Manifest, Original, Step};
use crate::path::JailPath;

/// The layer of what the image does not have: above all that it has.
const TOP: u32 = u32::MAX;

/// Puts each entry into the layer that it was in, and what minjail made itself on top. The layers of the image that are
/// left, the lowest first.
pub fn keep_layers(manifest: &mut Manifest, image: &[Entry]) -> Vec<u32> {
    let layers: BTreeMap<&JailPath, u32> = image.iter().map(|entry| (&entry.path, entry.layer)).collect();
    let made = manifest.made.clone();
    let key = |entry: &Entry| layers.get(&entry.path).copied().filter(|_| !made.contains_key(&entry.path));
    manifest.assign_layers(|entry| key(entry).unwrap_or(TOP))
}

/// For each of the layers that are left, which one of the image it is what is left of; `None` of what the image does not have.
pub fn from_which(left: &[u32]) -> Vec<Option<usize>> {
    left.iter().map(|&layer| (layer != TOP).then_some(layer as usize)).collect()
}

/// The steps by which an image came to be; `left` are its layers of which something is left, as [`keep_layers`] tells, and
/// `originals` those of them, by their new numbers, that are as they were.
pub fn history(image: &ImageConfig, left: &[u32], originals: &[Original]) -> Vec<Step> {
    let cut = format!("cut by minjail (format {FORMAT})");
    steps(image, left, |layer| (!originals.iter().any(|original| original.layer == layer)).then_some(&cut))
}

/// As [`history`], of an image whose layers that are left are whole.
pub fn whole_history(image: &ImageConfig, left: &[u32]) -> Vec<Step> {
    steps(image, left, |_| None)
}

fn steps<'a>(image: &ImageConfig, left: &[u32], cut: impl Fn(u32) -> Option<&'a String>) -> Vec<Step> {
    let steps = image.history.as_deref().unwrap_or_default();
    let layers = steps.iter().filter(|step| !step.empty_layer).count();
    // One that has not a step for each layer does not say which step made which.
    let is_whole = layers == image.rootfs.diff_ids.len();
    let mut next = 0..;
    let step = |step: &History| {
        let own = if step.empty_layer { None } else { next.next() };
        let layer = left.iter().position(|left| Some(*left) == own).filter(|_| is_whole).map(|layer| layer as u32);
        let comment = match (&step.comment, layer.and_then(&cut)) {
            (comment, None) => comment.clone(),
            (None, Some(cut)) => Some(cut.clone()),
            (Some(comment), Some(cut)) => Some(format!("{comment}; {cut}")),
        };
        Step {
            created: step.created.clone(),
            created_by: step.created_by.clone(),
            author: step.author.clone(),
            comment,
            layer,
        }
    };
    steps.iter().map(step).collect()
}

/// What stands in the place of a value that an image may not have.
const HIDDEN: &str = "…";

/// Hides in the words of the steps the values of variables that an image may not have: of those that it was given (`env`, as
/// `NAME=VALUE`), and of what looks like one where a step sets it (`ENV`, `ARG`).
pub fn hide_secrets(steps: &mut [Step], env: &[String], withholds: impl Fn(&str, &str) -> bool) {
    let given: Vec<&str> = env
        .iter()
        .filter_map(|variable| variable.split_once('='))
        .filter(|(name, value)| withholds(name, value))
        .map(|(_, value)| value)
        .collect();
    for text in steps.iter_mut().flat_map(|step| [&mut step.created_by, &mut step.comment]).flatten() {
        let said = assignments(text).filter(|(name, value)| withholds(name, value)).map(|(_, value)| value);
        let mut values: Vec<String> =
            said.chain(given.iter().copied()).filter(|value| !value.is_empty()).map(str::to_owned).collect();
        // One may be in another.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        for value in values {
            *text = text.replace(&value, HIDDEN);
        }
    }
}

/// The variables that `text` sets, with their values: `NAME=VALUE`, where quotes keep words together.
fn assignments(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let equals = text.match_indices('=').map(|(at, _)| at);
    equals.filter_map(|at| {
        let name = text[..at].rsplit(|letter: char| letter.is_whitespace() || letter == '|').next()?;
        let rest = &text[at + 1..];
        let value = match rest.chars().next()? {
            quote @ ('"' | '\'') => rest[1..].split(quote).next()?,
            _ => rest.split_whitespace().next().filter(|_| !rest.starts_with(char::is_whitespace))?,
        };
        (!name.is_empty() && !name.contains('=')).then_some((name, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_wherever_a_step_says_them() {
        let step = |text: &str| Step { created_by: Some(text.to_owned()), ..Step::default() };
        let mut steps =
            ["ENV DB_PASSWORD=hunter22 LANG=C", "RUN |1 API_TOKEN=\"abc def\" /bin/sh -c login hunter22", "COPY a b"]
                .map(step);
        hide_secrets(&mut steps, &["DB_PASSWORD=hunter22".to_owned()], |name, _| {
            name.ends_with("WORD") || name.ends_with("TOKEN")
        });
        let texts = steps.map(|step| step.created_by.unwrap());
        assert_eq!(texts, ["ENV DB_PASSWORD=… LANG=C", "RUN |1 API_TOKEN=\"…\" /bin/sh -c login …", "COPY a b"]);
    }
    use crate::manifest::Digest;

    fn config(history: &str, layers: usize) -> ImageConfig {
        let digests = vec![format!("\"sha256:{}\"", "0".repeat(64)); layers].join(",");
        let text = format!(
            r#"{{"architecture": "amd64", "os": "linux", "history": {history}, "rootfs": {{"type": "layers", "diff_ids": [{digests}]}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn steps_say_what_is_left_of_them() {
        let text = r#"[{"created_by": "a"}, {"created_by": "b", "empty_layer": true}, {"created_by": "c", "comment": "d"}, {"created_by": "e"}]"#;
        let told = |image: &ImageConfig, left: &[u32]| {
            let steps = history(image, left, &[]);
            steps.into_iter().map(|step| (step.layer, step.comment)).collect::<Vec<_>>()
        };
        let (whole, cut) = (config(text, 3), "cut by minjail (format 1)".to_owned());
        let said = Some("d".to_owned());
        assert_eq!(told(&whole, &[]), [(None, None), (None, None), (None, said.clone()), (None, None)]);
        let some = [(None, None), (None, None), (Some(0), Some(format!("d; {cut}"))), (Some(1), Some(cut))];
        assert_eq!(told(&whole, &[1, 2, TOP]), some);
        assert_eq!(told(&config(text, 2), &[0, 1])[0], (None, None), "nobody knows which step made which layer");
        assert_eq!(history(&config("null", 1), &[0], &[]), []);
        let kept = [Original { layer: 1, diff_id: Digest::of(b""), blob: None }];
        let steps = history(&whole, &[1, 2, TOP], &kept);
        assert_eq!((steps[2].comment.is_some(), &steps[3].comment), (true, &None), "what is as it was is not cut");
    }
}
