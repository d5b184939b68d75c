//! What of the environment an image gets.
//!
//! In: the environment of the program, and the names that the user gave. Out: the variables that the image gets, and those
//! that it gets only if the run found files by them, or of which it is told that the run did. Never all: there are secrets
//! among them.

use std::collections::BTreeMap;
use std::ffi::OsString;
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
