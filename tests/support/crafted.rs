//! Images made by hand, byte by byte: what no tool would write, and what several would write differently.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use sha2::{Digest, Sha256};

/// A tar archive in the making.
#[derive(Clone, Default)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    /// A member of a kind, with a link's text and a content; `size` is what the header says of that.
    pub(crate) fn raw(mut self, kind: u8, name: &[u8], link: &[u8], size: &[u8], content: &[u8]) -> Self {
        let mut header = [0_u8; 512];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &name[..name.len().min(100)]);
        put(100, b"0000755\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, size);
        put(136, b"00000000000\0");
        put(148, b"        ");
        put(156, &[kind]);
        put(157, &link[..link.len().min(100)]);
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn member(self, kind: u8, name: &str, link: &str, content: &[u8]) -> Self {
        let size = format!("{:011o}\0", content.len());
        self.raw(kind, name.as_bytes(), link.as_bytes(), size.as_bytes(), content)
    }

    /// What `add` adds, one member, with a mode and an owner of its own.
    pub(crate) fn owned(mut self, mode: u32, uid: u32, add: impl FnOnce(Self) -> Self) -> Self {
        let at = self.0.len();
        self = add(self);
        let header = &mut self.0[at..at + 512];
        header[100..116].copy_from_slice(format!("{mode:07o}\0{uid:07o}\0").as_bytes());
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self
    }

    pub(crate) fn file(self, name: &str, content: &str) -> Self {
        self.member(b'0', name, "", content.as_bytes())
    }

    pub(crate) fn directory(self, name: &str) -> Self {
        self.member(b'5', name, "", b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.member(b'2', name, target, b"")
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.member(b'1', name, target, b"")
    }

    /// An extended header: records that are well made, for the next member.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (1..20).map(|digits| rest + digits).find(|length| length.to_string().len() + rest == *length);
            content.extend(format!("{} {key}=", length.expect("a length fits")).bytes());
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        self.member(b'x', "PaxHeaders/x", "", &content)
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

pub(crate) fn tar() -> Tar {
    Tar::default()
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Compression {
    Plain,
    Gzip,
    Zstd,
}

impl Compression {
    fn media_type(self) -> &'static str {
        match self {
            Self::Plain => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    pub(crate) fn compress(self, tar: &[u8]) -> Vec<u8> {
        match self {
            Self::Plain => tar.to_vec(),
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(tar).expect("memory takes it");
                encoder.finish().expect("memory takes it")
            }
            Self::Zstd => zstd::encode_all(tar, 1).expect("memory takes it"),
        }
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    minjail::path::hex(&Sha256::digest(bytes))
}

/// The parts of an image, by their names in the layout or archive.
pub(crate) type Parts = BTreeMap<String, Vec<u8>>;

pub(crate) fn config(layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    config.to_string().into_bytes()
}

pub(crate) fn blob(parts: &mut Parts, media_type: &str, bytes: Vec<u8>) -> serde_json::Value {
    let digest = sha256(&bytes);
    let descriptor =
        serde_json::json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()});
    parts.insert(format!("blobs/sha256/{digest}"), bytes);
    descriptor
}

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

pub(crate) fn oci(layers: &[Vec<u8>], compression: Compression) -> Parts {
    oci_of(config(layers), layers, compression)
}

pub(crate) fn oci_of(config: Vec<u8>, layers: &[Vec<u8>], compression: Compression) -> Parts {
    let mut parts = Parts::from([("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())]);
    let config = blob(&mut parts, "application/vnd.oci.image.config.v1+json", config);
    let layers: Vec<_> =
        layers.iter().map(|layer| blob(&mut parts, compression.media_type(), compression.compress(layer))).collect();
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
    let mut manifest = blob(&mut parts, MANIFEST, manifest.to_string().into_bytes());
    manifest["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": "v1"});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    parts.insert("index.json".to_owned(), index.to_string().into_bytes());
    parts
}

pub(crate) fn docker(layers: &[Vec<u8>], compression: Compression) -> Parts {
    docker_of(config(layers), layers, compression)
}

pub(crate) fn docker_of(config: Vec<u8>, layers: &[Vec<u8>], compression: Compression) -> Parts {
    let name = format!("{}.json", sha256(&config));
    let names: Vec<String> = (0..layers.len()).map(|number| format!("{number}/layer.tar")).collect();
    let manifest = serde_json::json!([{"Config": name, "RepoTags": ["x:latest"], "Layers": names}]);
    let mut parts = Parts::from([(name, config), ("manifest.json".to_owned(), manifest.to_string().into_bytes())]);
    parts.extend(names.into_iter().zip(layers.iter().map(|layer| compression.compress(layer))));
    parts
}

pub(crate) fn lay_out(parts: &Parts, directory: &Path) {
    for (name, bytes) in parts {
        let path = directory.join(name);
        fs_err::create_dir_all(path.parent().expect("it is below the layout")).expect("the directory can be written");
        fs_err::write(path, bytes).expect("the directory can be written");
    }
}

pub(crate) fn archive(parts: &Parts) -> Vec<u8> {
    let member = |tar: Tar, (name, bytes): (&String, &Vec<u8>)| tar.member(b'0', name, "", bytes);
    parts.iter().fold(tar(), member).end()
}

/// The header of a 64-bit ELF file for a machine, as numbered in `elf.h`, and nothing else.
pub(crate) fn program_for(machine: u16) -> Vec<u8> {
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(16, 0);
    // e_type, e_machine, e_version, and up to e_flags; e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx.
    for half in [2_u16, machine, 1, 0].into_iter().chain([0; 14]).chain([64, 56, 0, 0, 0, 0]) {
        header.extend(half.to_le_bytes());
    }
    header
}

/// A machine of which nobody has heard.
pub(crate) const UNHEARD_OF: u16 = 0x7eef;
