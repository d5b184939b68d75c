//! What an existing image says of itself, for making it smaller: how it is run, as whom, and whose its files are.
//!
//! In: an image's configuration, its accounts, its entries. Out: a workload, a user, and a manifest that says of every
//! file what the image says. This room reads nothing and runs nothing.

mod accounts;
mod history;
mod workload;

use std::collections::BTreeMap;

use crate::image::carried;
use crate::image::oci::{ImageConfig, RunConfig};
use crate::manifest::{Config, Entry, Kind, Manifest};
use crate::path::JailPath;

pub use accounts::{Account, AccountError, account, user_and_group};
pub use history::{from_which, hide_secrets, history, keep_layers, whole_history};
pub use workload::{Asked, SlimError, inside, workload};

/// Carries over what of an image's configuration no run shows: of `from`, what is said of the image, and of `run`, how it
/// is run. What the configuration says already counts.
pub fn carry_over(config: &mut Config, from: &ImageConfig, run: &RunConfig) {
    // Programs for i386 run on x86_64: the machine that ran them does not say whom they are for.
    config.architecture.clone_from(&from.architecture);
    config.variant.clone_from(&from.variant);
    // `80` is `80/tcp`, which may be there already.
    let ports = run.exposed_ports.iter().flatten().map(|(port, _)| port);
    let ports = ports.map(|port| if port.contains('/') { port.clone() } else { format!("{port}/tcp") });
    config.exposed_ports.extend(ports);
    config.volumes.extend(run.volumes.iter().flatten().map(|(volume, _)| volume.clone()));
    let signal = run.stop_signal.clone().filter(|signal| !signal.is_empty());
    config.stop_signal = config.stop_signal.take().or(signal);
    for (name, value) in run.labels.iter().flatten() {
        config.labels.entry(name.clone()).or_insert_with(|| value.clone());
    }
    config.extra = carried(from, &config.env);
}

/// Gives every entry the owner, mode and attributes that the image's own entry has. An image that an ordinary user has
/// unpacked is all theirs, so that the unpacked files do not say it.
pub fn adopt(manifest: &mut Manifest, image: &[Entry]) {
    let image: BTreeMap<&JailPath, &Entry> = image.iter().map(|entry| (&entry.path, entry)).collect();
    for entry in &mut manifest.entries {
        // What minjail makes itself has no owner in the image, unless it takes a file's place.
        let Some(original) = image.get(&entry.path).filter(|original| is_alike(&original.kind, &entry.kind)) else {
            (entry.uid, entry.gid) = (0, 0);
            continue;
        };
        (entry.uid, entry.gid, entry.mode) = (original.uid, original.gid, original.mode);
        entry.xattrs.clone_from(match (&original.kind, &entry.kind) {
            // The first name says them, and of the small image that may be another one.
            (Kind::HardLink { to }, Kind::File { .. }) => image.get(to).map_or(&original.xattrs, |first| &first.xattrs),
            _ => &original.xattrs,
        });
    }
}

fn is_alike(one: &Kind, other: &Kind) -> bool {
    let is_file = |kind: &Kind| matches!(kind, Kind::File { .. } | Kind::HardLink { .. });
    std::mem::discriminant(one) == std::mem::discriminant(other) || is_file(one) && is_file(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_one_however_it_is_spelled() {
        let from =
            r#"{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}, "config": {}}"#;
        let from: ImageConfig = serde_json::from_str(from).unwrap();
        let run: RunConfig =
            serde_json::from_str(r#"{"ExposedPorts": {"25": {}, "25/tcp": {}, "53/udp": {}}}"#).unwrap();
        let mut config = Config::default();
        carry_over(&mut config, &from, &run);
        assert_eq!(config.exposed_ports.into_iter().collect::<Vec<_>>(), ["25/tcp", "53/udp"]);
    }
}
