//! Whom an image's `User` means, by the image's own accounts (OCI image-spec, config.md, "User").

/// A user as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
    /// The supplementary groups, `gid` among them; sorted.
    pub groups: Vec<u32>,
    /// The home directory, if the accounts know the user and it is text.
    pub home: Option<String>,
}

/// The image names somebody whom it does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    #[error("the image is to run as the user `{0}`, whom its /etc/passwd does not have")]
    User(String),
    #[error("the image is to run as the group `{0}`, which its /etc/group does not have")]
    Group(String),
}

/// Whom `text` means: `user`, `uid`, `user:group` and so on; nobody named is root.
///
/// # Errors
/// A name is not in `passwd` or `group`, the contents of the image's files.
pub fn account(text: &str, passwd: &[u8], group: &[u8]) -> Result<Account, AccountError> {
    let (user, group_name) = user_and_group(text);
    let user = if user.is_empty() { "0" } else { user };
    let is_user = |line: &Vec<&[u8]>| {
        line[0] == user.as_bytes()
            || number(line[2]).is_some_and(|uid| user.parse().is_ok_and(|wanted: u32| wanted == uid))
    };
    let known = lines(passwd, 7).find(is_user);
    let uid = known.as_ref().and_then(|line| number(line[2])).or_else(|| user.parse().ok());
    let uid = uid.ok_or_else(|| AccountError::User(user.to_owned()))?;
    let gid = match group_name {
        Some(name) => {
            let known = lines(group, 4).find(|line| line[0] == name.as_bytes()).and_then(|line| number(line[2]));
            known.or_else(|| name.parse().ok()).ok_or_else(|| AccountError::Group(name.to_owned()))?
        }
        // "If the group is not specified, the default group of the user in /etc/passwd" is applied, else 0.
        None => known.as_ref().and_then(|line| number(line[3])).unwrap_or(0),
    };
    let mut groups = vec![gid];
    if let (None, Some(known)) = (group_name, &known) {
        let has = |line: &Vec<&[u8]>| line[3].split(|&byte| byte == b',').any(|member| member == known[0]);
        groups.extend(lines(group, 4).filter(has).filter_map(|line| number(line[2])));
    }
    groups.sort_unstable();
    groups.dedup();
    let home = known.as_ref().and_then(|line| std::str::from_utf8(line[5]).ok()).filter(|home| home.starts_with('/'));
    Ok(Account { uid, gid, groups, home: home.map(str::to_owned) })
}

/// The two of `user[:group]`. Engines take a group that is empty as none.
pub fn user_and_group(text: &str) -> (&str, Option<&str>) {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    (user, Some(group).filter(|group| !group.is_empty()))
}

/// The lines that name somebody, with so many fields at least (`passwd(5)`, `group(5)`). Those that a line lacks are empty: images
/// that are made from nothing have such lines, and engines take them.
fn lines(text: &[u8], fields: usize) -> impl Iterator<Item = Vec<&[u8]>> {
    let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines.map(move |line| {
        let mut line: Vec<&[u8]> = line.split(|&byte| byte == b':').collect();
        line.resize(line.len().max(fields), b"");
        line
    })
}

fn number(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/:/bin/false\n";
    const GROUP: &[u8] = b"root:x:0:\nweb:x:34:\nadm:x:4:web,root\n";

    fn of(text: &str) -> Result<Account, AccountError> {
        account(text, PASSWD, GROUP)
    }

    #[test]
    fn names_and_numbers() {
        let home = Some("/".to_owned());
        let web = Account { uid: 33, gid: 34, groups: vec![4, 34], home: home.clone() };
        assert_eq!(of("web"), Ok(web.clone()));
        assert_eq!(of("33"), Ok(web.clone()));
        assert_eq!(of("web:"), Ok(web));
        assert_eq!(of("web:adm"), Ok(Account { uid: 33, gid: 4, groups: vec![4], home }));
        assert_eq!(of("1000"), Ok(Account { uid: 1000, gid: 0, groups: vec![0], home: None }));
        assert_eq!(of("1000:1001"), Ok(Account { uid: 1000, gid: 1001, groups: vec![1001], home: None }));
        assert_eq!(of("").map(|root| (root.uid, root.gid)), Ok((0, 0)));
    }

    #[test]
    fn lines_of_another_form() {
        let passwd = b"+::::::\n\n# all\napp:x:1000:1001\nmore:x:1002:1002::/m:/bin/sh:more\n";
        let group = b"+:::\napp:x:1001\nadm:x:4:app\n";
        let app = Account { uid: 1000, gid: 1001, groups: vec![4, 1001], home: None };
        assert_eq!(account("app", passwd, group), Ok(app.clone()));
        assert_eq!(account("1000", passwd, group), Ok(app));
        assert_eq!(account("more", passwd, group).map(|more| (more.uid, more.home)), Ok((1002, Some("/m".to_owned()))));
        assert_eq!(account("app:app", passwd, group).map(|app| app.gid), Ok(1001));
        assert_eq!(account("none", passwd, group), Err(AccountError::User("none".to_owned())));
    }

    #[test]
    fn strangers() {
        assert_eq!(of("nobody"), Err(AccountError::User("nobody".to_owned())));
        assert_eq!(of("web:staff"), Err(AccountError::Group("staff".to_owned())));
        assert_eq!(account("app", b"", b"").unwrap_err(), AccountError::User("app".to_owned()));
    }
}
