//! Secrets that are known by where programs keep them.

use super::content;
use super::urls::{each_behind, passwords};
use crate::path::JailPath;

/// What files of this name hold, if that is a secret.
pub(super) fn by_name(path: &JailPath) -> Option<&'static str> {
    if is_example(path) {
        return None;
    }
    if is_given(path) {
        return Some("credentials");
    }
    let directory = directory(path);
    match (directory.as_slice(), path.file_name()) {
        (
            _,
            b".netrc" | b".git-credentials" | b".pgpass" | b".my.cnf" | b".mylogin.cnf" | b".pypirc" | b".dockercfg"
            | b"_netrc" | b".authinfo" | b".authinfo.gpg" | b".s3cfg" | b"rclone.conf"
            | b".vault-token" | b".erlang.cookie" | b".Xauthority" | b".msmtprc" | b".fetchmailrc"
            // Of Postfix, and of Samba: the passwords of its users, and its own in a domain.
            | b"sasl_passwd" | b"sasl_passwd.db" | b"passdb.tdb" | b"secrets.tdb",
        )
        | (b".aws" | b".gem", b"credentials")
        | (b".cargo", b"credentials" | b"credentials.toml")
        | (b".kube", b"config")
        | (b".docker", b"config.json")
        | (b"containers" | b".composer", b"auth.json")
        | (b".terraform.d", b"credentials.tfrc.json")
        | (b"gcloud", b"application_default_credentials.json" | b"credentials.db" | b"access_tokens.db")
        // Of apt's repositories and NetworkManager's networks, of Debian's Exim, and of dialling in.
        | (b"apt", b"auth.conf")
        | (b"auth.conf.d" | b"system-connections", _)
        | (b"exim4", b"passwd.client")
        | (b"ppp", b"chap-secrets" | b"pap-secrets")
        // Of MUNGE, Corosync, Pacemaker and systemd.
        | (b"munge", b"munge.key")
        | (b"corosync" | b"pacemaker", b"authkey")
        | (b"systemd", b"credential.secret")
        // The key of a KDC's database: of MIT, and of Heimdal.
        | (b"krb5kdc", b"stash")
        | (b"heimdal-kdc", b"m-key")
        | (b".azure", b"accessTokens.json") => Some("credentials"),
        (b".azure", name) if name.starts_with(b"msal_token_cache.") => Some("credentials"),
        (_, name) if name.starts_with(b".k5.") => Some("credentials"),
        (b"tmp", name) if name.starts_with(b"krb5cc_") => Some("credentials"),
        (b"git", b"credentials") if is_of_a_user(path) => Some("credentials"),
        (b"iwd", name) if name.ends_with(b".psk") || name.ends_with(b".8021x") => Some("credentials"),
        // Copies of what is made anew elsewhere, with that of the last change; and what was a password before, as pam_pwhistory(8) keeps it.
        (b"etc" | b"backups", b"shadow.bak" | b"gshadow.bak")
        | (b"security", b"opasswd")
        | (b"samba" | b"private", b"smbpasswd")
        | (_, b".htpasswd") => Some("password hashes"),
        // systemd-random-seed(8): what random numbers begin with when the machine starts.
        (b"systemd", b"random-seed") => Some("a random seed"),
        // Of Kerberos (MIT and Heimdal), and of desktops.
        (_, name) if name.ends_with(b".keytab") => Some("credentials"),
        (b"keyrings", name) if name.ends_with(b".keyring") && is_of_a_user(path) => Some("credentials"),
        // Of GnuPG: what its agent keeps, since 2.1, and what came before that.
        (b"private-keys-v1.d", name) if name.ends_with(b".key") => Some("a private key"),
        (_, b"secring.gpg") => Some("a private key"),
        // vim's has what was typed, sought and copied.
        (_, b".viminfo" | b".lesshst" | b".histfile") => Some("a history of commands"),
        (_, name) if name.starts_with(b".") && name.ends_with(b"history") => Some("a history of commands"),
        (b"bin", _) => None,
        (_, name) if (name == b"history" || name.ends_with(b"_history")) && is_of_a_user(path) => {
            Some("a history of commands")
        }
        // Of Firefox and of Chromium, whose files of such names lie in a profile of `.mozilla` or `.config`.
        (_, b"cookies.sqlite" | b"logins.json" | b"key4.db" | b"Cookies" | b"Login Data") if is_of_a_user(path) => {
            Some("credentials")
        }
        // IPython's; nvim's is called otherwise on each machine.
        (_, b"history.sqlite") if is_of_a_user(path) => Some("a history of commands"),
        (_, name) if name.ends_with(b".shada") && is_of_a_user(path) => Some("a history of commands"),
        (_, b"places.sqlite" | b"History") if is_of_a_user(path) => Some("a history of a browser"),
        _ => None,
    }
}

/// What files of this name hold, if that is a secret once somebody has put it there.
pub(super) fn by_name_and_content(path: &JailPath, content: &[u8]) -> Option<&'static str> {
    let sets = |name: &str| settings(content).any(|(setting, value)| setting == name.as_bytes() && !value.is_empty());
    let directory = directory(path);
    let is_secret = match (directory.as_slice(), path.file_name()) {
        (b"mysql", b"debian.cnf") => sets("password"),
        (_, name) if name.starts_with(b"wpa_supplicant") && name.ends_with(b".conf") => {
            ["psk", "password", "wep_key0", "sae_password"].into_iter().any(sets)
        }
        // ipsec.secrets(5): whose it is, a colon, what it is. Debian's own includes others.
        (directory, name) if name == b"ipsec.secrets" || directory == b"ipsec.d" && name.ends_with(b".secrets") => {
            lines(content).any(|line| line.contains(&b':'))
        }
        (b".m2", b"settings.xml") => {
            let mut values = each_behind(content, b"<password>").chain(each_behind(content, b"<passphrase>"));
            values.any(|value| !value.starts_with(b"<") && !value.starts_with(b"${"))
        }
        // Whence something was cloned, and pip's indices.
        (b".git", b"config") | (_, b".gitconfig" | b"pip.conf") => passwords(content).next().is_some(),
        _ => false,
    };
    (is_secret && !is_example(path)).then_some("credentials")
}

/// The lines that are no comments.
fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    content::lines(content).filter(|line| !line.starts_with(b"#"))
}

/// The settings of a file that has one in each line, with a `=`.
fn settings(content: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    lines(content).filter_map(|line| {
        let (name, value) = line.split_at(line.iter().position(|byte| *byte == b'=')?);
        Some((name.trim_ascii(), value[1..].trim_ascii()))
    })
}

fn directory(path: &JailPath) -> Vec<u8> {
    path.parent().map(|parent| parent.file_name().to_vec()).unwrap_or_default()
}

/// True of where packages have what is to be read: examples of all kinds.
fn is_example(path: &JailPath) -> bool {
    path.starts_with(&JailPath::literal(b"/usr/share/doc"))
}

/// True of what somebody gives a container, who gives it to the image as well when he runs it.
fn is_given(path: &JailPath) -> bool {
    [&b"/run/secrets"[..], b"/var/run/secrets"].into_iter().any(|place| path.starts_with(&JailPath::literal(place)))
}

/// True if one of the four directories above `path` has a dot before its name, as those have in which programs keep what is their
/// user's: `.local/share/fish`, `.ghc`. What lies deeper there is mostly an installed program.
fn is_of_a_user(path: &JailPath) -> bool {
    std::iter::successors(path.parent(), JailPath::parent).take(4).any(|above| above.file_name().starts_with(b"."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_by_their_name() {
        let kind = |text: &str| by_name(&JailPath::parse(text.as_bytes()).unwrap());
        for path in [
            "/root/.netrc",
            "/h/.aws/credentials",
            "/h/.kube/config",
            "/h/.git-credentials",
            "/var/lib/rabbitmq/.erlang.cookie",
            "/h/.config/gcloud/application_default_credentials.json",
            "/h/.terraform.d/credentials.tfrc.json",
            "/h/.local/share/keyrings/login.keyring",
            "/etc/postfix/sasl_passwd.db",
            "/etc/apt/auth.conf.d/private.conf",
            "/var/lib/samba/private/secrets.tdb",
            "/etc/krb5.keytab",
        ] {
            assert_eq!(kind(path), Some("credentials"), "{path}");
        }
        assert_eq!(kind("/h/.config/chromium/Default/Network/Cookies"), Some("credentials"));
        for path in ["/h/.gnupg/private-keys-v1.d/5319D09075B15E71.key", "/h/.gnupg/secring.gpg"] {
            assert_eq!(kind(path), Some("a private key"), "{path}");
        }
        assert_eq!(kind("/h/.mozilla/firefox/a1.default/places.sqlite"), Some("a history of a browser"));
        let histories = [".bash_history", ".history", ".Rhistory", ".viminfo", ".local/share/octave/history"];
        for path in histories.iter().chain(&[".local/share/fish/fish_history", ".ghc/ghci_history"]) {
            assert_eq!(kind(&format!("/h/{path}")), Some("a history of commands"), "{path}");
        }
        for path in [
            "/etc/config",
            "/usr/share/aws/credentials",
            "/usr/share/doc/bash_history",
            "/usr/share/firefox/key4.db",
            "/h/.config/x.conf",
            "/usr/share/keyrings/debian-archive.keyring",
            "/h/.gnupg/private-keys-v1.d",
            "/h/.gnupg/pubring.gpg",
            "/srv/history",
            "/srv/www/places.sqlite",
            "/.h/history.js",
            "/h/.local/bin/x_history",
            "/h/.pyenv/versions/3/lib/x/history",
        ] {
            assert_eq!(kind(path), None, "{path}");
        }
    }

    #[test]
    fn more_files_by_their_name() {
        let kind = |text: &str| by_name(&JailPath::parse(text.as_bytes()).unwrap());
        for path in [
            "/run/secrets/db",
            "/var/run/secrets/kubernetes.io/serviceaccount/token",
            "/tmp/krb5cc_1000",
            "/etc/NetworkManager/system-connections/home.nmconnection",
            "/h/.config/git/credentials",
            "/h/.authinfo.gpg",
            "/h/_netrc",
            "/h/.config/rclone/rclone.conf",
            "/h/.s3cfg",
            "/h/.azure/msal_token_cache.json",
            "/etc/munge/munge.key",
            "/etc/corosync/authkey",
            "/var/lib/krb5kdc/.k5.EXAMPLE.ORG",
            "/etc/krb5kdc/stash",
        ] {
            assert_eq!(kind(path), Some("credentials"), "{path}");
        }
        for path in [
            "/var/backups/shadow.bak",
            "/etc/gshadow.bak",
            "/etc/security/opasswd",
            "/etc/samba/smbpasswd",
            "/srv/.htpasswd",
        ] {
            assert_eq!(kind(path), Some("password hashes"), "{path}");
        }
        assert_eq!(kind("/var/lib/systemd/random-seed"), Some("a random seed"));
        for path in ["/h/.local/state/nvim/shada/main.shada", "/h/.ipython/profile_default/history.sqlite"] {
            assert_eq!(kind(path), Some("a history of commands"), "{path}");
        }
        for path in [
            "/etc/shadow",
            "/etc/gshadow",
            "/etc/shadow-",
            "/etc/passwd-",
            "/run/secretsd/x",
            "/usr/bin/smbpasswd",
            "/etc/pam.d/smbpasswd",
            "/usr/share/doc/x/examples/.netrc",
            "/usr/share/nvim/x.shada",
            "/usr/lib/git/credentials",
            "/etc/corosync/corosync.conf",
        ] {
            assert_eq!(kind(path), None, "{path}");
        }
    }

    #[test]
    fn files_by_their_name_with_something_in_it() {
        let kind = |path: &str, content: &str| {
            by_name_and_content(&JailPath::parse(path.as_bytes()).unwrap(), content.as_bytes())
        };
        for (path, secret, other) in [
            ("/etc/mysql/debian.cnf", "[client]\nuser = x\npassword = y\n", "[client]\npassword = \n# password = x\n"),
            ("/etc/wpa_supplicant/wpa_supplicant.conf", "network={\n\tpsk=\"x\"\n}\n", "network={\n\t#psk=\"x\"\n}\n"),
            ("/etc/ipsec.secrets", ": PSK \"x\"\n", "# a: PSK \"x\"\ninclude /var/lib/strongswan/ipsec.secrets.inc\n"),
            (
                "/h/.m2/settings.xml",
                "<password>x</password>",
                "<password>${env.PASSWORD}</password><password></password>",
            ),
            ("/h/app/.git/config", "url = https://me:x1@example.org/a", "url = https://me@example.org/a"),
            ("/etc/pip.conf", "extra-index-url =\n  https://me:x1@example.org/", "index-url = https://example.org/"),
        ] {
            assert_eq!(kind(path, secret), Some("credentials"), "{path}");
            assert_eq!(kind(path, other), None, "{path}");
        }
        assert_eq!(kind("/usr/share/doc/x/wpa_supplicant.conf", "psk=\"very secret passphrase\"\n"), None);
        assert_eq!(kind("/etc/app.cnf", "password = x\n"), None);
    }
}
