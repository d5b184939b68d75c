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

#[cfg(test)]
mod tests {
    use super::*;
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
