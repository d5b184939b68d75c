//! What a person should know about a file set.

use serde::Serialize;

use crate::path::JailPath;

/// Something that is not packed, or not as it looks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "note", rename_all = "kebab-case")]
pub enum Note {
    /// The run changed the file; the image has the content from before. A volume may be the better place.
    State { path: JailPath },
    /// A unix socket that something outside must provide.
    Socket { path: JailPath },
    /// The program was given it at a descriptor, as its standard output.
    Given { path: JailPath },
    /// A namespace, which something outside must provide.
    Namespace { path: JailPath },
    /// What the kernel makes up was used there, or below; something outside must mount it.
    MadeUp { path: JailPath },
    /// A device that the runtime must provide.
    Device { path: JailPath },
    /// A file below `/dev`, as in `/dev/shm`, which something must put there while the image runs.
    Shared { path: JailPath },
    /// The workload was not allowed to read it; it is there without content.
    Refused { path: JailPath },
    /// It has an access control list, which the image has not, and its mode does not let everybody use it.
    AccessList { path: JailPath },
    /// It is none of the package's that has it in its list, since that brought another content.
    Departed { path: JailPath, package: String },
    /// Accounts of people, or password hashes, were left out of the file.
    Accounts { path: JailPath, left_out: usize },
    /// Of an image's accounts, the password hashes were left out.
    Hashes { path: JailPath },
    /// The run used it, and the user left it out.
    Excluded { path: JailPath },
    /// The user left out what would not be in the image anyway.
    NothingExcluded { pattern: String },
    /// The user named it to be packed, and all of it to be left out.
    NothingIncluded { pattern: String },
    /// It comes with what the user named, and needs a library or an interpreter that is nowhere.
    Lacks { path: JailPath, needs: String },
    /// It looks like a secret, so it is not packed; of accounts, the hashes are not.
    Secret { path: JailPath, kind: String },
    /// A variable that looks like a secret, so the image does not have it.
    Variable { name: String },
    /// What somebody wrote into the image's configuration by hand, or into its command, looks like a secret; the image has it.
    Configured { what: Configured, name: String },
    /// Variables that the image does not have name what the run found.
    Unset { path: JailPath, names: Vec<String> },
    /// Settings in somebody's home directory, of which the run used something.
    Home { path: JailPath },
    /// A file that was in a directory for temporary files before the run.
    Temporary { path: JailPath },
    /// A listing of a directory where everybody's files come and go showed names that are not packed.
    Names { path: JailPath },
}

/// What of an image's configuration may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Configured {
    Variable,
    Label,
    /// Known by its place in the command, since its text is the secret.
    Argument,
}
