//! The profiles that come with minjail.

/// A profile in `profiles/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shipped {
    pub name: &'static str,
    pub text: &'static str,
}

/// Sorted by name.
pub const SHIPPED: &[Shipped] = &[
    Shipped { name: "busybox-httpd", text: include_str!("../../profiles/busybox-httpd.yaml") },
    Shipped { name: "git", text: include_str!("../../profiles/git.yaml") },
    Shipped { name: "nginx", text: include_str!("../../profiles/nginx.yaml") },
    Shipped { name: "python3-http", text: include_str!("../../profiles/python3-http.yaml") },
    Shipped { name: "redis", text: include_str!("../../profiles/redis.yaml") },
];

/// The shipped profile of that name.
pub fn shipped(name: &str) -> Option<Shipped> {
    SHIPPED.iter().copied().find(|shipped| shipped.name == name)
}
