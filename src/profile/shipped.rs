//! The profiles that come with minjail.

/// A profile in `profiles/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shipped {
    pub name: &'static str,
    pub text: &'static str,
}

/// Sorted by name.
pub const SHIPPED: &[Shipped] = &[
    Shipped { name: "apache2-php", text: include_str!("../../profiles/apache2-php.yaml") },
    Shipped { name: "bind9", text: include_str!("../../profiles/bind9.yaml") },
    Shipped { name: "busybox-httpd", text: include_str!("../../profiles/busybox-httpd.yaml") },
    Shipped { name: "ffmpeg", text: include_str!("../../profiles/ffmpeg.yaml") },
    Shipped { name: "git", text: include_str!("../../profiles/git.yaml") },
    Shipped { name: "git-ssh", text: include_str!("../../profiles/git-ssh.yaml") },
    Shipped { name: "gunicorn", text: include_str!("../../profiles/gunicorn.yaml") },
    Shipped { name: "java-http", text: include_str!("../../profiles/java-http.yaml") },
    Shipped { name: "mariadb", text: include_str!("../../profiles/mariadb.yaml") },
    Shipped { name: "nginx", text: include_str!("../../profiles/nginx.yaml") },
    Shipped { name: "nginx-php-fpm", text: include_str!("../../profiles/nginx-php-fpm.yaml") },
    Shipped { name: "node-express", text: include_str!("../../profiles/node-express.yaml") },
    Shipped { name: "openssh-server", text: include_str!("../../profiles/openssh-server.yaml") },
    Shipped { name: "postgresql", text: include_str!("../../profiles/postgresql.yaml") },
    Shipped { name: "python3-http", text: include_str!("../../profiles/python3-http.yaml") },
    Shipped { name: "redis", text: include_str!("../../profiles/redis.yaml") },
];

/// The shipped profile of that name.
pub fn shipped(name: &str) -> Option<Shipped> {
    SHIPPED.iter().copied().find(|shipped| shipped.name == name)
}
