use std::path::PathBuf;

use super::*;
use crate::jail::facts::{NAMES, Subordinate};
use crate::jail::ids::Range;
use crate::jail::{Base, User};

fn jail(network: Network, user: User) -> Jail {
    let base = Base { tree: "/tree".into(), ..Base::default() };
    Jail { base, cwd: path("/srv"), user, network, hostname: "cell".into() }
}

fn root() -> User {
    User::default()
}

fn www() -> User {
    User { uid: 33, gid: 33, groups: vec![44] }
}

/// Real root on a host that has everything, and a tree that has nothing.
fn facts() -> Facts {
    let all = vec![Range { start: 0, count: u32::MAX }];
    Facts {
        uid: 0,
        gid: 0,
        capable: true,
        uids: all.clone(),
        gids: all,
        setgroups: true,
        subordinate: None,
        cgroup_namespaces: true,
        devices: vec!["null", "tty"],
        host_files: vec!["hosts", "resolv.conf"],
        tree: NAMES.into_iter().map(|name| (path(name), Place::Missing)).collect(),
    }
}

/// An ordinary user.
fn ordinary(subordinate: Option<Subordinate>) -> Facts {
    Facts { uid: 1000, gid: 1000, capable: false, subordinate, ..facts() }
}

fn with(mut facts: Facts, name: &str, place: Place) -> Facts {
    facts.tree.insert(path(name), place);
    facts
}

fn phrases(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(ToString::to_string).collect()
}

/// Where a step that says `phrase` stands.
fn at(plan: &Plan, phrase: &str) -> usize {
    let phrases = phrases(plan);
    phrases.iter().position(|step| step == phrase).unwrap_or_else(|| panic!("no `{phrase}` in {phrases:#?}"))
}

#[test]
fn a_whole_plan() {
    let plan = plan(&jail(Network::Private, root()), &facts()).unwrap();
    assert_eq!(
        phrases(&plan),
        [
            "become user 0 of the jail",
            "tie the jail's life to the caller's",
            "make the jail's mounts private",
            "mount an overlay on the tree",
            "create the directory `/proc`",
            "mount proc at `/proc`",
            "make `/proc/bus` read-only",
            "make `/proc/fs` read-only",
            "make `/proc/irq` read-only",
            "make `/proc/sys` read-only",
            "make `/proc/sysrq-trigger` read-only",
            "create the directory `/dev`",
            "mount tmpfs at `/dev`",
            "create `/dev/null` to mount on",
            "mount the host's `/dev/null` at `/dev/null`",
            "create `/dev/tty` to mount on",
            "mount the host's `/dev/tty` at `/dev/tty`",
            "create the directory `/dev/pts`",
            "mount devpts at `/dev/pts`",
            "create the directory `/dev/shm`",
            "mount tmpfs at `/dev/shm`",
            "create the directory `/dev/mqueue`",
            "mount mqueue at `/dev/mqueue`",
            "create the link `/dev/fd`",
            "create the link `/dev/stdin`",
            "create the link `/dev/stdout`",
            "create the link `/dev/stderr`",
            "create the link `/dev/ptmx`",
            "create the directory `/sys`",
            "mount sysfs at `/sys`",
            "supply `/etc/hostname`",
            "supply `/etc/hosts`",
            "supply `/etc/resolv.conf`",
            "bring the loopback interface up",
            "set the host name `cell`",
            "make the tree the root",
            "limit the capabilities",
            "make the jail's first process undumpable",
            "enter the working directory `/srv`",
        ]
    );
    assert!(plan.notes.is_empty());
}

#[test]
fn a_host_network_is_not_unshared() {
    let tree = with(with(facts(), "/etc/resolv.conf", Place::File), "/etc/hosts", Place::File);
    let plan = plan(&jail(Network::Host, root()), &tree).unwrap();
    assert!(!plan.namespaces.contains(CloneFlags::CLONE_NEWNET));
    assert!(plan.namespaces.contains(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS));
    let phrases = phrases(&plan);
    assert!(!phrases.iter().any(|step| step.contains("sysfs") || step.contains("loopback")), "{phrases:#?}");
    for name in ["hosts", "resolv.conf"] {
        let supply = at(&plan, &format!("supply `/etc/{name}`"));
        assert!(supply < at(&plan, "make the tree the root"));
        let (file, path) = (Supplied::Host(format!("/etc/{name}")), path(&format!("/etc/{name}")));
        assert_eq!(plan.steps[supply], Step::Supply { file, path, missing: Vec::new() });
    }
}

#[test]
fn a_dangling_resolv_conf_gets_its_directories() {
    let end = path("/run/systemd/resolve/stub-resolv.conf");
    let tree = with(facts(), "/etc/resolv.conf", Place::Link { end: end.clone(), exists: false });
    let plan = plan(&jail(Network::Host, root()), &tree).unwrap();
    let missing = ["/run", "/run/systemd", "/run/systemd/resolve"].map(path).into_iter().chain([end.clone()]).collect();
    let file = Supplied::Host("/etc/resolv.conf".to_owned());
    assert!(plan.steps.contains(&Step::Supply { file, path: end, missing }));
}

#[test]
fn a_private_network_has_hosts_of_its_own_whatever_the_tree_has() {
    let supplied = |tree: &Facts| -> Vec<Step> {
        let steps = plan(&jail(Network::Private, root()), tree).unwrap().steps;
        steps.into_iter().filter(|step| matches!(step, Step::Supply { .. })).collect()
    };
    let made = |name, content: &str, missing: &[&str]| Step::Supply {
        file: Supplied::Made { name, content: content.to_owned() },
        path: path(&format!("/etc/{name}")),
        missing: missing.iter().map(|name| path(name)).collect(),
    };
    let hosts = "127.0.0.1\tlocalhost cell\n::1\tlocalhost cell ip6-localhost ip6-loopback\n";
    let tree = with(with(facts(), "/etc/hosts", Place::File), "/etc/resolv.conf", Place::Directory);
    assert_eq!(supplied(&tree), [made("hostname", "cell\n", &["/etc", "/etc/hostname"]), made("hosts", hosts, &[])]);
    assert_eq!(supplied(&facts())[2], made("resolv.conf", "", &["/etc", "/etc/resolv.conf"]));
}

#[test]
fn the_trees_tmp_stays_what_it_is() {
    for (place, covered) in [
        (Place::Missing, false),
        (Place::EmptyForAll, true),
        (Place::Directory, false),
        (Place::Link { end: path("/var/tmp"), exists: false }, false),
    ] {
        let tree = with(facts(), "/tmp", place.clone());
        let plan = plan(&jail(Network::Private, root()), &tree).unwrap();
        assert_eq!(phrases(&plan).contains(&"mount tmpfs at `/tmp`".to_owned()), covered, "{place:?}");
    }
}

#[test]
fn what_is_no_directory_is_not_mounted_on() {
    for name in ["/proc", "/dev"] {
        let tree = with(facts(), name, Place::Link { end: path("/etc"), exists: false });
        let error = plan(&jail(Network::Private, root()), &tree).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("failed to mount at `{name}`, which is in the tree but is not a directory")
        );
    }
}

#[test]
fn an_ordinary_user_with_ranges_has_many_users() {
    let range = || vec![Range { start: 100_000, count: 65_536 }];
    let programs = || PathBuf::from("/usr/bin/newuidmap");
    let subordinate = Subordinate { newuidmap: programs(), newgidmap: programs(), uids: range(), gids: range() };
    let plan = plan(&jail(Network::Private, www()), &ordinary(Some(subordinate))).unwrap();
    assert_eq!(plan.ids.writer, Writer::Programs);
    assert_eq!(ids::text(&plan.ids.uids), "0 1000 1\n1 100000 65536\n");
    assert!(plan.ids.setgroups && plan.notes.is_empty());
    assert_eq!(plan.steps[0], Step::BecomeRoot);
    assert!(!plan.steps.contains(&Step::NoNewPrivileges), "every user that a program could become is the caller's own");
}

fn owned(at: &str, uid: u32, gid: u32) -> Owned {
    Owned { path: path(at), uid, gid, mode: Some(0o700), capability: None, other_name_of: None }
}

#[test]
fn files_are_given_to_their_owners_where_these_exist() {
    let range = || vec![Range { start: 100_000, count: 100 }];
    let programs = || PathBuf::from("/usr/bin/newuidmap");
    let subordinate = || Subordinate { newuidmap: programs(), newgidmap: programs(), uids: range(), gids: range() };
    let mut jail = jail(Network::Private, www());
    jail.base.owned = vec![owned("/data", 33, 7), owned("/far", 999, 33)];
    let given = plan(&jail, &ordinary(Some(subordinate()))).unwrap();
    let order = ["mount an overlay on the tree", "give `/data` to its owner, 33:7", "give `/far` to its owner, 999:33"];
    assert!(order.map(|phrase| at(&given, phrase)).is_sorted());
    assert!(at(&given, order[2]) < at(&given, "create the directory `/proc`"));
    assert_eq!(ids::text(&given.ids.uids), "0 1000 1\n1 100000 99\n999 100099 1\n");
    assert!(given.notes.is_empty());

    // Where there are too few ids for all owners, the user is the one that counts.
    jail.base.owned = (1000..1200).map(|id| owned("/data", id, 33)).chain([owned("/own", 33, 33)]).collect();
    let some = plan(&jail, &ordinary(Some(subordinate()))).unwrap();
    assert_eq!(some.notes, [Note::NoOwners]);
    let given: Vec<_> = some.steps.iter().filter(|step| matches!(step, Step::Own(_))).collect();
    assert_eq!(given, [&Step::Own(owned("/own", 33, 33))]);

    let alone = plan(&jail, &ordinary(None)).unwrap();
    assert_eq!(alone.notes, [Note::OneUser, Note::NoGroups]);
    assert!(!alone.steps.iter().any(|step| matches!(step, Step::Own(_))));
}

#[test]
fn engines_directories_are_made_in_the_finished_jail() {
    let mut jail = jail(Network::Private, root());
    jail.base.directories = vec![path("/var/data"), path("/srv")];
    let plan = plan(&jail, &facts()).unwrap();
    let order = ["make the tree the root", "create the directory `/var/data`", "create the directory `/srv`"];
    assert!(order.map(|phrase| at(&plan, phrase)).is_sorted());
    assert!(at(&plan, order[2]) < at(&plan, "enter the working directory `/srv`"));
}

#[test]
fn an_ordinary_user_without_ranges_is_the_wanted_one() {
    let plan = plan(&jail(Network::Private, www()), &ordinary(None)).unwrap();
    assert_eq!(plan.ids.writer, Writer::CallerDenyingGroups);
    assert_eq!((ids::text(&plan.ids.uids), ids::text(&plan.ids.gids)), ("33 1000 1\n".into(), "33 1000 1\n".into()));
    assert_eq!(plan.notes, [Note::OneUser, Note::NoGroups]);
    assert!(!plan.steps.contains(&Step::BecomeRoot), "there is no user 0 to become");
    // Group 5 does not exist in there, and devpts refuses a group that does not.
    assert!(plan.steps.contains(&Step::Mount { what: TERMINALS, path: path("/dev/pts") }));
}

#[test]
fn the_lone_root_of_a_namespace_becomes_the_wanted_user() {
    let one = || vec![Range { start: 0, count: 1 }];
    let nested = Facts { uids: one(), gids: one(), setgroups: false, ..facts() };
    let as_root = plan(&jail(Network::Private, root()), &nested).unwrap();
    assert_eq!((as_root.ids.writer, ids::text(&as_root.ids.uids)), (Writer::Caller, "0 0 1\n".into()));
    let as_www = plan(&jail(Network::Private, www()), &nested).unwrap();
    assert_eq!(ids::text(&as_www.ids.uids), "33 0 1\n");
    assert_eq!(as_www.notes, [Note::OneUser, Note::NoGroups]);
}
