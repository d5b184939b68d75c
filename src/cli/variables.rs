//! The environment of a program, and what of it an image gets.
//!
//! In: the environment of this process, and the variables that the user gave. Out: what the program gets, byte for byte and in the
//! same order where the user has changed nothing; and two choices of it: what the image gets in any case, and what it gets, or the
//! summary names, only if the run found files by it. An image never gets all: there are secrets among them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::failure::Failure;
use crate::files::is_secret_variable;
use crate::path::escape;

/// Variables without which a program finds other files than it found when it was traced, or speaks another language:
/// those of the C library, and those by which interpreters find modules and libraries their data.
const USUAL: &[&str] = &[
    "BUNDLE_GEMFILE",
    "CAML_LD_LIBRARY_PATH",
    "CLASSPATH",
    "CURL_CA_BUNDLE",
    "DICPATH",
    "EMACSLOADPATH",
    "ERL_LIBS",
    "FONTCONFIG_FILE",
    "FONTCONFIG_PATH",
    "GCONV_PATH",
    "GDAL_DATA",
    "GDK_PIXBUF_MODULE_FILE",
    "GEM_HOME",
    "GEM_PATH",
    "GIO_EXTRA_MODULES",
    "GIT_EXEC_PATH",
    "GI_TYPELIB_PATH",
    "GSETTINGS_SCHEMA_DIR",
    "GST_PLUGIN_PATH",
    "GS_LIB",
    "GTK_PATH",
    "GUILE_LOAD_COMPILED_PATH",
    "GUILE_LOAD_PATH",
    "HOME",
    "ICU_DATA",
    "JAVA_HOME",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "KRB5_CONFIG",
    "LANG",
    "LANGUAGE",
    "LDAPCONF",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LOCPATH",
    "LUA_CPATH",
    "LUA_PATH",
    "MAGIC",
    "MAGICK_CONFIGURE_PATH",
    "MONO_PATH",
    "NLSPATH",
    "NODE_OPTIONS",
    "NODE_PATH",
    "OCAMLPATH",
    "OCTAVE_PATH",
    "ODBCINI",
    "ODBCSYSINI",
    "OPENSSL_CONF",
    "OPENSSL_MODULES",
    "PATH",
    "PERL5LIB",
    "PERL5OPT",
    "PERLLIB",
    "PHPRC",
    "PHP_INI_SCAN_DIR",
    "PKG_CONFIG_PATH",
    "PROJ_DATA",
    "PROJ_LIB",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONUSERBASE",
    "QT_PLUGIN_PATH",
    "RUBYLIB",
    "RUBYOPT",
    "R_LIBS",
    "R_LIBS_SITE",
    "R_LIBS_USER",
    "SASL_PATH",
    "SBCL_HOME",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TCLLIBPATH",
    "TCL_LIBRARY",
    "TERMINFO",
    "TERMINFO_DIRS",
    "TESSDATA_PREFIX",
    "TEXINPUTS",
    "TEXMFHOME",
    "TZ",
    "TZDIR",
    "VIRTUAL_ENV",
    "XML_CATALOG_FILES",
];

/// Those of a session: they name places of whoever is logged in, which programs find by other means as well.
const SESSION: &[&str] = &["MAIL", "OLDPWD", "PWD", "SSH_AUTH_SOCK", "TMPDIR", "_"];

/// The variables among the entries of an environment; of several that have one name, the last.
type Values = BTreeMap<OsString, OsString>;

/// The environment of a program with what `--env` says, entry by entry and by name, and the names that `--env` gave.
pub(super) fn environment(variables: &[OsString]) -> Result<(Vec<OsString>, Values, Vec<OsString>), Failure> {
    let mut entries = own_environment();
    let mut values: Values =
        entries.iter().filter_map(split).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut names = Vec::new();
    for variable in variables {
        let bytes = variable.as_bytes();
        if bytes.starts_with(b"=") {
            return Err(Failure::usage("`--env` wants a name before the `=`").hint("write `--env NAME=VALUE`"));
        }
        let name = match split(variable) {
            Some((name, value)) => {
                values.insert(name.to_owned(), value.to_owned());
                set(&mut entries, name, variable);
                name.to_owned()
            }
            None if values.contains_key(variable) => variable.clone(),
            None => {
                let text = format!("the environment has no variable `{}`", escape(bytes));
                return Err(Failure::usage(text).hint("give it a value: `--env NAME=VALUE`"));
            }
        };
        names.push(name);
    }
    Ok((entries, values, names))
}

/// The environment that this process was started with, whatever is in it: also what is no variable, or is there twice.
fn own_environment() -> Vec<OsString> {
    // proc(5), /proc/pid/environ: a NUL behind each entry. A process that hides may not read its own.
    match fs_err::read("/proc/self/environ") {
        Ok(block) => whole(&block),
        Err(_) => std::env::vars_os().map(|(name, value)| [name, "=".into(), value].into_iter().collect()).collect(),
    }
}

fn whole(block: &[u8]) -> Vec<OsString> {
    let Some(block) = block.strip_suffix(b"\0") else { return Vec::new() };
    block.split(|&byte| byte == 0).map(|entry| OsStr::from_bytes(entry).to_owned()).collect()
}

/// Name and value of a variable; an `=` at its beginning belongs to the name. `None`: it is none.
fn split(entry: &OsString) -> Option<(&OsStr, &OsStr)> {
    let bytes = entry.as_bytes();
    let equals = 1 + bytes.get(1..)?.iter().position(|&byte| byte == b'=')?;
    Some((OsStr::from_bytes(&bytes[..equals]), OsStr::from_bytes(&bytes[equals + 1..])))
}

/// Puts `variable` in the place of the first one that has this name, and takes any other away.
fn set(entries: &mut Vec<OsString>, name: &OsStr, variable: &OsString) {
    let is_it = |entry: &OsString| split(entry).is_some_and(|(other, _)| other == name);
    let first = entries.iter().position(is_it).unwrap_or(entries.len());
    entries.retain(|entry| !is_it(entry));
    entries.insert(first, variable.clone());
}

/// The environment, as far as images may have it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Variables {
    pub(super) env: BTreeMap<String, String>,
    pub(super) optional: BTreeMap<String, String>,
}

/// Chooses among `environment`; the image gets those that were `named` in any case.
///
/// # Errors
/// One that the image gets is not UTF-8.
pub(super) fn variables(environment: &BTreeMap<OsString, OsString>, named: &[OsString]) -> Result<Variables, Failure> {
    let mut chosen = Variables::default();
    for (name, value) in environment {
        let bytes = name.as_bytes();
        let is_usual = USUAL.iter().any(|usual| usual.as_bytes() == bytes) || bytes.starts_with(b"LC_");
        let texts = name.to_str().zip(value.to_str()).map(|(name, value)| (name.to_owned(), value.to_owned()));
        match texts {
            Some((name, value)) if is_usual || named.contains(&name.as_str().into()) => {
                chosen.env.insert(name, value);
            }
            Some((name, value)) if is_optional(&name, &value) => {
                chosen.optional.insert(name, value);
            }
            None if is_usual || named.contains(name) => {
                let text = format!("the variable `{}` is not UTF-8, and an image's environment must be", escape(bytes));
                return Err(Failure::usage(text).hint("unset it, or give it another value with `--env`"));
            }
            _ => {}
        }
    }
    Ok(chosen)
}

/// True for what may name files, and tells nothing else.
fn is_optional(name: &str, value: &str) -> bool {
    if SESSION.contains(&name) || name.starts_with("XDG_") || is_secret_variable(name, value) {
        return false;
    }
    matches!(name, "SHELL" | "TERM") || value.split(':').all(|part| part.is_empty() || part.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_the_environment_is_changed_where_it_stands() {
        let entries = |block: &str| whole(block.as_bytes());
        let mut all = entries("Z=1\0A=2\0none\0\0=lead\0A=3\0B==\0");
        assert_eq!(all, ["Z=1", "A=2", "none", "", "=lead", "A=3", "B=="]);
        let variables: Vec<_> = all.iter().filter_map(split).collect();
        let pairs = [("Z", "1"), ("A", "2"), ("A", "3"), ("B", "=")];
        assert_eq!(variables, pairs.map(|(name, value)| (OsStr::new(name), OsStr::new(value))));
        set(&mut all, OsStr::new("A"), &"A=x=y".into());
        set(&mut all, OsStr::new("none"), &"none=0".into());
        assert_eq!(all, entries("Z=1\0A=x=y\0none\0\0=lead\0B==\0none=0\0"));
        assert!(whole(b"").is_empty());
        assert_eq!(whole(b"\0"), [""]);
    }

    #[test]
    fn what_an_image_gets() {
        let pairs = [
            ("PATH", "/bin"),
            ("LC_ALL", "C"),
            ("SHELL", "/bin/sh"),
            ("TERM", "xterm"),
            ("APP_DATA", "/srv/a:/srv/b"),
            ("PWD", "/root"),
            ("XDG_DATA_DIRS", "/usr/share"),
            ("API_TOKEN", "/etc/token-itself"),
            ("WORDS", "a/b"),
            ("NAMED", "x"),
        ];
        let environment = pairs.map(|(name, value)| (OsString::from(name), OsString::from(value))).into();
        let Variables { env, optional } = variables(&environment, &["NAMED".into(), "TERM".into()]).unwrap();
        assert_eq!(env.keys().collect::<Vec<_>>(), ["LC_ALL", "NAMED", "PATH", "TERM"]);
        assert_eq!(optional.keys().collect::<Vec<_>>(), ["APP_DATA", "SHELL"]);
        assert!(USUAL.is_sorted());
    }
}
