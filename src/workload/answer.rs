//! HTTP/1.1, as little as probes need: one request, one answer, then the end.

use std::fmt::Write as _;

use crate::profile::Http;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// The request's bytes. `Connection: close` (RFC 9112, section 9.6) makes the end of the answer the end of the stream.
pub(super) fn request(http: &Http) -> String {
    let mut text = format!("{} {} HTTP/1.1\r\n", http.method, http.path);
    let given = |name: &str| http.headers.keys().any(|header| header.eq_ignore_ascii_case(name));
    if !given("host") {
        text.push_str("Host: localhost\r\n");
    }
    text.push_str("Connection: close\r\n");
    for (name, value) in &http.headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    let body = http.body.as_deref().unwrap_or_default();
    if http.body.is_some() && !given("content-length") {
        let _ = write!(text, "Content-Length: {}\r\n", body.len());
    }
    text + "\r\n" + body
}

/// The parts of an answer that is not only on its way; `None` if it is none, or its head is cut off.
struct Parts<'a> {
    status: u16,
    headers: Vec<(&'a str, &'a str)>,
    body: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let split = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..split]).ok()?;
        let body = &bytes[split + 4..];
        let mut lines = head.split("\r\n");
        let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
        if (100..200).contains(&status) {
            return Self::of(body);
        }
        Some(Self { status, headers: lines.filter_map(|line| line.split_once(':')).collect(), body })
    }

    fn header(&self, wanted: &str) -> Option<&'a str> {
        let found = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.trim())
    }

    /// RFC 9112, section 6.3: these have no body, whatever their headers say.
    fn has_no_body(&self, method: &str) -> bool {
        method.eq_ignore_ascii_case("HEAD") || self.status == 204 || self.status == 304
    }

    fn is_chunked(&self) -> bool {
        self.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
    }
}

/// Reads an answer; `None` if it is none, or is cut off.
pub(super) fn reply(bytes: &[u8], method: &str) -> Option<Reply> {
    let parts = Parts::of(bytes)?;
    let (status, body) = (parts.status, parts.body);
    if parts.has_no_body(method) {
        return Some(Reply { status, body: Vec::new() });
    }
    let body = if parts.is_chunked() {
        unchunk(body)?
    } else if let Some(length) = parts.header("content-length") {
        body.get(..length.parse().ok()?)?.to_vec()
    } else {
        body.to_vec()
    };
    Some(Reply { status, body })
}

/// True if the answer is there to its end by its own words: a server may leave the connection open all the same, or break
/// it off since it has not read all of the request.
pub(super) fn is_whole(bytes: &[u8], method: &str) -> bool {
    let Some(parts) = Parts::of(bytes) else { return false };
    if parts.has_no_body(method) {
        return true;
    }
    if parts.is_chunked() {
        // Not looked through each time that a part of a long one comes.
        return bytes.ends_with(b"0\r\n\r\n") && unchunk(parts.body).is_some();
    }
    let length = parts.header("content-length").and_then(|length| length.parse().ok());
    length.is_some_and(|length: usize| parts.body.len() >= length)
}

/// RFC 9112, section 7.1.
fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let line = std::str::from_utf8(&rest[..end]).ok()?;
        let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size.checked_add(2)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(text: &str) -> Http {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn requests() {
        let plain = request(&http(r#"{"port": 80}"#));
        assert_eq!(plain, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let full = r#"{"port": 80, "method": "POST", "path": "/a?b", "headers": {"host": "x"}, "body": "hello"}"#;
        assert_eq!(
            request(&http(full)),
            "POST /a?b HTTP/1.1\r\nConnection: close\r\nhost: x\r\nContent-Length: 5\r\n\r\nhello"
        );
    }

    #[test]
    fn answers() {
        let read = |text: &str| reply(text.as_bytes(), "GET").map(|reply| (reply.status, reply.body));
        assert_eq!(read("HTTP/1.0 404 Not Found\r\n\r\nno"), Some((404, b"no".to_vec())));
        assert_eq!(read("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nyes"), Some((200, b"ye".to_vec())));
        assert_eq!(read("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nyes"), None, "cut off");
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
        assert_eq!(read(chunked), Some((200, b"abcde".to_vec())));
        assert_eq!(read(&chunked[..chunked.len() - 9]), None, "cut off");
        assert_eq!(read("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Made\r\n\r\n"), Some((201, Vec::new())));
        assert_eq!(read("SSH-2.0-OpenSSH\r\n\r\n"), None);
        let head = reply(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "HEAD").unwrap();
        assert_eq!(head.body, b"");
        assert!(is_whole(chunked.as_bytes(), "GET") && !is_whole(&chunked.as_bytes()[..chunked.len() - 5], "GET"));
        assert!(is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "GET"));
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", "GET"));
        assert!(!is_whole(b"HTTP/1.0 200 OK\r\n\r\nuntil the end", "GET"));
    }
}
